"""Packed batches from a store: a pure function of (seed, step), the same for any number of hosts.

`TrainStream.batch(step)` computes any step's batch alone. `TrainStream.iterate(step)` is a Grain
iterator over the same function that reads ahead on a thread. Each host gives the rows of the
global batch that it feeds; the global order of examples does not depend on how many hosts read it.

A row holds `feature_length + 1` tokens and is shifted after packing, so that a document's first
token is never a target: packed and unpacked losses are equal. Order and row boundaries are
`packing`'s, token ids the store's. Left out on purpose: devices; batches are NumPy arrays.
"""

import collections
import dataclasses
import functools
import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from optiml_jax import errors, types
from optiml_jax.data import mixing, packing, summary
from optiml_jax.data import store as store_lib
from optiml_jax.errors import InputError

READ_AHEAD_ROWS = 256
"""Rows read together. ArrayRecord gives 1-3 thousand records a second one by one and 38-72
thousand in reads of 512, so rows are never read one at a time."""

LOSS_ON = ("targets", "all")

_ENDLESS = 1 << 40

_DIGESTS = {
    "tasks": "what the store holds of them, or which the mixture names",
    "rates": "the mixture's settings, or the sizes of the tasks",
}
"""Parts of an order that are hashes -> what makes them differ."""


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """What decides the order and the shape of training batches.

    Attributes:
        mixture_or_task_name: a mixture, benchmark or task of the store; None for its own mixture.
        mixture: how its tasks are mixed; `summary.mixture_rates` says by which rates.
        feature_length: tokens of a row, T.
        batch_size: rows of the global batch, B.
        seed: of the order, below 2**63.
        loss_on: "targets" (OPT-IML: the answer and `</s>`) or "all" (OPT's pre-training objective:
            every token but a document's first).
        packing: "greedy" (OPT-IML: first come, rows about 90 % full) or "first_fit" (over 98 %).
    """

    mixture_or_task_name: str | None = None
    mixture: mixing.MixtureSpec = dataclasses.field(default_factory=mixing.MixtureSpec)
    feature_length: int = 2048
    batch_size: int = 128
    seed: int = 0
    loss_on: str = "targets"
    packing: str = "greedy"

    def __post_init__(self):
        packing.check_packing(self.packing, "StreamConfig")
        if self.loss_on not in LOSS_ON:
            raise errors.unknown("loss_on", self.loss_on, LOSS_ON, "StreamConfig")
        if not isinstance(self.mixture, mixing.MixtureSpec):
            raise InputError(f"StreamConfig.mixture is {self.mixture!r}, expected a MixtureSpec.")
        for name, least in (("feature_length", 1), ("batch_size", 1), ("seed", 0)):
            value = getattr(self, name)
            if not mixing.is_whole(value) or value < least:
                raise InputError(
                    f"StreamConfig.{name} is {value!r}, expected a whole number, {least} or more."
                )
        if self.seed >= 2**63:
            raise InputError(f"StreamConfig.seed is {self.seed}, expected less than 2**63.")


