"""What `optiml inspect MIXTURE` reads: a mixture's gin file, and its tasks without a store.

    find_file        a name as `--gin_file` would find it in mixtures/
    read_spec        that file as a `MixtureSpec`
    members_content  which tasks of the catalog it draws from

Neighbours: `inspect` has the flags, `inspect_content` applies a mixture to a store,
`inspect_tables` shows what is returned here. Nothing here prints.
"""

import dataclasses
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optiml_jax import errors
from optiml_jax.bench import catalog_table, split_file, splits
from optiml_jax.data import mixing
from optiml_jax.errors import InputError
from optiml_jax.main import gin_config, inspect_catalog, mixture_files
from optiml_jax.main.inspect_content import Filters

FOLDER = "mixtures/"
ROOT = "MixtureSpec"


def names() -> list[str]:
    """Mixtures that come with this package, as `optiml inspect` takes them."""
    files = gin_config.gin_files()
    return [pathlib.Path(name).stem for name in files if name.startswith(FOLDER)]


def find_file(name: str, others: Iterable[str] = ()) -> str | None:
    """The gin file that a name stands for; None where it is one of `others`.

    Raises:
        InputError: neither such a file nor one of the others.

    Example:
        "opt_iml", "opt_iml.gin" and "mixtures/opt_iml.gin" are "mixtures/opt_iml.gin".
    """
    is_path = name.endswith(".gin")
    for file in (name, FOLDER + name) if is_path else (f"{FOLDER}{name}.gin",):
        folders = (pathlib.Path.cwd(), gin_config.gin_folder())
        if any((folder / file).is_file() for folder in folders):
            return file
    if name in (others := set(others)):
        return None
    known = [*gin_config.gin_files()] if is_path else [*names(), *others]
    raise errors.unknown("mixture", name, known)


def read_spec(file: str) -> mixing.MixtureSpec:
    """The `MixtureSpec` that a mixture's file binds.

    Raises:
        InputError: it binds none, or something else, or wrongly.
    """
    configurables = {ROOT: mixing.MixtureSpec}
    config = gin_config.Sources((file,))
    hint = (
        f"`optiml inspect` reads files that bind {ROOT} and functions that they import, as those in"
        f" {FOLDER}."
    )
    try:
        is_mixture = gin_config.configures(config, ROOT, configurables)
    except InputError as error:
        raise InputError(f"{error} {hint}") from error
    for statement in gin_config.read(config):
        # Known here only where another command has run in this process.
        own = statement.selector in ("", ROOT) or gin_config.is_imported(statement.selector)
        if not own:
            raise InputError(f"{statement.where}: it binds '{statement.shown}'. {hint}")
    if not is_mixture:
        raise InputError(
            f"{file}: it binds nothing of {ROOT}: it is no mixture. Such a file is e.g."
            f" {FOLDER}opt_iml.gin."
        )
    return gin_config.build(config, ROOT, configurables).value


def members_content(
    file: str, spec: mixing.MixtureSpec, split: str | None, filters: Filters
) -> dict[str, Any]:
    """The training tasks of the catalog that a mixture draws from, and the shares that it fixes.

    How tasks share a benchmark's part depends on their sizes, which only a store has.

    Args:
        split: whose training tasks, a name or a file; None for the split of the mixture's name,
            else `opt_iml`.

    Raises:
        InputError: a benchmark that is not in the catalog, an unknown split, a subset larger than
            the catalog, or shares that cannot be whatever the sizes are.
    """
    name = pathlib.Path(file).stem
    if split is None:
        split = name if name in catalog_table.SPLITS else catalog_table.SPLITS[0]
    found, table, assigned = inspect_catalog.assigned_table(split)
    tasks = [
        dataclasses.replace(row, category=assigned[row.name].category or row.category)
        for row in table
        if assigned[row.name].role == "train"
    ]
    if not tasks:
        raise InputError(
            f"split '{found.name}' trains on no task of the catalog: there is nothing to mix."
        )
    known = {*catalog_table.BENCHMARKS, *mixing.INGREDIENTS}
    ingredients = dict(spec.ingredients or {})
    giver = [spec.ingredients_from] if spec.ingredients_from else []
    for benchmark in (*(spec.proportions or ()), *ingredients, *giver):
        if benchmark not in known:
            guess = errors.nearest(benchmark, known)
            raise InputError(
                f"{file}: benchmark '{benchmark}' is not in the catalog of OPT-IML Bench."
                + (f" Did you mean '{guess}'?" if guess else "")
                + " Or give a store that has it: --store=STORE."
            )
    is_in = mixing.members(spec, tasks, [True] * len(tasks))
    drawn = [_task(task, assigned[task.name]) for task, one in zip(tasks, is_in) if one]
    kept = filters.apply(drawn, lambda row: row, f"{file}, tasks of the catalog")
    # Of the others, and of what another split would have, a store may have any.
    missing = sorted(_asked(spec) - {task.benchmark for task in tasks})
    weights = {task.benchmark: 0.0 for task in tasks}
    weights |= dict.fromkeys([*(task["benchmark"] for task in drawn), *missing], math.nan)
    try:
        shares = mixing.benchmark_shares(spec, weights)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    benchmarks = _counted(kept, "benchmark")
    for name, share in shares.items():
        is_given = not filters.given and name in {**(spec.proportions or {}), **ingredients}
        if name in benchmarks or is_given:
            row = benchmarks.setdefault(name, {"num_tasks": 0})
            row["example_share"] = None if math.isnan(share) else share
    notes = split_file.notes(found, [row.to_spec() for row in table]) if found.rules else []
    if absent := [name for name in missing if name in catalog_table.BENCHMARKS]:
        notes.append(
            f"{file} gives shares to {', '.join(absent)}, of which split '{found.name}' trains on"
            " no task: a store under this split has nothing to fill them."
        )
    notes += mixture_files.notes(
        (),
        spec,
        found.name,
        {task["name"] for task in drawn},
        {task["category"] for task in drawn},
    )
    return {
        "mixture_file": file,
        "split": found.name,
        "notes": notes,
        "settings": spec.to_json(),
        "num_tasks": len(drawn),
        "num_catalog_tasks": len(tasks),
        "benchmarks": benchmarks,
        "categories": _counted(kept, "category"),
        "tasks": kept,
    }


def _task(row: catalog_table.Row, one: splits.Assignment) -> dict[str, str]:
    own = {"name": row.name, "benchmark": row.benchmark, "category": row.category}
    return {**own, "role": one.role, "level": one.level}


def _asked(spec: mixing.MixtureSpec) -> set[str]:
    """Benchmarks that a spec needs: with a share above 0, or giving one up."""
    given = {**(spec.proportions or {}), **(spec.ingredients or {})}
    giver = {spec.ingredients_from} if spec.ingredients_from else set()
    return {name for name, share in given.items() if share > 0} | giver


def _counted(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, dict[str, Any]]:
    counts: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row[key]):
        counts.setdefault(row[key], {"num_tasks": 0})["num_tasks"] += 1
    return counts
