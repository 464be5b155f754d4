"""Rank classification: how likely a model finds each option after a source.

A sequence is (token ids, index of the first scored one): the ids before it are the context. Its
input row leaves out the last id, which is only predicted; sequences of one context whose rows are
the beginning of another's share that row, so that four one-token options cost one row. Scores
need the vocabulary at scored positions only: those hidden states are gathered, then projected in
chunks, and [B, T, V] never exists.

`engine` makes sequences from text. Left out on purpose: sharing the prefix of several prompts.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from optiml_jax.errors import InputError
from optiml_jax.infer import arrays, buckets
from optiml_jax.model import decoder, partitioning
from optiml_jax.model.config import OptConfig

# Positions projected to the vocabulary at a time, per row shard: 512 x 50,272 float32 are 103 MB.
CHUNK_POSITIONS = 512

# Targets of a row beyond the first sequence's own: their hidden states are gathered, [B, P, D].
MOST_TARGETS = 256


@dataclasses.dataclass(frozen=True)
class OptionScore:
    """What a normalisation may use of one option.

    Attributes:
        log_prob: sum of log p(token | what stands before), nats.
        num_tokens: tokens in that sum.
        text: the option, without the space that joins it to the source.
        unconditional: log_prob of the same tokens after `</s>` alone; None unless asked for.
    """

    log_prob: float
    num_tokens: int
    text: str
    unconditional: float | None = None


def _unconditional(score: OptionScore) -> float:
    if score.unconditional is None:
        raise ValueError("the normalisation 'unconditional' needs OptionScore.unconditional.")
    return score.log_prob - score.unconditional


NORMALIZATIONS: dict[str, Callable[[OptionScore], float]] = {
    "none": lambda score: score.log_prob,
    "per_token": lambda score: score.log_prob / score.num_tokens,
    "per_character": lambda score: score.log_prob / len(score.text),
    "per_byte": lambda score: score.log_prob / len(score.text.encode()),
    "unconditional": _unconditional,
}
"""Ways to compare options of different length, by name; "none" is OPT-IML's.

`per_token` is GPT-3's, `per_character` lm-eval's `acc_norm`, `per_byte` its `acc_bytes`,
`unconditional` its `acc_mutual_info`. Source: lm-eval 0.4.13; GPT-3 (arXiv 2005.14165) §2.4.
"""


@dataclasses.dataclass
class _Row:
    """One row of a batch: its input ids, and what is read from it."""

    ids: Sequence[int]
    start: int
    sequences: list[int] = dataclasses.field(default_factory=list)
    offsets: list[int] = dataclasses.field(default_factory=list)
    targets: list[int] = dataclasses.field(default_factory=list)


def sequence_log_probs(
    config: OptConfig,
    params: Any,
    sequences: Sequence[tuple[Sequence[int], int]],
    *,
    batch_size: int = 32,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """The summed log-probability of each sequence's scored tokens, in nats.

    Every token's is float32; they are added up in float64. The result does not depend on batch
    size, nor on the order and number of the sequences, but for the last bits of floating point.

    Args:
        sequences: (ids, start) scores `ids[start:]` given `ids[:start]`, with start >= 1: the first
            token of a document has nothing that predicts it.
        batch_size: rows of a batch, rounded up to what the mesh cuts evenly.

    Raises:
        InputError: a sequence has no context, nothing to score, or more than max_positions + 1
            tokens.

    Example:
        ([5, 6, 7], 1) is log p(6 | 5) + log p(7 | 5, 6).
    """
    for index, (ids, start) in enumerate(sequences):
        if not 1 <= start < len(ids) <= config.max_positions + 1:
            raise InputError(
                f"sequence {index}: {len(ids)} tokens, scored from token {start} on; expected at"
                f" least one token of context, one to score, and {config.max_positions + 1} in all."
            )
    rows = _shared_rows(sequences)
    totals = np.zeros(len(sequences), np.float64)
    sizes = buckets.length_buckets(config.max_positions)
    plans = buckets.plan_batches([len(row.ids) for row in rows], batch_size, sizes, mesh)
    for plan in plans:
        chosen = [rows[index] for index in plan.indices]
        log_probs = _run(config, params, chosen, plan, mesh)
        for row, values in zip(chosen, log_probs):
            np.add.at(totals, row.sequences, values[: len(row.targets)].astype(np.float64))
    return totals


def option_log_probs(
    config: OptConfig,
    params: Any,
    prompts: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]],
    *,
    batch_size: int = 32,
    mesh: Mesh | None = None,
) -> list[list[float]]:
    """The summed log-probability of each option's tokens after its prompt, prompt by prompt.

    Tokens are scored as given: append `</s>` to an option to score it too.

    Example:
        [([5, 6], [[7], [8, 9]])] -> [[log p(7 | 5 6), log p(8 | 5 6) + log p(9 | 5 6 8)]]

    Source: OPT-IML (arXiv 2212.12017) §4.1.
    """
    sequences = [([*s, *o], len(s)) for s, options in prompts for o in options]
    values = iter(
        sequence_log_probs(config, params, sequences, batch_size=batch_size, mesh=mesh).tolist()
    )
    return [[next(values) for _ in options] for _, options in prompts]


def _shared_rows(sequences: Sequence[tuple[Sequence[int], int]]) -> list[_Row]:
    """Rows that hold all sequences; one whose input begins another's of equal start shares it."""
    # In descending order a sequence comes after everything that it is the beginning of.
    order = sorted(
        range(len(sequences)),
        key=lambda index: (sequences[index][1], list(sequences[index][0][:-1])),
        reverse=True,
    )
    rows: list[_Row] = []
    for index in order:
        ids, start = sequences[index]
        inputs = list(ids[:-1])
        scored = ids[start:]
        if (
            not rows
            or rows[-1].start != start
            or rows[-1].ids[: len(inputs)] != inputs
            or len(rows[-1].targets) + len(scored) > MOST_TARGETS
        ):
            rows.append(_Row(inputs, start))
        row = rows[-1]
        row.sequences += [index] * len(scored)
        row.offsets += range(len(scored))
        row.targets += scored
    return rows


