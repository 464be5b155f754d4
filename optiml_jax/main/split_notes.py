"""What a user should know of a split beside the roles.

Empty levels, idle rows, training tasks on evaluated data or of evaluation suites.

Neighbours: `prepare` and `inspect` print these sentences. `bench.splits` refuses what is wrong
among the tasks that are read, `check_beside` what is wrong between them and a store.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# setup.py maps the folder tasks/ to this name, which pyright does not know.
from optiml_jax import tasks as declarations  # pyright: ignore[reportAttributeAccessIssue]
from optiml_jax.bench import (
    catalog,
    catalog_table,
    opt_iml_split,
    split_file,
    split_rules,
    splits,
)
from optiml_jax.errors import InputError

Placed = Mapping[str, tuple[catalog.TaskSpec, splits.Assignment]]
"""By a task's name."""


def table_notes(
    split: splits.Split,
    assigned: Mapping[str, splits.Assignment],
    table: Iterable[catalog_table.Row],
) -> list[str]:
    """Of a split over the catalog of OPT-IML Bench.

    Raises:
        InputError: see `split_file.notes`.
    """
    placed = {row.name: (row.to_spec(), assigned[row.name]) for row in table}
    told = split_file.notes(split, [spec for spec, _ in placed.values()]) if split.rules else []
    told += _suite_notes(split, placed) + _shared_notes(split, placed, placed)
    rows = [(one.role, one.level, one.category) for one in assigned.values()]
    return told + _level_notes(split, rows, "in the catalog")


def task_notes(split: splits.Split, given: Placed, index: Mapping[str, Any]) -> list[str]:
    """Of tasks that were read: rows of a user's file that place none, of these, of the catalog or
    of the store.

    And training tasks of these that are copies of evaluation suites, or on the data of an evaluated
    task, of these or of the catalog.

    Raises:
        InputError: see `split_file.notes`.
    """
    table = list(catalog_table.read(declarations.CATALOG).values())
    specs = {row.name: row.to_spec() for row in table} | {name: s for name, (s, _) in given.items()}
    told, roles = [], {}
    if split.rules:
        stored = (catalog.TaskSpec.from_json(row["spec"]) for row in index.get("tasks", ()))
        told = split_file.notes(split, ({one.name: one for one in stored} | specs).values())
        elsewhere = {row.name: row.dropped_because for row in table if row.dropped_because}
        roles = split.roles(list(specs.values()), elsewhere=elsewhere)
    elif split.name in catalog_table.SPLITS:
        roles = catalog_table.assign(table, split)
    placed = {name: (specs[name], one) for name, one in roles.items()} | dict(given)
    return told + _suite_notes(split, given) + _shared_notes(split, given, placed)


def store_notes(split: splits.Split, index: Mapping[str, Any], where: str) -> list[str]:
    """Of a store that was written: levels that its tasks leave empty, or that are not what they
    say."""
    rows = index["tasks"]
    if all(row["spec"]["instruction_kind"] == "text" for row in rows):
        return []
    found = [(row["role"], row["level"], row["spec"]["category"]) for row in rows]
    return _level_notes(split, found, f"of {where}")


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


def check_beside(split: splits.Split, given: Placed, index: Mapping[str, Any], where: str) -> None:
    """What one benchmark holds out must not train in another of the same store.

    Named splits hold out whole categories, a user's rows may name a task alone. The rule on shared
    data knows the evaluation tasks of the catalog, and not those of your own.

    Args:
        given: the tasks of this run, by name.

    Raises:
        InputError: a given task and a stored one of another benchmark contradict each other: one
            category is trained on and held out fully, or a task trains on the data of an evaluated
            one under a split that takes such tasks out, or whose base does; text under any.
    """
    benchmarks = {spec.benchmark for spec, _ in given.values()}
    rows = [r for r in index.get("tasks", ()) if r["spec"]["benchmark"] not in benchmarks]
    if split.rules:
        _check_categories(split, given, rows, where)
    _check_data(split, given, rows, where)


def _check_categories(
    split: splits.Split, given: Placed, rows: Iterable[Mapping[str, Any]], where: str
) -> None:
    table = catalog_table.read(declarations.CATALOG)
    specs = [spec for spec, _ in given.values()]
    placed = {name: one for name, (_, one) in given.items()}
    for row in rows:
        spec = catalog.TaskSpec.from_json(row["spec"])
        placed[spec.name] = splits.Assignment(row["role"], row["level"], "", spec.category)
        if spec.name in table:
            # The store has the category under which the split reports the task.
            spec = dataclasses.replace(spec, category=table[spec.name].category)
        specs.append(spec)
    split = dataclasses.replace(split, where=f"{_source(split)}, store '{where}'")
    try:
        split.check_held_out(specs, placed)
    except InputError as error:
        raise InputError(f"{error} Prepare both benchmarks again with a new --out then.") from error


def _check_data(
    split: splits.Split, given: Placed, rows: Iterable[Mapping[str, Any]], where: str
) -> None:
    beside = [(catalog.TaskSpec.from_json(row["spec"]), row["role"]) for row in rows]
    here = [(spec, one.role) for spec, one in given.values()]
    has_rule = _has_data_rule(split)
    for some, others in ((here, beside), (beside, here)):
        # Rows that say train are exceptions that the user wants; no named split places the tasks
        # of a user's module.
        trained = [
            spec
            for spec, role in some
            if role == "train"
            and (has_rule or spec.instruction_kind == "text")
            and not split.find(spec)
            and (split.rules or spec.benchmark in declarations.BENCHMARKS)
        ]
        rule = _only([spec for spec, role in others if role in splits.EVALUATED])
        for spec, source, task in rule.shared(trained):
            fix = (
                f"Add the row excluded with the field source and the pattern {source} below the row"
                f" of '{task}'"
                if split.rules
                else "Give both a split file: the row excluded with the field name and the pattern"
                f" {spec.name}, the last row with the field split and the pattern {split.name}"
            )
            raise InputError(
                f"split '{split.name}': '{spec.name}' trains on the data of '{source}', and"
                f" '{task}' of another benchmark is evaluated on it in store '{where}'. {fix}, and"
                " prepare both benchmarks again with a new --out."
            )


