"""What a user should know of a split beside the roles: empty levels, idle rows, a changed file.

Neighbours: `prepare` and `inspect` print these sentences. `bench.splits` refuses what is wrong
among the tasks that are read, `check_beside` what is wrong between them and a store.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from optiml_jax.bench import catalog, catalog_table, split_file, splits
from optiml_jax.errors import InputError


def table_notes(
    split: splits.Split,
    assigned: Iterable[splits.Assignment],
    table: Iterable[catalog_table.Row],
) -> list[str]:
    """Of a split over the catalog of OPT-IML Bench."""
    idle = split_file.notes(split, [row.to_spec() for row in table]) if split.rules else []
    return idle + _level_notes(split, (one.level for one in assigned), "in the catalog")


def row_notes(split: splits.Split, specs: Iterable[catalog.TaskSpec]) -> list[str]:
    """Of a user's file: rows that place no task, neither of these nor of the catalog."""
    if not split.rules:
        return []
    from optiml_jax.main import inspect_catalog

    known = {row.name: row.to_spec() for row in catalog_table.read(inspect_catalog.TABLE).values()}
    known |= {spec.name: spec for spec in specs}
    return split_file.notes(split, known.values())


def store_notes(split: splits.Split, index: Mapping[str, Any], where: str) -> list[str]:
    """Of a store that was written: levels at which none of its tasks is evaluated."""
    rows = index["tasks"]
    if all(row["spec"]["instruction_kind"] == "text" for row in rows):
        return []
    return _level_notes(split, (row["level"] for row in rows), f"of {where}")


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
    """A category that one benchmark holds out must not train in another of the same store.

    Named splits hold out whole categories; a user's rows may name a task alone.

    Args:
        given: the tasks of this run, by name.

    Raises:
        InputError: a given task and a stored one of another benchmark contradict each other.
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


def _level_notes(split: splits.Split, levels: Iterable[str], where: str) -> list[str]:
    found = set(levels)
    return [
        f"split '{split.name}' leaves the level {level} empty: no task {where} is evaluated at it"
        + (f" ({why})." if (why := split.empty_levels.get(level)) else ".")
        for level in splits.LEVELS
        if level not in found
    ]
