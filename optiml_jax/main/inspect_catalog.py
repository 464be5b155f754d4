"""What `optiml inspect --catalog` knows: OPT-IML Bench's table, without a store and without data.

Neighbours: `inspect` has the flags, `inspect_tables` shows what is returned here,
`bench.catalog_table` reads the table. Nothing here prints.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optiml_jax import errors

# setup.py maps the folder tasks/ to this name, which pyright does not know.
from optiml_jax import tasks as declarations  # pyright: ignore[reportAttributeAccessIssue]
from optiml_jax.bench import catalog_table, splits, taxonomy
from optiml_jax.main import split_notes
from optiml_jax.main.inspect_content import Filters

COUNTS = (*splits.ROLES, "opt_iml", "opt_iml_max")


def table_content(split: str | None, filters: Filters) -> dict[str, Any]:
    """The tasks that pass the filters, and how many there are by benchmark, level and category.

    "notes" says what a user should know of the split beside the roles (`split_notes`).

    Args:
        split: gives roles and levels, a name or a file; `opt_iml` when None.

    Raises:
        InputError: the table has no roles of this split, or nothing passes the filters.
    """
    if filters.benchmark in set(declarations.BENCHMARKS) - set(catalog_table.BENCHMARKS):
        raise errors.InputError(
            f"benchmark '{filters.benchmark}' is not part of OPT-IML Bench."
            f" --catalog={filters.benchmark} shows its own tasks."
        )
    found, table, assigned = assigned_table(split)
    rows = [_task(row, assigned[row.name]) for row in table]
    kept = filters.apply(rows, lambda row: row, "the catalog")
    return {
        "split": found.name,
        "notes": split_notes.table_notes(found, assigned, table),
        **_counts(kept),
        "benchmarks": _grouped(kept, "benchmark", catalog_table.BENCHMARKS),
        "levels": _grouped(kept, "level", splits.LEVELS),
        # Some splits report under a benchmark's own kinds of task.
        "categories": _grouped(
            kept, "category", dict.fromkeys([*taxonomy.CATEGORIES, *(r["category"] for r in kept)])
        ),
        "tasks": kept,
    }


def assigned_table(
    split: str | None,
) -> tuple[splits.Split, list[catalog_table.Row], dict[str, splits.Assignment]]:
    """A split by name or file, `opt_iml` when None, the table's rows, and their roles under it.

    Raises:
        InputError: see `table_content`.
    """
    split = catalog_table.SPLITS[0] if split is None else split
    if split in splits.SPLITS and split not in catalog_table.SPLITS:
        own = [one.name for one in declarations.BENCHMARKS.values() if one.default_split == split]
        raise errors.InputError(
            f"--split={split}: the tasks of this split are not in the catalog of OPT-IML Bench;"
            f" --catalog={own[0]} shows them. Splits of the catalog are e.g."
            f" {', '.join(catalog_table.SPLITS[:4])}."
        )
    found = splits.find(split)
    table = list(catalog_table.read(declarations.CATALOG).values())
    return found, table, catalog_table.assign(table, found)


def _task(row: catalog_table.Row, one: splits.Assignment) -> dict[str, Any]:
    return {
        "name": row.name,
        "benchmark": row.benchmark,
        "original_name": row.original_name,
        "category": one.category,
        "role": one.role,
        "level": one.level,
        "reason": one.reason,
        "metric": row.metric,
        "answer": row.answer,
        "instruction_kind": row.instruction_kind,
        "sources": list(row.sources),
        "languages": list(row.languages),
        "licence": row.licence or None,
        "tfds": row.tfds,
        "duplicate_of": row.duplicate_of or None,
        "opt_iml": row.opt_iml,
        "opt_iml_max": row.opt_iml_max,
    }


def _grouped(
    rows: Sequence[Mapping[str, Any]], key: str, order: Iterable[str]
) -> dict[str, dict[str, int]]:
    """Counts of each group that has a task, the named ones in their order."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return {name: _counts(groups[name]) for name in order if name in groups}


def _counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    counts = {"num_tasks": len(rows)}
    counts |= {role: sum(row["role"] == role for row in rows) for role in splits.ROLES}
    return counts | {name: sum(row[name] for row in rows) for name in COUNTS if name not in counts}
