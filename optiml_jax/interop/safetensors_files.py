"""Files of named arrays in the safetensors format: read lazily, written one array at a time.

A file is eight bytes (the length of the header), the header in JSON (name -> dtype, shape, first
and last byte), and the values. Neighbours: `stored` reads the values, `huggingface_folder` knows
which files make a model. The format's own library is not used: it maps a file for as long as it is
open, so that pages already read count as memory, and writes a file from arrays that are all there.

Source: https://huggingface.co/docs/safetensors (format).
"""

import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from optiml_jax.errors import InputError
from optiml_jax.interop.stored import InFile

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
# The library's own bound: a longer header is no header.
MAX_HEADER_BYTES = 100_000_000
GIT_LFS = b"version https://git-lfs"


def read_arrays(path: pathlib.Path) -> dict[str, InFile]:
    """Every array of a file by its name; only the header is read.

    Raises:
        InputError: no such file, not of this format, cut short, or a dtype that is not read.
    """
    size = file_size(path)
    with path.open("rb") as file:
        head = file.read(8)
        length = int.from_bytes(head, "little")
        if head[:8] == GIT_LFS[:8] and (head + file.read(15)).startswith(GIT_LFS):
            raise git_lfs_error(path)
        if len(head) < 8 or not 2 <= length <= MAX_HEADER_BYTES:
            raise InputError(f"{path}: not a safetensors file (its header is not readable).")
        if 8 + length > size:
            raise _truncated(path, 8 + length, size)
        try:
            header = json.loads(file.read(length))
            arrays = dict(_arrays(path, header, 8 + length))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{path}: its safetensors header is damaged ({error!r}).") from None
    last = max((one.offset + one.span * one.dtype.itemsize for one in arrays.values()), default=0)
    if last > size:
        raise _truncated(path, last, size)
    return arrays


def write_arrays(
    path: pathlib.Path,
    names: Sequence[tuple[str, tuple[int, ...]]],
    dtype: np.dtype,
    arrays: Iterable[np.ndarray],
) -> None:
    """Writes one file; `arrays` are asked for one by one, in the order of `names`.

    Args:
        names: (name, shape) of each.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in names:
        end = offset + int(np.prod(shape)) * dtype.itemsize
        header[name] = {
            "dtype": NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # Values begin at a multiple of eight bytes.
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for (name, shape), array in zip(names, arrays, strict=True):
            assert array.dtype == dtype, name
            assert array.shape == tuple(shape), name
            file.write(np.ascontiguousarray(array).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())


def file_size(path: pathlib.Path) -> int:
    """Bytes of a file.

    Raises:
        InputError: it is missing, or may not be read.
    """
    try:
        with path.open("rb"):
            return path.stat().st_size
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}). Fetch the file again, or correct "
            "the path."
        ) from None


def git_lfs_error(path: pathlib.Path) -> InputError:
    """What to say where a pointer lies in place of the weights."""
    return InputError(
        f"{path}: is a pointer of Git LFS, not the file itself. Run `git lfs pull` in that folder."
    )


def _arrays(path: pathlib.Path, header: Mapping, start: int) -> Iterator[tuple[str, InFile]]:
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in DTYPES:
            raise InputError(
                f"{path}: '{name}' has dtype {entry['dtype']}, which is not read. Quantized weights"
                " must be restored to float16, bfloat16 or float32 first."
            )
        dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        if not all(isinstance(one, int) and one >= 0 for one in (*shape, begin, end)):
            raise ValueError(f"'{name}' has a negative or broken size")
        if end - begin != int(np.prod(shape)) * dtype.itemsize:
            raise ValueError(f"'{name}' has {end - begin} bytes for shape {list(shape)}")
        yield name, InFile(path, dtype, shape, start + begin)


def _truncated(path: pathlib.Path, expected: int, size: int) -> InputError:
    return InputError(
        f"{path}: cut short: its header tells of {expected:,} bytes, the file has {size:,}. Fetch "
        "the file again."
    )
