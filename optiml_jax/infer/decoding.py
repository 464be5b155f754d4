"""Decoding with a key-value cache: token ids in, token ids out, greedy or drawn.

A batch of prompts of unequal length is padded on the right. `_prefill` reads all prompts at once;
`_advance` then steps one token at a time in a `lax.while_loop`, until every row has stopped or a
given step is reached. A row sees exactly what it would see alone. It stops at `</s>`, at the limit,
or where the caller says so (`ends`): the host looks at the rows every `CHUNK_STEPS` steps, which
wastes at most so many steps of a row and decides the same as looking after each.

Neighbours: `settings` says how, `sampling` draws, `beam` searches, `engine` turns text into prompts
and back.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from optiml_jax.errors import InputError
from optiml_jax.infer import arrays, buckets, sampling
from optiml_jax.infer.settings import MAX_NEW_TOKENS, DecodingConfig
from optiml_jax.model import decoder, partitioning
from optiml_jax.model.config import OptConfig

__all__ = ["MAX_NEW_TOKENS", "Decoding", "check_room", "cut_left", "decode", "greedy", "stream"]

# Steps between two looks of the host at texts that may end in a stop string.
CHUNK_STEPS = 16
# Parameters that prompts and steps read alike, as one array.
TABLES = ("token_embedding", "position_embedding")


@dataclasses.dataclass(frozen=True)
class Decoding:
    """What decoding gave, in the order of the prompts.

    Attributes:
        tokens: new tokens of each prompt, without `</s>`.
        stopped: True where `</s>` or `ends` came before the limit.
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
    """`decode` by the most likely tokens.

    Source: OPT-IML (arXiv 2212.12017) §4.1 (greedy, 256 tokens), §3.2 (left truncation).
    """
    check_room(config, max_new_tokens, num_prefix)
    return decode(
        config,
        params,
        prompts,
        DecodingConfig(max_new_tokens=max_new_tokens),
        eos_id,
        num_prefix=num_prefix,
        batch_size=batch_size,
        mesh=mesh,
    )


def decode(
    config: OptConfig,
    params: Any,
    prompts: Sequence[Sequence[int]],
    settings: DecodingConfig,
    eos_id: int,
    *,
    num_prefix: int = 0,
    numbers: Sequence[int] | None = None,
    ends: Callable[[Sequence[int]], int | None] | None = None,
    batch_size: int = 32,
    mesh: Mesh | None = None,
    weights: Any = None,
) -> Decoding:
    """Continues each prompt until `</s>`, `ends` or the limit.

    The result of a prompt does not depend on the others: not on their lengths, number or order
    (but for the last bits of floating point, which matter where two tokens tie).

    Args:
        prompts: token ids, at least one each. A prompt that leaves no room for `max_new_tokens`
            loses tokens on its left, right after its prefix.
        num_prefix: first tokens of every prompt that are never cut.
        numbers: what each prompt draws its random numbers by; default 0, 1, ...
        ends: how many of a row's new tokens are its continuation, or None to go on; once it gives
            a number it must give the same for every longer row.
        batch_size: rows of a batch, rounded up to what the mesh cuts evenly.
        weights: `prepare(config, params)`, which a caller of many lists makes once.

    Raises:
        InputError: a prompt is empty, the model has no room for so many new tokens, or its scores
            are not numbers.
    """
    fitted, truncated, room = fit(config, prompts, settings.max_new_tokens, eos_id, num_prefix)
    numbers = range(len(prompts)) if numbers is None else numbers
    tokens: list[list[int]] = [[] for _ in prompts]
    stopped = [False] * len(prompts)
    if not prompts:
        return Decoding(tokens, stopped, truncated)
    if weights is None:
        with arrays.on_mesh(mesh):
            weights = prepare(config, params)
    sizes = buckets.length_buckets(room)
    for plan in buckets.plan_batches([len(p) for p in fitted], batch_size, sizes, mesh):
        rows = [fitted[index] for index in plan.indices]
        own = [numbers[index] for index in plan.indices]
        run = _Run(config, params, weights, rows, own, plan, settings, eos_id, mesh)
        for index, (ids, ended) in zip(plan.indices, run.finish(ends)):
            tokens[index], stopped[index] = ids, ended
    return Decoding(tokens, stopped, truncated)