class TrainStream:
    """Training batches of a mixture.

    Args:
        store: an open store.
        config: order and shape.
        rows: (first, past the last) row of the global batch that this host feeds; None for all.

    Raises:
        InputError: the mixture names nothing trainable, or `rows` lies outside the batch.
    """

    def __init__(
        self,
        store: store_lib.Store,
        config: StreamConfig,
        rows: tuple[int, int] | None = None,
    ):
        first, last = rows or (0, config.batch_size)
        if not 0 <= first < last <= config.batch_size:
            raise InputError(
                f"stream: rows {first} to {last} lie outside a batch of {config.batch_size} rows."
            )
        self._store = store
        self.config = config
        self._rows = (first, last)
        tasks, self.rates = summary.mixture_rates(
            store, config.mixture_or_task_name, config.mixture, config.feature_length
        )
        self.tasks = tuple(tasks)
        self._plan = packing.Plan(
            packing.PlanTasks(
                names=tuple(task.name for task in self.tasks),
                rates=self.rates,
                first_examples=np.array([task.first_example for task in self.tasks]),
                sizes=np.array([task.num_train for task in self.tasks]),
            ),
            store.lengths,
            config.feature_length + 1,
            config.seed,
            packing=config.packing,
        )
        self._prefix = [0]
        self._blocks: collections.OrderedDict[int, packing.Block] = collections.OrderedDict()
        self._chunks: collections.OrderedDict[int, types.Batch] = collections.OrderedDict()
        self._steps_per_chunk = max(1, READ_AHEAD_ROWS // (last - first))
        self._lock = threading.Lock()

    def batch(self, step: int) -> types.Batch:
        """This host's rows of step `step`'s batch: each field [rows, T] (see `types`).

        Raises:
            InputError: the step is below 0.
        """
        _check_step(step)
        chunk, inner = divmod(step, self._steps_per_chunk)
        num_rows = self._rows[1] - self._rows[0]
        own = slice(inner * num_rows, (inner + 1) * num_rows)
        with self._lock:
            fields = self._chunk(chunk)
        return {name: values[own] for name, values in fields.items()}

    def iterate(self, step: int = 0) -> Iterator[types.Batch]:
        """Batches from `step` on, without end, read ahead on a thread by Grain."""
        _check_step(step)
        dataset = grain.MapDataset.source(_Batches(self))
        ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2 * self._steps_per_chunk)
        iterator = iter(dataset.to_iter_dataset(ahead))
        iterator.set_state({"next_index": step})
        return iterator

    def examples(self, step: int) -> list[np.ndarray]:
        """Indices into the store's examples of each row of this host, in order."""
        _check_step(step)
        with self._lock:
            return self._row_examples(self._global_rows(step))

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint keeps so that opening the stream at `step` costs nothing."""
        _check_step(step)
        with self._lock:
            block = self._block_of(step * self.config.batch_size)
            prefix = self._prefix[: block + 1]
        return {"step": step, "row_prefix": prefix, "order": self.order}

    @functools.cached_property
    def order(self) -> dict[str, Any]:
        """All that decides the batches, in short: two streams of equal order give equal batches."""
        return {
            "plan": packing.VERSION,
            "tasks": _digest(task.keys[store_lib.train_view(0)] for task in self.tasks),
            "rates": _digest(float(rate).hex() for rate in self.rates),
            "feature_length": self.config.feature_length,
            "batch_size": self.config.batch_size,
            "seed": self.config.seed,
            "loss_on": self.config.loss_on,
            "packing": self.config.packing,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes over a `state`, so that the blocks before its step need not be counted again.

        Raises:
            InputError: the state is of a stream with other batches.
        """
        trained = state.get("order", {})
        if trained.get("plan") != packing.VERSION:
            raise InputError(
                "the checkpoint was trained in the order of another version of optiml_jax (order"
                f" {trained.get('plan')}, here {packing.VERSION}). Go on with that version, or"
                " start a new MODEL_DIR with INITIAL_CHECKPOINT_PATH."
            )
        differing = [
            f"other {name} ({_DIGESTS[name]})"
            if name in _DIGESTS
            else f"other {name} ({trained.get(name)} in the checkpoint, {value} here)"
            for name, value in self.order.items()
            if trained.get(name) != value
        ]
        if differing:
            raise InputError(
                "the checkpoint was trained on other batches than this run would give:"
                f" {', '.join(differing)}. Restore what was changed, or start a new MODEL_DIR with"
                " INITIAL_CHECKPOINT_PATH."
            )
        with self._lock:
            self._prefix = [int(count) for count in state["row_prefix"]]

    def _global_rows(self, step: int) -> range:
        start = step * self.config.batch_size
        return range(start + self._rows[0], start + self._rows[1])

    def _chunk(self, chunk: int) -> types.Batch:
        if chunk not in self._chunks:
            first = chunk * self._steps_per_chunk
            rows = [
                example
                for step in range(first, first + self._steps_per_chunk)
                for example in self._row_examples(self._global_rows(step))
            ]
            self._chunks[chunk] = self._assemble(rows)
            if len(self._chunks) > 2:
                self._chunks.popitem(last=False)
        self._chunks.move_to_end(chunk)
        return self._chunks[chunk]

    def _row_examples(self, rows: range) -> list[np.ndarray]:
        result = []
        for row in rows:
            index = self._block_of(row)
            block = self._block(index)
            inner = row - self._prefix[index]
            result.append(block.examples[block.row_starts[inner] : block.row_starts[inner + 1]])
        return result

    def _block_of(self, row: int) -> int:
        """The block that holds a global row; counts rows of further blocks as needed."""
        while self._prefix[-1] <= row:
            block = self._block(len(self._prefix) - 1)
            self._prefix.append(self._prefix[-1] + block.num_rows)
        return int(np.searchsorted(self._prefix, row, side="right")) - 1

    def _block(self, index: int) -> packing.Block:
        if index not in self._blocks:
            self._blocks[index] = self._plan.block(index)
            if len(self._blocks) > 2:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(index)
        return self._blocks[index]

    def _assemble(self, rows: Sequence[np.ndarray]) -> types.Batch:
        examples = np.concatenate(rows)
        renderings, numbers = np.divmod(examples, self._store.lengths.shape[1])
        stored = self._store.lengths[renderings, numbers].astype(np.int64)
        loss_starts = self._store.loss_starts[renderings, numbers].astype(np.int64)
        if self.config.loss_on == "all":
            loss_starts = np.zeros_like(loss_starts)
        row_of = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        tokens = _read_tokens(self._store, renderings, numbers, self.config.feature_length + 1)
        return pack_rows(tokens, stored, loss_starts, row_of, len(rows), self.config.feature_length)


