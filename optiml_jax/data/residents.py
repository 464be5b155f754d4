"""What may live in a store beside the tasks that are prepared: names, levels, mixtures.

A benchmark is prepared whole, and its split knows every task of it. A user's own SeqIO tasks come
a few at a time to a store that is there already, so what they are depends on their neighbours:

1. They stay when others are prepared, and leave when they are replaced or pruned.
2. Their level is settled when the store is written: a task that is only evaluated is
   `partially_supervised` if some task of its category trains (text alone does not count), and
   else `fully_held_out`.
3. One that would train on a category that a split holds out fully is refused: the benchmark's
   scores would no longer mean what their level says.

Neighbours: `prepare` asks before it writes; `bench.splits` decides for the benchmarks.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Protocol

from optiml_jax import errors
from optiml_jax.bench import catalog
from optiml_jax.data import store as store_lib
from optiml_jax.errors import InputError

KIND = store_lib.OWN_KIND

EVALUATED_ROLES = ("validation", "test")


class Placed(Protocol):
    """A role and a level: an `Assignment`, or a row of a store's table."""

    @property
    def role(self) -> str:
        """Train, validation, test or excluded."""
        ...

    @property
    def level(self) -> str:
        """Of its evaluation part."""
        ...


def settle_levels(rows: Sequence[tuple[catalog.TaskSpec, str, Placed]]) -> dict[str, str]:
    """The level of every user's task that is only evaluated, by task.

    Args:
        rows: (task, category under which it is reported, role and level) of all tasks of a store.

    Raises:
        InputError: a user's task trains on a category that another task is held out for.

    Example:
        a user's test task of the category "Word Analogy" is {"mine": "fully_held_out"} beside
        training tasks of other categories only.
    """
    trained = {
        category: spec.name
        for spec, category, placed in rows
        # Text alone, which has no evaluation part, is no task of the category.
        if placed.role == "train" and placed.level
    }
    own = {
        category: spec.name
        for spec, category, placed in rows
        if placed.role == "train" and spec.instruction_kind == KIND
    }
    for spec, category, placed in rows:
        if spec.instruction_kind != KIND and placed.level == "fully_held_out" and category in own:
            raise InputError(
                f"task '{own[category]}' trains on the category '{category}', which the store's"
                f" split holds out fully: '{spec.name}' would no longer be fully held out. Give"
                f" '{own[category]}' its true category or the role 'test' in OPTIML, or prepare it"
                " in another store (--out, --split)."
            )
    return {
        spec.name: "partially_supervised" if category in trained else "fully_held_out"
        for spec, category, placed in rows
        if spec.instruction_kind == KIND and placed.role in EVALUATED_ROLES
    }


def is_kept(
    task: store_lib.StoredTask,
    given: Mapping[str, catalog.BenchTask],
    prune: bool,
) -> bool:
    """True for a stored task that the given ones neither replace nor remove."""
    groups = {(new.spec.benchmark, new.spec.instruction_kind == KIND) for new in given.values()}
    is_own = task.spec.instruction_kind == KIND
    if (new := given.get(task.name)) is not None and is_own:
        return new.spec.instruction_kind != KIND
    return (task.spec.benchmark, is_own) not in groups or (is_own and not prune)


def check(tasks: Sequence[catalog.BenchTask], kept: Sequence[store_lib.StoredTask]) -> None:
    """Refuses two tasks of one name, and users' tasks under a benchmark's own name."""
    specs = [*(task.spec for task in tasks), *(task.spec for task in kept)]
    catalog.Catalog(specs)
    benchmarks = {s.benchmark for s in specs if s.instruction_kind != KIND}
    for spec in specs:
        if spec.instruction_kind == KIND and spec.benchmark in benchmarks:
            raise InputError(
                f"task '{spec.name}': OPTIML puts it under the benchmark '{spec.benchmark}', whose"
                " own tasks are in the store. Give it another 'benchmark', e.g. 'user'."
            )


def mixtures(
    given: Mapping[str, Mapping[str, float]],
    old: store_lib.Store | None,
    names: Sequence[str],
    others: Set[str],
) -> dict[str, dict[str, float]]:
    """The mixtures of the new index: stored ones whose tasks are all there, and the given ones.

    Args:
        names: all tasks of the new store.
        others: its benchmarks and its split, whose names `Store.select` takes too.
    """
    taken = {*names, *others}
    for name, rates in given.items():
        if name in taken:
            raise InputError(
                f"mixture '{name}' has the name of a task or benchmark of the store, or of its"
                " split. Register it under another name."
            )
        for task in rates:
            if task not in names:
                raise errors.unknown("task", task, names, f"mixture '{name}'")
    before = old.mixtures if old else {}
    kept = {n: r for n, r in before.items() if set(r) <= set(names) and n not in taken}
    return {n: dict(r) for n, r in sorted({**kept, **given}.items())}
