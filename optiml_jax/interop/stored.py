"""Arrays that lie in files: shape and dtype at once, values when a part of them is asked for.

A model is larger than the memory that may be spent on reading it. So the readers of files
(`safetensors_files`, `torch_files`) give arrays of these classes, `metaseq` puts new ones together
from them, and only the part that a device needs is read, once. `read` may return a view of a mapped
file: copy what you keep and drop the rest, which unmaps it.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Protocol

import ml_dtypes
import numpy as np

Bounds = tuple[tuple[int, int], ...]
"""(start, stop) on each axis."""

FLOATS = tuple(np.dtype(one) for one in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64))


class Stored(Protocol):
    """An array that can be read in parts."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its size on each axis."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Its dtype in the file."""
        ...

    def read(self, bounds: Bounds) -> np.ndarray:
        """The part within `bounds`."""
        ...


def whole(array: Stored) -> Bounds:
    """The bounds of the whole array."""
    return tuple((0, size) for size in array.shape)


def slices(bounds: Bounds) -> tuple[slice, ...]:
    """Bounds as NumPy takes them."""
    return tuple(slice(start, stop) for start, stop in bounds)


@dataclasses.dataclass(frozen=True)
class InMemory:
    """An array that is there already."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Its size on each axis."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        """Its dtype."""
        return self.array.dtype

    def read(self, bounds: Bounds) -> np.ndarray:
        """A view of the part within `bounds`."""
        return self.array[slices(bounds)]


@dataclasses.dataclass(frozen=True)
class InFile:
    """Values in a stretch of a file.

    Attributes:
        offset: of the first value, in bytes.
        strides: in values, as torch keeps them; None where the values lie in order.
    """

    path: pathlib.Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...] | None = None

    @property
    def span(self) -> int:
        """How many values lie from the first to the last, both counted."""
        if 0 in self.shape:
            return 0
        if self.strides is None:
            return int(np.prod(self.shape))
        steps = zip(self.shape, self.strides)
        return 1 + sum((size - 1) * stride for size, stride in steps)

    def read(self, bounds: Bounds) -> np.ndarray:
        """A view of the part within `bounds`; the file stays mapped as long as it lives.

        Each call maps the file anew: pages that were read would else count as this process's
        memory until the last array of the file is dropped.
        """
        if not self.span:
            return np.zeros([stop - start for start, stop in bounds], self.dtype)
        mapped = np.asarray(np.memmap(self.path, self.dtype, "r", self.offset, (self.span,)))
        if self.strides is None:
            return mapped.reshape(self.shape)[slices(bounds)]
        strides = [stride * self.dtype.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(mapped, self.shape, strides)[slices(bounds)]


@dataclasses.dataclass(frozen=True)
class Cut:
    """The part of an array from `start` to `stop` on one axis."""

    array: Stored
    axis: int
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Its size on each axis."""
        sizes = list(self.array.shape)
        sizes[self.axis] = self.stop - self.start
        return tuple(sizes)

    @property
    def dtype(self) -> np.dtype:
        """Its dtype in the file."""
        return self.array.dtype

    def read(self, bounds: Bounds) -> np.ndarray:
        """The part within `bounds`, which count from `start`."""
        moved = list(bounds)
        start, stop = bounds[self.axis]
        moved[self.axis] = self.start + start, self.start + stop
        return self.array.read(tuple(moved))


@dataclasses.dataclass(frozen=True)
class Joined:
    """Arrays one after the other along one axis; they differ in that axis only."""

    parts: Sequence[Stored]
    axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Its size on each axis."""
        sizes = list(self.parts[0].shape)
        sizes[self.axis] = sum(part.shape[self.axis] for part in self.parts)
        return tuple(sizes)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of its parts."""
        return self.parts[0].dtype

    def read(self, bounds: Bounds) -> np.ndarray:
        """The part within `bounds`; only arrays that hold some of it are opened."""
        start, stop = bounds[self.axis]
        found, first = [], 0
        for part in self.parts:
            last = first + part.shape[self.axis]
            if first < stop and start < last:
                own = list(bounds)
                own[self.axis] = (max(start - first, 0), min(stop, last) - first)
                found.append(part.read(tuple(own)))
            first = last
        if not found:
            return np.zeros([stop - start for start, stop in bounds], self.dtype)
        return found[0] if len(found) == 1 else np.concatenate(found, self.axis)


@dataclasses.dataclass(frozen=True)
class Unflattened:
    """A stretch of a one-dimensional array, seen with a shape."""

    flat: Stored
    start: int
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """Its dtype in the file."""
        return self.flat.dtype

    def read(self, bounds: Bounds) -> np.ndarray:
        """The part within `bounds`; whole rows of the first axis are read."""
        if not self.shape:
            return self.flat.read(((self.start, self.start + 1),)).reshape(())
        (first, last), inner = bounds[0], int(np.prod(self.shape[1:]))
        values = self.flat.read(((self.start + first * inner, self.start + last * inner),))
        rows = values.reshape(last - first, *self.shape[1:])
        return rows[(slice(None), *slices(bounds[1:]))]


def differs(one: Stored, other: Stored, rows: int = 4096) -> float:
    """The largest difference of two arrays of one shape, read a few rows at a time; 0 if none."""
    if not one.shape:
        return float(np.abs(np.float64(one.read(())) - np.float64(other.read(()))))
    largest = 0.0
    for start in range(0, one.shape[0], rows):
        bounds = ((start, min(start + rows, one.shape[0])), *whole(one)[1:])
        left, right = (array.read(bounds) for array in (one, other))
        if not np.array_equal(left, right):
            gap = np.abs(left.astype(np.float64) - right.astype(np.float64)).max()
            largest = max(largest, float(gap) if np.isfinite(gap) else np.inf)
    return largest
