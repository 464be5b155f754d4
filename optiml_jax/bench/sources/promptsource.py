"""Reads PromptSource: its published templates over data sets that lie as plain rows.

    templates/<dataset>/[<config>/]templates.yaml   as in the release (promptsource/templates)
    rows/<dataset>/[<config>/]train.jsonl           rows as the data set's own library gives them
    rows/<dataset>/[<config>/]validation.parquet    so too validation and test, evaluated only

What is made of it:
1. Each folder of rows is a task, with its templates as `TaskContent.templates`. Templates without
   rows are absent, not an error: nobody has all of 279 data sets.
2. Only templates of a data set's original task are kept. OPT-IML removes those that turn a task
   around (a question to a given answer); the release marks them by `original_task: false`. Some 20
   data sets have no others (`crows_pairs`, which OPT-IML evaluates, is one): these keep all but
   those that a table names as turned around (`DataSet.inverted`).
3. A table tells category, metric, sources, languages and licence of each data set, which the
   templates do not.
4. The metric is accuracy only where every kept template has answer choices.
5. Of a split whose first `PROBED` rows have no prompt and answer in any template, nothing is read:
   the test splits of GLUE, say, hold no labels. Other rows are counted, not filled, so that a
   folder of millions is known in seconds; rows that no template asks make no example later.

Source: PromptSource (arXiv 2202.01279), commit 0cc4b0c; OPT-IML (arXiv 2212.12017) §2.1, §2.4,
Table 1; Table 15 scores COPA and RACE by accuracy, Jigsaw (open answers) by Rouge-L.
"""

import dataclasses
import functools
import itertools
import json
import logging
import os
import pathlib
import types
from collections.abc import Callable, Iterator, Mapping

from optiml_jax.bench import catalog, taxonomy
from optiml_jax.bench.sources import files, promptsource_templates, reading, rows
from optiml_jax.errors import InputError, unknown

BENCHMARK = "promptsource"
PROBED = 20
LAYOUT = (
    "Expected templates/<dataset>/[<config>/]templates.yaml and"
    " rows/<dataset>/[<config>/]{train,validation,test}.{jsonl,parquet}; rows may also come from"
    " TensorFlow Datasets (--tfds_data_dir=DIR)."
)

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """What is known about a data set beside its templates; see `catalog.TaskSpec`.

    Attributes:
        inverted: names of templates that turn the task around, of a data set whose release marks
            no template as the original task.
    """

    category: str
    metric: str = "rouge_l"
    sources: tuple[str, ...] = ()
    languages: tuple[str, ...] = ("English",)
    licence: str = "Unknown"
    inverted: tuple[str, ...] = ()


def read(
    data_dir: str | os.PathLike[str],
    table: Mapping[str, DataSet],
    skip_bad: bool = False,
    on_skip: Callable[[str], None] = _logger.warning,
    others: Mapping[str, Mapping[str, rows.Rows]] = types.MappingProxyType({}),
) -> list[catalog.BenchTask]:
    """The tasks of a folder that have rows, in the order of their names.

    Args:
        table: by "dataset" or "dataset/config".
        skip_bad: leave out data sets that are not as they must be, instead of stopping.
        on_skip: told, in one sentence each, what was left out: data sets under `skip_bad`, splits
            without answers.
        others: data set -> split -> rows that lie elsewhere, of those that the folder has not.

    Raises:
        InputError: no folder, no rows, or a bad data set (or only bad ones under `skip_bad`).
    """
    folder = pathlib.Path(data_dir)
    return reading.read_each(
        data_sets(folder, others),
        lambda one: _read_task(folder, *one, table, on_skip),
        f"{folder}: every data set",
        skip_bad,
        on_skip,
    )


def data_sets(
    folder: pathlib.Path, others: Mapping[str, Mapping[str, rows.Rows]]
) -> list[tuple[str, pathlib.Path | Mapping[str, rows.Rows]]]:
    """Names of the data sets with rows, by name, and their folders or rows.

    Raises:
        InputError: there is none, or the folder cannot be read.
    """
    parent = folder / "rows"
    for part in (folder, folder / "templates", *(() if others else (parent,))):
        files.check_folder(part, f"{part}:", LAYOUT)
    found = row_folders(folder)
    if not found and not others:
        raise InputError(
            f"{parent}: holds no rows. Templates have no data of their own: export one of the data"
            f" sets, for example as {parent / 'super_glue' / 'copa' / 'train.jsonl'}. {LAYOUT}"
        )
    return sorted({**others, **found}.items())


