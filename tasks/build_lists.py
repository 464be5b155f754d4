"""Rebuilds the task lists that come out of releases: names and facts, none of their texts.

    super_natural_instructions_list.tsv   1,613 tasks: category, data sets, languages, licence, ...
    promptsource_list.tsv                 a row for each templates.yaml: cluster in T0, metric, ...
    crossfit_list.tsv                     160 tasks: cluster

DATA is a folder like this (what is missing there is an error that names it):

    super_natural_instructions/tasks/*.json, tasks_full/*.json   task files; need not be all
    super_natural_instructions/index.tsv, missing_tasks.txt      the release's tasks, with facts
    super_natural_instructions/splits/*/*_tasks.txt              the official lists
    flan/flan_collection_info.csv                                facts on tasks of other releases
    promptsource/templates/**/templates.yaml, t0_datasets.csv
    crossfit/splits/*.json                                       all tasks, and those held out

What is made of them:
1. A Super-NaturalInstructions task whose row is not in index.tsv has its category, data set and
   languages from FLAN's list of its collection, which agrees with index.tsv in each data set and
   in each category of the 76 names; the four that are in neither (SQuAD) from their names.
2. Whether its answers are options is what the reader finds in its file (`CLOSED_SET`). Without a
   file it is a guess: options if its name says classification, else what most tasks of its category
   with a file have. Column `seen` tells which.
3. A PromptSource task has options if most of the templates that keep the original task have answer
   choices (of all templates where none keeps it). Where each has them, its metric is accuracy, as
   OPT-IML scores COPA and RACE (Table 15), else Rouge-L.

Neighbour: `build_catalog` joins these lists with the other benchmarks' tables.
"""

import ast
import csv
import json
import pathlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from optiml_jax.bench import taxonomy
from optiml_jax.bench.sources import super_natural_instructions
from optiml_jax.errors import InputError

SNI_COLUMNS = (
    *("task", "category", "sources", "input_languages", "output_languages", "licence"),
    *("answer", "seen", "official", "xlingual"),
)
CROSSFIT_COLUMNS = ("task", "cluster")
CROSSFIT_SPLITS = {
    "nli": "train_non_nli_test_nli.json",
    "paraphrase": "train_nonparaphrase_classification_test_paraphrase.json",
    "mrc": "train_non_mrc_qa_test_mrc.json",
    "multiple_choice": "train_non_multiple_choice_qa_test_multiple_choice.json",
}
"""Cluster -> the split that holds it out, in `dev`."""
PROMPTSOURCE_COLUMNS = (
    *("task", "cluster", "answer", "metric", "languages", "num_templates", "num_original"),
)
UNLISTED = {
    "task074_squad1.1_question_generation": "Question Generation",
    "task075_squad1.1_answer_generation": "Question Answering",
    "task348_squad2.0_unanswerable_question_generation": "Question Generation",
    "task349_squad2.0_answerable_unanswerable_question_classification": (
        "Answerability Classification"
    ),
}
"""Tasks that no list describes -> category by their names; their data set is SQuAD."""

Rows = Sequence[Mapping[str, str]]


def super_natural_instructions_list(data: pathlib.Path) -> Rows:
    """A row for each task of the release, by name.

    Raises:
        InputError: a file is missing, or a task is in no list.
    """
    folder = data / "super_natural_instructions"
    index = {row["task"]: row for row in _table(folder / "index.tsv", "\t")}
    names = sorted({*index, *_lines(folder / "missing_tasks.txt")})
    others = {
        row["Specific Task Category"]: row
        for row in _table(data / "flan" / "flan_collection_info.csv", ",")
        if row["Source"] == "NIv2"
    }
    official, xlingual = (_official(folder, track) for track in ("default", "xlingual"))
    rows = []
    for name in names:
        if name in index:
            row = _from_index(index[name])
        elif name in others:
            row = _from_collection(others[name])
        elif name in UNLISTED:
            row = _facts(UNLISTED[name], "squad", ["English"], ["English"], "")
        else:
            raise InputError(f"{folder}: task '{name}' is in no list that tells its category.")
        row["category"] = taxonomy.canonical_category(row["category"], f"task '{name}'")
        own = {"official": official.get(name, ""), "xlingual": xlingual.get(name, "")}
        rows.append({"task": name, **row, **own})
    return _with_answers(rows, _answers(folder))


def _official(folder: pathlib.Path, track: str) -> dict[str, str]:
    """Task -> the official list of a track that has it."""
    lists = super_natural_instructions.read_official_lists(folder, track)
    if lists is None:
        raise InputError(f"{folder}: splits/{track}/ is missing.")
    roles = ("train", "test", "excluded")
    return {name: role for role in roles for name in getattr(lists, role)}


