"""The catalog of OPT-IML Bench as one table: a row for each task of the eight benchmarks.

The table is data (`tasks/tables/catalog.tsv`), known without any benchmark's files: what a task is
called, which category and data sets it has, and what the named splits make of it. A `Row` becomes
the `TaskSpec` that a reader would give, save for the counts, which need the files.

Neighbours: `optiml_jax.tasks.build_catalog` makes the table from the published lists;
`main.inspect_catalog` shows it; docs/taxonomy.md explains its categories and counts.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from optiml_jax.bench import catalog, splits, taxonomy
from optiml_jax.bench.sources import tables
from optiml_jax.errors import InputError, unknown

BENCHMARKS = (
    "super_natural_instructions",
    "promptsource",
    "crossfit",
    "flan",
    "exmix",
    "t5",
    "unifiedskg",
    "reasoning",
)
"""In the order of OPT-IML's Table 1."""

TABLED = ("opt_iml", "opt_iml_max")
"""Splits that the table has roles and levels of, the default first."""

SPLITS = tuple(name for name in splits.SPLITS if name != "mini")
"""Splits that place tasks of the table, the default first."""

ANSWERS = ("options", "generation")
_LISTS = ("sources", "languages")
_FLAGS = ("opt_iml", "opt_iml_max")


@dataclasses.dataclass(frozen=True)
class Row:
    """One task.

    Attributes:
        name: `benchmark__task`.
        category: under which the `opt_iml` split reports the task.
        sources: data sets, by one name in all benchmarks.
        answer: "options" where it is one of a closed set, else "generation".
        languages: of inputs and outputs, those of the inputs first.
        licence: of the data, "" where it is not known.
        opt_iml_role, opt_iml_level: under the split `opt_iml`; the level is "" when excluded.
        opt_iml_reason: why, for people; "" for a training task.
        official_role, xlingual_role: by the lists of `super_natural_instructions_official` and
            `super_natural_instructions_xlingual`, "" for the tasks of other benchmarks.
        opt_iml: whether OPT-IML trains on it.
        opt_iml_max: whether OPT-IML-Max does: all but the dropped ones.
        tfds: builder and config of TensorFlow Datasets that has the data, else "local".
        duplicate_of: the task that asks the same of the same data under another name, "" if none.
        dropped_because: why no mixture has it, "" if it is kept.
    """

    name: str
    benchmark: str
    original_name: str
    category: str
    sources: tuple[str, ...]
    instruction_kind: str
    metric: str
    answer: str
    languages: tuple[str, ...]
    licence: str
    opt_iml_role: str = ""
    opt_iml_level: str = ""
    opt_iml_reason: str = ""
    official_role: str = ""
    xlingual_role: str = ""
    opt_iml: bool = False
    opt_iml_max: bool = True
    tfds: str = "local"
    duplicate_of: str = ""
    dropped_because: str = ""

    def to_spec(self, category: str = "") -> catalog.TaskSpec:
        """The task as a reader describes it, with no instances and no file.

        Args:
            category: instead of the row's own.
        """
        return catalog.TaskSpec(
            name=self.name,
            original_name=self.original_name,
            benchmark=self.benchmark,
            category=category or self.category,
            instruction_kind=self.instruction_kind,
            sources=self.sources,
            metric=self.metric,
            input_languages=self.languages,
            output_languages=self.languages,
            licence=self.licence or "Unknown",
            num_examples=0,
            path="",
        )

    def role_and_level(self, split: str) -> tuple[str, str]:
        """What a split of `TABLED` makes of the task.

        Raises:
            InputError: unknown split.
        """
        if split not in TABLED:
            raise unknown("split", split, TABLED)
        if split == "opt_iml":
            return self.opt_iml_role, self.opt_iml_level
        return ("train", "fully_supervised") if self.opt_iml_max else ("excluded", "")


def assign(rows: Iterable[Row], split: splits.Split) -> dict[str, splits.Assignment]:
    """Role, level and reason of every task of the table; under `TABLED` splits the reasons of
    training tasks may be blank.

    Raises:
        InputError: see `Split.assign`.
    """
    rows = list(rows)
    if split.track:
        # Unchecked: of its test tasks, Winobias has a category here that the lists train on.
        return split.roles([row.to_spec() for row in rows], official_lists(rows, split.track))
    if split.name not in TABLED or split.rules:
        elsewhere = {row.name: row.dropped_because for row in rows if row.dropped_because}
        return splits.assign([row.to_spec() for row in rows], split, elsewhere=elsewhere)
    assigned = {}
    for row in rows:
        role, level = row.role_and_level(split.name)
        reason = row.dropped_because or (row.opt_iml_reason if split.name == "opt_iml" else "")
        assigned[row.name] = splits.Assignment(role, level, reason, row.category)
    return assigned


def official_lists(rows: Iterable[Row], track: str) -> splits.OfficialLists:
    """Super-NaturalInstructions' own lists of a track, of the tasks that the table has."""
    tasks: dict[str, list[str]] = {role: [] for role in ("train", "test", "excluded", "")}
    for row in rows:
        role = {"default": row.official_role, "xlingual": row.xlingual_role}[track]
        tasks[role].append(row.original_name)
    train, test, excluded = (tuple(tasks[role]) for role in ("train", "test", "excluded"))
    return splits.OfficialLists("the catalog", train, test, excluded)


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))


def write(rows: Iterable[Row]) -> str:
    """The table's text, sorted by name.

    Example:
        A row ("flan__rte", ..., sources ("rte",), opt_iml False) ends its line with "0\t1\t\t".
    """
    lines = ["\t".join(COLUMNS)]
    for row in sorted(rows, key=lambda row: row.name):
        lines.append("\t".join(_cell(getattr(row, name)) for name in COLUMNS))
    return "\n".join(lines) + "\n"


def read(path: pathlib.Path) -> dict[str, Row]:
    """The rows by name, in the table's order.

    Raises:
        InputError: the file is missing or has other columns, a row is broken or there twice, or a
            cell holds a name that is not known.
    """
    rows = {}
    for name, cells in tables.read(path, COLUMNS).items():
        where = f"{path}: task '{name}'"
        values: dict[str, Any] = {
            column: tables.listed(cell)
            if column in _LISTS
            else _flag(column, cell, where)
            if column in _FLAGS
            else cell
            for column, cell in cells.items()
        }
        _check(cells, where)
        rows[name] = Row(**values)
    return rows


def _check(cells: Mapping[str, str], where: str) -> None:
    known = {
        "benchmark": BENCHMARKS,
        "instruction_kind": catalog.INSTRUCTION_KINDS,
        "metric": catalog.METRIC_NAMES,
        "answer": ANSWERS,
        "opt_iml_role": splits.ROLES,
        "opt_iml_level": ("", *splits.LEVELS),
        "official_role": ("", *splits.ROLES),
        "xlingual_role": ("", *splits.ROLES),
    }
    for column, names in known.items():
        if cells[column] not in names:
            raise unknown(column, cells[column], names, where)
    if cells["category"] not in taxonomy.CATEGORIES:
        raise unknown("category", cells["category"], taxonomy.CATEGORIES, where)


def _flag(column: str, cell: str, where: str) -> bool:
    if cell not in ("0", "1"):
        raise InputError(f"{where}: {column} is '{cell}', expected 0 or 1.")
    return cell == "1"


def _cell(value: str | bool | tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return ", ".join(value) if isinstance(value, tuple) else value
