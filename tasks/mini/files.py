"""Writes the mini benchmark as task files in Super-NaturalInstructions' schema.

    DIR/tasks/*.json     instruction tasks
    DIR/replay/*.json    plain text
    DIR/dialogue/*.json  dialogues

Equal bytes for equal (seed, version), on every machine. Fields beyond the official schema are those
that its reader knows (`bench.sources.super_natural_instructions`, point 5).
"""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from optiml_jax.bench.sources import super_natural_instructions as reader
from optiml_jax.errors import InputError

from . import classes, reading, text, words
from .declaration import MiniTask, draw_instances

SEED = 0
NUM_INSTANCES = 200
NUM_TEXTS = 4000
NUM_DEMONSTRATIONS = 3

FOLDERS = ("tasks", "replay", "dialogue")


def all_tasks() -> dict[str, list[MiniTask]]:
    """Every task, by the folder that its file is written to."""
    return {
        "tasks": [*classes.make_tasks(), *reading.make_tasks(), *words.make_tasks()],
        "replay": list(text.make_replay()),
        "dialogue": list(text.make_dialogues()),
    }


def write(directory: str | os.PathLike[str], seed: int = SEED) -> int:
    """Writes all task files below `directory`; returns their number.

    Raises:
        InputError: the folder cannot be written, or holds other files than these.
    """
    root = pathlib.Path(directory)
    written = 0
    try:
        for folder, tasks in all_tasks().items():
            target = root / folder
            target.mkdir(parents=True, exist_ok=True)
            _check_foreign(target, [task.name for task in tasks])
            for task in tasks:
                content = json.dumps(task_file(task, seed), indent=1, ensure_ascii=False)
                path = target / f"{task.name}.json"
                staged = path.with_suffix(".tmp")
                staged.write_text(content + "\n", "utf-8")
                staged.replace(path)
                written += 1
    except OSError as error:
        raise InputError(
            f"{root}: the mini benchmark cannot be written there ({error.strerror}). Choose a"
            " folder that you may write to."
        ) from error
    return written


def task_file(task: MiniTask, seed: int = SEED) -> Mapping[str, Any]:
    """The content of a task's file."""
    is_text = task.kind == "text"
    shown = 0 if is_text else NUM_DEMONSTRATIONS
    num = NUM_TEXTS if is_text else NUM_INSTANCES
    drawn = draw_instances(task, num + shown, seed)
    demonstrations, instances = drawn[:shown], drawn[shown:]
    return {
        "Contributors": ["optiml_jax"],
        "Source": [f"mini_{task.name}"],
        "URL": [],
        "Categories": [task.category],
        "Reasoning": [],
        "Definition": list(task.wordings) or [""],
        reader.EXTENSION: task.kind,
        "Metric": task.metric,
        "Input_language": [task.input_language],
        "Output_language": [task.output_language],
        "Instruction_language": ["English"],
        "Domains": ["Synthetic"],
        "Positive Examples": [
            {"input": one.input, "output": one.outputs[0], "explanation": ""}
            for one in demonstrations
        ],
        "Negative Examples": [],
        "Instances": [_row(task, number, one) for number, one in enumerate(instances)],
        "Instance License": ["Apache 2.0"],
    }


def _row(task: MiniTask, number: int, one: Any) -> dict[str, Any]:
    row = {"id": f"{task.name}-{number}", "input": one.input, "output": list(one.outputs)}
    options = one.options or task.labels
    return {**row, "options": list(options)} if options else row


def _check_foreign(folder: pathlib.Path, names: Iterable[str]) -> None:
    ours = {f"{name}.json" for name in names}
    for path in sorted(folder.glob("*.json")):
        if path.name not in ours:
            raise InputError(
                f"{folder}: holds '{path.name}', which is no task of the mini benchmark. Choose"
                " another folder."
            )
