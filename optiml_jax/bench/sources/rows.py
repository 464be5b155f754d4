"""Reads data sets that lie as plain rows: JSONL or Parquet, one file a split.

    rows/super_glue/copa/train.jsonl        {"premise": "...", "choice1": "...", "label": 0}
    rows/super_glue/copa/validation.parquet

Benchmarks that are templates (PromptSource, FLAN) or plain pairs (ExMix, T5) have no format for
the data itself; these two are what the libraries of data sets export. Rows stream: a file is never
held in memory. `pyarrow` is imported only where a Parquet file is read.

Rows may also lie elsewhere, in a data set of another library: `Rows` stands for one split of such,
wherever a file could stand.

A split may lie in several files, each with its part behind the name: ANLI's `test_r1.jsonl`, or
`train-00000-of-00002.parquet`. Each counts as a split of its own of the same use (`use_of`).

Left out: compressed files.
"""

import abc
import hashlib
import heapq
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from optiml_jax.bench import record
from optiml_jax.bench.sources import files
from optiml_jax.errors import InputError, unknown

SPLITS = ("train", "validation", "test")
SUFFIXES = (".jsonl", ".parquet")
ALIASES = {"dev": "validation"}
_NAME = re.compile(r"(train|validation|dev|test)([_-].+)?")

MAX_TRAIN_EXAMPLES = 100_000
"""Training rows kept per task (OPT-IML §2.1)."""

_CHUNK_BYTES = 1 << 20
_ONE_A_LINE = "Each line must be one object; correct the line or fetch the file again."


class Rows(abc.ABC):
    """The rows of one split that are in no file of the folder; `str` says where, for messages."""

    @abc.abstractmethod
    def read(self) -> Iterator[dict[str, Any]]:
        """The rows, one by one, in an order that stays."""

    @abc.abstractmethod
    def count(self) -> int:
        """How many there are."""

    @abc.abstractmethod
    def digest(self) -> str:
        """Hash of all that the rows depend on."""


Place = str | os.PathLike[str] | Rows
"""Where the rows of a split are."""


def split_name(stem: str, where: str) -> str:
    """The split that a file of this name holds.

    Example:
        "dev_r1" is "validation_r1".

    Raises:
        InputError: the name is of no split.
    """
    match = _NAME.fullmatch(stem)
    if match is None:
        raise unknown("split", stem, (*SPLITS, *ALIASES), f"{where}: its name")
    return ALIASES.get(match[1], match[1]) + (match[2] or "")


def use_of(split: str) -> str:
    """One of `SPLITS`: what a split, or a part of one, is for."""
    return split_name(split, split).partition("_")[0].partition("-")[0]


def split_files(
    folder: str | os.PathLike[str], suffixes: Sequence[str] = SUFFIXES
) -> dict[str, pathlib.Path]:
    """The row files of a folder by split, in the order of `SPLITS`; {} if there is none.

    Files with other endings than `suffixes` are not looked at.

    Raises:
        InputError: the folder cannot be read, a row file has the name of no split, or two files
            have the rows of one.
    """
    found: dict[str, pathlib.Path] = {}
    for path in files.listed(folder):
        if path.suffix not in suffixes:
            continue
        split = split_name(path.stem, str(path))
        if split in found:
            raise InputError(
                f"{folder}: '{found[split].name}' and '{path.name}' both hold the split '{split}'."
                " Remove one."
            )
        found[split] = path
    order = sorted(found, key=lambda split: (SPLITS.index(use_of(split)), split))
    return {split: found[split] for split in order}


def read(path: Place) -> Iterator[dict[str, Any]]:
    """The rows of a `.jsonl` or `.parquet` file, or of `Rows`, one by one.

    Blank lines of a JSONL file are no rows.

    Raises:
        InputError: the file cannot be read, or a line is not UTF-8, not JSON or not an object.
    """
    if isinstance(path, Rows):
        return path.read()
    return _parquet(path) if pathlib.Path(path).suffix == ".parquet" else _jsonl(path)


