"""The examples that two evaluations have in common, and whether they may be compared at all.

Two samples are of one example when task, id, wording, the text that the model saw and the
references are the same. Neighbour: `comparison` subtracts their scores. Left out on purpose:
pairing by id alone; where the text differs, a difference of scores is not one of models.
"""

import collections
import json
from collections.abc import Iterable, Mapping
from typing import Any

from optiml_jax.errors import InputError
from optiml_jax.eval import aggregation
from optiml_jax.eval import samples as samples_files
from optiml_jax.eval.tasks import EvalTask

Sample = Mapping[str, Any]
Key = tuple[str, ...]
Tree = Mapping[str, Any]

SAME = ("suite", "split", "shots")
"""Fields of results.json that must be equal."""

_KEY_FIELDS = ("task", "id", "prompt_id", "prompt_hash")
_FIELDS: Mapping[str, type] = {
    **dict.fromkeys((*_KEY_FIELDS, "method", "metric"), str),
    **{"score": float, "references": list, "options": list},
}


def tasks_of(results: Tree) -> dict[str, EvalTask]:
    """The rows of all tasks that have samples, by name, as a results.json tells them."""
    tasks = {}
    for level, node in results["levels"].items():
        for category, inner in node["categories"].items():
            for name, row in inner["tasks"].items():
                parent = name if "subtasks" in row else ""
                for member, leaf in row.get("subtasks", {name: row}).items():
                    # A task that was ranked in part has two metrics; samples have their own.
                    metric = leaf["metric"].split("+")[0]
                    tasks[member] = EvalTask(
                        member, leaf["benchmark"], category, metric, level, parent
                    )
    return tasks


def check_same(before: Tree, after: Tree, names: tuple[str, str]) -> None:
    """Checks that two results are of the same suite, split and shots, their tasks at one place.

    Raises:
        InputError: names what differs.
    """
    for field in SAME:
        values = [results.get(field, "") for results in (before, after)]
        if values[0] != values[1]:
            raise InputError(
                f"{names[0]} and {names[1]} cannot be compared: {field} is {values[0]!r} and"
                f" {values[1]!r}. Evaluate both on the same store, view and split."
            )
    old, new = tasks_of(before), tasks_of(after)
    for task in old.keys() & new.keys():
        for field in ("level", "category", "benchmark", "parent"):
            values = [getattr(rows[task], field) for rows in (old, new)]
            if values[0] != values[1]:
                raise InputError(
                    f"{names[0]} and {names[1]} cannot be compared: task '{task}' has the {field}"
                    f" {values[0]!r} and {values[1]!r}. Evaluate both on the same store."
                )


def own_samples(results: Tree, samples: Iterable[Sample], name: str) -> dict[Key, Sample]:
    """The samples behind `results`, by what makes two of them the same example.

    Raises:
        InputError: their numbers or scores are not those of `results`.
    """
    tasks = tasks_of(results)
    method = settings_of(results).get("method", "by_task")
    own: dict[Key, Sample] = {}
    scores = collections.defaultdict(list)
    for number, sample in enumerate(samples, start=2):
        where = f"{name}: {samples_files.FILE_NAME}, line {number}"
        samples_files.check_fields(sample, _FIELDS, where)
        task = tasks.get(sample["task"])
        if task is None or sample["method"] != _method(method, task, sample):
            continue
        texts = (sample[field] for field in _KEY_FIELDS)
        own[*texts, json.dumps(sample["references"])] = sample
        scores[sample["task"]].append(sample["score"])
    for task, wanted in _leaves(results).items():
        found = scores[task]
        if len(found) != wanted["n"] or abs(sum(found) / len(found) - wanted["score"]) > 1e-6:
            raise InputError(
                f"{name}: {samples_files.FILE_NAME} and {aggregation.FILE_NAME} are not of one"
                f" evaluation: task '{task}' has {len(found)} samples there, n = {wanted['n']} and"
                f" score {wanted['score']:.3f} here. If the evaluation was stopped, or run again"
                " with fewer examples, run it once more into an empty folder."
            )
    return own


def settings_of(results: Tree) -> Mapping[str, Any]:
    """What the evaluation was run with; nothing where another tool wrote the results."""
    settings = results.get("settings")
    return settings if isinstance(settings, Mapping) else {}


def _method(method: str, task: EvalTask, sample: Sample) -> str:
    """How an evaluation of this `EvalConfig.method` answered a sample."""
    if method == "by_task":
        return "rank" if task.metric == "accuracy" else "generate"
    if method == "by_options":
        return "rank" if sample["options"] else "generate"
    return method


def _leaves(results: Tree) -> dict[str, Tree]:
    return {
        member: leaf
        for node in results["levels"].values()
        for inner in node["categories"].values()
        for name, row in inner["tasks"].items()
        for member, leaf in row.get("subtasks", {name: row}).items()
    }


def pair(
    before: Mapping[Key, Sample],
    after: Mapping[Key, Sample],
    names: tuple[str, str],
    common: bool,
) -> list[tuple[Sample, Sample]]:
    """Both sides' samples of each example that both have.

    Raises:
        InputError: some are missing on one side and `common` is False, or metrics differ.
    """
    shared = sorted(before.keys() & after.keys())
    alone = [sorted(one.keys() - other.keys()) for one, other in _both_ways(before, after)]
    if any(alone) and not (common and shared):
        told = [
            f"{len(keys)} are in {name} only (such as task '{keys[0][0]}', example '{keys[0][1]}')"
            for name, keys in zip(names, alone)
            if keys
        ]
        # Same task, id and wording: the text itself is another.
        reworded = {key[:3] for key in alone[0]} & {key[:3] for key in alone[1]}
        if reworded:
            told.append(f"{len(reworded)} of them are in both with another text or references")
        advice = (
            f"{len(shared)} are the same in both: compare those with --common."
            if shared
            else "None is the same in both. Evaluate both on the same store."
        )
        raise InputError(f"the examples differ: {'; '.join(told)}. {advice}")
    for key in shared:
        metrics = [side[key]["metric"] for side in (before, after)]
        if metrics[0] != metrics[1]:
            raise InputError(
                f"task '{key[0]}', example '{key[1]}' is scored by {metrics[0]} in {names[0]} and"
                f" by {metrics[1]} in {names[1]}. Evaluate both with the same EvalConfig.method."
            )
    return [(before[key], after[key]) for key in shared]


def _both_ways(one: Any, other: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    return (one, other), (other, one)
