"""Benchmarks whose tasks are pairs of texts and a name: CrossFit, ExMix, T5, UnifiedSKG.

Their files have no instructions. OPT-IML wrote one simple sentence per task; a table (`tables`,
read by `read_table`) holds ours, with category, answer set and data set. This module joins the
table with the pairs; `crossfit`, `unifiedskg` and `plain_pairs` (ExMix and T5) say how files become
pairs. Each task is a folder, named as in the table:

    DIR/<task>/...  or  DIR/data/<task>/...

What is made of them:
1. The sentence is the definition of a task of kind "instance": it stands before every instance.
2. Rows of validation and test files are marked `record.HELD_OUT`.
3. Rows that cannot be used are dropped, counted and reported: a blank input, no target but blanks,
   or, where the input lists its options, a target that is none of them.
4. The target of a classification is one of the table's options, else the file is wrong.

Every task of the table is read. From CrossFit, ExMix and T5 OPT-IML keeps only what no other
benchmark has: which tasks these are stands in the table (`TableTask.kept`) and is for mixtures.

Source: OPT-IML (arXiv 2212.12017) §2.1, §2.2, A.1.
"""

import dataclasses
import functools
import logging
import os
import pathlib
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from optiml_jax.bench import catalog, record, taxonomy
from optiml_jax.bench.sources import files, reading, rows, tables
from optiml_jax.errors import InputError, unknown

COLUMNS = (
    "task",
    "category",
    "instruction",
    "kind",
    "options",
    "sources",
    "metric",
    "input_language",
    "output_language",
    "kept",
    "elsewhere",
)
KINDS = ("classification", "choice", "text")
OPTION_SEPARATOR = " | "

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TableTask:
    """One line of a table.

    Attributes:
        kind: "classification" (one of `options`), "choice" (one of the options that the input
            itself lists) or "text".
        kept: whether OPT-IML has the task under this benchmark.
        elsewhere: the other benchmarks that have it.
        more: cells of the columns that only this benchmark has.
    """

    name: str
    category: str
    instruction: str
    kind: str
    options: tuple[str, ...]
    sources: tuple[str, ...]
    metric: str
    input_languages: tuple[str, ...]
    output_languages: tuple[str, ...]
    kept: bool
    elsewhere: tuple[str, ...]
    more: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Part:
    """A file of a task, or its rows that lie elsewhere.

    Attributes:
        split: one of `rows.SPLITS`.
        prefix: of the ids of its rows, unique within the task.
    """

    split: str
    path: pathlib.Path | rows.Rows
    prefix: str

    @property
    def file(self) -> pathlib.Path:
        """The path of rows that are in a file."""
        assert isinstance(self.path, pathlib.Path)
        return self.path


@dataclasses.dataclass(frozen=True)
class Pair:
    """A row as text; `where` is file and row, `id` the release's own, "" where it gives none."""

    part: Part
    number: int
    where: str
    input: str
    references: tuple[str, ...]
    options: tuple[str, ...] = ()
    id: str = ""


@dataclasses.dataclass(frozen=True)
class Format:
    """How a benchmark's files become pairs.

    Attributes:
        expected: a task's files, for messages.
        parts: (folder of a task, its name) -> its files.
        pairs: (task, files) -> rows; it checks their form, not their content.
        more_columns: of the table, behind `COLUMNS`.
    """

    expected: str
    parts: Callable[[pathlib.Path, str], Sequence[Part]]
    pairs: Callable[[TableTask, Sequence[Part]], Iterator[Pair]]
    more_columns: tuple[str, ...] = ()


def read_table(path: pathlib.Path, more_columns: Sequence[str] = ()) -> dict[str, TableTask]:
    """A benchmark's table by task.

    Raises:
        InputError: the form (`tables.read`), an unknown category, kind or metric, a classification
            without options, a blank or repeated instruction, or a task that is left out without
            another benchmark that has it.
    """
    found: dict[str, TableTask] = {}
    by_instruction: dict[str, str] = {}
    for name, row in tables.read(path, (*COLUMNS, *more_columns)).items():
        where = f"{path}: task '{name}'"
        found[name] = _table_task(row, where, more_columns)
        if (other := by_instruction.setdefault(row["instruction"], name)) != name:
            raise InputError(f"{where}: has the instruction of '{other}'. Say how they differ.")
    return found


