"""What a report shows, gathered from the folders of evaluations and of a run into plain values.

    results.json, samples.jsonl (one or two evaluations) ─┐
    metrics.jsonl, eval/SUITE/STEP, config.gin (a run)   ─┼─ gather ─> dict ─ report_page ─> HTML
    shares of the training mixture                       ─┘

Neighbours: `report_samples` chooses the samples that are shown, `report_run` reads the run,
`comparison` has the intervals of differences, `report_page` draws and writes the page. Whatever is
absent is said in the page, not guessed. Left out on purpose: reading gin (that is `main`'s) and
clocks (the caller gives the date).
"""

import datetime
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optiml_jax.bench import splits
from optiml_jax.errors import InputError
from optiml_jax.eval import aggregation, baselines, comparison, pairs, report_run, report_samples
from optiml_jax.eval import samples as samples_files

ROLES = (("score",), ("before", "after"))
"""Names of one evaluation, and of two; also the sort keys of the page's address."""


def gather(
    directories: Sequence[str | os.PathLike[str]],
    *,
    model_dir: str | os.PathLike[str] | None = None,
    mixture: report_run.Mixture | None = None,
    title: str = "",
    made: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """All that the page shows, as plain values: the same files give the same content.

    Args:
        directories: one evaluation, or two of one suite: before, after.
        model_dir: the run that made the (last) model: its curves and configuration are shown.
        mixture: what it was trained on.
        title: of the page; "" names the suite.
        made: how and when the report was made, shown as it is.

    Raises:
        InputError: a folder holds no evaluation or no run, or the two are not of one suite.
    """
    if not 1 <= len(directories) <= 2:
        raise InputError(f"{len(directories)} evaluations were given; a report shows one or two.")
    paths = [_evaluation_folder(directory) for directory in directories]
    trees = [aggregation.read_results(path) for path in paths]
    _check_comparable(trees, paths)
    roles = ROLES[len(trees) - 1]
    rows = [_node("overall", "overall", [tree["overall"] for tree in trees]), *merge(trees)]
    samples = [_read_samples(path) for path in paths]
    notes = _notes(trees, paths, samples)
    if len(trees) == 2:
        notes += _add_differences(rows, trees, samples)
    run = report_run.read_run(model_dir) if model_dir is not None else None
    suite = trees[-1]["suite"] or "evaluation"
    mixture = mixture or report_run.Mixture()
    return {
        "title": title or (f"{suite}: before and after" if len(trees) == 2 else suite),
        "made": dict(made or {}),
        "roles": list(roles),
        "evaluations": [
            _describe(role, path, tree, found)
            for role, path, tree, found in zip(roles, paths, trees, samples)
        ],
        "notes": notes,
        "overall": rows[0],
        "rows": rows[1:],
        "samples": report_samples.choose(samples),
        "run": run,
        "mixture": {**report_run.summarize_mixture(mixture.shares), "note": mixture.note},
    }


def merge(trees: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of all levels, categories, tasks and sub-tasks of one or two trees, top down.

    A row that one of the evaluations lacks has None in its place in "scores".

    Example:
        {"kind": "task", "name": "mini__sort", "depth": 2, "level": ..., "category": ...,
         "scores": [{"score": 10.0, "ci": [5.0, 16.0], "n": 30}, ...], "difference": 12.5, ...}
    """
    rows: list[dict[str, Any]] = []
    for level in splits.LEVELS:
        levels = [tree["levels"].get(level) for tree in trees]
        if not any(levels):
            continue
        top = _node("level", level, levels, level=level)
        rows.append(top)
        for category, inner in _children(levels, "categories"):
            place = {"level": level, "category": category}
            group = _node("category", category, inner, depth=1, **place)
            rows.append(group)
            for task, leaf in _children(inner, "tasks"):
                parts = list(_children(leaf, "subtasks"))
                kind = "parent" if parts else "task"
                rows.append(_node(kind, task, leaf, depth=2, **place))
                rows += [_node("task", name, part, depth=3, **place) for name, part in parts]
                group["num_tasks"] += 1
            top["num_tasks"] += group["num_tasks"]
    return rows


def _children(
    nodes: Iterable[Mapping[str, Any] | None], field: str
) -> Iterable[tuple[str, list[Mapping[str, Any] | None]]]:
    """(name, its node in each tree) of all children, by name."""
    maps = [node.get(field, {}) if node else {} for node in nodes]
    for name in sorted(set().union(*maps)):
        yield name, [children.get(name) for children in maps]


def _node(
    kind: str,
    name: str,
    nodes: Sequence[Mapping[str, Any] | None],
    *,
    level: str = "",
    category: str = "",
    depth: int = 0,
) -> dict[str, Any]:
    present = [node for node in nodes if node]
    last = present[-1]
    found = next((n["baselines"] for n in reversed(present) if n.get("baselines")), {})
    known = [name for name in baselines.BASELINES if name in found]
    return {
        "kind": kind,
        "name": name,
        "level": level,
        "category": category,
        "depth": depth,
        "benchmark": last.get("benchmark", ""),
        "metric": last.get("metric", ""),
        "n": last["n"],
        "num_tasks": 0,
        "scores": [_score(node) if node else None for node in nodes],
        "metrics": [dict(node.get("metrics", {})) if node else {} for node in nodes],
        "difference": nodes[1]["score"] - nodes[0]["score"] if len(present) == 2 else None,  # type: ignore[index]
        "difference_ci": None,
        "p": None,
        "baselines": {name: _score(found[name]) for name in known},
        "best": max(known, key=lambda name: found[name]["score"], default=None),
    }


def _score(node: Mapping[str, Any]) -> dict[str, Any]:
    return {"score": node["score"], "ci": node.get("ci"), "n": node["n"]}


def _evaluation_folder(directory: str | os.PathLike[str]) -> pathlib.Path:
    path = pathlib.Path(directory)
    if path.is_file() and path.name == aggregation.FILE_NAME:
        return path.parent
    if not path.is_dir():
        raise InputError(
            f"EVAL_DIR '{path}' does not exist. Give a folder that `optiml eval` wrote"
            f" ({aggregation.FILE_NAME}, {samples_files.FILE_NAME})."
        )
    if not (path / aggregation.FILE_NAME).is_file():
        raise InputError(
            f"EVAL_DIR '{path}' has no {aggregation.FILE_NAME}. Give a folder that `optiml eval`"
            " wrote; one that was stopped is finished by starting the same command again."
        )
    return path


def _check_comparable(trees: Sequence[Mapping[str, Any]], paths: Sequence[pathlib.Path]) -> None:
    if len(trees) < 2:
        return
    for field in ("suite", "split"):
        one, two = (tree.get(field, "") for tree in trees)
        if one != two:
            raise InputError(
                f"the evaluations are of different {field}s: '{one}' in {paths[0]}, '{two}' in"
                f" {paths[1]}. Their scores cannot be compared; give two of one {field}."
            )


def _add_differences(
    rows: Sequence[dict[str, Any]],
    trees: Sequence[Mapping[str, Any]],
    samples: Sequence[Sequence[Mapping[str, Any]] | None],
) -> list[str]:
    """Gives the rows intervals of their differences; returns notes on why that cannot be."""
    before, after = samples
    if before is None or after is None:
        return []
    try:
        tree = comparison.compare(trees[0], trees[1], before, after)
    except InputError as error:
        return [f"Differences stand without intervals (`optiml compare` says: {error})"]
    nodes = {("", "", ""): tree["overall"]}
    for level, top in tree["levels"].items():
        nodes[level, "", ""] = top
        for category, inner in top["categories"].items():
            nodes[level, category, ""] = inner
            nodes |= {(level, category, task): row for task, row in inner["tasks"].items()}
    for row in rows:
        task = row["name"] if row["kind"] in ("task", "parent") else ""
        if node := nodes.get((row["level"], row["category"], task)):
            row["difference_ci"] = node["ci"]
            row["p"] = node.get("p_adjusted", node["p"])
    return []


def _read_samples(path: pathlib.Path) -> list[dict[str, Any]] | None:
    file = path / samples_files.FILE_NAME
    if not file.exists():
        return None
    rows = samples_files.read_samples(file)[1]
    for number, row in enumerate(rows, start=2):
        samples_files.check_fields(row, report_samples.FIELDS, f"{file}, line {number}")
    return rows


def _notes(
    trees: Sequence[Mapping[str, Any]],
    paths: Sequence[pathlib.Path],
    samples: Sequence[Sequence[Any] | None],
) -> list[str]:
    """What a reader must know before comparing numbers."""
    notes = []
    if len(trees) == 2:
        tasks = [_leaves(tree) for tree in trees]
        if lonely := set(tasks[0]) ^ set(tasks[1]):
            notes.append(
                f"{len(lonely):,} tasks are in only one of the two evaluations: the means of their"
                " levels and categories are over different tasks."
            )
        both = set(tasks[0]) & set(tasks[1])
        if other := [task for task in both if tasks[0][task] != tasks[1][task]]:
            notes.append(
                f"{len(other):,} tasks were scored on different numbers of instances in the two"
                " evaluations."
            )
        settings = [{"shots": tree["shots"], **pairs.settings_of(tree)} for tree in trees]
        for name in sorted({*settings[0], *settings[1]} - {"max_examples_per_task"}):
            one, two = (values.get(name, "not told") for values in settings)
            if one != two and not name.endswith("_batch_size"):
                notes.append(f"Setting '{name}' differs: {one} before, {two} after.")
    for path, tree, found in zip(paths, trees, samples):
        if found is not None and len(found) != tree["overall"]["n"]:
            notes.append(
                f"{path / samples_files.FILE_NAME} holds {len(found):,} samples, the scores are of"
                f" {tree['overall']['n']:,}: it was written in several runs, and some samples shown"
                " may not be among those scored."
            )
        if found is None:
            notes.append(f"{path / samples_files.FILE_NAME} is missing: no samples from there.")
        if truncated := tree.get("num_truncated", 0):
            notes.append(
                f"{path.name}: {truncated:,} of {tree['overall']['n']:,} prompts were cut on the"
                " left to fit the model."
            )
    return notes


def _leaves(tree: Mapping[str, Any]) -> dict[str, int]:
    """Number of instances by task."""
    rows = merge([tree])
    return {row["name"]: row["n"] for row in rows if row["kind"] == "task"}


def _describe(
    role: str, path: pathlib.Path, tree: Mapping[str, Any], samples: Sequence[Any] | None
) -> dict[str, Any]:
    written = (path / aggregation.FILE_NAME).stat().st_mtime
    when = datetime.datetime.fromtimestamp(written, datetime.UTC)
    return {
        "role": role,
        "directory": str(path),
        "model": tree["model"],
        "step": tree["step"],
        "suite": tree["suite"],
        "split": tree.get("split", ""),
        "shots": tree["shots"],
        "settings": dict(pairs.settings_of(tree)),
        "num_samples": None if samples is None else len(samples),
        "date": f"{when:%Y-%m-%d %H:%M} UTC",
        "config": report_run.read_config(path),
    }
