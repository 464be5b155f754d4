"""Reads FLAN: its published templates over data sets that lie as plain rows.

    templates.json                  the release's templates: {task: [[input, target], ...]} (2021),
                                    or the same under "PATTERNS" (the FLAN collection)
    rows/<task>/train.jsonl         rows with the fields that the task's templates name; so too
    rows/<task>/validation.parquet  validation and test, which are evaluated and never trained on

What is made of it:
1. Each folder under rows/ is a task, named as in FLAN's clusters; a table (`tasks/tables/flan.tsv`)
   gives its key in templates.json, category, metric, languages, sources and, where the rule of
   `flan_templates` needs it, directions. Tasks without rows are absent, not an error.
2. Inverted templates are left out (`flan_templates.upright`), then all beyond the first
   `MAX_TEMPLATES`; one sentence to `on_skip` says how many.
3. A row whose answer is blank or null (unlabelled test sets) is dropped and counted.
4. Of more than `MAX_TRAIN_EXAMPLES` training rows those stay whose ids have the lowest hashes:
   which ones depends neither on the process nor on the rows around them. The rows stream past, so
   a large data set needs no more memory than a small one. Rows that are evaluated all stay.
5. A task scored by accuracy needs `options` in every row. Other tasks' rows have none.
6. `{options_}` is "OPTIONS:" and one line per option, as in the release of 2021; the collection's
   random other headings are not drawn. Options keep the rows' order.

Left out: what FLAN does to raw data sets before its templates (its flan/tasks.py); rows come with
the final fields.

Source: FLAN (arXiv 2109.01652) §2.1 and google-research/FLAN, flan/templates.py, flan/tasks.py,
flan/task_splits.py; flan/v2/templates.py; OPT-IML (arXiv 2212.12017) §2.1, §2.4, Table 1, whose 70
tasks are the 69 of the clusters and WSC273.
"""

import dataclasses
import functools
import json
import logging
import os
import pathlib
import types
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optiml_jax.bench import catalog, record, taxonomy
from optiml_jax.bench.sources import files, flan_templates, reading, rows, tables
from optiml_jax.errors import InputError, unknown

BENCHMARK = "flan"
MAX_TEMPLATES = 10
MAX_TRAIN_EXAMPLES = 30_000
"""Training rows kept per task (FLAN's `NUM_TRAIN_EXAMPLES`, OPT-IML §2.1)."""
EXPECTED = (
    "FLAN needs the data sets' rows as rows/<task>/{train,validation,test}.{jsonl,parquet}, or"
    " TensorFlow Datasets' with --tfds_data_dir=DIR."
)
COLUMNS = (
    "task",
    "templates",
    "cluster",
    "category",
    "metric",
    "languages",
    "directions",
    "sources",
    "licence",
)

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TaskRow:
    """One task as the table has it.

    Attributes:
        templates: its key in templates.json; the parts of ANLI share one.
        cluster: FLAN's own category.
        category: ours (`taxonomy`).
        languages: of input and output.
        directions: see `flan_templates.upright`.
    """

    task: str
    templates: str
    cluster: str
    category: str
    metric: str
    languages: tuple[str, ...]
    directions: tuple[tuple[str, str], ...]
    sources: tuple[str, ...]
    licence: str


def read_table(path: pathlib.Path) -> dict[str, TaskRow]:
    """The table of tasks by name.

    Raises:
        InputError: a broken table, an unknown category or metric.
    """
    made = {}
    for name, cells in tables.read(path, COLUMNS).items():
        where = f"{path}: task '{name}'"
        if cells["metric"] not in catalog.METRIC_NAMES:
            raise unknown("metric", cells["metric"], catalog.METRIC_NAMES, where)
        directions = [tuple(one.split(">")) for one in tables.listed(cells["directions"])]
        if any(len(one) != 2 for one in directions):
            raise InputError(
                f"{where}: column 'directions' is '{cells['directions']}', expected"
                " 'field>field, ...' or nothing."
            )
        values: dict[str, Any] = {
            **cells,
            "category": taxonomy.canonical_category(cells["category"], where),
            "languages": tables.listed(cells["languages"]),
            "directions": tuple(directions),
            "sources": tables.listed(cells["sources"]),
        }
        made[name] = TaskRow(**values)
    return made