def _has_data_rule(split: splits.Split) -> bool:
    return any(one is not None and one.shared_data is not None for one in (split, split.base))


def _only(specs: Iterable[catalog.TaskSpec]) -> split_rules.SharedData:
    """OPT-IML's rule on shared data for these evaluation tasks and no others."""
    return dataclasses.replace(splits.SHARED_DATA, evaluated={}).adding(specs)


def _suite_notes(split: splits.Split, given: Placed) -> list[str]:
    """Training tasks that are copies of evaluation suites, which `opt_iml` never trains on."""
    suites = opt_iml_split.OPT_IML_MAX
    found = [
        (spec, row)
        for spec, one in given.values()
        if one.role == "train" and (row := suites.find(spec)) is not None
    ]
    if not found:
        return []
    spec, first = found[0]
    tasks = "1 training task copies" if len(found) == 1 else f"{len(found):,} training tasks copy"
    rows = "; ".join(
        dict.fromkeys(f"excluded, field {row.field}, pattern {row.pattern}" for _, row in found)
    )
    fix = (
        f" Rows at the top of the file take them out: {rows}."
        if split.rules
        else " Scores on those suites would be scores on training data; opt_iml leaves such tasks"
        " out."
    )
    return [
        f"{_source(split)}: {tasks} evaluation suites (first: '{spec.name}', a"
        f" {first.reason.partition(',')[0]}).{fix}"
    ]


def _source(split: splits.Split) -> str:
    return split.where or f"split '{split.name}'"


def _shared_notes(split: splits.Split, given: Placed, placed: Placed) -> list[str]:
    """Of a split without a rule on shared data: training tasks on the data of an evaluated task."""
    if _has_data_rule(split):
        return []
    evaluated = [spec for spec, one in placed.values() if one.role in splits.EVALUATED]
    # Text leaves, unless a row of the user's trains it.
    trained = [
        spec
        for spec, one in given.values()
        if one.role == "train" and spec.instruction_kind != "text"
    ]
    # Of a file on a named split: first the pairs that the file's rows make, then the published.
    ours = [spec for spec in evaluated if split.rules and (not split.base or split.find(spec))]
    found = list(_only(ours).shared(trained))
    told = []
    if found:
        told.append(
            f"{_pairs(split, found)} Add rows like excluded, field source, pattern {found[0][1]},"
            " below those of the evaluated tasks; or let the last row have the field split and the"
            " pattern opt_iml."
        )
    seen = {spec.name for spec, _, _ in found}
    rest = list(_only(evaluated).shared(s for s in trained if s.name not in seen))
    by_rows = [pair for pair in rest if split.rules and split.find(pair[0])]
    if by_rows:
        told.append(f"{_pairs(split, by_rows)} Rows of the file train them: change those rows.")
    if found := [pair for pair in rest if pair not in by_rows]:
        name = found[0][0].name
        where = (
            "to the file"
            if split.rules
            else "to a split file of your own, whose last row has the field split and pattern"
            f" {split.name}"
        )
        take_out = f" To take them out, add rows like excluded, field name, pattern {name} {where}."
        told.append(
            f"{_pairs(split, found)} {'Its base' if split.rules else 'It'} was published so."
            + ("" if split.track else take_out)
        )
    return told


def _pairs(split: splits.Split, found: Sequence[tuple[catalog.TaskSpec, str, str]]) -> str:
    """Says which training tasks are on evaluated data; see `SharedData.shared`."""
    spec, source, task = found[0]
    tasks = "1 training task names" if len(found) == 1 else f"{len(found):,} training tasks name"
    return (
        f"{_source(split)}: {tasks} the data of an evaluated task (first: '{spec.name}', data set"
        f" '{source}', evaluated in '{task}'): no rule of this split takes them out of training."
    )


def _level_notes(
    split: splits.Split, rows: Sequence[tuple[str, str, str]], where: str
) -> list[str]:
    """Levels that are empty, or not what they say; rows are (role, level, category)."""
    found = {level for _, level, _ in rows}
    told = [
        f"split '{split.name}' leaves the level {level} empty: no task {where} is evaluated at it"
        + (f" ({why})." if (why := split.empty_levels.get(level)) else ".")
        for level in splits.LEVELS
        if level not in found
    ]
    trained = {category for role, level, category in rows if role == "train" and level}
    untrained = [c for _, level, c in rows if level == "partially_supervised" and c not in trained]
    if untrained:
        categories = sorted(set(untrained))
        more = f" and {len(categories) - 3:,} more" if len(categories) > 3 else ""
        tasks = "1 task is" if len(untrained) == 1 else f"{len(untrained):,} tasks are"
        told.append(
            f"split '{split.name}': {tasks} partially_supervised, and no training task {where}"
            f" has {'its' if len(untrained) == 1 else 'their'} category:"
            f" {', '.join(categories[:3])}{more}. Scores at that level are then of"
            " categories that the model has not seen."
        )
    return told
