"""What a user should know of a split beside the roles: empty levels, idle rows, shared data.

Neighbours: `prepare` and `inspect` print these sentences. `bench.splits` refuses what is wrong
among the tasks that are read, `check_beside` what is wrong between them and a store.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optiml_jax.bench import catalog, catalog_table, split_file, split_rules, splits
from optiml_jax.errors import InputError


def table_notes(
    split: splits.Split,
    assigned: Iterable[splits.Assignment],
    table: Iterable[catalog_table.Row],
) -> list[str]:
    """Of a split over the catalog of OPT-IML Bench.

    Raises:
        InputError: see `split_file.notes`.
    """
    assigned = list(assigned)
    told = []
    if split.rules:
        specs = [row.to_spec() for row in table]
        told = split_file.notes(split, specs)
        told += _shared_notes(split, specs, list(zip(specs, assigned, strict=True)))
    return told + _level_notes(split, (one.level for one in assigned), "in the catalog")


def row_notes(split: splits.Split, specs: Iterable[catalog.TaskSpec]) -> list[str]:
    """Of a user's file: rows that place no task, neither of these nor of the catalog.

    And training tasks of these on the data of an evaluated one, of these or of the catalog.

    Raises:
        InputError: see `split_file.notes`.
    """
    if not split.rules:
        return []
    from optiml_jax.main import inspect_catalog

    specs = list(specs)
    table = catalog_table.read(inspect_catalog.TABLE).values()
    known = {row.name: row.to_spec() for row in table}
    known |= {spec.name: spec for spec in specs}
    elsewhere = {row.name: row.dropped_because for row in table if row.dropped_because}
    told = split_file.notes(split, known.values())
    roles = split.roles(list(known.values()), elsewhere=elsewhere)
    placed = [(spec, roles[name]) for name, spec in known.items()]
    return told + _shared_notes(split, specs, placed)


def store_notes(split: splits.Split, index: Mapping[str, Any], where: str) -> list[str]:
    """Of a store that was written: levels at which none of its tasks is evaluated."""
    rows = index["tasks"]
    if all(row["spec"]["instruction_kind"] == "text" for row in rows):
        return []
    return _level_notes(split, (row["level"] for row in rows), f"of {where}")


def text_notes(index: Mapping[str, Any], where: str) -> list[str]:
    """Of a store that was written: text that trains beside tasks that are evaluated."""
    texts = [
        row["spec"]["name"]
        for row in index["tasks"]
        if row["spec"]["instruction_kind"] == "text" and row["role"] == "train"
    ]
    if not texts or all(row["role"] not in splits.EVALUATED for row in index["tasks"]):
        return []
    return [
        f"text without instructions trains whole ({len(texts):,} in all, first '{texts[0]}'). A"
        " split knows of its data only the names of folder and file; `optiml leakage"
        f" --store={where}` compares it with the evaluated tasks."
    ]


def change_note(split: splits.Split, index: Mapping[str, Any]) -> list[str]:
    """Of an update: the file has other rows than when the store was written."""
    before = index.get("render", {}).get("split_digest", "")
    if not before or before == split.digest:
        return []
    return [
        f"the rows of split '{split.name}' have changed since the store was written (digest"
        f" {before}, now {split.digest}): all its tasks were placed anew."
    ]


def check_beside(
    split: splits.Split,
    given: Mapping[str, tuple[catalog.TaskSpec, splits.Assignment]],
    index: Mapping[str, Any],
    where: str,
) -> None:
    """What one benchmark holds out must not train in another of the same store.

    Named splits hold out whole categories and know the data of all evaluation tasks; a user's rows
    may name a task alone.

    Args:
        given: the tasks of this run, by name.

    Raises:
        InputError: a given task and a stored one of another benchmark contradict each other: one
            category is trained on and held out fully, or a task trains on the data of an evaluated
            one under a split whose base takes such tasks out.
    """
    if not split.rules:
        return
    benchmarks = {spec.benchmark for spec, _ in given.values()}
    stored = [
        (row["spec"]["name"], row["spec"]["category"], row["role"], row["level"])
        for row in index.get("tasks", ())
        if row["spec"]["benchmark"] not in benchmarks
    ]
    ours = [(name, one.category, one.role, one.level) for name, (_, one) in given.items()]
    for some, others in ((ours, stored), (stored, ours)):
        trained = {
            category: name for name, category, role, level in some if role == "train" and level
        }
        for name, category, _, level in others:
            if level == "fully_held_out" and category in trained:
                raise InputError(
                    f"split '{split.name}': category '{category}' is trained on"
                    f" ('{trained[category]}') and held out fully ('{name}') in store '{where}'."
                    " Hold the whole category out (a row with field 'category'), give the task the"
                    " level partially_supervised, or give a new --out."
                )
    if split.base is None or split.base.shared_data is None:
        return
    beside = [
        (catalog.TaskSpec.from_json(row["spec"]), row["role"])
        for row in index.get("tasks", ())
        if row["spec"]["benchmark"] not in benchmarks
    ]
    here = [(spec, one.role) for spec, one in given.values()]
    for some, others in ((here, beside), (beside, here)):
        # Rows that say train are exceptions that the user wants.
        trained = [spec for spec, role in some if role == "train" and not split.find(spec)]
        rule = _only([spec for spec, role in others if role in splits.EVALUATED])
        for spec, source, task in rule.shared(trained):
            raise InputError(
                f"split '{split.name}': '{spec.name}' trains on the data of '{source}', and"
                f" '{task}' of another benchmark is evaluated on it in store '{where}'. Add the row"
                f" excluded with the field source and the pattern {source} below the row of"
                f" '{task}', and prepare both benchmarks again with a new --out."
            )


def _only(specs: Iterable[catalog.TaskSpec]) -> split_rules.SharedData:
    """OPT-IML's rule on shared data for these evaluation tasks and no others."""
    return dataclasses.replace(splits.SHARED_DATA, evaluated={}).adding(specs)


def _shared_notes(
    split: splits.Split,
    trained: Sequence[catalog.TaskSpec],
    placed: Sequence[tuple[catalog.TaskSpec, splits.Assignment]],
) -> list[str]:
    """Of a file without a rule on shared data: training tasks on the data of an evaluated task."""
    if split.base is not None and split.base.shared_data is not None:
        return []
    training = {spec.name for spec, one in placed if one.role == "train"}
    rule = _only([spec for spec, one in placed if one.role in splits.EVALUATED])
    found = list(rule.shared(spec for spec in trained if spec.name in training))
    if not found:
        return []
    spec, source, task = found[0]
    tasks = "1 training task names" if len(found) == 1 else f"{len(found):,} training tasks name"
    return [
        f"{split.where}: {tasks} the data of an evaluated task (first: '{spec.name}', data set"
        f" '{source}', evaluated in '{task}'): no rule of this split takes them out of training."
        f" Add rows like excluded, field source, pattern {source}, below those of the evaluated"
        " tasks; or let the last row have the field split and the pattern opt_iml."
    ]


def _level_notes(split: splits.Split, levels: Iterable[str], where: str) -> list[str]:
    found = set(levels)
    return [
        f"split '{split.name}' leaves the level {level} empty: no task {where} is evaluated at it"
        + (f" ({why})." if (why := split.empty_levels.get(level)) else ".")
        for level in splits.LEVELS
        if level not in found
    ]
