"""Beam search: the most likely continuations, found as `transformers` finds them.

The semantics are those of `generate(num_beams=k, do_sample=False, early_stopping=False)` of
`transformers` 5: of each prompt k running sequences are kept; of their 2 k best continuations those
that end in `</s>` among the first k are finished and scored by log-probability / length ** penalty,
`</s>` counted in both; a prompt is done when its best running sequence, at its present length,
cannot beat its worst finished one. What runs at the limit is finished there.

Neighbours: `decoding` for one sequence a prompt; both share its prefill and step.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from optiml_jax.infer import arrays, buckets, decoding
from optiml_jax.infer.settings import DecodingConfig
from optiml_jax.model import decoder, partitioning
from optiml_jax.model.config import OptConfig

# What stands for minus infinity in `transformers`; scores are added to it there.
LOW = -1.0e9


@dataclasses.dataclass(frozen=True)
class Beam:
    """One continuation.

    Attributes:
        tokens: new tokens, without `</s>`.
        score: log-probability / length ** length_penalty, `</s>` counted.
        stopped: `</s>` came before the limit.
    """

    tokens: list[int]
    score: float
    stopped: bool


@dataclasses.dataclass(frozen=True)
class Beams:
    """What the search gave, in the order of the prompts.

    Attributes:
        found: `num_return_sequences` of each prompt, the best first.
        truncated: True where the prompt was cut on the left.
    """

    found: list[list[Beam]]
    truncated: list[bool]


def search(
    config: OptConfig,
    params: Any,
    prompts: Sequence[Sequence[int]],
    settings: DecodingConfig,
    eos_id: int,
    *,
    num_prefix: int = 0,
    batch_size: int = 32,
    mesh: Mesh | None = None,
    weights: Any = None,
) -> Beams:
    """The best continuations of each prompt; prompts and limits are `decoding.decode`'s.

    Args:
        batch_size: sequences of a batch, beams counted, rounded up to what the mesh cuts evenly.
        weights: `decoding.prepare(config, params)`, which a caller of many lists makes once.

    Raises:
        InputError: a prompt is empty, the model has no room for so many new tokens, or its scores
            are not numbers.
    """
    limit, num_beams = settings.max_new_tokens, settings.num_beams
    fitted, truncated, room = decoding.fit(config, prompts, limit, eos_id, num_prefix)
    found: list[list[Beam]] = [[] for _ in prompts]
    if not prompts:
        return Beams(found, truncated)
    if weights is None:
        with arrays.on_mesh(mesh):
            weights = decoding.prepare(config, params)
    sizes = buckets.length_buckets(room)
    num_prompts = max(1, batch_size // num_beams)
    for plan in buckets.plan_batches([len(p) for p in fitted], num_prompts, sizes, mesh):
        rows = [fitted[index] for index in plan.indices]
        placed = arrays.place_rows(rows, plan.rows, plan.length, mesh)
        penalty = np.float32(settings.length_penalty)
        with arrays.on_mesh(mesh):
            output, scores = _search(
                config, params, weights, *placed, penalty, limit, num_beams, eos_id
            )
        output, scores = np.asarray(output), np.asarray(scores)
        decoding.check_sound(not np.isnan(scores[: len(rows)]).any())
        for index, own, values in zip(plan.indices, output, scores):
            for row, score in zip(own[: settings.num_return_sequences].tolist(), values.tolist()):
                stopped = eos_id in row
                tokens = row[: row.index(eos_id)] if stopped else row
                found[index].append(Beam(tokens, score, stopped))
    return Beams(found, truncated)


@functools.partial(jax.jit, static_argnums=(0, 6, 7, 8))
def _search(
    config: OptConfig,
    params: Any,
    weights: Any,
    prompts: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    length_penalty: Float[Array, ""],
    max_new_tokens: int,
    num_beams: int,
    eos_id: int,
) -> tuple[Int[Array, "B beams new"], Float[Array, "B beams"]]:
    """The finished sequences of each prompt and their scores, the best first."""
    batch, length = prompts.shape
    buckets.count_compile(f"beams {batch}x{num_beams}x{length}+{max_new_tokens}")
    scores, cache = decoding.prompt_scores(config, params, prompts, lengths)
    cache = decoder.unstack_cache(cache, max_new_tokens)
    empty = jnp.full((batch, num_beams, max_new_tokens), eos_id, jnp.int32)
    low = jnp.full((batch, num_beams), LOW, jnp.float32)
    state = {
        "step": jnp.int32(0),
        "running": empty,
        # One beam only at first: the others would be its copies.
        "running_scores": low.at[:, 0].set(0.0),
        "finished": empty,
        "finished_scores": low,
        "is_finished": jnp.zeros((batch, num_beams), bool),
        # Prompts of length 0 fill a batch up.
        "improving": lengths > jnp.int32(0),
    }
    is_limit = jnp.int32(max_new_tokens - 1)

    def choose(state, scores):
        """The state after one token more, and which beam each running sequence comes from."""
        step = state["step"]
        log_probs = jax.nn.log_softmax(scores, axis=-1)
        totals = log_probs.reshape(batch, num_beams, -1) + state["running_scores"][:, :, None]
        top, places = lax.top_k(totals.reshape(batch, -1), 2 * num_beams)
        vocab_size = jnp.int32(scores.shape[-1])
        origins, tokens = places // vocab_size, places % vocab_size
        sequences = _take(state["running"], origins)
        sequences = lax.dynamic_update_slice_in_dim(sequences, tokens[:, :, None], step, axis=2)
        ends = (tokens == jnp.int32(eos_id)) | (step >= is_limit)

        running_scores = top + jnp.where(ends, LOW, 0.0)
        _, kept = lax.top_k(running_scores, num_beams)

        # Only the first beams may finish; the others stand by to replace them.
        is_new = ends & (jnp.arange(2 * num_beams) < num_beams)
        length_now = (step + jnp.int32(1)).astype(jnp.float32)
        new_scores = top / length_now**length_penalty
        new_scores += jnp.where(state["improving"], 0.0, LOW)[:, None]
        new_scores += jnp.where(is_new, 0.0, LOW)
        merged_scores = jnp.concatenate([state["finished_scores"], new_scores], axis=1)
        merged = jnp.concatenate([state["finished"], sequences], axis=1)
        finished_scores, best = lax.top_k(merged_scores, num_beams)
        is_finished = _take(jnp.concatenate([state["is_finished"], is_new], axis=1), best)
        running_scores = _take(running_scores, kept)
        worst = jnp.where(is_finished, jnp.min(finished_scores, axis=1, keepdims=True), LOW)
        possible = running_scores[:, :1] / length_now**length_penalty
        chosen = {
            "step": step + jnp.int32(1),
            "running": _take(sequences, kept),
            "running_scores": running_scores,
            "finished": _take(merged, best),
            "finished_scores": finished_scores,
            "is_finished": is_finished,
            "improving": state["improving"] & jnp.any(possible > worst, axis=1),
        }
        return chosen, _take(origins, kept)

    def unfinished(carry):
        state, _, _ = carry
        return (state["step"] < jnp.int32(max_new_tokens)) & jnp.any(state["improving"])

    def advance(carry):
        state, origins, cache = carry
        before = state["step"] - jnp.int32(1)
        firsts = jnp.arange(batch, dtype=jnp.int32)[:, None] * jnp.int32(num_beams)
        cache = _rows_of(cache, (firsts + origins).reshape(-1))
        tokens = lax.dynamic_index_in_dim(state["running"], before, axis=2, keepdims=False)
        scores, cache = decoding.step_scores(
            config,
            weights,
            tokens.reshape(-1),
            jnp.repeat(lengths, num_beams) + before,
            cache,
            jnp.int32(length) + before,
        )
        return *choose(state, scores), cache

    state, origins = choose(state, jnp.repeat(scores, num_beams, axis=0))
    rows = jnp.repeat(jnp.arange(batch, dtype=jnp.int32), num_beams)
    carry = (state, origins, _rows_of(cache, rows))
    state = lax.while_loop(unfinished, advance, carry)[0]
    # Whole on every device, so that every process can read it.
    sequences = partitioning.constrain(state["finished"], (None, None, None))
    return sequences, partitioning.constrain(state["finished_scores"], (None, None))


def _take(values: jax.Array, places: jax.Array) -> jax.Array:
    """`values[b, places[b, k]]`, whatever axes follow."""
    places = places.reshape(*places.shape, *(1,) * (values.ndim - 2))
    return jnp.take_along_axis(values, places, axis=1)


def _rows_of(cache: Any, rows: Int[Array, " R"]) -> Any:
    """The cache of these rows, one per beam."""

    def take(entry):
        names = ("batch", "heads", "length", "head_dim") if entry.ndim == 4 else ("batch", "length")
        return partitioning.constrain(entry[rows], names)

    return jax.tree.map(take, cache)
