"""Reads Super-NaturalInstructions' task files (official schema) and its split lists.

A folder is either laid out like the official repository (`tasks/*.json`,
`splits/{default,xlingual}/{train,test,dev,excluded}_tasks.txt`) or holds just task files. `read`
parses every file once, checks all of it and keeps the catalog row; the text is read again when it
is needed (`BenchTask.load`), so memory stays flat.

What is made of a file:
1. The first of several definitions is the definition, the first of several categories the
   category: Tk-Instruct reads `instance["Definition"][0]` and scores by `Categories[0]`.
2. An instance with a blank input, or whose references are all blank, is dropped, counted in
   `num_dropped` and reported: official files hold some (removing the vowels of "IIe" leaves
   nothing), and a blank answer can be neither trained nor scored. Blank references beside others
   are dropped alone.
3. `CLOSED_SET` decides from the whole file whether answers are labels; the sorted label set then
   becomes the options of every record. It enables rank classification and changes nothing else:
   the metric stays Rouge-L, as the paper evaluates Super-NI by generation always.
4. Everything else that is wrong is an error that names file and field.
5. A file with the field `Instruction level` ("task", "instance" or "text"), which the official
   collection does not have, extends the schema: all texts of `Definition` are wordings that prompts
   draw from (blank where the inputs are complete prompts), `Metric` may name another metric, and
   instances may have `options`; nothing is inferred by `CLOSED_SET`. Text without instructions has
   blank inputs.

Fields that OPT-IML does not use (negative examples, reasoning types, domains, contributors, URLs)
are neither read nor checked: official files hold values like NaN there.

Source: Super-NaturalInstructions (arXiv 2204.07705), tasks/README.md; Tk-Instruct,
src/ni_collator.py, src/compute_metrics.py; OPT-IML (arXiv 2212.12017) §5.4.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optiml_jax.bench import catalog, record, splits, taxonomy
from optiml_jax.bench.sources import files, reading
from optiml_jax.errors import InputError, unknown

BENCHMARK = "super_natural_instructions"
METRIC = "rouge_l"
EXTENSION = "Instruction level"
TRACKS = ("default", "xlingual")
REPOSITORY = "https://github.com/allenai/natural-instructions"

FIELDS = (
    "Definition",
    "Positive Examples",
    "Source",
    "Categories",
    "Input_language",
    "Output_language",
    "Instance License",
)
"""What is read of a task beside its `Instances`."""

_logger = logging.getLogger(__name__)

_TEXT_LISTS = {
    # field -> must it be there? Sources and languages decide leakage and scoring.
    "Source": True,
    "Categories": True,
    "Input_language": True,
    "Output_language": True,
    "Instance License": False,
}


@dataclasses.dataclass(frozen=True)
class ClosedSetRule:
    """When a task's answers are labels: all of these hold.

    Attributes:
        min_labels: one label is no choice.
        max_labels: 14 classes of DBpedia are the most that real tasks were seen to need.
        max_words: labels are names; "not gender criticism" has three words.
        max_characters: the same for scripts that do not part words.
        instances_per_label: on average; short open answers seldom repeat that often.
        recurring_share: of the instances, those whose answer occurs again. Not 1, because a
            thousand instances may hold a rare label once.
        open_categories: answers there are computed, or copied out of the input; they repeat
            because they are few, and an answer that the file lacks is still possible.
    """

    min_labels: int = 2
    max_labels: int = 16
    max_words: int = 5
    max_characters: int = 40
    instances_per_label: float = 3.0
    recurring_share: float = 0.9
    open_categories: frozenset[str] = frozenset(
        {
            "Program Execution",
            "Mathematics",
            "Pos Tagging",
            "Translation",
            "Word Analogy",
            "Grammar Error Detection",
        }
    )

    def labels(self, category: str, records: Sequence[record.Record]) -> tuple[str, ...]:
        """The sorted label set, () if the answers are open."""
        if category in self.open_categories or any(len(r.references) != 1 for r in records):
            return ()
        counts = Counter(r.references[0].strip() for r in records)
        recurring = sum(count for count in counts.values() if count > 1)
        closed = (
            self.min_labels <= len(counts) <= self.max_labels
            and len(records) >= self.instances_per_label * len(counts)
            and recurring >= self.recurring_share * len(records)
            and all(
                len(label.split()) <= self.max_words and len(label) <= self.max_characters
                for label in counts
            )
        )
        return tuple(sorted(counts)) if closed else ()


CLOSED_SET = ClosedSetRule()


@dataclasses.dataclass(frozen=True)
class TaskSource:
    """Where one task is.

    Attributes:
        name: the task's own.
        where: for messages, and the spec's `path`.
        read: the task's fields as in an official file, and a digest of all of them.
    """

    name: str
    where: str
    read: Callable[[], tuple[Mapping[str, Any], str]]


def read(
    data_dir: str | os.PathLike[str],
    skip_bad: bool = False,
    on_skip: Callable[[str], None] = _logger.warning,
    benchmark: str = BENCHMARK,
) -> list[catalog.BenchTask]:
    """All tasks of a folder, in the order of their file names.

    Args:
        benchmark: first part of the tasks' names, for collections that share the schema.
        skip_bad: leave out files that are not as the schema wants them, instead of stopping.
        on_skip: told, in one sentence each, what was left out: files under `skip_bad`, and always
            instances that cannot be used. Logs a warning by default.

    Raises:
        InputError: no folder, no task file, a bad file (or only bad ones under `skip_bad`), two
            files whose tasks have one name.
    """
    sources = [
        TaskSource(path.stem, str(path), functools.partial(read_json, path))
        for path in task_files(data_dir)
    ]
    return read_sources(sources, str(data_dir), skip_bad, on_skip, benchmark)


def read_sources(
    sources: Sequence[TaskSource],
    where: str,
    skip_bad: bool = False,
    on_skip: Callable[[str], None] = _logger.warning,
    benchmark: str = BENCHMARK,
) -> list[catalog.BenchTask]:
    """`read` for tasks that lie elsewhere than in files; `where` is the whole of them."""

    def read_one(source: TaskSource) -> catalog.BenchTask:
        parsed = _read_source(source, benchmark)
        if parsed.dropped:
            on_skip(
                f"{source.where}: dropped {len(parsed.dropped)} of"
                f" {len(parsed.dropped) + parsed.spec.num_examples} instances that have a blank"
                f" input or no reference but blanks (first: '{parsed.dropped[0]}')."
            )
        load = functools.partial(_load, source, parsed.digest, benchmark)
        return catalog.BenchTask(parsed.spec, load, parsed.digest)

    return reading.read_each(sources, read_one, f"{where}: every task file", skip_bad, on_skip)


def task_files(data_dir: str | os.PathLike[str]) -> list[pathlib.Path]:
    """The task files of a folder: `tasks/*.json` if there is `tasks/`, else `*.json`.

    Raises:
        InputError: the folder does not exist, is not one, or holds no task file.
    """
    folder = pathlib.Path(data_dir)
    expected = (
        f"Expected the official repository ({REPOSITORY}) with tasks/*.json, or a folder of task"
        " files named like task001_quoref_question_generation.json."
    )
    files.check_folder(folder, f"data_dir '{folder}'", expected)
    inner = folder / "tasks"
    if inner.is_dir():
        twice = sorted(
            {p.name for p in folder.glob("*.json")} & {p.name for p in inner.glob("*.json")}
        )
        if twice:
            raise InputError(
                f"data_dir '{folder}': '{twice[0]}' lies there and in tasks/. Remove one of them."
            )
        folder = inner
    paths = files.listed(folder)
    found = [path for path in paths if path.suffix == ".json"]
    if not found:
        holds = (
            f"holds {len(paths)} other entries ('{paths[0].name}', ...)" if paths else "is empty"
        )
        raise InputError(f"data_dir '{folder}' has no task file: it {holds}. {expected}")
    return found


def read_official_lists(
    data_dir: str | os.PathLike[str], track: str = "default"
) -> splits.OfficialLists | None:
    """The official lists under `splits/<track>/`, None where the folder has no such track.

    Raises:
        InputError: unknown track; or the folder is there, but its training or test list is
            missing, empty or not readable, or a task is in two lists.
    """
    if track not in TRACKS:
        raise unknown("track", track, TRACKS)
    folder = pathlib.Path(data_dir) / "splits" / track
    if not folder.is_dir():
        return None
    return splits.OfficialLists(
        where=str(folder),
        train=_read_list(folder / "train_tasks.txt", required=True),
        test=_read_list(folder / "test_tasks.txt", required=True),
        excluded=_read_list(folder / "excluded_tasks.txt", required=False),
        dev=_read_list(folder / "dev_tasks.txt", required=False),
    )


def _read_list(path: pathlib.Path, required: bool) -> tuple[str, ...]:
    if not path.exists() and not required:
        return ()
    names = tuple(line.strip() for _, line in files.lines(path) if line.strip())
    if required and not names:
        raise InputError(f"{path}: the list is empty, expected one task name a line.")
    return names


@dataclasses.dataclass(frozen=True)
class _Parsed:
    spec: catalog.TaskSpec
    content: catalog.TaskContent
    digest: str
    dropped: tuple[str, ...]


def _load(source: TaskSource, digest: str, benchmark: str) -> catalog.TaskContent:
    parsed = _read_source(source, benchmark)
    reading.check_unchanged(source.where, digest, parsed.digest)
    return parsed.content


def _read_source(source: TaskSource, benchmark: str) -> _Parsed:
    task, digest = source.read()
    return _parse(source, task, digest, benchmark)


def read_json(path: pathlib.Path) -> tuple[Mapping[str, Any], str]:
    """A task file as it is, and the sha256 of its bytes; its fields are not checked.

    Raises:
        InputError: the file cannot be read, or holds no JSON object in UTF-8.
    """
    data = files.read_bytes(path)
    if not data.strip():
        raise InputError(f"{path}: the file is empty, expected a task in JSON. Fetch it again.")
    task = files.parse_json(files.decode(data, str(path)), str(path))
    if not isinstance(task, dict):
        raise _bad(str(path), "", task, "an object with 'Definition', 'Instances', ...")
    return task, hashlib.sha256(data).hexdigest()


def _parse(source: TaskSource, task: Mapping[str, Any], digest: str, benchmark: str) -> _Parsed:
    path = source.where
    lists = {name: _text_list(path, task, name, needed) for name, needed in _TEXT_LISTS.items()}
    category = taxonomy.canonical_category(lists["Categories"][0], f"{path}: field 'Categories'")
    extended = EXTENSION in task
    kind, metric = _extension(path, task) if extended else ("task", METRIC)
    definition, *wordings = _definitions(path, task, needed=kind == "task")
    demonstrations = tuple(
        _demonstration(path, f"Positive Examples[{i}]", row)
        for i, row in enumerate(_rows(path, task, "Positive Examples"))
    )
    records, dropped = _records(
        path, _rows(path, task, "Instances"), extended, needs_input=kind != "text"
    )
    labels = () if extended else CLOSED_SET.labels(category, records)
    if labels:
        records = [dataclasses.replace(r, options=labels) for r in records]
    spec = catalog.TaskSpec(
        name=catalog.task_name(benchmark, source.name),
        original_name=source.name,
        benchmark=benchmark,
        category=category,
        instruction_kind=kind,
        sources=lists["Source"],
        metric=metric,
        input_languages=lists["Input_language"],
        output_languages=lists["Output_language"],
        licence=", ".join(lists["Instance License"]) or "Unknown",
        num_examples=len(records),
        path=path,
        num_dropped=len(dropped),
    )
    content = catalog.TaskContent(
        definition, demonstrations, tuple(records), tuple(wordings) if extended else ()
    )
    return _Parsed(spec, content, digest, tuple(dropped))


def _extension(path: str, task: Mapping[str, Any]) -> tuple[str, str]:
    """Instruction kind and metric of a file that extends the schema."""
    kind, metric = task[EXTENSION], task.get("Metric", METRIC)
    if kind not in catalog.INSTRUCTION_KINDS:
        raise unknown("value", str(kind), catalog.INSTRUCTION_KINDS, f"{path}: field '{EXTENSION}'")
    if metric not in catalog.METRIC_NAMES:
        raise unknown("value", str(metric), catalog.METRIC_NAMES, f"{path}: field 'Metric'")
    return kind, metric


def _definitions(path: str, task: Mapping[str, Any], needed: bool) -> list[str]:
    value = _field(path, task, "Definition")
    # Releases before the second, and Tk-Instruct's reader, know a plain string too.
    texts = [value] if isinstance(value, str) else value
    if (
        not isinstance(texts, list)
        or not texts
        or not all(isinstance(text, str) for text in texts)
        or (needed and not texts[0].strip())
    ):
        raise _bad(path, "Definition", value, "a list with one or more texts")
    return [text.strip() for text in texts]


def _demonstration(path: str, field: str, row: Any) -> record.Demonstration:
    row = _object(path, field, row)
    texts = {name: row.get(name) for name in ("input", "output")}
    texts["explanation"] = row.get("explanation", "")
    for name, value in texts.items():
        if not isinstance(value, str):
            raise _missing_or_bad(path, field, row, name, "a text")
    return record.Demonstration(**texts)


def _records(
    path: str, rows: Sequence[Any], extended: bool, needs_input: bool
) -> tuple[list[record.Record], list[str]]:
    """Usable instances, and the ids of the dropped ones."""
    records: list[record.Record] = []
    dropped: list[str] = []
    index_of: dict[str, int] = {}
    for i, row in enumerate(rows):
        field = f"Instances[{i}]"
        row = _object(path, field, row)
        for name in ("id", "input"):
            if not isinstance(row.get(name), str):
                raise _missing_or_bad(path, field, row, name, "a text")
        id_, outputs = row["id"], row.get("output")
        if not id_.strip():
            raise _bad(path, f"{field}.id", id_, "a text that is not blank")
        if not isinstance(outputs, list) or not all(isinstance(o, str) for o in outputs):
            raise _missing_or_bad(path, field, row, "output", "a list of texts")
        if not outputs:
            raise _bad(path, f"{field}.output", outputs, "at least one reference")
        if (first := index_of.setdefault(id_, i)) != i:
            raise InputError(
                f"{path}: field '{field}.id' is '{id_}', the id of Instances[{first}] too. Ids must"
                " be unique within a file: rename or remove one."
            )
        references = tuple(o for o in outputs if o.strip())
        options = _options(path, field, row, references) if extended else ()
        if references and (row["input"].strip() or not needs_input):
            records.append(record.Record(id_, row["input"], references, options))
        else:
            dropped.append(id_)
    if not records:
        raise InputError(
            f"{path}: field 'Instances' has no instance that can be used ({len(rows)} in all,"
            " each with a blank input or blank references). Correct or remove the file."
        )
    return records, dropped


def _options(
    path: str, field: str, row: Mapping[str, Any], references: Sequence[str]
) -> tuple[str, ...]:
    """An instance's own options, () if it has none; one of them must be right."""
    options = row.get("options", [])
    if not isinstance(options, list) or not all(isinstance(o, str) for o in options):
        raise _bad(path, f"{field}.options", options, "a list of texts")
    if options and not {o.strip() for o in options} & {r.strip() for r in references}:
        raise _bad(path, f"{field}.options", options, f"one of the references {list(references)}")
    return tuple(options)


