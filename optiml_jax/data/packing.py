"""The order of training: which example comes next, and which examples share a row.

The order is a plan, computed block by block from task sizes, rates and a seed; nothing is
shuffled in memory and no state is kept but a position. A block holds about `BLOCK_DRAWS` draws, in
slices of W draws; W is one epoch, or a whole part of one where an epoch is larger than a block. An
epoch is the number of draws after which the first task is through (for capped sizes: their sum).

1. Task t draws floor((s + 1) W w_t + phi_t) - floor(s W w_t + phi_t) examples in slice s (rate
   w_t, phi_t a fixed phase in [0, 1)): at a slice's end it is within one of its rate, and an epoch
   of capped sizes draws exactly those.
2. A task's k-th draw is example k mod n of pass k div n, through a permutation of its n examples
   keyed by (seed, task, pass): no example returns before all others of its task were drawn.
3. Each slice's places are dealt to the tasks at random, by Philox(seed, block); a task's places
   are taken by its draws in their order, so point 2 holds anywhere in the order.
4. The draws are laid in rows and never split. Greedy, the paper's way: first come, an example
   that does not fit starts the next row (metaseq, `yield_src_tgt_blocks`). First-fit, an option:
   among up to `WINDOW_DRAWS` draws that follow each other, within one slice, each goes to the
   first row with room.

The key of a task is its name, so adding a task leaves the inner order of the others alone.
`stream` reads the rows. Left out on purpose: tokens; only lengths are needed here.
"""

import dataclasses
import hashlib

import numpy as np

from optiml_jax import errors
from optiml_jax.errors import InputError

PACKINGS = ("greedy", "first_fit")

BLOCK_DRAWS = 131_072
WINDOW_DRAWS = 2048
"""Draws among which first-fit looks for room. Rows of 2048 tokens at Super-NaturalInstructions'
lengths (mean 187) are 98.3 % full with 512, 99.2 % with 2048, 99.4 % with 8192, which take three
times as long."""
VERSION = 2
"""Raised with every change of the order that a plan gives for the same arguments."""

_FEISTEL_ROUNDS = 4


@dataclasses.dataclass(frozen=True)
class Block:
    """One block of the order.

    Attributes:
        examples: int64 [num_draws], index into the store's examples (all renderings), row by row.
        row_starts: int64 [num_rows + 1], row r holds examples[row_starts[r]:row_starts[r + 1]].
    """

    examples: np.ndarray
    row_starts: np.ndarray

    @property
    def num_rows(self) -> int:
        """Rows of the block."""
        return len(self.row_starts) - 1


@dataclasses.dataclass(frozen=True)
class PlanTasks:
    """What a plan knows of the tasks, one entry each.

    Attributes:
        names: SeqIO names, the keys of phases and permutations.
        rates: float64, shares of the draws, summing to 1.
        first_examples: int64, index of a task's first example.
        sizes: int64, examples of a task.
    """

    names: tuple[str, ...]
    rates: np.ndarray
    first_examples: np.ndarray
    sizes: np.ndarray