def _check_step(step: int) -> None:
    if step < 0:
        raise InputError(f"stream: step is {step}, expected 0 or more.")


class ReadAhead:
    """A stream for a loop that takes one step after another: batches are read ahead by Grain.

    `batch(step)` is the stream's; asked for another step than the next one, it goes on from there.
    """

    def __init__(self, stream: TrainStream):
        self._stream = stream
        self._iterator: Iterator[types.Batch] | None = None
        self._next = -1

    def batch(self, step: int) -> types.Batch:
        """This host's rows of step `step`'s batch."""
        if self._iterator is None or step != self._next:
            self._iterator = self._stream.iterate(step)
        self._next = step + 1
        return next(self._iterator)

    def state(self, step: int) -> dict[str, Any]:
        """See `TrainStream.state`."""
        return self._stream.state(step)

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `TrainStream.restore`."""
        self._stream.restore(state)


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


class _Batches:
    """A Grain random-access source over a stream's batches."""

    def __init__(self, stream: TrainStream):
        self._stream = stream

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: Any) -> types.Batch:
        return self._stream.batch(int(index))


def _read_tokens(
    store: store_lib.Store, renderings: np.ndarray, numbers: np.ndarray, limit: int
) -> np.ndarray:
    """The examples' tokens one after another, each cut on the left to `limit`; int32."""
    shard, place = store.find_examples(renderings, numbers)
    group = renderings * (shard.max() + 1) + shard
    order = np.argsort(group, kind="stable")
    edges = np.flatnonzero(np.diff(group[order])) + 1
    parts: list[bytes] = [b""] * len(numbers)
    limit_bytes = limit * store.token_dtype.itemsize
    for members in np.split(order, edges):
        view = store_lib.train_view(int(renderings[members[0]]))
        records_read = store.read(view, int(shard[members[0]]), place[members].tolist())
        for member, data in zip(members.tolist(), records_read):
            parts[member] = data[-limit_bytes:]
    return np.frombuffer(b"".join(parts), store.token_dtype).astype(np.int32)


def pack_rows(
    tokens: np.ndarray,
    lengths: np.ndarray,
    loss_starts: np.ndarray,
    row_of: np.ndarray,
    num_rows: int,
    feature_length: int,
) -> types.Batch:
    """Batch fields [num_rows, T] of examples laid one after another in rows of T + 1 tokens.

    Args:
        tokens: int32, all examples' tokens one after another, each already cut to its last T + 1.
        lengths: tokens of each example before that cut.
        loss_starts: first token of each example that carries loss, before that cut.
        row_of: row of each example, not decreasing.
        num_rows: rows of the result.
        feature_length: T.

    Example (T = 6, one row, documents [5 6 | 7 2] and [8 | 2]; loss behind the bar):
        tokens        5 6 7 2 8 2 0
        inputs        5 6 7 2 8 2
        targets       6 7 2 0 2 0
        loss_weights  0 1 1 0 1 0
        segment_ids   1 1 1 1 2 2
        positions     0 1 2 3 0 1
    """
    capacity = feature_length + 1
    kept = np.minimum(lengths, capacity)
    starts = np.cumsum(kept) - kept
    first_of_row = np.searchsorted(row_of, np.arange(num_rows))
    row_base = np.append(starts, len(tokens))[first_of_row]
    offset = starts - row_base[row_of]
    example = np.repeat(np.arange(len(kept)), kept)
    position = np.arange(len(tokens)) - starts[example]
    where = (row_of * capacity + offset)[example] + position

    def laid(values: np.ndarray, dtype: type) -> np.ndarray:
        flat = np.zeros(num_rows * capacity, dtype)
        flat[where] = values
        return flat.reshape(num_rows, capacity)

    carries = (position >= (loss_starts - (lengths - kept))[example]) & (position > 0)
    all_tokens = laid(tokens, np.int32)
    segments = laid((np.arange(len(kept)) - first_of_row[row_of] + 1)[example], np.int32)
    positions = laid(position, np.int32)
    weights = laid(carries, np.float32)
    continues = segments[:, 1:] == segments[:, :-1]
    return {
        "inputs": all_tokens[:, :-1],
        "targets": np.where(continues, all_tokens[:, 1:], np.int32(0)),
        "loss_weights": weights[:, 1:],
        "segment_ids": segments[:, :-1],
        "positions": positions[:, :-1],
    }