def stream(
    config: OptConfig,
    params: Any,
    weights: Any,
    prompt: Sequence[int],
    settings: DecodingConfig,
    eos_id: int,
    *,
    num_prefix: int = 0,
    number: int = 0,
    mesh: Mesh | None = None,
) -> Iterator[int]:
    """The new tokens of one prompt, each as it comes; those that `decode` gives.

    Args:
        weights: `prepare(config, params)`, which a caller of many prompts makes once.
    """
    (fitted,), _, room = fit(config, [prompt], settings.max_new_tokens, eos_id, num_prefix)
    (plan,) = buckets.plan_batches([len(fitted)], 1, buckets.length_buckets(room), mesh)
    run = _Run(config, params, weights, [fitted], [number], plan, settings, eos_id, mesh)
    for step in range(1, settings.max_new_tokens + 1):
        run.advance(step)
        token = int(run.rows()[0, step - 1])
        if token == eos_id:
            return
        yield token


def fit(
    config: OptConfig,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    eos_id: int,
    num_prefix: int,
) -> tuple[list[list[int]], list[bool], int]:
    """Prompts cut to the model's room, which of them lost tokens, and the room."""
    room = check_room(config, max_new_tokens, num_prefix)
    for index, prompt in enumerate(prompts):
        if not len(prompt):
            raise InputError(f"prompt {index} has no tokens. Start it with '</s>' (id {eos_id}).")
    fitted = [cut_left(prompt, room, num_prefix) for prompt in prompts]
    return fitted, [len(prompt) > room for prompt in prompts], room


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


def check_sound(is_sound: bool) -> None:
    """Raises InputError for a model whose scores are not numbers: any token would seem its best."""
    if not is_sound:
        raise InputError(
            "the model gives scores that are not numbers: its parameters hold NaN or infinity, or"
            " overflow. Use an earlier checkpoint, or dtype 'float32'."
        )


def cut_left(ids: Sequence[int], room: int, num_prefix: int = 0) -> list[int]:
    """The first `num_prefix` ids and as many of the last ones as fit into `room`.

    Example:
        [2, 10, 11, 12], room 3, num_prefix 1 -> [2, 11, 12]
    """
    if len(ids) <= room:
        return list(ids)
    return [*ids[:num_prefix], *ids[len(ids) - (room - num_prefix) :]]


