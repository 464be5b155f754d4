"""Safetensors files against the format's own library where it is installed, and damaged ones."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest

from optiml_jax.errors import InputError
from optiml_jax.interop import safetensors_files
from optiml_jax.interop.stored import whole

ARRAYS = {
    "a.weight": np.arange(12, dtype=np.float16).reshape(3, 4),
    "b": np.array([0.5, -1.0], np.float16),
    "empty": np.zeros((0, 4), np.float16),
}


def write(path, arrays=ARRAYS):
    names = [(name, array.shape) for name, array in arrays.items()]
    dtype = next(iter(arrays.values())).dtype
    safetensors_files.write_arrays(path, names, dtype, arrays.values())
    return path


def with_header(path, header, values=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + values)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"w": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16])
def test_arrays_come_back(tmp_path, dtype):
    arrays = {name: array.astype(dtype) for name, array in ARRAYS.items()}
    found = safetensors_files.read_arrays(write(tmp_path / "m.safetensors", arrays))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name].read(whole(found[name])), array)


def test_the_formats_own_library_agrees(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    theirs = library.load_file(write(tmp_path / "ours.safetensors"))
    assert set(theirs) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(theirs[name], array)
    library.save_file(ARRAYS, tmp_path / "theirs.safetensors")
    for name, array in safetensors_files.read_arrays(tmp_path / "theirs.safetensors").items():
        np.testing.assert_array_equal(array.read(whole(array)), ARRAYS[name])


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (entry(), "cut short: its header tells of 77 bytes, the file has 69"),
        (entry("F8_E4M3"), "'w' has dtype F8_E4M3, which is not read. Quantized"),
        (entry(shape=(3,)), "damaged.*8 bytes for shape"),
        (entry(shape=(-2,)), "damaged.*negative"),
        ({"w": {"dtype": "F32"}}, "damaged.*shape"),
        ([1, 2], "damaged"),
        (b"{not json", "damaged"),
    ],
)
def test_a_damaged_header_is_named(tmp_path, header, message):
    with pytest.raises(InputError, match=message):
        safetensors_files.read_arrays(with_header(tmp_path / "m.safetensors", header))


def test_every_truncation_is_told(tmp_path):
    whole_file = write(tmp_path / "whole.safetensors").read_bytes()
    path = tmp_path / "m.safetensors"
    for length in range(len(whole_file)):
        path.write_bytes(whole_file[:length])
        with pytest.raises(InputError, match=r"m\.safetensors: (cut short|not a safetensors)"):
            safetensors_files.read_arrays(path)


def test_a_git_lfs_pointer_is_known(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    with pytest.raises(InputError, match=r"pointer of Git LFS.*git lfs pull"):
        safetensors_files.read_arrays(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.safetensors: cannot be read \(No such file"):
        safetensors_files.read_arrays(tmp_path / "none.safetensors")