def _table_task(row: Mapping[str, str], where: str, more_columns: Sequence[str]) -> TableTask:
    known = {"kind": KINDS, "metric": catalog.METRIC_NAMES, "kept": ("yes", "no")}
    for column, values in known.items():
        if row[column] not in values:
            raise unknown(column, row[column], values, where)
    for column in ("instruction", "sources", "input_language", "output_language", *more_columns):
        if not row[column]:
            raise InputError(f"{where}: column '{column}' is blank. Fill it.")
    options = tuple(row["options"].split(OPTION_SEPARATOR)) if row["options"] else ()
    is_closed = row["kind"] == "classification"
    if is_closed != (len(options) > 1) or len(set(options)) < len(options):
        raise InputError(
            f"{where}: a {row['kind']} task has the options {list(options)}; a classification needs"
            " two or more different ones, and nothing else has any."
        )
    elsewhere = tables.listed(row["elsewhere"])
    if row["kept"] == "no" and not elsewhere:
        raise InputError(f"{where}: not kept, but column 'elsewhere' names no other benchmark.")
    return TableTask(
        name=row["task"],
        category=taxonomy.canonical_category(row["category"], where),
        instruction=row["instruction"],
        kind=row["kind"],
        options=options,
        sources=tables.listed(row["sources"]),
        metric=row["metric"],
        input_languages=tables.listed(row["input_language"]),
        output_languages=tables.listed(row["output_language"]),
        kept=row["kept"] == "yes",
        elsewhere=elsewhere,
        more={column: row[column] for column in more_columns},
    )


def read(
    data_dir: str | os.PathLike[str] | None,
    benchmark: str,
    table: pathlib.Path,
    form: Format,
    skip_bad: bool = False,
    on_skip: Callable[[str], None] = _logger.warning,
    others: Mapping[str, Mapping[str, rows.Rows]] = types.MappingProxyType({}),
) -> list[catalog.BenchTask]:
    """All tasks of a folder, in the order of their names.

    Args:
        data_dir: None where all rows are in `others`.
        skip_bad: leave out tasks that are bad or not in the table, instead of stopping.
        on_skip: told, in one sentence each, what was left out.
        others: task -> split -> rows that lie elsewhere, of tasks that the folder has not.

    Raises:
        InputError: no folder, a folder that is no task of the benchmark, or a bad file.
    """
    known = read_table(table, form.more_columns)
    folders = {} if data_dir is None else task_folders(data_dir, form)

    def read_one(name: str) -> catalog.BenchTask:
        where, parts = _parts(name, folders.get(name), others, form)
        if name not in known:
            raise unknown(f"{benchmark} task", name, known, f"{where}: its name")
        return _bench_task(where, benchmark, known[name], form, parts(), on_skip)

    whole = f"benchmark '{benchmark}'" if data_dir is None else str(data_dir)
    names = sorted({**others, **folders})
    made = reading.read_each(names, read_one, f"{whole}: every task", skip_bad, on_skip)
    if not made:
        raise InputError(
            f"benchmark '{benchmark}': there are no rows. Give --data_dir=DIR with one folder a"
            f" task ({form.expected})."
        )
    return made


def _parts(
    name: str,
    folder: pathlib.Path | None,
    others: Mapping[str, Mapping[str, rows.Rows]],
    form: Format,
) -> tuple[str, Callable[[], Sequence[Part]]]:
    """Where a task is, and the way to its files."""
    if folder is not None:
        return str(folder), lambda: form.parts(folder, name)
    own = others[name]
    parts = [Part(split, own[split], split) for split in rows.SPLITS if split in own]
    return ", ".join(map(str, own.values())), lambda: parts


def elsewhere(
    tasks: Sequence[catalog.BenchTask], table: pathlib.Path, form: Format
) -> dict[str, str]:
    """Name -> reason, of those tasks that OPT-IML has from another benchmark already."""
    known = read_table(table, form.more_columns)
    return {
        task.spec.name: f"also in {', '.join(known[task.spec.original_name].elsewhere)}, and kept"
        " there (OPT-IML §2.1)"
        for task in tasks
        if not known[task.spec.original_name].kept
    }


def task_folders(data_dir: str | os.PathLike[str], form: Format) -> dict[str, pathlib.Path]:
    """The folders of tasks by name.

    Raises:
        InputError: there is none.
    """
    folder = pathlib.Path(data_dir)
    expected = f"Expected one folder a task with {form.expected}."
    files.check_folder(folder, f"data_dir '{folder}'", expected)
    inner = folder / "data"
    if inner.is_dir():
        twice = sorted({p.name for p in _folders(folder)} & {p.name for p in _folders(inner)})
        if twice:
            raise InputError(
                f"data_dir '{folder}': the task '{twice[0]}' lies there and in data/. Remove one."
            )
        folder = inner
    found = _folders(folder)
    if not found:
        raise InputError(f"data_dir '{folder}' has no folder of a task. {expected}")
    return {path.name: path for path in found}


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    # Tools leave __pycache__ beside the real ones.
    return [p for p in files.listed(folder) if p.is_dir() and not p.name.startswith("__")]


