"""Which tasks TensorFlow Datasets has the data of, and their rows from there.

`tables/tfds.tsv` names builder and config of each task, TFDS's splits where they are called
otherwise or some are of no use, and how a row becomes the fields that the benchmark's templates
name (`bench.sources.row_fields`). A task that is not in the table is local: its rows come from
files alone.

Neighbours: `data.tfds_rows` opens the data sets, `tfds_builders` builds them.
"""

import dataclasses
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from optiml_jax import errors
from optiml_jax.bench import catalog
from optiml_jax.bench.sources import row_fields, rows, tables
from optiml_jax.data import tfds_rows

from .declaration import Request

TABLE = pathlib.Path(__file__).parent / "tables" / "tfds.tsv"
COLUMNS = ("benchmark", "task", "builder", "splits", "fields", "notes")


@dataclasses.dataclass(frozen=True)
class TfdsTask:
    """A row of the table.

    Attributes:
        builder: `builder` or `builder/config`.
        splits: ours -> TFDS's; None for those of the same names.
        fields: of the benchmark, made of TFDS's.
    """

    task: str
    builder: str
    splits: Mapping[str, str] | None
    fields: row_fields.Fields


@dataclasses.dataclass(frozen=True)
class MappedRows(rows.Rows):
    """One split of a prepared data set, with the benchmark's fields."""

    opened: tfds_rows.TfdsRows
    split: str
    fields: row_fields.Fields

    def __str__(self) -> str:
        return f"{self.opened.where}, split '{self.split}'"

    def read(self) -> Iterator[dict[str, Any]]:
        """See `rows.Rows`."""
        for number, row in enumerate(self.opened.read(self.split)):
            yield self.fields.apply(row, self.opened.place(self.split, number))

    def count(self) -> int:
        """See `rows.Rows`."""
        return self.opened.counts[self.split]

    def digest(self) -> str:
        """See `rows.Rows`."""
        return rows.digest([], self.opened.digest((self.split,)), repr(self.fields))


def read_table(benchmark: str, path: pathlib.Path = TABLE) -> dict[str, TfdsTask]:
    """The tasks of a benchmark that TFDS has, by name.

    Raises:
        InputError: the table has other columns, or a broken cell.
    """
    found: dict[str, TfdsTask] = {}
    for where, row in tables.read_rows(path, COLUMNS):
        if row["benchmark"] != benchmark:
            continue
        if row["task"] in found:
            raise errors.InputError(f"{where}: '{row['task']}' is there twice. Remove one.")
        found[row["task"]] = TfdsTask(
            row["task"],
            row["builder"],
            _splits(row["splits"], where),
            row_fields.parse(row["fields"], where),
        )
    return found


def rows_of(
    benchmark: str, request: Request, present: Collection[str]
) -> dict[str, dict[str, rows.Rows]]:
    """Task -> split -> rows, of the wanted tasks that TFDS's folder has prepared.

    Without `tfds_download`, tasks that are not prepared are left out and reported, with the command
    that gets them; one that is asked for by its very name is an error.

    Args:
        present: tasks that have files of their own, which go before TFDS's.

    Raises:
        InputError: that, or a data set that cannot be opened or downloaded.
    """
    if request.tfds_data_dir is None:
        return {}
    found: dict[str, dict[str, rows.Rows]] = {}
    missing: list[TfdsTask] = []
    for name, task in read_table(benchmark).items():
        names = (name, catalog.task_name(benchmark, name))
        if name in present or not request.wants(*names):
            continue
        is_there = tfds_rows.is_prepared(task.builder, request.tfds_data_dir)
        if not is_there and not request.tfds_download:
            if set(names) & set(request.only):
                raise tfds_rows.missing(f"task '{name}'", task.builder, request.tfds_data_dir)
            missing.append(task)
            continue
        opened = tfds_rows.open_rows(
            task.builder, request.tfds_data_dir, task.splits, request.tfds_download
        )
        found[name] = {split: MappedRows(opened, split, task.fields) for split in opened.splits}
    if missing:
        command = tfds_rows.command(missing[0].builder, request.tfds_data_dir)
        request.on_skip(
            f"{request.tfds_data_dir}: {len(missing)} tasks of {benchmark} that TFDS has are not"
            f" prepared there (first: '{missing[0].task}', by {command}); --tfds_download gets all."
        )
    return found


def _splits(cell: str, where: str) -> dict[str, str] | None:
    if not cell:
        return None
    found = {}
    for part in cell.split(";"):
        ours, equals, theirs = (text.strip() for text in part.partition("="))
        if not equals or ours not in rows.SPLITS or not theirs:
            raise errors.InputError(
                f"{where}: column 'splits' has '{part.strip()}', expected OURS=THEIRS with one of"
                f" {', '.join(rows.SPLITS)} on the left."
            )
        found[ours] = theirs
    return found
