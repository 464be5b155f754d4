"""What answers without a model score: the floor that a score has to be read against.

    records --BASELINES--> predictions --the task's own metric--> samples --aggregation--> a tree
    whose nodes stand beside the model's in results.json, as "baselines"

Every baseline goes through the same aggregation with the same seeds as the model, so both have the
same resampled instances and tasks behind their intervals. Left out on purpose: anything that looks
at training data. `majority` therefore counts the references of the evaluated instances themselves:
an oracle, at least as strong on them as any constant counted on training data by exact match.
"""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from optiml_jax.bench.record import EvalRecord
from optiml_jax.eval import aggregation
from optiml_jax.eval.tasks import EvalTask

Predict = Callable[[Sequence[EvalRecord]], list[str]]
"""All evaluated records of one task -> a text for each."""

Asked = tuple[EvalRecord, str]
"""A record and the name of the metric that its answer is scored by."""


def majority(records: Sequence[EvalRecord]) -> list[str]:
    """The most frequent reference of these records, for each of them; the first in order of ties.

    Example:
        references ("yes",), ("no", "nope"), ("yes",) -> "yes" three times
    """
    counts = collections.Counter(
        text for record in records for text in {text.strip() for text in record.references}
    )
    best = min(counts, key=lambda text: (-counts[text], text))
    return [best] * len(records)


def copy_input(records: Sequence[EvalRecord]) -> list[str]:
    """The bare instance of each record."""
    return [record.input for record in records]


def copy_demonstration(records: Sequence[EvalRecord]) -> list[str]:
    """The answer of the first solved example that each record's prompt could show."""
    return [record.demonstration for record in records]


BASELINES: dict[str, Predict] = {
    "majority": majority,
    "copy_input": copy_input,
    "copy_demonstration": copy_demonstration,
}
"""By the name that results.json has; of equal scores the first is called the best."""


def baseline_samples(
    name: str, asked: Iterable[Asked], tasks: Mapping[str, EvalTask]
) -> list[dict[str, Any]]:
    """One baseline's samples as `aggregation.aggregate` takes them; [] where it has no text.

    A ranked record is scored by accuracy: a copied text that is none of its options scores 0. A
    store that was prepared before records told their input has nothing to copy anywhere; that is
    no baseline of 0.
    """
    by_task: dict[str, list[Asked]] = {}
    for record, metric in asked:
        by_task.setdefault(record.task, []).append((record, metric))
    made = []
    for task, own in by_task.items():
        predictions = BASELINES[name]([record for record, _ in own])
        for (record, metric), prediction in zip(own, predictions):
            score = tasks[task].make_metric(metric)(prediction, record.references)
            made.append(
                {
                    "task": task,
                    "id": record.id,
                    "prompt_id": record.prompt_id,
                    "prediction": prediction,
                    "metric": metric,
                    "score": score,
                    "scores": {metric: score},
                    "truncated": False,
                }
            )
    return made if any(sample["prediction"] for sample in made) else []


def add_baselines(
    results: Mapping[str, Any],
    asked: Sequence[Asked],
    tasks: Mapping[str, EvalTask],
    *,
    seed: int = 0,
    num_resamples: int = aggregation.NUM_RESAMPLES,
) -> dict[str, Any]:
    """`results` with {"majority": {score, ci, n}, ...} as "baselines" in every node.

    Args:
        asked: the records behind `results`, all of them.
        seed: of the results' own intervals.
    """
    trees = {}
    for name in BASELINES:
        if samples := baseline_samples(name, asked, tasks):
            trees[name] = aggregation.aggregate(
                samples,
                tasks,
                **{field: results[field] for field in ("model", "step", "suite", "shots")},
                seed=seed,
                num_resamples=num_resamples,
            )
    overall = _beside(results["overall"], {n: tree["overall"] for n, tree in trees.items()})
    levels = _children(results["levels"], {n: tree["levels"] for n, tree in trees.items()})
    return {**results, "overall": overall, "levels": levels}


def best_baseline(node: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """The name and the node of a node's highest baseline; None where it has none."""
    found = node.get("baselines") or {}
    if not found:
        return None
    name = max(found, key=lambda name: found[name]["score"])
    return name, found[name]


def _beside(node: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A node with its baselines behind its own n, and the same below it."""
    made: dict[str, Any] = {}
    for key, value in node.items():
        if key in aggregation.CHILDREN:
            value = _children(value, {name: other[key] for name, other in others.items()})
        made[key] = value
        if key == "n":
            made["baselines"] = {
                name: {field: other[field] for field in ("score", "ci", "n")}
                for name, other in others.items()
            }
    return made


def _children(
    nodes: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    return {
        key: _beside(node, {name: other[key] for name, other in others.items()})
        for key, node in nodes.items()
    }
