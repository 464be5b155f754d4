"""Two evaluations of the same examples: by how much they differ, and whether that may be chance.

    results.json and samples.jsonl of both --> pairs of samples --> a tree of differences

Every node of the tree (overall, level, category, task) answers two questions, which are not one:

1. The 95 % interval: how would the difference vary with other tasks and instances of their kind?
   It is the bootstrap of results.json over differences of instances, which is the same as
   resampling the same tasks and instances on both sides.
2. The p-value: if the models were interchangeable on every one of these instances, how often would
   a difference as large come about (`significance`)? Tasks are not resampled. A small p beside an
   interval around 0 says that the models differ on these tasks and may not on others.

Tasks are many, so each has its p-value adjusted among all tasks too (Benjamini-Hochberg); levels
and categories are not adjusted. Neighbours: `pairs` matches the examples of both, `aggregation` has
the order of averages, `table` shows the tree.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optiml_jax import errors
from optiml_jax.errors import InputError
from optiml_jax.eval import aggregation, significance
from optiml_jax.eval import pairs as pairs_lib
from optiml_jax.eval import samples as samples_files
from optiml_jax.eval.pairs import Sample, Tree
from optiml_jax.eval.significance import Flips

_TOLD_SETTINGS = ("method", "max_new_tokens", "normalization", "score_eos")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What one evaluation left in its folder."""

    folder: str
    results: Tree
    samples: Sequence[Sample]


def load(path: str | os.PathLike[str]) -> Evaluation:
    """The evaluation in a folder, or that of a results.json with its samples beside it.

    Raises:
        InputError: a file is missing or damaged.
    """
    folder = pathlib.Path(path)
    if not folder.exists():
        raise InputError(
            f"'{path}' does not exist.{errors.near_path(path)} Give a folder that `optiml eval`"
            " wrote, or the results.json in it."
        )
    if folder.is_dir() and not (folder / aggregation.FILE_NAME).exists():
        raise InputError(
            f"'{path}' has no {aggregation.FILE_NAME}. Give a folder that `optiml eval` wrote; one"
            " that was stopped is finished by starting the same command again."
        )
    results = aggregation.read_results(path)
    folder = folder if folder.is_dir() else folder.parent
    _, samples = samples_files.read_samples(folder / samples_files.FILE_NAME)
    return Evaluation(str(folder), results, samples)


def compare(
    before: Tree,
    after: Tree,
    samples_before: Iterable[Sample],
    samples_after: Iterable[Sample],
    *,
    common: bool = False,
    names: tuple[str, str] = ("before", "after"),
    seed: int = 0,
    num_resamples: int = aggregation.NUM_RESAMPLES,
    num_flips: int = significance.NUM_FLIPS,
) -> dict[str, Any]:
    """The tree of differences, after minus before, of two evaluations of the same examples.

    Args:
        before: a results.json, see `aggregation.aggregate`.
        samples_before: its samples.jsonl; samples that were answered by another method are not its.
        common: compare the examples that both have, instead of refusing when some are missing.
        names: of the two in messages.
        seed: of intervals and flips.

    Returns:
        "before" and "after": {name, model, step, num_left_out (samples without a partner)};
        "suite", "split", "shots"; "settings": {name: [before, after]} of those that differ;
        "overall" and "levels" as in results.json, a node being {before, after, difference, ci, p,
        n}, and a task {benchmark, metric, ...node, p_adjusted}.

    Raises:
        InputError: other suite, split, shots, tasks, examples or metrics; samples that are not
            those of their results.
    """
    pairs_lib.check_same(before, after, names)
    sides = [
        pairs_lib.own_samples(results, samples, name)
        for results, samples, name in zip((before, after), (samples_before, samples_after), names)
    ]
    pairs = pairs_lib.pair(sides[0], sides[1], names, common)
    trees = [
        aggregation.aggregate(
            [_scored(a, score(a["score"], b["score"])) for a, b in pairs],
            pairs_lib.tasks_of(before),
            **{field: before[field] for field in ("model", "step", "suite", "shots")},
            seed=seed,
            num_resamples=num_resamples,
        )
        for score in (lambda a, b: a, lambda a, b: b, lambda a, b: b - a)
    ]
    described = {
        side: {
            "name": name,
            "model": results["model"],
            "step": results["step"],
            "num_left_out": len(own) - len(pairs),
        }
        for side, name, results, own in zip(("before", "after"), names, (before, after), sides)
    }
    old, new = pairs_lib.settings_of(before), pairs_lib.settings_of(after)
    return {
        **described,
        **{field: before.get(field, "") for field in pairs_lib.SAME},
        "settings": {
            name: [old.get(name), new.get(name)]
            for name in _TOLD_SETTINGS
            if old.get(name) != new.get(name)
        },
        **_merge(trees, _flips_of_tasks(pairs, seed, num_flips)),
    }


