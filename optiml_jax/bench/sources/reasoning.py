"""Reads the chain-of-thought sets of OPT-IML's Reasoning benchmark.

    gsm8k_train.tsv               question, answer, rationale, parted by tabs, as FLAN ships them
    strategyqa.jsonl              one object a line, in a form of `reasoning_forms`; train
    qasc_validation.json          a list of such objects; evaluated, never trained on
    math/{train,test}.parquet     (or .jsonl) the same, as the libraries of data sets export it

What is made of it:
1. A file is named after its set (`tasks/tables/reasoning.tsv`) and its split; without a split it is
   training data. Sets without files are absent, not an error.
2. A task has one hand-written sentence of instructions; options are part of the question. The
   target is the rationale and then the answer, so no options can be ranked: answers are generated,
   and scored by Rouge-L as in OPT-IML's Table 15. The bare answer is in the record's metadata.
3. A row with a blank question, answer or rationale is dropped and counted.
4. A row's id is the release's own, if it has one, else its number; both after its split.

Source: OPT-IML (arXiv 2212.12017) §2.2, §4.6, A.1, Table 15; google-research/FLAN,
flan/v2/cot_data.
"""

import dataclasses
import functools
import json
import logging
import os
import pathlib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from optiml_jax.bench import catalog, record, taxonomy
from optiml_jax.bench.sources import files, reading, reasoning_forms, rows, tables
from optiml_jax.errors import InputError, unknown

BENCHMARK = "reasoning"
COLUMNS = (
    "task",
    "category",
    "instruction",
    "metric",
    "languages",
    "sources",
    "licence",
)
SUFFIXES = (".tsv", ".json", *rows.SUFFIXES)
ANSWER = "answer"
"""Key in a record's metadata: the answer without its rationale."""

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TaskRow:
    """One set as the table has it.

    Attributes:
        instruction: the task's definition, one sentence.
    """

    task: str
    category: str
    instruction: str
    metric: str
    languages: tuple[str, ...]
    sources: tuple[str, ...]
    licence: str


def read_table(path: pathlib.Path) -> dict[str, TaskRow]:
    """The table of sets by name.

    Raises:
        InputError: a broken table, an unknown category or metric, or no instruction.
    """
    made = {}
    for name, cells in tables.read(path, COLUMNS).items():
        where = f"{path}: task '{name}'"
        if cells["metric"] not in catalog.METRIC_NAMES:
            raise unknown("metric", cells["metric"], catalog.METRIC_NAMES, where)
        if not cells["instruction"]:
            raise InputError(f"{where}: column 'instruction' is blank. Write one sentence.")
        values: dict[str, Any] = {
            **cells,
            "category": taxonomy.canonical_category(cells["category"], where),
            "languages": tables.listed(cells["languages"]),
            "sources": tables.listed(cells["sources"]),
        }
        made[name] = TaskRow(**values)
    return made


def read(
    data_dir: str | os.PathLike[str] | None,
    table: Mapping[str, TaskRow],
    skip_bad: bool = False,
    on_skip: Callable[[str], None] = _logger.warning,
    others: Mapping[str, Mapping[str, rows.Rows]] = types.MappingProxyType({}),
) -> list[catalog.BenchTask]:
    """The sets of a folder that have files, in the order of their names.

    Args:
        data_dir: None where all rows are in `others`.
        others: set -> split -> rows that lie elsewhere, of sets that the folder has not.
        skip_bad: leave out sets that are not as they must be, instead of stopping.
        on_skip: told, in one sentence each, what was left out: sets under `skip_bad`, and rows
            that lack something.

    Raises:
        InputError: no folder, no file of a set, a file of no set, or a bad one (or only bad ones
            under `skip_bad`).
    """
    places: dict[str, Mapping[str, pathlib.Path | rows.Rows]] = {**others}
    bad: list[InputError] = []
    if data_dir is not None:
        places |= set_files(pathlib.Path(data_dir), table, bad.append)

    def read_one(name: str | InputError) -> catalog.BenchTask:
        if isinstance(name, InputError):
            raise name
        task = _Source(name, table[name], places[name]).check()
        if dropped := task.spec.num_dropped:
            on_skip(
                f"{task.spec.path}: dropped {dropped} of {dropped + task.spec.num_examples} rows of"
                f" '{name}', whose question, answer or rationale is blank."
            )
        return task

    whole = f"benchmark '{BENCHMARK}'" if data_dir is None else str(data_dir)
    names = [*bad, *sorted(places)]
    tasks = reading.read_each(names, read_one, f"{whole}: every set", skip_bad, on_skip)
    if not tasks:
        raise InputError(
            f"{whole}: holds no chain-of-thought set. Expected files like"
            f" {next(iter(table))}_train.tsv (question, answer, rationale, parted by tabs) or"
            f" {next(iter(table))}.jsonl."
        )
    return tasks