def row_folders(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """The folders of rows by data set, {} without rows/."""
    parent = folder / "rows"
    return dict(_with_rows(parent)) if parent.is_dir() else {}


def _with_rows(parent: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    def fail(error: OSError) -> None:
        raise InputError(
            f"{error.filename}: the folder cannot be read ({error.strerror})."
        ) from error

    for at, folders, names in os.walk(parent, onerror=fail, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        path = pathlib.Path(at)
        has_rows = any(name.endswith(rows.SUFFIXES) and not name.startswith(".") for name in names)
        if has_rows and path == parent:
            raise InputError(f"{path}: rows must lie in the folder of their data set. {LAYOUT}")
        if has_rows:
            yield path.relative_to(parent).as_posix(), path


def _read_task(
    folder: pathlib.Path,
    name: str,
    place: pathlib.Path | Mapping[str, rows.Rows],
    table: Mapping[str, DataSet],
    on_skip: Callable[[str], None],
) -> catalog.BenchTask:
    is_folder = isinstance(place, pathlib.Path)
    where = str(place) if is_folder else ", ".join(map(str, place.values()))
    templates_path = folder / "templates" / name / "templates.yaml"
    if not templates_path.is_file():
        known = [
            found.parent.relative_to(folder / "templates").as_posix()
            for found in folder.glob("templates/**/templates.yaml")
        ]
        raise unknown("data set", name, known, f"{where}: {templates_path} does not exist")
    if name not in table:
        raise unknown("PromptSource data set", name, table, where)
    own = rows.split_files(place) if is_folder else place
    return _Source.open(where, templates_path, name, table[name], own).task(on_skip)


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where one task's text is."""

    where: str
    templates_path: pathlib.Path
    name: str
    row: DataSet
    files: Mapping[str, rows.Place]
    templates: tuple[promptsource_templates.Template, ...]

    @classmethod
    def open(
        cls,
        where: str,
        templates_path: pathlib.Path,
        name: str,
        row: DataSet,
        own: Mapping[str, rows.Place],
    ) -> "_Source":
        shown = {split: str(file) for split, file in own.items()}
        every = promptsource_templates.read(templates_path, name)
        asking = [one for one in every if one.original_task]
        asking = asking or [one for one in every if one.name not in row.inverted]
        if not asking:
            raise InputError(
                f"{templates_path}: all {len(every)} templates turn the task around. Add one that"
                " asks for what the data set is made for, with original_task: true."
            )
        kept = tuple(dataclasses.replace(one, files=shown) for one in asking)
        for one in kept:
            one.check()
        return cls(where, templates_path, name, row, own, kept)

    def digest(self) -> str:
        known = json.dumps(dataclasses.asdict(self.row))
        return rows.digest([self.templates_path, *self.files.values()], self.name, known)

    def task(self, on_skip: Callable[[str], None]) -> catalog.BenchTask:
        counts = {split: rows.count(file) for split, file in self.files.items()}
        for split, file in self.files.items():
            if not counts[split]:
                raise InputError(f"{file}: holds no row. Export it again, or remove it.")
        used = {split: file for split, file in self.files.items() if self._is_asked(split, file)}
        for split in counts.keys() - used.keys():
            on_skip(
                f"{self.files[split]}: left out, its first {min(PROBED, counts[split])} rows have"
                f" no answer in any of the {len(self.templates)} templates."
            )
        if not used:
            raise InputError(
                f"{self.where}: no row has both a prompt and an answer in a template of"
                f" {self.templates_path} (the first {PROBED} of each split were tried). Add"
                " labelled rows."
            )
        row, digest = self.row, self.digest()
        closed = all(one.answer_choices is not None for one in self.templates)
        spec = catalog.TaskSpec(
            name=catalog.task_name(BENCHMARK, self.name),
            original_name=self.name,
            benchmark=BENCHMARK,
            category=taxonomy.canonical_category(row.category, f"data set '{self.name}'"),
            instruction_kind="instance",
            sources=row.sources or (self.name,),
            metric=row.metric if closed or row.metric != "accuracy" else "rouge_l",
            input_languages=row.languages,
            output_languages=row.languages,
            licence=row.licence,
            num_examples=sum(counts[split] for split in used),
            path=self.where,
            num_dropped=sum(counts[split] for split in counts.keys() - used.keys()),
        )
        load = functools.partial(_load, self, tuple(used), digest)
        return catalog.BenchTask(spec, load, digest)

    def _is_asked(self, split: str, file: rows.Place) -> bool:
        """Whether the first rows have examples; the first of all goes through every template."""
        for number, one in enumerate(itertools.islice(rows.records({split: file}), PROBED)):
            filled = (template.fill(one) is not None for template in self.templates)
            if any(list(filled) if number == 0 else filled):
                return True
        return False


def _load(source: _Source, splits: tuple[str, ...], digest: str) -> catalog.TaskContent:
    where = f"{source.where}, or {source.templates_path}"
    reading.check_unchanged(where, digest, source.digest())
    found = rows.records({split: source.files[split] for split in splits})
    records = rows.capped(found, rows.MAX_TRAIN_EXAMPLES, source.name)
    return catalog.TaskContent("", (), records, templates=source.templates)