def read(
    data_dir: str | os.PathLike[str],
    table: Mapping[str, TaskRow],
    skip_bad: bool = False,
    on_skip: Callable[[str], None] = _logger.warning,
    others: Mapping[str, Mapping[str, rows.Rows]] = types.MappingProxyType({}),
) -> list[catalog.BenchTask]:
    """The tasks of a folder that have rows, in the order of their names.

    Args:
        others: task -> split -> rows that lie elsewhere, of tasks that the folder has not.
        skip_bad: leave out tasks that are not as they must be, instead of stopping.
        on_skip: told, in one sentence each, what was left out: tasks under `skip_bad`, rows
            without an answer or beyond the cap, and how many templates.

    Raises:
        InputError: no folder, no templates.json, no rows, or a bad task (or only bad ones under
            `skip_bad`).
    """
    folder = pathlib.Path(data_dir)
    patterns = read_patterns(folder / "templates.json")
    places = {**others, **task_folders(folder)}
    if not places:
        parent = folder / "rows"
        raise InputError(
            f"{parent}: {'holds no folder' if parent.exists() else 'does not exist'}. {EXPECTED}"
        )
    num_left_out = Counter()

    def read_one(name: str) -> catalog.BenchTask:
        one = _Source.open(name, places[name], patterns, table, folder / "templates.json")
        task, num_beyond = one.check()
        if dropped := task.spec.num_dropped:
            total = dropped + task.spec.num_examples + num_beyond
            on_skip(f"{one.where}: dropped {dropped} of {total} rows, which have no answer.")
        if num_beyond:
            on_skip(
                f"{one.where}: left out {num_beyond} training rows beyond {MAX_TRAIN_EXAMPLES}."
            )
        num_left_out.update(inverted=one.num_inverted, surplus=one.num_surplus)
        return task

    tasks = reading.read_each(
        sorted(places), read_one, f"{data_dir}: every task", skip_bad, on_skip
    )
    kinds = {"inverted": "inverted", "surplus": f"beyond the first {MAX_TEMPLATES} of a task"}
    told = [f"{num_left_out[kind]} {name}" for kind, name in kinds.items() if num_left_out[kind]]
    if told:
        on_skip(f"{folder / 'templates.json'}: templates left out: {' and '.join(told)}.")
    return tasks