def set_files(
    folder: pathlib.Path,
    table: Mapping[str, TaskRow],
    on_error: Callable[[InputError], None],
) -> dict[str, dict[str, pathlib.Path]]:
    """The files of each set by split, sets by name, splits in the order of `rows.SPLITS`.

    Args:
        on_error: told of every file or folder of no set, and of two files for one split.

    Raises:
        InputError: the folder cannot be read.
    """
    found: dict[str, dict[str, pathlib.Path]] = {}
    broken: set[str] = set()
    for path in files.listed(folder):
        if not path.is_dir() and path.suffix not in SUFFIXES:
            continue
        name, split = (path.name, "") if path.is_dir() else _name_and_split(path.stem)
        try:
            if name not in table:
                raise unknown("set", name, table, f"{path}: its name")
            own = rows.split_files(path) if path.is_dir() else {split: path}
            if not own:
                raise InputError(f"{path}: holds no train.jsonl, validation.jsonl or test.jsonl.")
            for split, file in own.items():
                if (other := found.get(name, {}).get(split)) is not None:
                    raise InputError(
                        f"{file}: '{other}' has the {split} rows of '{name}' too. Remove one."
                    )
            found.setdefault(name, {}).update(own)
        except InputError as error:
            broken.add(name)
            on_error(error)
    return {
        name: dict(
            sorted(found[name].items(), key=lambda one: rows.SPLITS.index(rows.use_of(one[0])))
        )
        for name in sorted(found)
        if name not in broken
    }


def _name_and_split(stem: str) -> tuple[str, str]:
    """ "gsm8k_train" is ("gsm8k", "train"), and so is "gsm8k"."""
    name, _, split = stem.rpartition("_")
    split = rows.ALIASES.get(split, split)
    return (name, split) if name and split in rows.SPLITS else (stem, "train")


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where one set's text is."""

    name: str
    row: TaskRow
    files: Mapping[str, pathlib.Path | rows.Rows]

    @property
    def path(self) -> str:
        """Its file, or the folder of several."""
        first, *others = self.files.values()
        return str(first.parent if others and isinstance(first, pathlib.Path) else first)

    def digest(self) -> str:
        return rows.digest(self.files.values(), json.dumps(dataclasses.asdict(self.row)))

    def records(self) -> Iterator[record.Record | None]:
        """Each row as a record, None for one that cannot be used."""
        for split, path in self.files.items():
            seen: dict[str, int] = {}
            for number, (solved, where) in enumerate(solved_rows(path)):
                name = solved.id.strip() or str(number)
                if (first := seen.setdefault(name, number)) != number:
                    raise InputError(
                        f"{where}: the id '{name}' is that of row {first + 1} too. Ids must be"
                        " unique within a file: rename or remove one."
                    )
                if not solved.is_usable:
                    yield None
                    continue
                use = rows.use_of(split)
                held_out = {} if use == "train" else {record.HELD_OUT: use}
                yield record.Record(
                    f"{split}-{name}",
                    solved.input,
                    (solved.target,),
                    metadata={ANSWER: solved.answer.strip(), **held_out},
                )

    def check(self) -> catalog.BenchTask:
        """Reads every row once."""
        digest = self.digest()
        num_examples = num_rows = 0
        for one in self.records():
            num_rows += 1
            num_examples += one is not None
        if not num_examples:
            raise InputError(
                f"{self.path}: none of the {num_rows} rows of '{self.name}' has all of question,"
                " answer and rationale. Fill or remove the file."
            )
        row = self.row
        spec = catalog.TaskSpec(
            name=catalog.task_name(BENCHMARK, row.task),
            original_name=row.task,
            benchmark=BENCHMARK,
            category=row.category,
            instruction_kind="task",
            sources=row.sources,
            metric=row.metric,
            input_languages=row.languages,
            output_languages=row.languages,
            licence=row.licence or "Unknown",
            num_examples=num_examples,
            path=self.path,
            num_dropped=num_rows - num_examples,
        )
        return catalog.BenchTask(spec, functools.partial(_load, self, digest), digest)


def _load(source: _Source, digest: str) -> catalog.TaskContent:
    reading.check_unchanged(source.path, digest, source.digest())
    usable = (one for one in source.records() if one is not None)
    records = rows.capped(usable, rows.MAX_TRAIN_EXAMPLES, source.name)
    return catalog.TaskContent(source.row.instruction, (), records)


def solved_rows(path: pathlib.Path | rows.Rows) -> Iterator[tuple[reasoning_forms.Solved, str]]:
    """The rows of a file of any of `SUFFIXES`, each with its place for messages.

    Raises:
        InputError: the file cannot be read, or a row is not what its form has.
    """
    if isinstance(path, pathlib.Path) and path.suffix == ".tsv":
        for where, line in files.lines(path):
            if line.strip():
                cells = line.rstrip("\r\n").split("\t")
                yield reasoning_forms.from_cells(cells, where), where
        return
    if isinstance(path, pathlib.Path) and path.suffix == ".json":
        plain: Iterable[dict[str, Any]] = rows.read_list(path)
    else:
        plain = rows.read(path)
    for number, row in enumerate(plain, start=1):
        where = f"{path}: row {number}"
        yield reasoning_forms.from_row(row, where), where