def _run(config, params, rows, plan, mesh) -> np.ndarray:
    """Log-probabilities [rows, P] of the targets of one batch."""
    # Few sizes: a power of four costs little, for only these positions meet the vocabulary.
    window = _power_of_four(max(len(row.ids) - row.start + 1 for row in rows))
    num_targets = _power_of_four(max(len(row.targets) for row in rows))
    starts = np.zeros(plan.rows, np.int32)
    starts[: len(rows)] = [row.start for row in rows]
    shards = buckets.row_shards(mesh)
    chunk = 1
    while chunk < window and 2 * chunk * plan.rows <= CHUNK_POSITIONS * shards:
        chunk *= 2
    placed = [
        *arrays.place_rows([row.ids for row in rows], plan.rows, plan.length, mesh),
        arrays.place(starts, mesh),
        arrays.place_rows([row.offsets for row in rows], plan.rows, num_targets, mesh)[0],
        arrays.place_rows([row.targets for row in rows], plan.rows, num_targets, mesh)[0],
    ]
    with arrays.on_mesh(mesh):
        return np.asarray(_score(config, params, *placed, window, chunk))


@functools.partial(jax.jit, static_argnums=(0, 7, 8))
def _score(
    config: OptConfig,
    params: Any,
    inputs: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    starts: Int[Array, " B"],
    offsets: Int[Array, "B P"],
    targets: Int[Array, "B P"],
    window: int,
    chunk: int,
) -> Float[Array, "B P"]:
    """log p(`targets[b, p]`) at the position `starts[b] - 1 + offsets[b, p]` of row b."""
    batch, length = inputs.shape
    buckets.count_compile(f"score {batch}x{length}, {window} positions, {targets.shape[1]} targets")
    slots = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))
    segment_ids = (slots < lengths[:, None]).astype(jnp.int32)
    hidden, _ = decoder.hidden_states(
        arrays.for_inference(config), params, inputs, segment_ids, slots
    )
    columns = starts[:, None] - jnp.int32(1) + jnp.arange(window, dtype=jnp.int32)
    columns = jnp.clip(columns, jnp.int32(0), jnp.int32(length - 1))
    scored = jnp.take_along_axis(hidden, columns[:, :, None], axis=1)

    def normalizer(part):
        scores = decoder.logits(config, params, part)
        scores = partitioning.constrain(scores, ("batch", "length", "vocab"))
        return jax.nn.logsumexp(scores, axis=-1)

    # Chunks cut the positions of a row, so that rows stay where the mesh put them.
    parts = scored.reshape(batch, window // chunk, chunk, -1).swapaxes(0, 1)
    normalizers = lax.map(normalizer, parts).swapaxes(0, 1).reshape(batch, window)

    dtype = jnp.dtype(config.dtype)
    table = partitioning.constrain(params["token_embedding"], ("vocab", "features"))
    target_scores = jnp.einsum(
        "bpd,bpd->bp",
        jnp.take_along_axis(scored, offsets[:, :, None], axis=1).astype(dtype),
        table[targets].astype(dtype),
        preferred_element_type=jnp.float32,
    )
    log_probs = target_scores - jnp.take_along_axis(normalizers, offsets, axis=1)
    # The two sums are rounded apart, so a certain token could come out just above 0.
    log_probs = jnp.minimum(log_probs, jnp.float32(0.0))
    # Whole on every device, so that every process can read it.
    return partitioning.constrain(log_probs, (None, None))


def _power_of_four(value: int) -> int:
    size = 1
    while size < value:
        size *= 4
    return size
