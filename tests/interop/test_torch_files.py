"""Torch files, both formats, against torch; and pickles that want to run something."""

import argparse
import collections
import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from optiml_jax.errors import InputError
from optiml_jax.interop import torch_files
from optiml_jax.interop.stored import whole

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def state():
    numbers = torch.arange(24, dtype=torch.float32)
    return collections.OrderedDict(
        whole=numbers.reshape(4, 6).half(),
        transposed=numbers.reshape(4, 6).t(),
        view=numbers[3:9],
        brain=numbers.bfloat16(),
        parameter=torch.nn.Parameter(numbers.double()),
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        counts=torch.tensor([1, 2]),
    )


def save(content, path, zipped=True):
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@FORMATS
def test_tensors_come_back(tmp_path, zipped):
    expected = state()
    found = torch_files.read_state_dict(save(expected, tmp_path / "m.bin", zipped))
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        array = found[name]
        assert array.shape == tuple(tensor.shape)
        assert array.dtype.name == str(tensor.dtype).removeprefix("torch.")
        values = array.read(whole(array)).astype(np.float64)
        np.testing.assert_array_equal(values, tensor.detach().double().numpy(), err_msg=name)


def test_a_part_of_a_transposed_tensor(tmp_path):
    array = torch_files.read_state_dict(save(state(), tmp_path / "m.bin"))["transposed"]
    expected = state()["transposed"][1:3, 2:4].numpy()
    np.testing.assert_array_equal(array.read(((1, 3), (2, 4))), expected)


class Evil:
    """Unpickled by Python itself it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class EvilState:
    """Hides the call in the state of a harmless object."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return collections.OrderedDict, (), {"x": Evil(self.path)}


@pytest.mark.parametrize("evil", [Evil, EvilState])
@FORMATS
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, zipped, evil):
    touched = tmp_path / "touched"
    path = save({"w": torch.zeros(2), "x": evil(touched)}, tmp_path / "m.bin", zipped)
    with pytest.raises(InputError, match=r"asks for 'posix\.system'.*Nothing of it was run"):
        torch_files.read_state_dict(path)
    content = torch_files.read_file(path)
    assert content.inert == ("posix.system",)
    assert content.content["w"].shape == (2,)
    assert not touched.exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)  # torch's own safe reader agrees that it is none.


@pytest.mark.parametrize(
    "opcodes",
    [
        b"cos\nsystem\n(S'touch TOUCHED'\ntR.",
        b"(S'touch TOUCHED'\nios\nsystem\n.",
        b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c\x01x\x85R.",
        b"\x80\x02\x82\x01.",
    ],
    ids=["reduce", "inst", "stack_global", "extension"],
)
def test_every_way_to_a_callable_is_closed(tmp_path, opcodes):
    touched = tmp_path / "touched"
    path = tmp_path / "m.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", opcodes.replace(b"TOUCHED", str(touched).encode()))
    with pytest.raises(InputError, match=r"asks for|pickle is damaged"):
        torch_files.read_state_dict(path)
    assert not touched.exists()


def test_a_pickle_cannot_change_what_later_files_meet(tmp_path):
    """BUILD sets attributes: on functions of ours, dtypes and stand-ins it must not last."""
    for module, name in (
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch", "FloatStorage"),
        ("torch", "float32"),
        ("argparse", "Namespace"),
        ("collections", "OrderedDict"),
    ):
        out = io.BytesIO()
        out.write(f"\x80\x02c{module}\n{name}\n".encode("latin1"))
        out.write(b"N}(X\x0c\x00\x00\x00__defaults__NX\x05\x00\x00\x00shapeK\x01u\x86b.")
        path = tmp_path / "m.bin"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("m/data.pkl", out.getvalue())
        with pytest.raises(InputError):
            torch_files.read_state_dict(path)
    assert not hasattr(torch_files.Inert, "shape")
    assert not hasattr(collections.OrderedDict, "shape")
    assert torch_files.read_state_dict(save(state(), path))["whole"].shape == (4, 6)


def test_settings_are_kept_without_their_classes(tmp_path):
    namespace = argparse.Namespace(decoder_attention_heads=7, lr=[0.1])
    content = {"cfg": {"model": namespace}, "model": state(), "odd": np.float64(1.0)}
    found = torch_files.read_file(save(content, tmp_path / "m.pt"))
    assert "argparse.Namespace" in found.inert
    assert type(found.content["cfg"]["model"]).__mro__[1] is torch_files.Inert
    assert torch_files.find(found.content, "decoder_attention_heads") == 7
    assert torch_files.find(found.content, "no_such_setting") is None


@FORMATS
def test_every_truncation_is_told(tmp_path, zipped):
    whole_file = save({"w": torch.arange(40.0)}, tmp_path / "whole.bin", zipped).read_bytes()
    path = tmp_path / "m.bin"
    for length in range(0, len(whole_file), 7):
        path.write_bytes(whole_file[:length])
        with pytest.raises(InputError, match=r"m\.bin: "):
            torch_files.read_state_dict(path)


def test_a_tensor_beyond_its_values_is_refused(tmp_path):
    """A file could name a shape that reaches into other bytes of the file."""
    path = save({"w": torch.arange(40.0).reshape(5, 8)}, tmp_path / "m.bin")
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(one for one in entries if one.endswith("data.pkl"))
    assert entries[name].count(b"K\x05K\x08\x86") == 1  # the shape (5, 8)
    entries[name] = entries[name].replace(b"K\x05K\x08\x86", b"K\x06K\x08\x86")
    with zipfile.ZipFile(path, "w") as archive:
        for one, content in entries.items():
            archive.writestr(one, content)
    with pytest.raises(InputError, match=r"shape \[6, 8\] goes beyond its values"):
        torch_files.read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a file of torch.save"),
        (b"hello", "not a file of torch.save"),
        (pickle.dumps({"w": 1}), "not one of torch.save|damaged"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "m.bin"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        torch_files.read_state_dict(path)


def test_more_than_tensors_is_no_state_dict(tmp_path):
    with pytest.raises(InputError, match="'epoch' is not a tensor"):
        torch_files.read_state_dict(save({**state(), "epoch": 3}, tmp_path / "m.bin"))