def _scored(sample: Sample, score: float) -> dict[str, Any]:
    """A sample as `aggregation.aggregate` takes it, with another score."""
    kept = {field: sample[field] for field in ("task", "id", "prompt_id", "metric")}
    return {**kept, "score": score, "scores": {}, "truncated": False}


def _flips_of_tasks(
    pairs: Iterable[tuple[Sample, Sample]], seed: int, num_flips: int
) -> dict[str, Flips]:
    """The flips of every task that has samples of its own."""
    rows: dict[str, list[tuple[str, float]]] = {}
    for a, b in pairs:
        rows.setdefault(a["task"], []).append((a["id"], b["score"] - a["score"]))
    return {
        task: significance.flip_task(
            [difference for _, difference in own],
            [instance for instance, _ in own],
            aggregation.make_rng(seed, "flips", task),
            num_flips,
        )
        for task, own in rows.items()
    }


def _merge(trees: Sequence[Tree], flips: Mapping[str, Flips]) -> dict[str, Any]:
    """One tree of the trees of both sides and of their difference."""
    levels: dict[str, Any] = {}
    cells: list[Flips] = []
    for level in trees[0]["levels"]:
        sides = [tree["levels"][level] for tree in trees]
        categories: dict[str, Any] = {}
        here: list[Flips] = []
        for category in sides[0]["categories"]:
            inner = [side["categories"][category] for side in sides]
            own = {n: _flips_of_row(n, row, flips) for n, row in inner[0]["tasks"].items()}
            tasks = {
                name: {
                    "benchmark": inner[0]["tasks"][name]["benchmark"],
                    "metric": inner[0]["tasks"][name]["metric"],
                    **_node([side["tasks"][name] for side in inner], flip),
                }
                for name, flip in own.items()
            }
            here.append(significance.average(list(own.values())))
            categories[category] = {**_node(inner, here[-1]), "tasks": tasks}
        cells += here
        levels[level] = {**_node(sides, significance.average(here)), "categories": categories}
    rows = [
        row
        for node in levels.values()
        for inner in node["categories"].values()
        for row in inner["tasks"].values()
    ]
    for row, adjusted in zip(rows, significance.adjust([row["p"] for row in rows])):
        row["p_adjusted"] = adjusted
    overall = _node([tree["overall"] for tree in trees], significance.average(cells))
    return {"overall": overall, "levels": levels}


def _node(nodes: Sequence[Tree], flips: Flips) -> dict[str, Any]:
    before, after, difference = nodes
    return {
        "before": before["score"],
        "after": after["score"],
        "difference": difference["score"],
        "ci": difference["ci"],
        "p": flips.p_value(),
        "n": difference["n"],
    }


def _flips_of_row(name: str, row: Tree, flips: Mapping[str, Flips]) -> Flips:
    """The flips of a task: sub-tasks are averaged by benchmark, then benchmarks."""
    if "subtasks" not in row:
        return flips[name]
    benchmarks: dict[str, list[Flips]] = {}
    for member, leaf in row["subtasks"].items():
        benchmarks.setdefault(leaf["benchmark"], []).append(flips[member])
    return significance.average([significance.average(own) for own in benchmarks.values()])
