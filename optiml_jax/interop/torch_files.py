"""What `torch.save` wrote, read without torch and without running anything that is in the file.

A torch file is a pickle beside raw values, and a pickle is a program: it names functions and has
them called. Here the few names that make up tensors stand for functions of this module, and any
other name is refused (`read_state_dict`) or becomes an `Inert` object that keeps what it was given
and does nothing (`read_file`, for training checkpoints with pickled settings). Nothing is imported
by the name that a file gives.

Both formats are read: the zip archive of torch 1.6 and later, and the one before it (five pickles,
then the values). Tensors come as `stored.InFile`: their values stay in the file.

Source: torch/serialization.py of torch 2.13 (`_save`, `_legacy_save`), torch/_utils.py.
"""

import collections
import dataclasses
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from optiml_jax.errors import InputError
from optiml_jax.interop import safetensors_files
from optiml_jax.interop.stored import InFile

# torch/serialization.py: MAGIC_NUMBER, PROTOCOL_VERSION.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
LOCAL_HEADER_BYTES = 30
"""Of a zip archive's entry, before its name (APPNOTE.TXT 4.3.7)."""

DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "int16": np.dtype(np.int16),
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}
HARMLESS = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("__builtin__", "set"): set,
}


class Inert:
    """Stands for an object of a class that is not loaded: keeps what it was given, does nothing.

    Attributes:
        origin: "module.name" that the file gave.
        contents: arguments, state and items, in the order in which they came.
    """

    origin = ""
    contents: list[Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        """Takes what the class would have taken."""
        made = object.__new__(cls)
        made.contents = [*args, kwargs] if kwargs else list(args)
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any) -> "Inert":
        """Takes what a pickled function would have taken."""
        return type(self)(self, *args)

    def __setstate__(self, state: Any) -> None:
        self.contents.append(state)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.contents.append({key: value} if isinstance(key, str) else value)

    def append(self, value: Any) -> None:
        """What a pickled list does."""
        self.contents.append(value)

    def extend(self, values: Any) -> None:
        """What a pickled list does."""
        self.contents.extend(values)

    def add(self, value: Any) -> None:
        """What a pickled set does."""
        self.contents.append(value)


@dataclasses.dataclass(frozen=True)
class TorchFile:
    """What a file held.

    Attributes:
        content: as it was saved, tensors as `InFile`.
        inert: names of the classes and functions that were not loaded.
    """

    content: Any
    inert: tuple[str, ...]


def read_state_dict(path: pathlib.Path) -> dict[str, InFile]:
    """The tensors of a state dict by their names.

    Raises:
        InputError: not such a file, cut short, or one that names anything but tensors.
    """
    content = _read(path, strict=True).content
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds no state dict (a dict of tensors).")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, InFile):
            raise InputError(f"{path}: '{name}' is not a tensor, so this is no state dict.")
    return dict(content)


def read_file(path: pathlib.Path) -> TorchFile:
    """What a training checkpoint holds, objects of unknown classes as `Inert`.

    Raises:
        InputError: not a torch file, or cut short.
    """
    return _read(path, strict=False)


def find(content: Any, name: str) -> Any:
    """The first plain value kept under `name` anywhere in a file's content, or None."""
    waiting, seen = [content], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Mapping):
            if isinstance(node.get(name), int | float | str):
                return node[name]
            # OmegaConf keeps a value as a node with the attribute `_val`.
            if (
                isinstance(node.get(name), Inert)
                and (value := find(node[name], "_val")) is not None
            ):
                return value
            waiting += node.values()
        elif isinstance(node, Inert):
            waiting += node.contents
        elif isinstance(node, list | tuple):
            waiting += node
    return None


class _Kind(NamedTuple):
    """A dtype that the file names; not NumPy's own object, which a pickle could try to change."""

    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class _Storage:
    """Raw values of one dtype in a file."""

    path: pathlib.Path
    dtype: np.dtype
    offset: int
    num_bytes: int


def _read(path: pathlib.Path, *, strict: bool) -> TorchFile:
    safetensors_files.file_size(path)
    try:
        with path.open("rb") as file:
            start = file.read(len(safetensors_files.GIT_LFS))
            file.seek(0)
            if start == safetensors_files.GIT_LFS:
                raise safetensors_files.git_lfs_error(path)
            if start[:4] == b"PK\x03\x04":
                return _read_archive(path, file, strict)
            if start[:1] == b"\x80":
                return _read_legacy(path, file, strict)
    except InputError:
        raise
    except (zipfile.BadZipFile, EOFError, struct.error) as error:
        raise InputError(f"{path}: cut short or damaged ({error}). Fetch the file again.") from None
    except Exception as error:
        # A pickle that is not well formed can fail anywhere; nothing of ours runs in it.
        raise InputError(f"{path}: its pickle is damaged ({error!r}). Fetch it again.") from None
    raise InputError(f"{path}: not a file of torch.save (it begins with {start[:8]!r}).")


def _read_archive(path: pathlib.Path, file: BinaryIO, strict: bool) -> TorchFile:
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise InputError(f"{path}: a zip archive, but not one of torch.save (no data.pkl).")
        folder = pickles[0].removesuffix("data.pkl")
        entries = {info.filename.removeprefix(folder): info for info in archive.infolist()}
        if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
            raise InputError(f"{path}: written on a big-endian machine, which is not read.")

        def place(key: str, num_bytes: int) -> int:
            info = entries.get(f"data/{key}")
            if info is None or info.compress_type != zipfile.ZIP_STORED:
                raise InputError(f"{path}: its values 'data/{key}' are missing or compressed.")
            if info.file_size < num_bytes:
                raise InputError(f"{path}: 'data/{key}' is shorter than its tensors.")
            file.seek(info.header_offset)
            header = file.read(LOCAL_HEADER_BYTES)
            name, extra = struct.unpack("<HH", header[26:30])
            return info.header_offset + LOCAL_HEADER_BYTES + name + extra

        with archive.open(pickles[0]) as pickled:
            loader = _Unpickler(pickled, path, strict, place)
            return TorchFile(loader.load(), tuple(sorted(loader.inert)))


