"""Greedy decoding with a key-value cache: token ids in, token ids out.

A batch of prompts of unequal length is padded on the right. `_decode` reads all prompts at once
(prefill), then steps one token at a time in a `lax.while_loop`; each row writes at its own offset,
over its padding, so that a row sees exactly what it would see alone. A row stops at `</s>`, the
loop when every row has stopped.

`engine` turns text into prompts and back. Left out on purpose: sampling and beams.
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
from jaxtyping import Array, Int

from optiml_jax.errors import InputError
from optiml_jax.infer import arrays, buckets
from optiml_jax.model import decoder, partitioning
from optiml_jax.model.config import OptConfig

MAX_NEW_TOKENS = 256
"""OPT-IML decodes until `</s>` or this many tokens (arXiv 2212.12017, §4.1)."""


@dataclasses.dataclass(frozen=True)
class Decoding:
    """What greedy decoding gave, in the order of the prompts.

    Attributes:
        tokens: new tokens of each prompt, without `</s>`.
        stopped: True where `</s>` came before the limit.
        truncated: True where the prompt was cut on the left.
    """

    tokens: list[list[int]]
    stopped: list[bool]
    truncated: list[bool]

    @property
    def num_truncated(self) -> int:
        """Prompts that were cut on the left."""
        return sum(self.truncated)


def greedy(
    config: OptConfig,
    params: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    eos_id: int,
    *,
    num_prefix: int = 0,
    batch_size: int = 32,
    mesh: Mesh | None = None,
) -> Decoding:
    """Continues each prompt by its most likely tokens, until `</s>` or `max_new_tokens`.

    The result of a prompt does not depend on the others: not on their lengths, number or order
    (but for the last bits of floating point, which matter where two tokens tie).

    Args:
        prompts: token ids, at least one each. A prompt that leaves no room for `max_new_tokens`
            loses tokens on its left, right after its prefix.
        num_prefix: first tokens of every prompt that are never cut.
        batch_size: rows of a batch, rounded up to what the mesh cuts evenly.

    Raises:
        InputError: a prompt is empty, or the model has no room for so many new tokens.

    Source: OPT-IML (arXiv 2212.12017) §4.1 (greedy, 256 tokens), §3.2 (left truncation).
    """
    room = check_room(config, max_new_tokens, num_prefix)
    for index, prompt in enumerate(prompts):
        if not len(prompt):
            raise InputError(f"prompt {index} has no tokens. Start it with '</s>' (id {eos_id}).")
    truncated = [len(prompt) > room for prompt in prompts]
    fitted = [cut_left(prompt, room, num_prefix) for prompt in prompts]
    tokens: list[list[int]] = [[] for _ in prompts]
    stopped = [False] * len(prompts)
    sizes = buckets.length_buckets(room)
    for plan in buckets.plan_batches([len(p) for p in fitted], batch_size, sizes, mesh):
        rows = [fitted[index] for index in plan.indices]
        placed = arrays.place_rows(rows, plan.rows, plan.length, mesh)
        with arrays.on_mesh(mesh):
            output = _decode(config, params, *placed, max_new_tokens, eos_id)
        for index, row in zip(plan.indices, np.asarray(output).tolist()):
            stopped[index] = eos_id in row
            tokens[index] = row[: row.index(eos_id)] if stopped[index] else row
    return Decoding(tokens, stopped, truncated)


def check_room(config: OptConfig, max_new_tokens: int, num_prefix: int = 0) -> int:
    """The longest prompt that leaves room for `max_new_tokens`.

    Raises:
        InputError: not even one token behind the prefix fits.
    """
    most = config.max_positions - num_prefix - 1
    if not 1 <= max_new_tokens <= most:
        raise InputError(
            f"max_new_tokens is {max_new_tokens}, but the model has {config.max_positions}"
            f" positions and a prompt needs at least {num_prefix + 1}. Use a number from 1 to"
            f" {most}."
        )
    return config.max_positions - max_new_tokens


def cut_left(ids: Sequence[int], room: int, num_prefix: int = 0) -> list[int]:
    """The first `num_prefix` ids and as many of the last ones as fit into `room`.

    Example:
        [2, 10, 11, 12], room 3, num_prefix 1 -> [2, 11, 12]
    """
    if len(ids) <= room:
        return list(ids)
    return [*ids[:num_prefix], *ids[len(ids) - (room - num_prefix) :]]


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _decode(
    config: OptConfig,
    params: Any,
    prompts: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    max_new_tokens: int,
    eos_id: int,
) -> Int[Array, "B new"]:
    """New tokens of each row, filled with `eos_id` behind its end; rows of length 0 are idle."""
    batch, length = prompts.shape
    buckets.count_compile(f"decode {batch}x{length}+{max_new_tokens}")
    params = arrays.cast_kernels(config, params)
    eos = jnp.int32(eos_id)

    slots = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))
    hidden, cache = decoder.hidden_states(
        config,
        params,
        prompts,
        (slots < lengths[:, None]).astype(jnp.int32),
        slots,
        cache=decoder.init_cache(config, batch, length),
    )
    last = jnp.maximum(lengths - jnp.int32(1), jnp.int32(0))
    token = _best(config, params, jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0])
    # The cache grows by the new tokens only now: the prompts' attention need not look there.
    cache = _grow(cache, max_new_tokens)
    idle = lengths == jnp.int32(0)
    token = jnp.where(idle, eos, token)
    output = jnp.full((batch, max_new_tokens), eos_id, jnp.int32).at[:, 0].set(token)
    ones = jnp.ones((batch, 1), jnp.int32)

    def unfinished(state):
        step, _, done, _, _ = state
        return (step < jnp.int32(max_new_tokens)) & ~jnp.all(done)

    def advance(state):
        step, token, done, output, cache = state
        offset = lengths + step - jnp.int32(1)
        hidden, cache = decoder.hidden_states(
            config,
            params,
            token[:, None],
            ones,
            offset[:, None],
            cache=cache,
            cache_index=offset,
        )
        token = jnp.where(done, eos, _best(config, params, hidden[:, 0]))
        output = lax.dynamic_update_slice_in_dim(output, token[:, None], step, axis=1)
        return step + jnp.int32(1), token, done | (token == eos), output, cache

    state = (jnp.int32(1), token, token == eos, output, cache)
    output = lax.while_loop(unfinished, advance, state)[3]
    # Whole on every device, so that every process can read it.
    return partitioning.constrain(output, (None, None))


def _best(config, params, hidden):
    """The most likely next token of each row; the lowest id where several tie."""
    scores = decoder.logits(config, params, hidden)
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)


def _grow(cache, amount):
    """The cache with `amount` empty places more, cut over the mesh by its logical axes."""
    grown = {}
    for name, names in decoder.cache_logical_axes().items():
        widths = [(0, amount if axis == "length" else 0) for axis in names]
        grown[name] = partitioning.constrain(jnp.pad(cache[name], widths), names)
    return grown
