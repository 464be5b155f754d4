"""What `optiml inspect MIXTURE` reads: a mixture's gin file, and its tasks without a store.

    find_file        a name as `--gin_file` would find it in mixtures/
    read_spec        that file as a `MixtureSpec`
    members_content  which tasks of the catalog it draws from

Neighbours: `inspect` has the flags, `inspect_content` applies a mixture to a store,
`inspect_tables` shows what is returned here. Nothing here prints.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optiml_jax import errors
from optiml_jax.bench import catalog_table, split_file, splits
from optiml_jax.data import mixing
from optiml_jax.errors import InputError
from optiml_jax.main import gin_config, inspect_catalog
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
    hint = f"`optiml inspect` reads files that bind {ROOT} alone, as those in {FOLDER}."
    try:
        is_mixture = gin_config.configures(config, ROOT, configurables)
    except InputError as error:
        raise InputError(f"{error} {hint}") from error
    for statement in gin_config.read(config):
        # Known here only where another command has run in this process.
        if statement.selector not in ("", ROOT):
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
        InputError: a benchmark that is not in the catalog, an unknown split, or a subset larger
            than the catalog.
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
    giver = [spec.ingredients_from] if spec.ingredients_from else []
    for benchmark in (*(spec.proportions or ()), *(spec.ingredients or ()), *giver):
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
    shares = fixed_shares(spec)
    benchmarks = _counted(kept, "benchmark")
    for benchmark, share in shares.items():
        if not filters.given or benchmark in benchmarks:
            benchmarks.setdefault(benchmark, {"num_tasks": 0})["example_share"] = share
    notes = split_file.notes(found, [row.to_spec() for row in table]) if found.rules else []
    trained = {task.benchmark for task in tasks}
    asked = [name for name, share in shares.items() if share and name in catalog_table.BENCHMARKS]
    if absent := [name for name in asked if name not in trained]:
        notes.append(
            f"{file} gives shares to {', '.join(absent)}, of which split '{found.name}' trains on"
            " no task: a store under this split has nothing to fill them."
        )
    return {
        "mixture_file": file,
        "split": found.name,
        "notes": notes,
        "settings": spec.to_json(),
        "num_tasks": len(drawn),
        "num_catalog_tasks": len(tasks),
        "benchmarks": {k: {"example_share": None, **row} for k, row in benchmarks.items()},
        "categories": _counted(kept, "category"),
        "tasks": kept,
    }


def _task(row: catalog_table.Row, one: splits.Assignment) -> dict[str, str]:
    own = {"name": row.name, "benchmark": row.benchmark, "category": row.category}
    return {**own, "role": one.role, "level": one.level}


def fixed_shares(spec: mixing.MixtureSpec) -> dict[str, float]:
    """Benchmark -> its share of the examples, where that does not depend on sizes.

    Example:
        proportions {"flan": 0.4} and ingredients {"replay": 0.05} give flan .38, replay .05.
    """
    ingredients = spec.ingredients or {}
    if spec.replay_unit == "rows" and ingredients.get("replay"):
        return {name: share for name, share in ingredients.items() if name != "replay"}
    taken = sum(ingredients.values())
    shares = dict(spec.proportions or {})
    if spec.ingredients_from is None:
        shares = {name: share * (1 - taken) for name, share in shares.items()}
    elif spec.ingredients_from in shares:
        shares[spec.ingredients_from] -= taken
    return {**shares, **ingredients}


def _counted(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, dict[str, Any]]:
    counts: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row[key]):
        counts.setdefault(row[key], {"num_tasks": 0})["num_tasks"] += 1
    return counts