class Plan:
    """The endless global order of rows, a pure function of its arguments.

    Args:
        tasks: the mixture; a task with a positive rate has at least one example.
        lengths: int32 [num_renderings, num_examples], tokens of each example.
        row_tokens: tokens a row holds (feature length + 1); longer examples are cut to it.
        seed: any whole number of 0 or more.
        block_draws: about as many draws make a block.
        packing: one of `PACKINGS`, how draws become rows.

    Raises:
        InputError: a task with a positive rate has no examples, or an argument that cannot be.
    """

    def __init__(
        self,
        tasks: PlanTasks,
        lengths: np.ndarray,
        row_tokens: int,
        seed: int,
        block_draws: int = BLOCK_DRAWS,
        packing: str = "greedy",
    ):
        check_packing(packing, "plan")
        if row_tokens < 2:
            raise InputError(f"rows of {row_tokens} tokens: expected 2 or more.")
        if seed < 0:
            raise InputError(f"seed {seed}: expected a whole number of 0 or more.")
        used = np.flatnonzero(np.asarray(tasks.rates) > 0)
        self._rates = np.asarray(tasks.rates, np.float64)[used]
        self._first = np.asarray(tasks.first_examples, np.int64)[used]
        self._sizes = np.asarray(tasks.sizes, np.int64)[used]
        if np.any(self._sizes < 1):
            raise InputError("plan: a task with a positive rate has no examples.")
        names = [tasks.names[i] for i in used]
        self._keys = np.array([_name_key(seed, name) for name in names], np.uint64)
        self._phases = (_mix(self._keys) >> np.uint64(11)).astype(np.float64) / 2.0**53
        self._half_bits = np.array([_half_bits(int(n)) for n in self._sizes], np.uint64)
        self._lengths = lengths
        self._row_tokens = row_tokens
        self._seed = seed
        self._slice_draws, self._num_slices = _slices(self._sizes, self._rates, block_draws)
        self._packing = packing

    def block(self, index: int) -> Block:
        """The `index`-th block; any block can be computed alone."""
        examples, slice_sizes = self._draw(index)
        num_renderings, num_examples = self._lengths.shape
        flat = self._lengths.reshape(num_renderings * num_examples)
        lengths = np.minimum(flat[examples], self._row_tokens)
        if self._packing == "greedy":
            return Block(examples, greedy_rows(lengths, self._row_tokens))
        edges = window_edges(slice_sizes)
        order, row_starts = first_fit_rows(lengths, self._row_tokens, edges)
        return Block(examples[order], row_starts)

    def _draw(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Examples of a block in the order of their draws, and how many are of each slice."""
        first = index * self._num_slices
        counts = self._counts(np.arange(first, first + self._num_slices + 1))
        before, after = counts[0], counts[-1]
        # Whose turn it is: every slice shuffled by itself.
        per_slice = np.diff(counts, axis=0)
        num_tasks = len(self._sizes)
        turn = np.repeat(np.tile(np.arange(num_tasks), self._num_slices), per_slice.ravel())
        slice_sizes = per_slice.sum(axis=1)
        slice_of = np.repeat(np.arange(self._num_slices), slice_sizes)
        generator = np.random.Generator(np.random.Philox(key=[self._seed, index]))
        turn = turn[np.argsort(slice_of + generator.random(len(turn)), kind="stable")]
        # A task's draws in their order take its turns in theirs.
        turns_of_tasks = np.argsort(turn, kind="stable")
        task = turn[turns_of_tasks]
        starts = np.cumsum(after - before) - (after - before)
        draw = np.arange(len(task)) - starts[task] + before[task]
        epoch, position = np.divmod(draw, self._sizes[task])
        inner = permute(
            position,
            self._sizes[task],
            self._half_bits[task],
            _mix(self._keys[task] ^ _mix(epoch.astype(np.uint64))),
        )
        num_renderings, num_examples = self._lengths.shape
        examples = np.empty(len(task), np.int64)
        examples[turns_of_tasks] = (
            (epoch % num_renderings) * num_examples + self._first[task] + inner
        )
        return examples, slice_sizes

    def _counts(self, slices: np.ndarray) -> np.ndarray:
        """Draws of every task before each of these slices, int64 [slices, tasks]."""
        draws = slices[:, None] * self._slice_draws * self._rates
        return np.floor(draws + self._phases).astype(np.int64)


def _slices(sizes: np.ndarray, rates: np.ndarray, block_draws: int) -> tuple[float, int]:
    """(draws of a slice, slices of a block), see the module's docstring.

    A task that is drawn over and over makes an epoch short; then a slice is several epochs, so
    that a block's slices x tasks stays below 8 x `block_draws`.
    """
    epoch = float(np.min(sizes / rates))
    # Rates are quotients: their errors must not move an epoch's end.
    if abs(epoch - round(epoch)) < 1e-9 * epoch:
        epoch = float(round(epoch))
    if epoch > block_draws:
        return epoch / np.ceil(epoch / block_draws), 1
    draws = epoch * max(1.0, np.ceil(len(sizes) / 8 / epoch))
    return draws, max(1, int(block_draws // draws))


def greedy_rows(lengths: np.ndarray, row_tokens: int) -> np.ndarray:
    """Row boundaries of first-come packing, int64 [num_rows + 1].

    Args:
        lengths: tokens of each example in order, each from 1 to `row_tokens`.

    Example:
        lengths 3, 4, 5, 2 in rows of 8 give [0, 2, 4]: 3 + 4, then 5 + 2.

    Source: metaseq branch opt_instruct, `yield_src_tgt_blocks`.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    following = np.searchsorted(ends, ends - lengths + row_tokens, side="right").tolist()
    starts = [0]
    while starts[-1] < len(lengths):
        starts.append(following[starts[-1]])
    return np.asarray(starts, np.int64)


def first_fit_rows(
    lengths: np.ndarray, row_tokens: int, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First-fit packing: an order of the examples and the row boundaries in it.

    Each example goes to the first row of its window that has room, and opens a new one after them
    where none has. All windows advance together, one example of each at a time, so that the work
    is as many steps as a window has draws, over arrays of [windows, rows of a window].

    Args:
        lengths: tokens of each example in order, each from 1 to `row_tokens`.
        edges: int64 [num_windows + 1], window i holds the examples edges[i]:edges[i + 1]; no row
            holds examples of two windows.

    Returns:
        order: int64 [num_examples], row by row; within a row as drawn.
        row_starts: int64 [num_rows + 1], row r holds order[row_starts[r]:row_starts[r + 1]].

    Example:
        lengths 3, 6, 4, 2 in rows of 8 and one window, [0, 4], give the order 0, 2, 1, 3 and
        boundaries [0, 2, 4]: 3 + 4, then 6 + 2.
    """
    sizes = np.diff(edges)
    windows = np.arange(len(sizes))
    window = np.repeat(windows, sizes)
    place = np.arange(len(lengths)) - np.repeat(edges[:-1], sizes)
    most_draws = int(sizes.max(initial=0))
    padded = np.zeros((most_draws, len(sizes)), np.int32)
    padded[place, window] = lengths
    # Two neighbouring rows hold more than one row's tokens, or the second would not be open.
    most_rows = 2 * -(-int(padded.sum(axis=0).max(initial=0)) // row_tokens) + 1
    room = np.full((len(sizes), min(most_draws, most_rows)), row_tokens, np.int32)
    row_of = np.empty((most_draws, len(sizes)), np.int64)
    for draw, tokens in enumerate(padded):
        row = (room >= tokens[:, None]).argmax(axis=1)
        room[windows, row] -= tokens
        row_of[draw] = row
    key = row_of[place, window] + window * room.shape[1]
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    return order, np.append(starts, len(lengths))


def window_edges(slice_sizes: np.ndarray, window_draws: int = WINDOW_DRAWS) -> np.ndarray:
    """Where first-fit's windows begin and end in a block, int64 [num_windows + 1].

    A window lies within one slice, so that no row mixes two epochs; only slices shorter than a
    window are joined, since rows at a window's end stay open.

    Example:
        slices of 5 and 4 draws with windows of 3 give [0, 2, 5, 7, 9].
    """
    ends = np.cumsum(slice_sizes)
    joined = max(1, window_draws // max(1, int(slice_sizes.max(initial=0))))
    edges = [0]
    for end in [*ends[joined - 1 : -1 : joined], ends[-1]]:
        start = edges[-1]
        parts = max(1, -(-int(end - start) // window_draws))
        edges.extend(start + int(end - start) * part // parts for part in range(1, parts + 1))
    return np.array(edges, np.int64)


def check_packing(name: str, where: str) -> None:
    """Raises InputError where `name` is no way of packing."""
    if name not in PACKINGS:
        raise errors.unknown("packing", name, PACKINGS, where)


def permute(
    position: np.ndarray, size: np.ndarray, half_bits: np.ndarray, key: np.ndarray
) -> np.ndarray:
    """Images of `position` under keyed permutations of range(size), elementwise; int64.

    A Feistel network on 2 * half_bits bits; a value that leaves the range is walked back into it.
    """
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    value = position.astype(np.uint64)
    bound = size.astype(np.uint64)
    pending = np.arange(len(value))
    while len(pending):
        bits, low, k = half_bits[pending], mask[pending], key[pending]
        left, right = value[pending] >> bits, value[pending] & low
        for round_number in range(_FEISTEL_ROUNDS):
            scrambled = _mix(right ^ k ^ np.uint64(round_number << 56)) & low
            left, right = right, left ^ scrambled
        value[pending] = (left << bits) | right
        pending = pending[value[pending] >= bound[pending]]
    return value.astype(np.int64)


def _half_bits(size: int) -> int:
    return max(1, -(-(size - 1).bit_length() // 2))


def _name_key(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little")


def _mix(value: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: every input bit reaches every output bit (Steele et al. 2014)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
