"""Rebuilds `tables/catalog.tsv`, the catalog of OPT-IML Bench, from its inputs.

    python -m optiml_jax.tasks.build_catalog               from the tables beside it
    python -m optiml_jax.tasks.build_catalog --data=DIR    also those that come out of releases
    python -m optiml_jax.tasks.build_catalog --sync        also the readers' categories

Inputs, all in tables/:

    *_list.tsv          tasks of Super-NaturalInstructions and PromptSource, clusters of CrossFit
                        (`build_lists`)
    crossfit.tsv, ...   tasks of the other benchmarks, which their readers read too
    categories.tsv      rules and exceptions that give each task its category; the first row that
                        matches counts. Field "task" is an exception (the benchmark's own name),
                        field "cluster" a rule (its own category); "=" keeps the own category
    sources.tsv         data sets of tasks whose release does not name them
    tfds.tsv            data that TensorFlow Datasets has (`tfds_tasks`)
    duplicates.tsv      tasks that ask the same of the same data; more are found by a rule

and the splits (`bench.splits`). What is made of them:
1. `opt_iml` trains on what the split of that name trains on. `opt_iml_max` has every task but those
   that are copies of an evaluation suite or that another benchmark has already (OPT-IML §2.1 keeps
   of CrossFit what no other benchmark has); the reason is in `dropped_because`.
2. Two tasks of different benchmarks are duplicates if they have the same category, data sets and
   languages: the later one is marked. Super-NaturalInstructions makes many tasks of one data set,
   so its task counts only if it is the only one like this, and both have options. Duplicates stay
   in the mixtures, as in OPT-IML (Table 2): the same task in another wording.

docs/taxonomy.md explains the categories and has the counts.
"""

import argparse
import dataclasses
import fnmatch
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from optiml_jax.bench import catalog, catalog_table, splits, taxonomy
from optiml_jax.bench.catalog_table import Row
from optiml_jax.bench.sources import flan, reasoning, tables, text_pairs
from optiml_jax.errors import InputError, unknown

from . import build_lists, tfds_tasks
from .declaration import CATALOG, TABLES

LISTS: Mapping[str, tuple[Sequence[str], Callable[[pathlib.Path], build_lists.Rows]]] = {
    "super_natural_instructions_list.tsv": (
        build_lists.SNI_COLUMNS,
        build_lists.super_natural_instructions_list,
    ),
    "promptsource_list.tsv": (build_lists.PROMPTSOURCE_COLUMNS, build_lists.promptsource_list),
    "crossfit_list.tsv": (build_lists.CROSSFIT_COLUMNS, build_lists.crossfit_list),
}
PAIRS = ("crossfit", "exmix", "t5", "unifiedskg")
"""Benchmarks whose tables `text_pairs` reads."""


def build(folder: pathlib.Path = TABLES) -> str:
    """The catalog's text.

    Raises:
        InputError: an input is missing or broken, or has a task that no rule gives a category.
    """
    found = [
        *_super_natural_instructions(folder),
        *_promptsource(folder),
        *_flan(folder),
        *(row for name in PAIRS for row in _pairs(folder, name)),
        *_reasoning(folder),
    ]
    rules = _Rules.read(folder / "categories.tsv")
    rows = [rules.categorize(row, cluster) for row, cluster in found]
    rows = _with_sources(rows, folder / "sources.tsv")
    rows = _with_tfds(rows, folder / "tfds.tsv")
    rows = _with_roles(rows)
    return catalog_table.write(_with_duplicates(rows, folder / "duplicates.tsv"))


def build_list(name: str, data: pathlib.Path) -> str:
    """The text of a list that comes out of releases, a key of `LISTS`."""
    columns, read = LISTS[name]
    return build_lists.table_text(columns, read(data))


def synced(benchmark: str, folder: pathlib.Path = TABLES) -> str:
    """A reader's table with the categories of the catalog in its column `category`."""
    lines = (folder / f"{benchmark}.tsv").read_text("utf-8").splitlines()
    columns = lines[0].split("\t")
    rows = catalog_table.read(folder / "catalog.tsv")
    made = [lines[0]]
    for line in lines[1:]:
        cells = line.split("\t")
        name = catalog.task_name(benchmark, cells[0])
        cells[columns.index("category")] = rows[name].category
        made.append("\t".join(cells))
    return "\n".join(made) + "\n"


# --- the benchmarks ------------------------------------------------------------------------------

_Found = Iterable[tuple[Row, str]]
"""Rows that have no category yet, each with its own benchmark's category."""


