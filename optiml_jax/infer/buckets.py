"""Lengths to few static shapes: what keeps the number of XLA programs small.

A program is compiled per shape, so prompts are sorted by length and cut into batches whose length
and number of rows come from short lists. `decoding` and `scoring` plan with `plan_batches` and
call `count_compile` while they are traced; `compile_counts` tells how many programs there are.

Left out on purpose: packing several prompts into one row. The key-value cache of `decoding` is one
document per row.
"""

import collections
import dataclasses
from collections.abc import Sequence

from jax.sharding import Mesh

from optiml_jax.errors import InputError

# Shorter prompts than this share one shape: the head's work outweighs the padding.
SMALLEST_LENGTH = 64

_compiles: collections.Counter[str] = collections.Counter()


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """One batch: the items in it, and the static shape that it is padded to."""

    indices: tuple[int, ...]
    rows: int
    length: int


def length_buckets(limit: int, smallest: int = SMALLEST_LENGTH) -> tuple[int, ...]:
    """Powers of two from `smallest`, the last one cut to `limit`.

    Example:
        limit 1792 -> (64, 128, 256, 512, 1024, 1792)
    """
    lengths = []
    length = smallest
    while length < limit:
        lengths.append(length)
        length *= 2
    return (*lengths, limit)


def bucket(value: int, sizes: Sequence[int]) -> int:
    """The smallest of the ascending `sizes` that holds `value`."""
    for size in sizes:
        if value <= size:
            return size
    raise ValueError(f"{value} does not fit the largest bucket, {sizes[-1]}.")


def row_shards(mesh: Mesh | None) -> int:
    """How many ways the mesh cuts the rows of a batch."""
    return 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]


def plan_batches(
    lengths: Sequence[int], batch_size: int, sizes: Sequence[int], mesh: Mesh | None = None
) -> list[BatchPlan]:
    """Cuts items into batches, longest first, so that each batch wastes little padding.

    Every batch but the last has `batch_size` rows (rounded up to what the mesh cuts evenly); the
    last has the smallest power of two that holds it, so that one prompt does not cost a full batch.

    Args:
        sizes: `length_buckets`; a batch has the bucket of its longest item.

    Example:
        lengths [3, 90, 5], batch_size 2, sizes (64, 128) ->
        items (1, 2) in 2 x 128, item (0,) in 1 x 64
    """
    if batch_size < 1:
        raise InputError(f"batch size {batch_size}: expected a whole number of at least 1.")
    shards = row_shards(mesh)
    full = -(-batch_size // shards) * shards
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    plans = []
    for start in range(0, len(order), full):
        indices = tuple(order[start : start + full])
        rows = shards
        while rows < len(indices):
            rows *= 2
        length = bucket(lengths[indices[0]], sizes)
        plans.append(BatchPlan(indices, min(rows, full), length))
    return plans


def count_compile(name: str) -> None:
    """Notes one compilation; called in the body of a jitted function, which runs when traced."""
    _compiles[name] += 1


def compile_counts() -> dict[str, int]:
    """Compilations of this process by program and shape, e.g. {"decode 32x128+256": 1}."""
    return dict(_compiles)