def read_patterns(path: pathlib.Path) -> Mapping[str, Any]:
    """The lists of templates by key, from either form of the file.

    Raises:
        InputError: the file cannot be read, is not JSON, or has a key twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, value in pairs:
            if name in made:
                raise InputError(f"{path}: '{name}' is there twice. Rename or remove one.")
            made[name] = value
        return made

    data = files.read_bytes(
        path, "FLAN needs its templates beside rows/: {task: [[input, target], ...]} as JSON."
    )
    found = files.parse_json(files.decode(data, str(path)), str(path), make_object=unique)
    if isinstance(found, dict) and "PATTERNS" in found:
        found = found["PATTERNS"]
    if not isinstance(found, dict) or not found:
        raise InputError(f"{path}: holds {found!r:.60}, expected {{task: [[input, target], ...]}}.")
    return found


def task_folders(data_dir: pathlib.Path) -> dict[str, pathlib.Path]:
    """The folders under rows/ by name, {} without rows/.

    Raises:
        InputError: rows/ is a file, or cannot be read.
    """
    parent = data_dir / "rows"
    found = files.listed(parent) if parent.exists() else []
    return {path.name: path for path in found if path.is_dir()}


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where one task's text is, checked as far as it goes without its rows."""

    where: str
    row: TaskRow
    files: Mapping[str, rows.Place]
    templates: tuple[flan_templates.Template, ...]
    pairs: Sequence[Any]
    num_inverted: int
    num_surplus: int

    @classmethod
    def open(
        cls,
        name: str,
        place: pathlib.Path | Mapping[str, rows.Rows],
        patterns: Mapping[str, Any],
        table: Mapping[str, TaskRow],
        templates_path: pathlib.Path,
    ) -> "_Source":
        is_folder = isinstance(place, pathlib.Path)
        at = str(place) if is_folder else ", ".join(map(str, place.values()))
        if name not in table:
            raise unknown("FLAN task", name, table, f"{at}: the folder's name")
        row = table[name]
        if row.templates not in patterns:
            raise unknown("task", row.templates, patterns, f"{templates_path}, for {at}")
        pairs = patterns[row.templates]
        where = f"{templates_path}, '{row.templates}'"
        every = flan_templates.parse(pairs, where)
        kept = flan_templates.upright(every, row.directions)
        if not kept:
            raise InputError(
                f"{where}: all {len(every)} templates are inverted (they ask for something else"
                f" than the answer). Add one that asks for it, or remove {at}."
            )
        own = rows.split_files(place) if is_folder else place
        if not own:
            raise InputError(
                f"{at}: holds no rows. Expected train.jsonl, validation.jsonl or test.jsonl (or"
                " .parquet)."
            )
        return cls(
            at,
            row,
            own,
            kept[:MAX_TEMPLATES],
            pairs,
            len(every) - len(kept),
            max(0, len(kept) - MAX_TEMPLATES),
        )

    def digest(self) -> str:
        row = dataclasses.asdict(self.row)
        return rows.digest(self.files.values(), json.dumps(self.pairs), json.dumps(row))

    def check(self) -> tuple[catalog.BenchTask, int]:
        """Reads every row once; beside the task, how many rows the cap leaves out."""
        digest = self.digest()
        num_train = num_evaluated = num_rows = 0
        closed = self.row.metric == "accuracy"
        for one in rows.records(self.files):
            split, _, number = one.id.rpartition("-")
            where = f"{self.files[split]}: row {int(number) + 1}"
            usable = flan_templates.is_usable(self.templates, one.fields, closed, where)
            num_rows += 1
            num_evaluated += usable and record.HELD_OUT in one.metadata
            num_train += usable and record.HELD_OUT not in one.metadata
        num_kept = min(num_train, MAX_TRAIN_EXAMPLES)
        if not num_train + num_evaluated:
            raise InputError(
                f"{self.where}: none of its {num_rows} rows has an answer"
                f" ({sorted(flan_templates.answer_fields(self.templates))}). Add labelled rows."
            )
        row = self.row
        spec = catalog.TaskSpec(
            name=catalog.task_name(BENCHMARK, row.task),
            original_name=row.task,
            benchmark=BENCHMARK,
            category=row.category,
            instruction_kind="instance",
            sources=row.sources,
            metric=row.metric,
            input_languages=row.languages,
            output_languages=row.languages,
            licence=row.licence or "Unknown",
            num_examples=num_kept + num_evaluated,
            path=self.where,
            num_dropped=num_rows - num_train - num_evaluated,
        )
        task = catalog.BenchTask(spec, functools.partial(_load, self, digest), digest)
        return task, num_train - num_kept


def _load(source: _Source, digest: str) -> catalog.TaskContent:
    reading.check_unchanged(source.where, digest, source.digest())
    usable = (
        one
        for one in rows.records(source.files)
        if any(template.has_answer(one.fields) for template in source.templates)
    )
    records = rows.capped(usable, MAX_TRAIN_EXAMPLES, source.row.task)
    return catalog.TaskContent("", (), records, templates=source.templates)