def _row(benchmark: str, task: str, **values) -> Row:
    given = {
        "instruction_kind": "instance",
        "answer": "options" if values["metric"] == "accuracy" else "generation",
        "licence": "",
        **values,
    }
    return Row(
        name=catalog.task_name(benchmark, task),
        benchmark=benchmark,
        original_name=task,
        category="",
        **given,
    )


def _super_natural_instructions(folder: pathlib.Path) -> _Found:
    path = folder / "super_natural_instructions_list.tsv"
    for task, cells in tables.read(path, build_lists.SNI_COLUMNS).items():
        languages = (
            *tables.listed(cells["input_languages"]),
            *tables.listed(cells["output_languages"]),
        )
        row = _row(
            "super_natural_instructions",
            task,
            sources=tables.listed(cells["sources"]),
            instruction_kind="task",
            metric="rouge_l",
            answer=cells["answer"],
            languages=tuple(dict.fromkeys(languages)),
            licence=cells["licence"],
            official_role=cells["official"],
            xlingual_role=cells["xlingual"],
        )
        yield row, cells["category"]


def _promptsource(folder: pathlib.Path) -> _Found:
    path = folder / "promptsource_list.tsv"
    for task, cells in tables.read(path, build_lists.PROMPTSOURCE_COLUMNS).items():
        row = _row(
            "promptsource",
            task,
            sources=(task.split("/")[0],),
            metric=cells["metric"],
            answer=cells["answer"],
            languages=tables.listed(cells["languages"]),
        )
        yield row, cells["cluster"]


def _flan(folder: pathlib.Path) -> _Found:
    for task, read in flan.read_table(folder / "flan.tsv").items():
        row = _row(
            "flan",
            task,
            sources=read.sources,
            metric=read.metric,
            languages=read.languages,
            licence=_known(read.licence),
        )
        yield row, read.cluster


def _pairs(folder: pathlib.Path, benchmark: str) -> _Found:
    listed = {}
    if benchmark == "crossfit":
        listed = tables.read(folder / "crossfit_list.tsv", build_lists.CROSSFIT_COLUMNS)
    path = folder / f"{benchmark}.tsv"
    # Some have columns of their own behind those that all have.
    columns = path.read_text("utf-8").partition("\n")[0].split("\t")
    table = text_pairs.read_table(path, columns[len(text_pairs.COLUMNS) :])
    for task, read in table.items():
        row = _row(
            benchmark,
            task,
            sources=read.sources,
            metric=read.metric,
            answer="generation" if read.kind == "text" else "options",
            languages=tuple(dict.fromkeys((*read.input_languages, *read.output_languages))),
            opt_iml_max=read.kept,
            dropped_because="" if read.kept else f"also in {', '.join(read.elsewhere)}",
        )
        yield row, listed[task]["cluster"] if listed else ""


def _reasoning(folder: pathlib.Path) -> _Found:
    for task, read in reasoning.read_table(folder / "reasoning.tsv").items():
        row = _row(
            "reasoning",
            task,
            sources=read.sources,
            instruction_kind="task",
            metric=read.metric,
            languages=read.languages,
            licence=_known(read.licence),
        )
        yield row, ""


def _known(licence: str) -> str:
    return "" if licence == "Unknown" else licence


# --- what is the same across benchmarks ----------------------------------------------------------


class _Rules:
    """`categories.tsv`, and which of its rows were of use."""

    COLUMNS = ("benchmark", "field", "pattern", "category", "reason")

    def __init__(self, rows: Sequence[Mapping[str, str]], path: pathlib.Path):
        self._rows = rows
        self._path = path

    @classmethod
    def read(cls, path: pathlib.Path) -> "_Rules":
        rows = read_rows(path, cls.COLUMNS)
        for number, row in enumerate(rows, start=2):
            where = f"{path}:{number}"
            if row["field"] not in ("task", "cluster"):
                raise InputError(f"{where}: field is '{row['field']}', expected task or cluster.")
            if row["category"] != "=":
                taxonomy.canonical_category(row["category"], where)
        return cls(rows, path)

    def categorize(self, row: Row, cluster: str) -> Row:
        """The row with the category of the first rule that matches it."""
        values = {"task": row.original_name, "cluster": cluster}
        for rule in self._rows:
            value = values[rule["field"]]
            if rule["benchmark"] == row.benchmark and fnmatch.fnmatchcase(value, rule["pattern"]):
                category = cluster if rule["category"] == "=" else rule["category"]
                return dataclasses.replace(row, category=category)
        raise InputError(
            f"{self._path}: no row gives '{row.name}' (cluster '{cluster}') a category. Add one"
            f" with benchmark '{row.benchmark}', field 'task', pattern '{row.original_name}'."
        )


