"""Rows of a data set that TensorFlow Datasets has, read through `seqio.TfdsDataSource`.

    opened = tfds_rows.open_rows("glue/sst2", "tfds")
    for row in opened.read("validation"): ...   # {"sentence": "...", "label": 1, "idx": 0}

Readers of benchmarks take these where their own folder has no rows (`bench.sources.rows.Rows`).
Values come as Python's: text for bytes, lists for arrays; a class stays its number, as Hugging
Face's releases have it. Nothing is downloaded unless it is asked for.

TensorFlow and SeqIO are imported when a data set is opened, not with this module.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from optiml_jax.bench.sources import rows
from optiml_jax.errors import InputError, unknown


@dataclasses.dataclass(frozen=True)
class TfdsRows:
    """A prepared data set, as readers see rows.

    Attributes:
        name: `builder/config:version`.
        data_dir: TFDS's folder.
        names: our split -> TFDS's.
        files: of each split, for the digest.
        counts: rows of each split.
        metadata: what the data set keeps beside its rows.
    """

    name: str
    data_dir: str
    names: Mapping[str, str]
    files: Mapping[str, tuple[str, ...]]
    counts: Mapping[str, int]
    metadata: Mapping[str, Any]

    @functools.cached_property
    def _source(self) -> Any:
        import seqio

        return seqio.TfdsDataSource(
            self.name, self.data_dir, splits=dict(self.names), read_only=True
        )

    @property
    def where(self) -> str:
        """For messages."""
        return f"TFDS {self.name} in {self.data_dir}"

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that are there."""
        return tuple(self.names)

    def read(self, split: str) -> Iterator[dict[str, Any]]:
        """The rows of a split, in the files' order.

        Raises:
            InputError: a file is damaged, or a text is not UTF-8.
        """
        try:
            dataset: Any = self._source.get_dataset(split=split, shuffle=False)
            for number, row in enumerate(dataset.as_numpy_iterator()):
                yield _plain(row, self.place(split, number))
        except InputError:
            raise
        except Exception as error:
            # TensorFlow's errors have no base class but this one.
            first = (str(error).strip().splitlines() or [""])[0]
            raise InputError(
                f"{self.where}, split '{split}': cannot be read: {type(error).__name__}:"
                f" {first:.200}. Build it again: {command(self.name, self.data_dir)}"
            ) from error

    def place(self, split: str, number: int) -> str:
        """Where the row of this number is, for messages."""
        return f"{self.where}, split '{self.names[split]}', row {number + 1}"

    def digest(self, splits: tuple[str, ...] | None = None) -> str:
        """Hash of the files of these splits, all by default."""
        wanted = splits or self.splits
        paths = [path for split in wanted for path in self.files[split]]
        try:
            return rows.digest(paths, *wanted)
        except InputError as error:
            raise InputError(f"{error} Or build it: {command(self.name, self.data_dir)}") from error


def open_rows(
    name: str,
    data_dir: str | os.PathLike[str],
    splits: Mapping[str, str] | None = None,
    download: bool = False,
    all_splits: bool = False,
) -> TfdsRows:
    """A data set that lies prepared in TFDS's folder.

    Args:
        name: `builder`, `builder/config`, with or without `:version`.
        splits: our split -> TFDS's; those of the same names when None.
        download: get and prepare it first where it is missing.
        all_splits: every split under its own name, whatever it is called.

    Raises:
        InputError: TFDS has no such data set or split, or it is not prepared (the message has the
            command that does it).
    """
    import tensorflow_datasets as tfds

    folder = os.fspath(data_dir)
    builder = _builder(tfds, name, folder, download)
    found = {split: str(split) for split in builder.info.splits}
    if splits is None:
        splits = {
            split: split for split in (found if all_splits else rows.SPLITS) if split in found
        }
    for ours, theirs in splits.items():
        if theirs not in found:
            raise unknown("split", theirs, found, f"TFDS {name} in {folder}, for '{ours}'")
    return TfdsRows(
        name=f"{builder.info.full_name.rpartition('/')[0]}:{builder.version}",
        data_dir=folder,
        names=dict(splits),
        files={
            ours: tuple(os.fspath(path) for path in builder.info.splits[theirs].filepaths)
            for ours, theirs in splits.items()
        },
        counts={ours: builder.info.splits[theirs].num_examples for ours, theirs in splits.items()},
        metadata=dict(builder.info.metadata or {}),
    )


def is_prepared(name: str, data_dir: str | os.PathLike[str]) -> bool:
    """True if the folder of this data set holds a version of it; imports nothing."""
    folder = pathlib.Path(data_dir, name.partition(":")[0])
    return any(folder.glob("*.*.*/dataset_info.json"))


OWN = {"super_natural_instructions": " --manual_dir=TASK_FILES"}
"""Data sets that `tasks.tfds_builders` adds to TFDS's own, and what they are built from."""


def command(name: str, data_dir: str | os.PathLike[str]) -> str:
    """What gets a data set, for messages."""
    plain = name.partition(":")[0]
    more = OWN.get(plain, "")
    return f"`python -m optiml_jax.tasks.tfds_builders {plain}{more} --data_dir={data_dir}`"


def missing(what: str, name: str, data_dir: str | os.PathLike[str]) -> InputError:
    """The message for a data set that is not prepared."""
    return InputError(
        f"{what}: TFDS's '{name}' is not prepared in '{data_dir}'. Get it with"
        f" {command(name, data_dir)}{'' if name in OWN else ' (it downloads)'}, or name the folder"
        " that has it with --tfds_data_dir."
    )


def _builder(tfds: Any, name: str, folder: str, download: bool) -> Any:
    if name in OWN and not is_prepared(name, folder):
        raise missing(f"data set '{name}'", name, folder)
    # A prepared folder says all that is needed; the code that made it may be at hand or not.
    for try_again in (download, False):
        try:
            builder = tfds.builder(name, data_dir=folder, try_gcs=False)
        except (tfds.core.DatasetNotFoundError, ValueError) as error:
            builders = tfds.list_builders(with_community_datasets=False)
            if name.partition("/")[0].partition(":")[0] not in builders:
                known = unknown("data set", name, builders, "TFDS")
                raise InputError(f"{known} Nor is it prepared in '{folder}'.") from error
            raise InputError(f"TFDS '{name}': {_first_line(error)}") from error
        except Exception as error:
            # Whatever reads dataset_info.json: protobuf, JSON, the file system.
            raise InputError(
                f"TFDS '{name}' in '{folder}' cannot be opened, its files may be damaged:"
                f" {_first_line(error)} Remove its folder and build it again:"
                f" {command(name, folder)}"
            ) from error
        if builder.info.splits:
            return builder
        if not try_again:
            break
        try:
            builder.download_and_prepare()
        except Exception as error:
            raise InputError(
                f"TFDS '{name}' cannot be made in '{folder}': {_first_line(error)} Without a"
                " network, give a folder that has it as --tfds_data_dir."
            ) from error
    raise missing("data", name, folder)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{lines[0]:.300}"


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: a text is not UTF-8 ({error.reason}).") from error
    if isinstance(value, Mapping):
        return {name: _plain(one, where) for name, one in value.items()}
    if hasattr(value, "to_list"):  # a ragged tensor
        return _plain(value.to_list(), where)
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), where)
    if isinstance(value, list | tuple):
        return [_plain(one, where) for one in value]
    return value
