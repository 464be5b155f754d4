"""The order of training: which example comes next, and which examples share a row.

The order is a plan, computed block by block from task sizes, rates and a seed; nothing is
shuffled in memory and no state is kept but a position. An epoch is the number of draws after which
the first task is through: the sum of the capped sizes, where the smallest task is within its cap.
A block holds about `BLOCK_DRAWS` draws, in slices: some epochs, or a whole part of a larger one.

1. Task t draws floor((e + 1) c_t + phi_t) - floor(e c_t + phi_t) examples in epoch e (c_t: the
   epoch's draws times its rate; phi_t: a fixed phase in [0, 1)). An epoch of capped sizes draws
   exactly those; at a slice's end a task is within one of its rate.
2. A task takes its draws from a permutation of its n examples, keyed by (seed, task, group), from
   its beginning and around. A group is the ceil(n / c_t) epochs that it takes to draw every example
   of the task. c_t <= n, so no example is drawn twice in one epoch. The last epoch of a group draws
   again what its first one began with, where c_t does not divide n.
3. Each slice's places are dealt to the tasks at random, by Philox(seed, block); a task's places
   are taken by its draws in their order.
4. The draws are laid in rows and never split. Greedy, the paper's way: first come, an example
   that does not fit starts the next row (metaseq, `yield_src_tgt_blocks`). First-fit, an option:
   among up to `WINDOW_DRAWS` draws that follow each other, each goes to the first row with room.
   An example never comes before one of an earlier epoch, so points 1 and 2 hold row by row as well.

A task that is drawn over and over makes an epoch short. Where it has fewer draws than an eighth of
the number of tasks, so many are taken for one that it has not: only there c_t exceeds n, and an
epoch draws each example of the task once more than another at most.

The key of a task is its name, so adding a task leaves the permutations of the others alone.
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
times as long. Epochs shorter than that cost little, since one row stays open at their end: 99.1 %
with epochs of 416 draws, 98.2 % with 40 (were all rows closed: 98.9 % and 82.7 %)."""
VERSION = 3
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
        rates = np.asarray(tasks.rates, np.float64)[used]
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
        epoch_draws, self._epoch_slices, self._num_slices = _epochs(self._sizes, rates, block_draws)
        self._per_epoch = _exact(epoch_draws * rates)
        groups = np.ceil(_exact(self._sizes / self._per_epoch))
        self._group_epochs = np.minimum(groups, 2.0**53).astype(np.int64)
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
        order, row_starts = first_fit_rows(lengths, self._row_tokens, edges, np.cumsum(slice_sizes))
        return Block(examples[order], row_starts)

    def _draw(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Examples of a block in the order of their draws, and how many are of each slice."""
        first = index * self._num_slices
        counts = self._counts(np.arange(first, first + self._num_slices + 1))
        # Whose turn it is: every slice shuffled by itself.
        per_slice = np.diff(counts, axis=0)
        num_tasks = len(self._sizes)
        turn = np.repeat(np.tile(np.arange(num_tasks), self._num_slices), per_slice.ravel())
        slice_sizes = per_slice.sum(axis=1)
        slice_of = np.repeat(np.arange(self._num_slices), slice_sizes)
        generator = np.random.Generator(np.random.Philox(key=[self._seed, index]))
        turn = turn[np.argsort(slice_of + generator.random(len(turn)), kind="stable")]
        # A task's draws in their order take its turns in theirs.
        examples = np.empty(len(turn), np.int64)
        examples[np.argsort(turn, kind="stable")] = self._task_draws(first, counts, per_slice)
        return examples, slice_sizes

    def _task_draws(self, first: int, counts: np.ndarray, per_slice: np.ndarray) -> np.ndarray:
        """Examples that the slices from `first` on draw, task after task, in their order."""
        # What a task draws in one slice is of one group.
        task, number = np.nonzero(per_slice.T)
        draws = per_slice[number, task]
        group_epochs = self._group_epochs[task]
        group = (first + number) // self._epoch_slices // group_epochs
        since = counts[number, task] - self._draws_before(group * group_epochs, task)
        key = _mix(self._keys[task] ^ _mix(group.astype(np.uint64)))
        of = np.repeat(np.arange(len(draws)), draws)
        size = self._sizes[task][of]
        nth = np.arange(len(of)) + (since - (np.cumsum(draws) - draws))[of]
        again, position = np.divmod(nth, size)
        inner = permute(position, size, self._half_bits[task][of], key[of])
        num_renderings, num_examples = self._lengths.shape
        rendering = (group[of] - again) % num_renderings
        return rendering * num_examples + self._first[task][of] + inner

    def _counts(self, slices: np.ndarray) -> np.ndarray:
        """Draws of every task before each of these slices, int64 [slices, tasks]."""
        return self._draws_before(slices[:, None] / self._epoch_slices, slice(None))

    def _draws_before(self, epochs: np.ndarray, task: np.ndarray | slice) -> np.ndarray:
        """Draws of these tasks in so many first epochs, int64."""
        return np.floor(epochs * self._per_epoch[task] + self._phases[task]).astype(np.int64)


def _epochs(sizes: np.ndarray, rates: np.ndarray, block_draws: int) -> tuple[float, int, int]:
    """(draws of an epoch, slices of an epoch, slices of a block), see the module's docstring.

    One of the two numbers of slices is 1. A block's slices x tasks stay below 8 x `block_draws`.
    """
    through = float(_exact(sizes / rates).min())
    draws = through * max(1.0, np.ceil(len(sizes) / 8 / through))
    if draws > block_draws:
        return draws, int(np.ceil(draws / block_draws)), 1
    return draws, 1, int(block_draws // draws)


def _exact(values: np.ndarray) -> np.ndarray:
    """Whole numbers where only errors of rounding are missing.

    Rates are quotients: their errors must not move an epoch's end or give a group one more epoch.
    """
    nearest = np.round(values)
    return np.where(np.abs(values - nearest) < 1e-9 * values, nearest, values)


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
    lengths: np.ndarray, row_tokens: int, edges: np.ndarray, seams: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First-fit packing: an order of the examples and the row boundaries in it.

    Each example goes to the first row of its window that has room, and opens a new one after them
    where none has. At a seam all rows but the last one are closed: no example comes before one from
    the other side of a seam, and the two sides share one row at most. All windows advance together,
    one example of each at a time, so that the work is as many steps as a window has draws, over
    arrays of [windows, rows of a window].

    Args:
        lengths: tokens of each example in order, each from 1 to `row_tokens`.
        edges: int64 [num_windows + 1], window i holds the examples edges[i]:edges[i + 1]; no row
            holds examples of two windows.
        seams: int64, the example after each seam; one at a window's edge changes nothing.

    Returns:
        order: int64 [num_examples], row by row; within a row as drawn.
        row_starts: int64 [num_rows + 1], row r holds order[row_starts[r]:row_starts[r + 1]].

    Example:
        lengths 3, 6, 4, 2 in rows of 8 and one window, [0, 4], give the order 0, 2, 1, 3 and
        boundaries [0, 2, 4]: 3 + 4, then 6 + 2. A seam at 2 closes the row of 3:
        order 0, 1, 3, 2 and boundaries [0, 1, 3, 4], 3, then 6 + 2, then 4.
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
    inner = np.unique(seams[seams < len(lengths)])
    seam_at = np.zeros((most_draws, len(sizes)), bool)
    seam_at[place[inner], window[inner]] = True
    draws_with_seams = set(place[inner].tolist())
    for draw, tokens in enumerate(padded):
        if draw in draws_with_seams:
            at = np.flatnonzero(seam_at[draw])
            last = np.count_nonzero(room[at] < row_tokens, axis=1) - 1
            room[at] = np.where(np.arange(room.shape[1]) < last[:, None], 0, room[at])
        row = (room >= tokens[:, None]).argmax(axis=1)
        room[windows, row] -= tokens
        row_of[draw] = row
    key = row_of[place, window] + window * room.shape[1]
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    return order, np.append(starts, len(lengths))


def window_edges(slice_sizes: np.ndarray, window_draws: int = WINDOW_DRAWS) -> np.ndarray:
    """Where first-fit's windows begin and end in a block, int64 [num_windows + 1].

    A slice (an epoch, or a part of one) that is longer than a window is cut into equal ones; as
    many shorter ones as fill a window share it.

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
