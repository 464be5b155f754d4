"""Samples to scores: sub-task -> task -> category -> level and overall, each with an interval.

All means are unweighted, in the paper's order; a category of two tasks counts as much as one of
twenty. `results.json` is this tree. Neighbours: `evaluator` makes the samples, `baselines` puts
those of no model beside them, `comparison` subtracts two trees, `table` shows them.

Overall is the mean over all (level, category) cells, not over the three levels: so the published
averages were made, whose 12 columns are the categories of three levels (Table 4). The two
differ where levels have different numbers of categories.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from optiml_jax import errors
from optiml_jax.bench import splits
from optiml_jax.errors import InputError
from optiml_jax.eval import samples as samples_files
from optiml_jax.eval.tasks import EvalTask

SCHEMA = 1
FILE_NAME = "results.json"
CONFIDENCE = 0.95
NUM_RESAMPLES = 2000

CHILDREN = ("levels", "categories", "tasks", "subtasks")
"""Fields of the tree that hold nodes by name."""

# Random numbers drawn at a time: 32 MB.
_BLOCK = 1 << 22


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A score with the scores that resampled data would have given.

    Attributes:
        replicates: one score per resampling, [R].
        varies: False where nothing could be resampled (a single instance): no interval then.
    """

    score: float
    num_samples: int
    replicates: np.ndarray
    varies: bool

    def interval(self) -> list[float] | None:
        """The central 95 % of the replicates, or None."""
        if not self.varies:
            return None
        tail = 100 * (1 - CONFIDENCE) / 2
        low, high = np.percentile(self.replicates, [tail, 100 - tail])
        return [float(low), float(high)]

    def to_json(self) -> dict[str, Any]:
        """As it stands in results.json."""
        return {"score": self.score, "ci": self.interval(), "n": self.num_samples}