def _with_sources(rows: Iterable[Row], path: pathlib.Path) -> list[Row]:
    named = read_rows(path, ("benchmark", "pattern", "sources", "reason"))
    made = []
    for row in rows:
        for one in named:
            if one["benchmark"] == row.benchmark and fnmatch.fnmatchcase(
                row.original_name, one["pattern"]
            ):
                row = dataclasses.replace(row, sources=tables.listed(one["sources"]))
                break
        made.append(row)
    return made


def _with_tfds(rows: Iterable[Row], path: pathlib.Path) -> list[Row]:
    known = {name: tfds_tasks.read_table(name, path) for name in catalog_table.BENCHMARKS}
    return [
        dataclasses.replace(row, tfds=one.builder)
        if (one := known[row.benchmark].get(row.original_name))
        else row
        for row in rows
    ]


def _with_duplicates(rows: Sequence[Row], path: pathlib.Path) -> list[Row]:
    """By the table, else by the rule of the module's text; a mark names the task that has none."""
    marked = {
        task: cells["duplicate_of"]
        for task, cells in tables.read(path, ("task", "duplicate_of", "reason")).items()
    }
    by_name = {row.name: row for row in rows}
    for name in (*marked, *marked.values()):
        if name not in by_name:
            raise unknown("task", name, by_name, str(path))
    for group in _alike(rows):
        model = group[0]
        for row in group[1:]:
            if row.benchmark != model.benchmark:
                marked.setdefault(row.name, model.name)

    def root(name: str) -> str:
        return root(marked[name]) if name in marked else name

    return [
        dataclasses.replace(row, duplicate_of=root(row.name) if row.name in marked else "")
        for row in rows
    ]


def _alike(rows: Iterable[Row]) -> list[list[Row]]:
    """Tasks of one category, over the same data and languages; the first is not dropped."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        if row.instruction_kind == "instance" or row.answer == "options":
            key = (row.category, frozenset(row.sources), frozenset(row.languages))
            groups.setdefault(key, []).append(row)
    made = []
    for group in groups.values():
        own = [row for row in group if row.instruction_kind == "task"]
        rest = [row for row in group if row.instruction_kind != "task"]
        rest.sort(key=lambda row: bool(row.dropped_because))
        if len(own) == 1:
            closed = [row for row in rest if row.answer == "options"]
            made.append([*own, *closed])
            rest = [row for row in rest if row.answer != "options"]
        made.append(rest)
    return [group for group in made if group and not group[0].dropped_because]


def read_rows(path: pathlib.Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a table that has no key, in their order.

    Raises:
        InputError: the file has other columns, or a row with another number of cells.
    """
    lines = path.read_text("utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        cells = line.split("\t")
        if len(cells) != len(columns) or (number == 1 and cells != list(columns)):
            raise InputError(f"{path}:{number}: expected the {len(columns)} columns {columns}.")
        rows.append(dict(zip(columns, cells, strict=True)))
    return rows[1:]


# --- the splits ----------------------------------------------------------------------------------


def _with_roles(rows: Sequence[Row]) -> list[Row]:
    specs = [row.to_spec() for row in rows]
    opt_iml, opt_iml_max = (splits.assign(specs, name) for name in ("opt_iml", "opt_iml_max"))
    made = []
    for row in rows:
        one, most = opt_iml[row.name], opt_iml_max[row.name]
        dropped = row.dropped_because or (most.reason if most.role == "excluded" else "")
        is_told = not dropped and one.role != "train"
        made.append(
            dataclasses.replace(
                row,
                opt_iml_role="excluded" if dropped else one.role,
                opt_iml_level="" if dropped else one.level,
                opt_iml_reason=one.reason if is_told else "",
                opt_iml=one.role == "train" and not dropped,
                opt_iml_max=not dropped,
                dropped_because=dropped,
            )
        )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Writes what differs and says so."""
    parser = argparse.ArgumentParser(
        description="Rebuilds tables/catalog.tsv and says what changed.", allow_abbrev=False
    )
    parser.add_argument("--data", type=pathlib.Path, help="also the lists out of these releases")
    parser.add_argument("--sync", action="store_true", help="also the readers' categories")
    args = parser.parse_args(argv)
    try:
        if args.data is not None:
            for name in LISTS:
                _write(TABLES / name, build_list(name, args.data))
        _write(CATALOG, build())
        if args.sync:
            for benchmark in ("flan", *PAIRS, "reasoning"):
                _write(TABLES / f"{benchmark}.tsv", synced(benchmark))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _write(path: pathlib.Path, text: str) -> None:
    is_same = path.exists() and path.read_text("utf-8") == text
    if not is_same:
        path.write_text(text, "utf-8")
    print(f"{path.name}: {'as it was' if is_same else 'written'}")


if __name__ == "__main__":
    sys.exit(main())