def read_list(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a `.json` file: a list of objects, which is held in memory.

    Raises:
        InputError: see `files.read_json`, or the file holds something else.
    """
    found = files.read_json(path, "A file of one object a line is named .jsonl.")
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise InputError(f"{path}: holds {found!r:.60}, expected a list of objects (rows).")
    return found


def records(splits: Mapping[str, Place]) -> Iterator[record.Record]:
    """Each row of each split as the fields of a record.

    Args:
        splits: the files by split, as `split_files` gives them.

    Example:
        The third row of `validation.jsonl` has the id "validation-2" and, like all rows that are
        not of the training split, the key `record.HELD_OUT` in its metadata.
    """
    for split, path in splits.items():
        use = use_of(split)
        metadata = {} if use == "train" else {record.HELD_OUT: use}
        for number, row in enumerate(read(path)):
            yield record.Record(f"{split}-{number}", metadata=metadata, fields=row)


def capped(
    records: Iterable[record.Record], max_train: int, task: str
) -> tuple[record.Record, ...]:
    """All records that are evaluated and at most `max_train` others, in the order given.

    Those stay whose (task, id) has the lowest hashes; no more than what stays is held in memory.
    """
    evaluated: list[tuple[int, record.Record]] = []
    # The top is the highest hash, as the sign is turned; the place breaks ties.
    train: list[tuple[int, int, record.Record]] = []
    for place, one in enumerate(records):
        if record.HELD_OUT in one.metadata:
            evaluated.append((place, one))
            continue
        text = "\0".join((task, one.id, "train example"))
        key = -int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
        if len(train) < max_train:
            heapq.heappush(train, (key, place, one))
        else:
            heapq.heappushpop(train, (key, place, one))
    kept = [*evaluated, *((place, one) for _, place, one in train)]
    return tuple(one for _, one in sorted(kept, key=lambda pair: pair[0]))


def count(path: Place) -> int:
    """Number of rows of a file, without parsing them."""
    if isinstance(path, Rows):
        return path.count()
    if pathlib.Path(path).suffix == ".parquet":
        return _open_parquet(path).metadata.num_rows
    try:
        with open(path, "rb") as file:
            return sum(1 for line in file if line.strip())
    except OSError as error:
        raise files.unreadable(path, error) from error


def digest(paths: Iterable[Place], *more: str) -> str:
    """Hexadecimal sha256 of the files' names and bytes, and of further text."""
    total = hashlib.sha256()

    def add(part: bytes) -> None:
        # With its length first, so that no two lists of parts read the same.
        total.update(len(part).to_bytes(8, "big") + part)

    for path in paths:
        if isinstance(path, Rows):
            add(path.digest().encode())
            continue
        content = hashlib.sha256()
        try:
            with open(path, "rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    content.update(chunk)
        except OSError as error:
            raise files.unreadable(path, error) from error
        add(pathlib.Path(path).name.encode())
        add(content.digest())
    for text in more:
        add(text.encode())
    return total.hexdigest()


def _jsonl(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    for where, line in files.lines(path):
        if not line.strip():
            continue
        row = files.parse_json(line, where, _ONE_A_LINE, is_line=True)
        if not isinstance(row, dict):
            raise InputError(
                f"{where}: the line is {line.strip():.60}, expected an object (a row)."
            )
        yield row


def _parquet(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    file = _open_parquet(path)
    import pyarrow

    try:
        for batch in file.iter_batches(batch_size=1024):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _bad_parquet(path, error) from error


def _open_parquet(path: str | os.PathLike[str]) -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            f"{path}: reading Parquet needs pyarrow, which is not installed. Run `pip install"
            " pyarrow`, or save the rows as JSONL."
        ) from error
    try:
        return parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise _bad_parquet(path, error) from error
    except OSError as error:
        raise (files.unreadable if error.strerror else _bad_parquet)(path, error) from error


def _bad_parquet(path: str | os.PathLike[str], error: Exception) -> InputError:
    return InputError(f"{path}: not Parquet that can be read: {error}. Fetch the file again.")
