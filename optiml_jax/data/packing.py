"""The order of training: which example comes next, and which examples share a row.

The order is a plan, computed block by block from task sizes, rates and a seed; nothing is
shuffled in memory and no state is kept but a position. A block holds about `BLOCK_DRAWS` draws:

1. Task t draws floor((b + 1) W w_t + phi_t) - floor(b W w_t + phi_t) examples in block b (W draws a
   block, rate w_t, phi_t a fixed phase in [0, 1)): always within one of its rate, at any time.
2. A task's k-th draw is example k mod n of pass k div n, through a permutation of its n examples
   keyed by (seed, task, pass): no example returns before all others of its task were drawn.
3. The block's draws are shuffled by Philox(seed, b).
4. Rows are filled first come: an example that does not fit starts the next row and is never
   split (metaseq, `yield_src_tgt_blocks`).

The key of a task is its name, so adding a task leaves the inner order of the others alone.
`stream` reads the rows. Left out on purpose: tokens; only lengths are needed here.
"""

import dataclasses
import hashlib

import numpy as np

from optiml_jax.errors import InputError

BLOCK_DRAWS = 131_072
VERSION = 1
"""Raised with every change of the order that a plan gives for the same arguments."""

_FEISTEL_ROUNDS = 4


@dataclasses.dataclass(frozen=True)
class Block:
    """One block of the order.

    Attributes:
        examples: int64 [num_draws], index into the store's examples (all renderings).
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
        block_draws: draws a block, W above.
    """

    def __init__(
        self,
        tasks: PlanTasks,
        lengths: np.ndarray,
        row_tokens: int,
        seed: int,
        block_draws: int = BLOCK_DRAWS,
    ):
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
        self._block_draws = block_draws

    def block(self, index: int) -> Block:
        """The `index`-th block; any block can be computed alone."""
        examples = self._draw(index)
        num_renderings, num_examples = self._lengths.shape
        flat = self._lengths.reshape(num_renderings * num_examples)
        lengths = np.minimum(flat[examples], self._row_tokens)
        return Block(examples, greedy_rows(lengths, self._row_tokens))

    def _draw(self, index: int) -> np.ndarray:
        before = self._counts(index)
        counts = self._counts(index + 1) - before
        task = np.repeat(np.arange(len(counts)), counts)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        draw = np.arange(len(task)) - np.repeat(starts, counts) + before[task]
        epoch, position = np.divmod(draw, self._sizes[task])
        inner = permute(
            position,
            self._sizes[task],
            self._half_bits[task],
            _mix(self._keys[task] ^ _mix(epoch.astype(np.uint64))),
        )
        num_renderings, num_examples = self._lengths.shape
        examples = (epoch % num_renderings) * num_examples + self._first[task] + inner
        generator = np.random.Generator(np.random.Philox(key=[self._seed, index]))
        return examples[generator.permutation(len(examples))]

    def _counts(self, index: int) -> np.ndarray:
        """Draws of every task before block `index`."""
        return np.floor(index * self._block_draws * self._rates + self._phases).astype(np.int64)


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
