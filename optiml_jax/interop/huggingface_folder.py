"""A Hugging Face model folder: which files hold which arrays, and a new one written from ours.

    config.json  tokenizer files  and the weights, the first of these that is there:
    model.safetensors, model.safetensors.index.json (shards),
    pytorch_model.bin, pytorch_model.bin.index.json (shards)

Neighbours: `safetensors_files` and `torch_files` read a file, `huggingface` knows the arrays'
layouts, `huggingface_config` and `tokenizer_files` the rest of the folder.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from optiml_jax import types
from optiml_jax.errors import InputError
from optiml_jax.interop import huggingface, huggingface_config, torch_files
from optiml_jax.interop import safetensors_files as safetensors
from optiml_jax.interop.huggingface import Place, Progress
from optiml_jax.interop.stored import Stored
from optiml_jax.interop.tokenizer_files import read_json, write_json
from optiml_jax.model.config import OptConfig

CONFIG = "config.json"
SAFETENSORS, BIN = "model.safetensors", "pytorch_model.bin"
INDEX = ".index.json"
DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
}


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder's content, weights not yet read.

    Attributes:
        arrays: by Hugging Face's whole names.
        files: that hold them.
    """

    config: OptConfig
    arrays: Mapping[str, Stored]
    files: Sequence[pathlib.Path]


def open_folder(path: pathlib.Path) -> Folder:
    """Reads the config and the headers of the weights.

    Raises:
        InputError: a part is missing, damaged, or of a model that is not OPT.
    """
    if not path.is_dir():
        raise InputError(
            f"'{path}' is {'a file' if path.exists() else 'not there'}, expected the folder of a "
            "Hugging Face model (config.json beside its weights)."
        )
    if not (path / CONFIG).is_file():
        raise InputError(f"{path}: no {CONFIG} there, so this is no Hugging Face model folder.")
    config = huggingface_config.from_hf(read_json(path / CONFIG), str(path / CONFIG))
    files, expected = _weight_files(path)
    arrays: dict[str, Stored] = {}
    for file in files:
        read = (
            safetensors.read_arrays
            if file.suffix == ".safetensors"
            else torch_files.read_state_dict
        )
        for name, array in read(file).items():
            if expected is None or expected.get(name) == file.name:
                arrays[name] = array
    for name, shard in (expected or {}).items():
        if name not in arrays:
            raise InputError(f"{path / shard}: lacks '{name}', which the index says it holds.")
    whole = huggingface.normalised(arrays)
    if len(whole) != len(arrays):
        raise InputError(f"{path}: some tensors are there twice, with and without 'model.'.")
    return Folder(config, whole, files)


def _weight_files(path: pathlib.Path) -> tuple[list[pathlib.Path], dict[str, str] | None]:
    """The files with weights, and of shards which name is in which file.

    Raises:
        InputError: none is there, or a shard is missing (all that are missing are named).
    """
    for name in (SAFETENSORS, BIN):
        if (path / name).is_file():
            return [path / name], None
        index = path / (name + INDEX)
        if not index.is_file():
            continue
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()):
            raise InputError(f"{index}: field 'weight_map' is missing or broken. Fetch it again.")
        names = sorted(set(shards.values()))
        outside = [shard for shard in names if pathlib.PurePath(shard).name != shard]
        if outside:
            raise InputError(f"{index}: '{outside[0]}' is not a file of this folder.")
        missing = [shard for shard in names if not (path / shard).is_file()]
        if missing:
            raise InputError(
                f"{path}: {len(missing)} of {len(names)} shards are missing: "
                f"{', '.join(missing)}. Fetch them."
            )
        return [path / shard for shard in names], shards
    raise InputError(
        f"{path}: no weights there ({SAFETENSORS} or {BIN}, whole or with an index of shards)."
    )


@dataclasses.dataclass(frozen=True)
class Written:
    """What a new folder holds.

    Attributes:
        num_rounded: how many values are not exactly the parameters' float32.
    """

    files: tuple[str, ...]
    total_bytes: int
    num_rounded: int