def _bench_task(
    folder: str,
    benchmark: str,
    task: TableTask,
    form: Format,
    parts: Sequence[Part],
    on_skip: Callable[[str], None],
) -> catalog.BenchTask:
    if not parts:
        raise InputError(f"{folder}: no file of the task. Expected {form.expected}.")
    num_examples, dropped = 0, []
    for found in _records(task, form, parts):
        if isinstance(found, record.Record):
            num_examples += 1
        else:
            dropped.append(found)
    if not num_examples:
        found = f" that can be used ({len(dropped)} in all; {dropped[0]})" if dropped else ""
        raise InputError(f"{folder}: no row{found}. Correct or remove the folder.")
    if dropped:
        on_skip(
            f"{folder}: dropped {len(dropped)} of {len(dropped) + num_examples} rows, which cannot"
            f" be used; the first is {dropped[0]}."
        )
    spec = catalog.TaskSpec(
        name=catalog.task_name(benchmark, task.name),
        original_name=task.name,
        benchmark=benchmark,
        category=task.category,
        instruction_kind="instance",
        sources=task.sources,
        metric=task.metric,
        input_languages=task.input_languages,
        output_languages=task.output_languages,
        licence="Unknown",
        num_examples=num_examples,
        path=folder,
        num_dropped=len(dropped),
    )
    digest = _digest(task, parts)
    load = functools.partial(_load, folder, task, form, parts, digest)
    return catalog.BenchTask(spec, load, digest)


def _digest(task: TableTask, parts: Sequence[Part]) -> str:
    shown = (task.instruction, task.kind, *task.options, *task.more.values())
    return rows.digest([part.path for part in parts], *shown)


def _load(
    folder: str, task: TableTask, form: Format, parts: Sequence[Part], digest: str
) -> catalog.TaskContent:
    reading.check_unchanged(folder, digest, _digest(task, parts))
    found = _records(task, form, parts)
    usable = (one for one in found if isinstance(one, record.Record))
    usable = rows.capped(usable, rows.MAX_TRAIN_EXAMPLES, task.name)
    return catalog.TaskContent(task.instruction, (), usable)


def _records(task: TableTask, form: Format, parts: Sequence[Part]) -> Iterator[record.Record | str]:
    """Usable rows as records; of the others, the place and what is wrong."""
    place_of: dict[str, str] = {}
    for pair in form.pairs(task, parts):
        references = tuple(text for text in pair.references if text.strip())
        if not pair.input.strip() or not references:
            yield f"{pair.where}, with a blank {'target' if pair.input.strip() else 'input'}"
            continue
        if task.kind == "choice" and not pair.options:
            yield f"{pair.where}, where {references[0]!r:.40} is none of the options in the input"
            continue
        if task.options:
            for text in references:
                if text.strip() not in task.options:
                    raise unknown("target", text.strip(), task.options, f"{pair.where}: the row")
        # Releases number each split anew: an id is unique within its file at best.
        id_ = f"{pair.part.prefix}-{pair.id or pair.number}"
        if (other := place_of.setdefault(id_, pair.where)) != pair.where:
            raise InputError(
                f"{pair.where}: the id is '{id_}', the id of {other} too. Ids must be unique within"
                " a task: rename or remove one."
            )
        yield record.Record(
            id=id_,
            input=pair.input,
            references=references,
            options=task.options or pair.options,
            metadata={} if pair.part.split == "train" else {record.HELD_OUT: pair.part.split},
        )


def split_parts(folder: pathlib.Path, suffixes: Sequence[str]) -> list[Part]:
    """The files of a task that has one file a split, named after it (`rows.split_files`)."""
    found = rows.split_files(folder, suffixes)
    return [Part(rows.use_of(split), path, split) for split, path in found.items()]


def tsv_lines(path: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """The lines of a tab-separated file that are not blank: place and cells, unquoted.

    Raises:
        InputError: the file cannot be read or is empty, or a line is not UTF-8 or has no tab.
    """
    is_empty = True
    for where, line in files.lines(path):
        cells = line.rstrip("\r\n").split("\t")
        if len(cells) > 1:
            is_empty = False
            yield where, cells
        elif line.strip():
            raise InputError(
                f"{where}: the line {line.strip():.40} has no tab, expected input TAB target. A"
                " line end within a text breaks its row: put a blank there."
            )
    if is_empty:
        raise _empty(path)


def object_rows(path: pathlib.Path | rows.Rows) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a JSONL or Parquet file: place (they count from 1) and fields.

    Raises:
        InputError: see `rows.read`; or the file is empty.
    """
    number = 0
    for number, row in enumerate(rows.read(path), start=1):
        yield f"{path}: row {number}", row
    if not number:
        raise _empty(path)


def _empty(path: pathlib.Path | rows.Rows) -> InputError:
    return InputError(f"{path}: the file is empty, expected one row a line. Fetch it again.")


def text_field(row: Mapping[str, Any], name: str, where: str) -> str:
    """A row's field that must be a text.

    Raises:
        InputError: it is missing or something else.
    """
    if name not in row:
        found = ", ".join(sorted(map(str, row))[:8]) or "no field at all"
        raise InputError(f"{where}: field '{name}' is missing (it has: {found}). Add it.")
    if not isinstance(row[name], str):
        raise InputError(f"{where}: field '{name}' is {row[name]!r:.60}, expected a text.")
    return row[name]


def row_id(row: Mapping[str, Any], where: str) -> str:
    """The row's own `id`, "" if it has none.

    Raises:
        InputError: it is blank, or neither text nor a number.
    """
    value = row.get("id")
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise InputError(f"{where}: field 'id' is {value!r:.60}, expected a text.")
    return str(value)