def _read_legacy(path: pathlib.Path, file: BinaryIO, strict: bool) -> TorchFile:
    """Reads the object twice: where a tensor's values lie is known after the first time."""
    nowhere = {"place": lambda key, num_bytes: 0}
    head = [_Unpickler(file, path, True, **nowhere).load() for _ in range(3)]
    if head[:2] != [LEGACY_MAGIC, LEGACY_PROTOCOL]:
        raise InputError(f"{path}: a pickle, but not one of torch.save.")
    if not head[2]["little_endian"]:
        raise InputError(f"{path}: written on a big-endian machine, which is not read.")
    start = file.tell()
    first = _Unpickler(file, path, strict, **nowhere)
    first.load()
    offsets, offset = {}, None
    for key in _Unpickler(file, path, True, **nowhere).load():
        offset = file.tell() if offset is None else offset
        file.seek(offset)
        (num_values,) = struct.unpack("<q", file.read(8))
        offsets[key] = offset + 8
        if key not in first.sizes:
            raise InputError(f"{path}: its values '{key}' belong to no tensor.")
        num_bytes, itemsize = first.sizes[key]
        if num_values * itemsize != num_bytes:
            raise InputError(f"{path}: its values '{key}' are not as long as their tensors.")
        offset += 8 + num_bytes
    if offset is not None and offset > path.stat().st_size:
        raise EOFError(f"{offset:,} bytes expected, {path.stat().st_size:,} there")
    file.seek(start)
    loader = _Unpickler(file, path, strict, lambda key, num_bytes: offsets[key])
    return TorchFile(loader.load(), tuple(sorted(loader.inert)))


class _Unpickler(pickle.Unpickler):
    """Knows tensors; every other name of the file is refused or inert.

    Args:
        place: (key, bytes) of raw values -> where they begin in the file.
    """

    def __init__(
        self, file: Any, path: pathlib.Path, strict: bool, place: Callable[[str, int], int]
    ) -> None:
        super().__init__(file)
        self.path, self.strict, self.place = path, strict, place
        self.inert: dict[str, type[Inert]] = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        # Made anew for each file, so that a pickle which sets attributes on them changes nothing.
        self.known = dict(_tensor_functions(path))

    def find_class(self, module: str, name: str) -> Any:
        """What a name of the file stands for."""
        if (module, name) in HARMLESS:
            return HARMLESS[module, name]
        if (module, name) in self.known:
            return self.known[module, name]
        if module in ("torch", "torch.storage") and name.removeprefix("_") in STORAGES:
            return _Kind(DTYPES[STORAGES[name.removeprefix("_")]])
        if module == "torch" and name in DTYPES:
            return _Kind(DTYPES[name])
        full = f"{module}.{name}"
        if self.strict:
            raise InputError(
                f"{self.path}: its pickle asks for '{full}', which is no part of a state dict and "
                "could run code. Nothing of it was run. Use the model's safetensors files."
            )
        if full not in self.inert:
            self.inert[full] = type("Inert", (Inert,), {"origin": full})
        return self.inert[full]

    def persistent_load(self, pid: Any) -> _Storage:
        """The raw values that a tensor names."""
        word, kind, key, _, num_values, *rest = pid
        if word != "storage" or not isinstance(kind, _Kind) or any(rest):
            raise InputError(f"{self.path}: values of kind {kind!r} are not read.")
        if not isinstance(num_values, int) or num_values < 0:
            raise InputError(f"{self.path}: values '{key}' have a broken length.")
        num_bytes = num_values * kind.dtype.itemsize
        self.sizes[str(key)] = num_bytes, kind.dtype.itemsize
        return _Storage(self.path, kind.dtype, self.place(str(key), num_bytes), num_bytes)


def _tensor_functions(path: pathlib.Path) -> Iterator[tuple[tuple[str, str], Any]]:
    """(module, name) of torch's functions that make tensors, and ours in their place."""

    def tensor(storage, storage_offset, size, stride, *_, dtype=None):
        dtype = storage.dtype if dtype is None else dtype
        sizes, strides = tuple(size), tuple(stride)
        for number in (storage_offset, *sizes, *strides):
            if not isinstance(number, int) or number < 0:
                raise InputError(f"{path}: a tensor has a broken size or stride.")
        in_order = tuple(int(np.prod(sizes[axis + 1 :])) for axis in range(len(sizes)))
        array = InFile(
            storage.path,
            dtype,
            sizes,
            storage.offset + storage_offset * dtype.itemsize,
            None if strides == in_order else strides,
        )
        if (storage_offset + array.span) * dtype.itemsize > storage.num_bytes:
            raise InputError(f"{path}: a tensor of shape {list(sizes)} goes beyond its values.")
        return array

    def tensor_of_dtype(storage, storage_offset, size, stride, grad, hooks, kind, *_):
        return tensor(storage, storage_offset, size, stride, dtype=kind.dtype)

    def parameter(data, *_):
        return data

    def shape(sizes=()):
        return tuple(sizes)

    yield ("torch._utils", "_rebuild_tensor"), tensor
    yield ("torch._utils", "_rebuild_tensor_v2"), tensor
    yield ("torch._utils", "_rebuild_tensor_v3"), tensor_of_dtype
    yield ("torch._utils", "_rebuild_parameter"), parameter
    yield ("torch._utils", "_rebuild_parameter_with_state"), parameter
    yield ("torch", "Size"), shape