class _Run:
    """One batch on the devices, from its prompts to the ends of its rows."""

    def __init__(self, config, params, weights, rows, numbers, plan, settings, eos_id, mesh):
        self._static = (config, settings.is_sampled, eos_id)
        self._weights, self._mesh = weights, mesh
        self._num_rows, self._eos_id = len(rows), eos_id
        self._limit = settings.max_new_tokens
        padded = np.zeros(plan.rows, np.int32)
        padded[: len(numbers)] = numbers
        self._draws = {
            "temperature": np.float32(settings.temperature),
            "top_k": np.int32(settings.top_k),
            "top_p": np.float32(settings.top_p),
            "seed": np.uint32(settings.seed),
            "numbers": arrays.place(padded, mesh),
        }
        placed = arrays.place_rows(rows, plan.rows, plan.length, mesh)
        with arrays.on_mesh(mesh):
            self._state = _prefill(
                self._static, params, *placed, self._draws, settings.max_new_tokens
            )

    def advance(self, until: int, ended: np.ndarray | None = None) -> bool:
        """Steps until each row has `until` tokens; True when all rows are done.

        Args:
            ended: rows that need no more.

        Raises:
            InputError: scores that are not numbers.
        """
        if ended is None:
            ended = np.zeros(len(self._state["done"]), bool)
        with arrays.on_mesh(self._mesh):
            self._state, told = _advance(
                self._static,
                self._weights,
                self._state,
                self._draws,
                np.int32(until),
                arrays.place(ended, self._mesh),
            )
        all_done, is_sound = np.asarray(told).tolist()
        check_sound(is_sound)
        return all_done

    def rows(self) -> np.ndarray:
        """The new tokens so far, `</s>` behind a row's end."""
        return np.asarray(self._state["output"])[: self._num_rows]

    def finish(self, ends) -> list[tuple[list[int], bool]]:
        """The new tokens of each row, and whether it ended before the limit."""
        found: dict[int, int] = {}
        chunk = self._limit if ends is None else CHUNK_STEPS
        done, until = False, 0
        while not done and until < self._limit:
            until = min(until + chunk, self._limit)
            ended = np.zeros(len(self._state["done"]), bool)
            ended[list(found)] = True
            done = self.advance(until, ended)
            if ends is not None:
                for index, row in enumerate(self.rows()[:, :until].tolist()):
                    if index not in found and (count := ends(self._whole(row))) is not None:
                        found[index] = count
        rows = self.rows().tolist()
        return [
            (row[: found[i]], True) if i in found else (self._whole(row), self._eos_id in row)
            for i, row in enumerate(rows)
        ]

    def _whole(self, row):
        return row[: row.index(self._eos_id)] if self._eos_id in row else row


def prepare(config: OptConfig, params: Any) -> Any:
    """Parameters as steps read them: a tree per layer, weight matrices in the compute dtype.

    Made once ahead of all batches: a step reads every weight once. Tables that need no cast are the
    caller's own arrays, not copies.
    """
    tables = {name: params[name] for name in TABLES}
    others = {name: leaf for name, leaf in params.items() if name not in tables}
    # Lookups add float32 rows; the head multiplies in the compute dtype.
    head, dtype = tables["token_embedding"], jnp.dtype(config.dtype)
    head = head if head.dtype == dtype else head.astype(dtype)
    return {"params": {**_unstack(config, others), **tables}, "head": head}


@functools.partial(jax.jit, static_argnums=0)
def _unstack(config: OptConfig, params: Any) -> Any:
    return decoder.unstack(arrays.cast_kernels(config, params))


def step_scores(
    config: OptConfig,
    weights: Any,
    tokens: Int[Array, " B"],
    positions: Int[Array, " B"],
    cache: Any,
    slot: Int[Array, ""],
) -> tuple[jax.Array, Any]:
    """Scores [B, V] of what follows one token more in each row, and the updated cache."""
    hidden, cache = decoder.step(config, weights["params"], tokens, positions, cache, slot)
    return decoder.logits(config, {"token_embedding": weights["head"]}, hidden), cache


def prompt_scores(
    config: OptConfig, params: Any, prompts: Int[Array, "B T"], lengths: Int[Array, " B"]
) -> tuple[jax.Array, Any]:
    """Scores [B, V] of what follows each prompt, and the cache of all prompts."""
    batch, length = prompts.shape
    slots = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))
    hidden, cache = decoder.hidden_states(
        arrays.for_inference(config),
        params,
        prompts,
        (slots < lengths[:, None]).astype(jnp.int32),
        slots,
        keep_cache=True,
    )
    last = jnp.maximum(lengths - jnp.int32(1), jnp.int32(0))
    hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
    return decoder.logits(config, params, hidden), cache