def promptsource_list(data: pathlib.Path) -> Rows:
    """A row for each templates.yaml, by the path of its folder."""
    folder = data / "promptsource"
    clusters = {
        "/".join(filter(None, (row["HF_name"], row["subset"]))): row["task_by_convention"]
        for row in _table(folder / "t0_datasets.csv", ",")
    }
    rows = []
    for path in sorted((folder / "templates").rglob("templates.yaml")):
        name = path.parent.relative_to(folder / "templates").as_posix()
        templates = list(_templates(path))
        original = [one for one in templates if (one["metadata"] or {}).get("original_task")]
        weighed = original or templates
        closed = [bool(one["answer_choices"]) for one in weighed]
        rows.append(
            {
                "task": name,
                "cluster": clusters.get(name, ""),
                "answer": "options" if 2 * sum(closed) > len(closed) else "generation",
                "metric": "accuracy" if all(closed) else "rouge_l",
                "languages": "English",
                "num_templates": str(len(templates)),
                "num_original": str(len(original)),
            }
        )
    if not rows:
        raise InputError(f"{folder}: no templates/**/templates.yaml.")
    return rows


def crossfit_list(data: pathlib.Path) -> Rows:
    """A row for each task, by name."""
    folder = data / "crossfit" / "splits"
    clusters = {
        task: cluster
        for cluster, name in CROSSFIT_SPLITS.items()
        for task in _json(folder / name)["dev"]
    }
    names = sorted(_json(folder / "random.json")["all"])
    return [{"task": name, "cluster": clusters.get(name, "")} for name in names]


def table_text(columns: Sequence[str], rows: Rows) -> str:
    """A table as `bench.sources.tables` reads it."""
    lines = ["\t".join(columns), *("\t".join(row[name] for name in columns) for row in rows)]
    return "\n".join(lines) + "\n"


def _from_index(row: Mapping[str, str]) -> dict[str, str]:
    return _facts(
        row["categories"],
        row["sources"],
        row["input_language"].split("|"),
        row["output_language"].split("|"),
        row["instance_license"],
    )


def _from_collection(row: Mapping[str, str]) -> dict[str, str]:
    """That list has one set of languages, with that of the instructions: English."""
    languages = sorted(ast.literal_eval(row["Languages"]))
    others = [name for name in languages if name != "English"]
    if len(others) > 1:
        languages = others
    category = row["Generic Task Category"]
    return _facts(category, row["Dataset"], languages, languages, "")


def _facts(
    category: str, sources: str, inputs: Sequence[str], outputs: Sequence[str], licence: str
) -> dict[str, str]:
    parts = [part.strip() for part in sources.replace(";", ",").replace("|", ",").split(",")]
    return {
        "category": category,
        "sources": ", ".join(part for part in parts if part),
        "input_languages": ", ".join(inputs),
        "output_languages": ", ".join(outputs),
        "licence": "" if licence == "Unknown" else licence.replace("|", ", "),
    }


def _answers(folder: pathlib.Path) -> dict[str, str]:
    """options or generation for each task that has a file; the file with all instances counts."""
    found = {}
    for name in ("tasks", "tasks_full"):
        if not (folder / name).is_dir():
            continue
        # A folder that has no tasks/ of its own is read as task files.
        for task in super_natural_instructions.read(folder / name, on_skip=lambda told: None):
            has_options = any(one.options for one in task.load().records)
            found[task.spec.original_name] = "options" if has_options else "generation"
    return found


def _with_answers(rows: Iterable[dict[str, str]], answers: Mapping[str, str]) -> Rows:
    rows = list(rows)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row["task"] in answers:
            counts[row["category"]][answers[row["task"]]] += 1
    for row in rows:
        count = counts[row["category"]]
        is_closed = "classif" in row["task"] or count["options"] > count["generation"]
        guess = "options" if is_closed else "generation"
        row["answer"] = answers.get(row["task"], guess)
        row["seen"] = "file" if row["task"] in answers else "guess"
    return rows


def _table(path: pathlib.Path, separator: str) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, delimiter=separator))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); see build_lists.") from error


def _json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); see build_lists.") from error


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text("utf-8").split()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); see build_lists.") from error


class _Loader(yaml.SafeLoader):
    """PromptSource's two tags as plain mappings; any other tag is an error of PyYAML."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


for _tag in ("!Template", "!TemplateMetadata"):
    _Loader.add_constructor(_tag, _mapping)


def _templates(path: pathlib.Path) -> Iterable[Mapping[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return yaml.load(file, _Loader)["templates"].values()