def write_weights(
    folder: pathlib.Path,
    params: Mapping[str, Any],
    config: OptConfig,
    dtype: str,
    max_shard_bytes: int,
    progress: Progress = lambda name, num_bytes: None,
) -> Written:
    """Writes config and weights, one array at a time; the tied head is left out, as they do.

    Raises:
        InputError: parameters are not finite, or too large for `dtype`.
    """
    settings = huggingface_config.to_hf(config, dtype)
    shards = _shards(huggingface.places(config), DTYPES[dtype].itemsize, max_shard_bytes)
    names = [SAFETENSORS]
    if len(shards) > 1:
        stem = SAFETENSORS.removesuffix(".safetensors")
        names = [
            f"{stem}-{number:05}-of-{len(shards):05}.safetensors"
            for number in range(1, len(shards) + 1)
        ]
    casting = _Casting(params, DTYPES[dtype], progress)
    for name, shard in zip(names, shards):
        header = [(place.name, place.shape) for place in shard]
        safetensors.write_arrays(folder / name, header, DTYPES[dtype], casting.arrays(shard))
    if casting.problems:
        raise huggingface.refuse(
            f"parameters as {dtype}",
            casting.problems,
            "Nothing was written. Values beyond float16's 65,504 need --dtype=bfloat16 or float32.",
        )
    if len(shards) > 1:
        shard_of = {place.name: name for name, shard in zip(names, shards) for place in shard}
        index = {"metadata": {"total_size": casting.total_bytes}, "weight_map": shard_of}
        write_json(folder / (SAFETENSORS + INDEX), index)
    write_json(folder / CONFIG, settings)
    ids = {"bos_token_id": types.EOS_ID, "eos_token_id": types.EOS_ID, "pad_token_id": types.PAD_ID}
    write_json(folder / "generation_config.json", {"_from_model_config": True, **ids})
    return Written(tuple(names), casting.total_bytes, casting.num_rounded)


def check_writable(config: OptConfig, dtype: str) -> None:
    """Raises InputError where Hugging Face's OPT has no such variant."""
    huggingface_config.to_hf(config, dtype)


class _Casting:
    """Parameters in another dtype, one by one, and what was noticed on the way."""

    def __init__(self, params: Mapping[str, Any], dtype: np.dtype, progress: Progress) -> None:
        self.params, self.dtype, self.progress = params, dtype, progress
        self.problems: list[str] = []
        self.num_rounded = 0
        self.total_bytes = 0

    def arrays(self, shard: Sequence[Place]) -> Iterator[np.ndarray]:
        """The arrays of a file in their order."""
        for place in shard:
            values = place.write(huggingface.leaf_of(self.params, place))
            with np.errstate(over="ignore"):  # Told below, by name.
                cast = np.ascontiguousarray(values.astype(self.dtype, copy=False))
            if not np.isfinite(cast).all():
                what = (
                    f"too large for {self.dtype.name}"
                    if np.isfinite(values).all()
                    else "not finite"
                )
                self.problems.append(f"not finite  {place.name} holds values that are {what}")
            if self.dtype != values.dtype:
                self.num_rounded += sum(
                    int((part.astype(np.float32) != whole).sum())
                    for part, whole in zip(np.atleast_2d(cast), np.atleast_2d(values))
                )
            self.total_bytes += cast.nbytes
            yield cast
            self.progress(place.name, values.nbytes)


def _shards(places: Sequence[Place], itemsize: int, max_bytes: int) -> list[list[Place]]:
    """The arrays in files of at most `max_bytes`; an array larger than that has its own."""
    shards: list[list[Place]] = [[]]
    size = 0
    for place in places:
        num_bytes = int(np.prod(place.shape)) * itemsize
        if shards[-1] and size + num_bytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(place)
        size += num_bytes
    return shards