def estimate_task(
    scores: Sequence[float], ids: Sequence[str], rng: np.random.Generator, num_resamples: int
) -> Estimate:
    """The mean score; its replicates resample instances.

    Args:
        ids: of the instances: several prompts of one instance are drawn together.

    Example:
        scores [100, 0], ids ["a", "b"] -> 50, replicates among 0, 50, 100
    """
    _, units = np.unique(np.asarray(ids), return_inverse=True)
    values = np.asarray(scores, np.float64)
    sums = np.bincount(units, values)
    counts = np.bincount(units)
    num_units = len(sums)
    replicates = np.empty(num_resamples)
    block = max(1, _BLOCK // num_units)
    for start in range(0, num_resamples, block):
        rows = min(block, num_resamples - start)
        drawn = rng.integers(num_units, size=(rows, num_units), dtype=np.int32)
        replicates[start : start + rows] = sums[drawn].sum(1) / counts[drawn].sum(1)
    return Estimate(math.fsum(values) / len(values), len(values), replicates, num_units > 1)


def average(parts: Sequence[Estimate]) -> Estimate:
    """The unweighted mean of independent parts, which all stay in every resampling."""
    return Estimate(
        math.fsum(part.score for part in parts) / len(parts),
        sum(part.num_samples for part in parts),
        np.mean([part.replicates for part in parts], axis=0),
        any(part.varies for part in parts),
    )


def average_tasks(tasks: Sequence[Estimate], rng: np.random.Generator) -> Estimate:
    """The unweighted mean of tasks; its replicates resample tasks, then instances within them.

    A task that is drawn twice brings two different resamplings of its instances.
    """
    pool = np.stack([task.replicates for task in tasks])
    num_tasks, num_resamples = pool.shape
    if num_tasks == 1:
        return tasks[0]
    drawn = rng.integers(num_tasks, size=(num_resamples, num_tasks))
    within = rng.integers(num_resamples, size=(num_resamples, num_tasks))
    whole = average(tasks)
    return dataclasses.replace(whole, replicates=pool[drawn, within].mean(1), varies=True)


def aggregate(
    samples: Iterable[Mapping[str, Any]],
    tasks: Mapping[str, EvalTask],
    *,
    model: str,
    step: int,
    suite: str,
    shots: int,
    split: str = "",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Any]:
    """The tree of results.json, schema 1.

    Independent of the order of the samples. Intervals are those of 95 %: percentiles of a
    bootstrap that resamples instances within tasks, and above that tasks within categories;
    categories and levels stay. A task of one instance has none (null).

    Args:
        samples: with "task", "id", "prompt_id", "metric", "score", "scores", "truncated".
        tasks: rows by name; a sample of another task is an error.
        settings: what the evaluation was run with, kept as it is.

    Raises:
        InputError: no samples, or one of an unknown task.

    Source: OPT-IML (arXiv 2212.12017) §4.1, Table 4.
    """
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for sample in samples:
        if sample["task"] not in tasks:
            raise errors.unknown("task", sample["task"], tasks, "samples")
        by_task.setdefault(sample["task"], []).append(sample)
    if not by_task:
        raise InputError("no samples to aggregate: nothing was evaluated.")

    cells: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name in sorted(by_task):
        task = tasks[name]
        cell = cells.setdefault((task.level, task.category), {})
        cell.setdefault(task.parent or name, []).append(name)

    tree = _Tree(by_task, tasks, seed, num_resamples)
    levels: dict[str, Any] = {}
    estimates: list[Estimate] = []
    for level in splits.LEVELS:
        own = {category: cells[at, category] for at, category in sorted(cells) if at == level}
        if not own:
            continue
        rows = {category: tree.category(level, category, own[category]) for category in own}
        here = [estimate for estimate, _ in rows.values()]
        estimates += here
        levels[level] = {
            **average(here).to_json(),
            "categories": {category: row for category, (_, row) in rows.items()},
        }
    return {
        "schema": SCHEMA,
        "model": model,
        "step": step,
        "suite": suite,
        "split": split,
        "shots": shots,
        "settings": dict(settings or {}),
        "num_truncated": sum(bool(s["truncated"]) for rows in by_task.values() for s in rows),
        "overall": average(estimates).to_json(),
        "levels": levels,
    }


@dataclasses.dataclass(frozen=True)
class _Tree:
    """The samples, and how estimates of parts of the tree are drawn."""

    by_task: Mapping[str, Sequence[Mapping[str, Any]]]
    tasks: Mapping[str, EvalTask]
    seed: int
    num_resamples: int

    def rng(self, *names: str) -> np.random.Generator:
        """The generator of a node."""
        return make_rng(self.seed, *names)

    def category(
        self, level: str, category: str, members: Mapping[str, Sequence[str]]
    ) -> tuple[Estimate, dict[str, Any]]:
        """A category's estimate and its row."""
        parts = {task: self.task(task, names) for task, names in members.items()}
        estimate = average_tasks([e for e, _ in parts.values()], self.rng(level, category))
        tasks = {task: row for task, (_, row) in parts.items()}
        return estimate, {**estimate.to_json(), "tasks": tasks}

    def task(self, name: str, members: Sequence[str]) -> tuple[Estimate, dict[str, Any]]:
        """A task's estimate and its row: sub-tasks are averaged by benchmark, then benchmarks."""
        leaves = {member: self.leaf(member) for member in members}
        if list(members) == [name]:
            return leaves[name]
        benchmarks: dict[str, list[Estimate]] = {}
        for member, (estimate, _) in leaves.items():
            benchmarks.setdefault(self.tasks[member].benchmark, []).append(estimate)
        whole = average([average(own) for own in benchmarks.values()])
        metrics = sorted({row["metric"] for _, row in leaves.values()})
        row = {
            "benchmark": "+".join(sorted(benchmarks)),
            "metric": "+".join(metrics),
            **whole.to_json(),
            "subtasks": {member: row for member, (_, row) in leaves.items()},
        }
        return whole, row

    def leaf(self, name: str) -> tuple[Estimate, dict[str, Any]]:
        """The estimate and row of a task that has samples of its own."""
        samples = sorted(self.by_task[name], key=lambda s: (s["id"], s["prompt_id"]))
        scores = [sample["score"] for sample in samples]
        ids = [sample["id"] for sample in samples]
        estimate = estimate_task(scores, ids, self.rng(name), self.num_resamples)
        # Ranked and generated answers of one task have different metrics.
        kept = [m for m in samples[0]["scores"] if all(m in s["scores"] for s in samples)]
        row = {
            "benchmark": self.tasks[name].benchmark,
            "metric": "+".join(sorted({sample["metric"] for sample in samples})),
            **estimate.to_json(),
            "metrics": {m: math.fsum(s["scores"][m] for s in samples) / len(ids) for m in kept},
        }
        return estimate, row


def make_rng(seed: int, *names: str) -> np.random.Generator:
    """A generator of its own for every node, so that other tasks do not change it."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])


def summarize(results: Mapping[str, Any]) -> dict[str, float]:
    """Scores of the top of the tree by name, for logs.

    Example:
        {"overall": 41.5, "fully_held_out": 30.1, "fully_supervised": 52.9}
    """
    levels = {level: node["score"] for level, node in results["levels"].items()}
    return {"overall": results["overall"]["score"], **levels}


def write_results(directory: str | os.PathLike[str], results: Mapping[str, Any]) -> pathlib.Path:
    """Checks the tree and writes results.json whole or not at all."""
    path = pathlib.Path(directory) / FILE_NAME
    check_results(results)
    new = path.with_suffix(".json.new")
    with samples_files.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("w", encoding="utf-8") as file:
            json.dump(results, file, indent=1, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    return path


def read_results(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads and checks a results.json, or the one in a folder.

    Raises:
        InputError: it is missing, not JSON, or not schema 1.
    """
    path = pathlib.Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    try:
        results = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(
            f"{path}: not JSON: {error}. Evaluate again to have it written."
        ) from error
    check_results(results, str(path))
    return results


def check_results(results: Any, where: str = FILE_NAME) -> None:
    """Checks a tree against schema 1: fields, percentages, intervals, and that counts add up.

    Raises:
        InputError: names the field.
    """
    _check_fields(results, where, schema=int, model=str, step=int, suite=str, shots=int)
    if results["schema"] != SCHEMA:
        raise InputError(f"{where}: schema {results['schema']}, this version reads {SCHEMA}.")
    _check_fields(results, where, overall=dict, levels=dict)
    # Results of earlier versions and of other tools may lack these.
    _check_fields({"split": "", "num_truncated": 0, **results}, where, split=str, num_truncated=int)
    _check_node(results["overall"], f"{where}: overall")
    _check_children(results["overall"]["n"], results["levels"], f"{where}: levels")
    for level, node in results["levels"].items():
        at = f"{where}: levels.{level}"
        if level not in splits.LEVELS:
            raise errors.unknown("level", level, splits.LEVELS, where)
        _check_fields(node, at, categories=dict)
        _check_children(node["n"], node["categories"], f"{at}.categories")
        for category, inner in node["categories"].items():
            place = f"{at}.categories.{category}"
            _check_fields(inner, place, tasks=dict)
            _check_children(inner["n"], inner["tasks"], f"{place}.tasks")
            for task, row in inner["tasks"].items():
                spot = f"{place}.tasks.{task}"
                _check_fields(row, spot, benchmark=str, metric=str)
                if "subtasks" in row:
                    _check_fields(row, spot, subtasks=dict)
                    _check_children(row["n"], row["subtasks"], f"{spot}.subtasks")
                    for name, leaf in row["subtasks"].items():
                        _check_fields(leaf, f"{spot}.subtasks.{name}", benchmark=str, metric=str)


def _check_fields(node: Any, where: str, **kinds: type) -> None:
    if not isinstance(node, dict):
        raise InputError(f"{where}: expected an object, found {type(node).__name__}.")
    for name, kind in kinds.items():
        if name not in node:
            raise InputError(f"{where}: field '{name}' is missing.")
        if not isinstance(node[name], kind) or isinstance(node[name], bool):
            raise InputError(
                f"{where}: field '{name}' is {node[name]!r:.60}, expected {kind.__name__}."
            )


def _check_children(total: int, children: Mapping[str, Any], where: str) -> None:
    if not children:
        raise InputError(f"{where}: empty; a node stands only where something was evaluated.")
    for name, node in children.items():
        _check_node(node, f"{where}.{name}")
    found = sum(node["n"] for node in children.values())
    if found != total:
        raise InputError(f"{where}: their n add up to {found}, the node above has {total}.")


def _check_node(node: Any, where: str) -> None:
    _check_fields(node, where, n=int)
    if node["n"] < 1:
        raise InputError(f"{where}: field 'n' is {node['n']}, expected 1 or more.")
    _check_percentage(node.get("score"), "score", where)
    interval = node.get("ci", "missing")
    if interval is not None and not (
        isinstance(interval, list)
        and len(interval) == 2
        and all(_is_percentage(bound) for bound in interval)
        and interval[0] <= interval[1]
    ):
        raise InputError(f"{where}: field 'ci' is {interval!r:.60}, expected [low, high] or null.")
    # Results of earlier versions have no baselines; only tasks have metrics.
    _check_fields({"baselines": {}, "metrics": {}, **node}, where, baselines=dict, metrics=dict)
    for name, value in node.get("metrics", {}).items():
        _check_percentage(value, name, f"{where}.metrics")
    for name, baseline in node.get("baselines", {}).items():
        _check_node(baseline, f"{where}.baselines.{name}")
        if baseline["n"] != node["n"]:
            raise InputError(
                f"{where}.baselines.{name}: field 'n' is {baseline['n']}, the node's {node['n']}."
            )


def _check_percentage(value: Any, field: str, where: str) -> None:
    if not _is_percentage(value):
        raise InputError(
            f"{where}: field '{field}' is {value!r:.60}, expected a number from 0 to 100."
        )


def _is_percentage(value: Any) -> bool:
    # The mean of many 100s may be off by a rounding.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and -1e-9 <= value <= 100 + 1e-9