def _rows(path: str, task: Mapping[str, Any], name: str) -> list[Any]:
    value = _field(path, task, name)
    if not isinstance(value, list):
        raise _bad(path, name, value, "a list of objects")
    if name == "Instances" and not value:
        raise _bad(path, name, value, "at least one instance")
    return value


def _text_list(path: str, task: Mapping[str, Any], name: str, needed: bool) -> tuple[str, ...]:
    if name not in task and not needed:
        return ()
    value = _field(path, task, name)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise _bad(path, name, value, "a list of texts")
    texts = tuple(text.strip() for text in value if text.strip())
    if needed and not texts:
        raise _bad(path, name, value, "a list with at least one text")
    return texts


def _field(path: str, task: Mapping[str, Any], name: str) -> Any:
    if name not in task:
        found = ", ".join(sorted(task)[:8]) or "no field at all"
        raise InputError(
            f"{path}: field '{name}' is missing (the file has: {found}). Add it as in the official"
            f" schema ({REPOSITORY}, tasks/README.md)."
        )
    return task[name]


def _object(path: str, field: str, row: Any) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise _bad(path, field, row, "an object")
    return row


def _missing_or_bad(
    path: str, field: str, row: Mapping[str, Any], name: str, expected: str
) -> InputError:
    if name in row:
        return _bad(path, f"{field}.{name}", row[name], expected)
    return InputError(f"{path}: field '{field}.{name}' is missing; add {expected}.")


def _bad(path: str, field: str, value: Any, expected: str) -> InputError:
    shown = json.dumps(value, ensure_ascii=False)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    where = f"field '{field}'" if field else "the file"
    return InputError(f"{path}: {where} is {shown}, expected {expected}. Correct the file.")