@functools.partial(jax.jit, static_argnums=(0, 5))
def _prefill(
    static: tuple[OptConfig, bool, int],
    params: Any,
    prompts: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    draws: Any,
    max_new_tokens: int,
) -> dict[str, Any]:
    """The state after the prompts and their first new token; rows of length 0 are idle."""
    config, is_sampled, eos_id = static
    batch, length = prompts.shape
    buckets.count_compile(f"{_name('prefill', is_sampled)} {batch}x{length}+{max_new_tokens}")
    eos = jnp.int32(eos_id)
    scores, cache = prompt_scores(config, params, prompts, lengths)
    if is_sampled:
        token, sound = _draw(scores, draws, jnp.int32(0))
    else:
        token, sound = _best(scores.T)
    is_idle = lengths == jnp.int32(0)
    token = jnp.where(is_idle, eos, token)
    output = jnp.full((batch, max_new_tokens), eos_id, jnp.int32).at[:, 0].set(token)
    return {
        "step": jnp.int32(1),
        "token": token,
        "done": token == eos,
        "sound": sound | is_idle,
        # Whole on every device, so that every process can read it.
        "output": partitioning.constrain(output, (None, None)),
        "lengths": lengths,
        # The cache grows by the new tokens only now: the prompts' attention need not look there.
        "cache": decoder.unstack_cache(cache, max_new_tokens),
    }


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def _advance(
    static: tuple[OptConfig, bool, int],
    weights: Any,
    state: dict[str, Any],
    draws: Any,
    until: Int[Array, ""],
    ended: jax.Array,
) -> tuple[dict[str, Any], jax.Array]:
    """The state when each row has `until` new tokens or is done; (all done, all sound)."""
    config, is_sampled, eos_id = static
    batch, max_new_tokens = state["output"].shape
    length = state["cache"]["segment_ids"].shape[1] - max_new_tokens
    buckets.count_compile(f"{_name('decode', is_sampled)} {batch}x{length}+{max_new_tokens}")
    eos = jnp.int32(eos_id)

    def unfinished(state):
        return (state["step"] < until) & ~jnp.all(state["done"])

    def advance(state):
        step, done = state["step"], state["done"]
        before = step - jnp.int32(1)
        hidden, cache = decoder.step(
            config,
            weights["params"],
            state["token"],
            state["lengths"] + before,
            state["cache"],
            jnp.int32(length) + before,
        )
        if is_sampled:
            scores = decoder.logits(config, {"token_embedding": weights["head"]}, hidden)
            token, sound = _draw(scores, draws, step)
        else:
            # Table first: a CPU reads it as it lies, which takes three quarters of the time.
            scores = jnp.dot(weights["head"], hidden.T, preferred_element_type=jnp.float32)
            token, sound = _best(scores)
        token = jnp.where(done, eos, token)
        output = lax.dynamic_update_slice_in_dim(state["output"], token[:, None], step, axis=1)
        return {
            "step": step + jnp.int32(1),
            "token": token,
            "done": done | (token == eos),
            "sound": state["sound"] & (sound | done),
            "output": partitioning.constrain(output, (None, None)),
            "lengths": state["lengths"],
            "cache": cache,
        }

    state = lax.while_loop(unfinished, advance, {**state, "done": state["done"] | ended})
    told = jnp.stack([jnp.all(state["done"]), jnp.all(state["sound"])])
    return state, partitioning.constrain(told, (None,))


def _draw(
    scores: Float[Array, "B V"], draws: Any, token_number: Int[Array, ""]
) -> tuple[Int[Array, " B"], Bool[Array, " B"]]:
    """A token of each row, by its own key, and whether its scores are numbers."""
    keys = sampling.row_keys(draws["seed"], draws["numbers"], token_number)
    return sampling.sample(scores, draws, keys), jnp.isfinite(jnp.max(scores, axis=-1))


def _best(scores: Float[Array, "V B"]) -> tuple[Int[Array, " B"], Bool[Array, " B"]]:
    """The best token of each row, the lowest id of several that tie; are its scores numbers?

    Two plain reductions, which a CPU does five times as fast as one `argmax`.
    """
    ids = lax.broadcasted_iota(jnp.int32, scores.shape, 0)
    most = jnp.max(scores, axis=0)  # NaN where any is.
    tokens = jnp.where(scores == most, ids, jnp.int32(scores.shape[0] - 1))
    return jnp.min(tokens, axis=0), jnp.isfinite(most)


def _name(program: str, is_sampled: bool) -> str:
    return f"{program} sampled" if is_sampled else program
