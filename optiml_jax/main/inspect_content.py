"""What `optiml inspect` knows: each function returns the JSON of one view.

    filters      --benchmark, --category, --level, --role: which tasks are shown
    store        counts, lengths and, if asked, every task
    mixture      shares of examples, tokens and target tokens; epochs within a number of rows
    catalog      the tasks of a benchmark, without a store

Neighbours: `inspect` has the flags, `inspect_samples` reads stored texts, `inspect_tables` shows
what is returned here. Nothing here prints. `data.summary` counts.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from optiml_jax import errors

# setup.py maps the folder tasks/ to this name, which pyright does not know.
from optiml_jax import tasks as declarations  # pyright: ignore[reportAttributeAccessIssue]
from optiml_jax.bench import catalog as catalog_lib
from optiml_jax.bench import splits
from optiml_jax.data import mixing, summary
from optiml_jax.data import packing as packing_lib
from optiml_jax.data import store as store_lib
from optiml_jax.errors import InputError
from optiml_jax.main import mixture_files

SHARES = ("example_share", "token_share", "target_share")
MAX_ROWS = 10**9
"""A thousand times OPT-IML's longest run; counting goes through all of them."""
NAMED_SPLITS = ("opt_iml", "opt_iml_max")

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Filters:
    """Which tasks are shown; None lets everything through."""

    benchmark: str | None = None
    category: str | None = None
    level: str | None = None
    role: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """The filters that are set, by name."""
        filters = dataclasses.asdict(self).items()
        return {name: value for name, value in filters if value is not None}

    def apply(
        self, items: Iterable[T], describe: Callable[[T], Mapping[str, Any]], where: str
    ) -> list[T]:
        """The items that pass all filters.

        Args:
            describe: an item's benchmark, category, level and role.

        Raises:
            InputError: a name that does not occur there, with the nearest that does; or names that
                do, but not together.
        """
        rows = [(item, describe(item)) for item in items]
        fixed = {"level": splits.LEVELS, "role": splits.ROLES}
        wanted = {}
        for name, value in self.given.items():
            present = {row[name] for _, row in rows} - {""}
            known = {one.casefold(): one for one in (*fixed.get(name, ()), *present)}
            if value.casefold() not in known:
                raise errors.unknown(name, value, known.values(), where)
            wanted[name] = known[value.casefold()]
        kept = [item for item, row in rows if all(row[n] == v for n, v in wanted.items())]
        if wanted and not kept:
            told = " and ".join(f"{name} '{value}'" for name, value in wanted.items())
            raise InputError(
                f"{where}: none of its {len(rows)} tasks has {told}. Leave a filter out."
            )
        return kept


def chosen_tasks(store: store_lib.Store, filters: Filters) -> list[store_lib.StoredTask]:
    """The tasks of a store that pass the filters, in the order of the store."""
    return filters.apply(store.tasks, _describe_stored, f"store '{store.path}'")


def store_content(
    store: store_lib.Store, filters: Filters, with_tasks: bool = False
) -> dict[str, Any]:
    """Counts by benchmark, category, level and role, and lengths; with `tasks` if asked."""
    tasks = chosen_tasks(store, filters)
    content = summary.summarize(store, tasks)
    content["lengths"] = _lengths(store, tasks)
    if with_tasks:
        # What the split left out is listed when it is asked for by its role.
        listed = [t for t in tasks if t.role != "excluded" or filters.role]
        content["tasks"] = [_task_row(store, task) for task in listed]
    return content


def mixture_content(
    store: store_lib.Store,
    name: str | None,
    spec: mixing.MixtureSpec,
    filters: Filters,
    num_rows: int | None = None,
    feature_length: int = 2048,
    packing: str = "greedy",
    seed: int = 0,
    file: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Effective shares of a mixture; filters choose what is listed, not what is mixed.

    Args:
        num_rows: rows of training (steps x batch size) for which epochs are counted; None for no
            epochs.
        feature_length: tokens of a row; longer examples count as cut to it.
        packing: how these rows are packed, see `data.packing`.
        seed: of the run.
        file: the mixture's, which may be meant for another split.
        progress: told how many of these rows are counted.
    """
    if feature_length < 1:
        raise InputError(f"--feature_length is {feature_length}, expected 1 or more.")
    shares = summary.mixture_shares(store, name, spec, feature_length)
    drawn = None
    if num_rows is not None:
        drawn = drawn_examples(store, name, spec, num_rows, feature_length, packing, seed, progress)
    kept = filters.apply(shares, dataclasses.asdict, f"store '{store.path}', trained tasks")
    tasks = [
        {"name": share.task, **{k: v for k, v in dataclasses.asdict(share).items() if k != "task"}}
        for share in kept
    ]
    for row in tasks:
        row["epochs"] = None if drawn is None else drawn[row["name"]] / row["num_examples"]
    split, names = store.meta["split"], {share.task for share in shares}
    categories = {share.category for share in shares}
    return {
        "notes": mixture_files.notes([file] if file else [], spec, split, names, categories),
        "mixture": name or store.meta["mixture"],
        "split": split,
        # A stored SeqIO mixture's own rates replace cap and alpha.
        "settings": {**spec.to_json(), "has_own_rates": (name or "") in store.mixtures},
        "num_rows": num_rows,
        "feature_length": feature_length,
        "packing": None if num_rows is None else packing,
        "seed": None if num_rows is None else seed,
        "num_drawn_examples": None if drawn is None else sum(drawn.values()),
        "num_tasks": len(shares),
        "num_examples": sum(share.num_examples for share in shares),
        "mean_tokens": sum(s.example_share * s.mean_tokens for s in shares),
        "mean_target_tokens": sum(s.example_share * s.mean_target_tokens for s in shares),
        "benchmarks": _grouped_shares(tasks, "benchmark"),
        "categories": _grouped_shares(tasks, "category"),
        "tasks": tasks,
        "lengths": _lengths(store, [store.by_name[row["name"]] for row in tasks]),
    }


def drawn_examples(
    store: store_lib.Store,
    name: str | None,
    spec: mixing.MixtureSpec,
    num_rows: int,
    feature_length: int,
    packing: str = "greedy",
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """Examples that the first `num_rows` rows of training hold, by task, from the plan itself."""
    from optiml_jax.data import stream  # Grain takes a second to import.

    if not 1 <= num_rows <= MAX_ROWS:
        raise InputError(
            f"--rows (steps x batch size) is {num_rows:,}, expected 1 to {MAX_ROWS:,}: every row is"
            " counted. Ask for fewer; epochs grow in proportion to rows."
        )
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed is {seed}, expected a whole number of 0 or more, below 2**63.")
    packing_lib.check_packing(packing, "--packing")
    rows_a_step = min(num_rows, 4096)
    config = stream.StreamConfig(
        mixture_or_task_name=name,
        mixture=spec,
        feature_length=feature_length,
        batch_size=rows_a_step,
        seed=seed,
        packing=packing,
    )
    source = stream.TrainStream(store, config)
    counts = np.zeros(store.lengths.shape[1], np.int64)
    for step in range(-(-num_rows // rows_a_step)):
        rows = source.examples(step)[: num_rows - step * rows_a_step]
        numbers = np.concatenate(rows) % len(counts)
        counts += np.bincount(numbers, minlength=len(counts))
        progress(min((step + 1) * rows_a_step, num_rows), num_rows)
    return {
        task.name: int(counts[task.first_example : task.first_example + task.num_train].sum())
        for task in source.tasks
    }


def catalog_content(
    benchmark: str, data_dir: str | None, split: str | None, filters: Filters
) -> dict[str, Any]:
    """The tasks of a benchmark under a split, without a store.

    `opt_iml` and `opt_iml_max` tell whether a task trains under the split of that name; a split
    that this version does not have is left out of the rows.
    """
    found = None if split is None else splits.find(split)
    tasks, assignments = declarations.read(benchmark, data_dir, found)
    specs = [task.spec for task in tasks]
    named = {
        name: splits.assign(specs, name) for name in NAMED_SPLITS if name in splits.split_names()
    }
    rows = [
        _catalog_row(spec, assignments[spec.name])
        | {name: assigned[spec.name].role == "train" for name, assigned in named.items()}
        for spec in specs
    ]
    return {"tasks": filters.apply(rows, lambda row: row, f"benchmark '{benchmark}'")}


def _catalog_row(spec: catalog_lib.TaskSpec, assignment: splits.Assignment) -> dict[str, Any]:
    return {
        "name": spec.name,
        "benchmark": spec.benchmark,
        "category": assignment.category or spec.category,
        "level": assignment.level,
        "role": assignment.role,
        "metric": spec.metric,
        "num_examples": spec.num_examples,
        "instruction_kind": spec.instruction_kind,
        "reason": assignment.reason,
    }


def _describe_stored(task: store_lib.StoredTask) -> dict[str, str]:
    return {
        "benchmark": task.spec.benchmark,
        "category": task.spec.category,
        "level": task.level,
        "role": task.role,
    }


def _task_row(store: store_lib.Store, task: store_lib.StoredTask) -> dict[str, Any]:
    means = summary.lengths_of(store, [task]).mean(axis=1) if task.num_train else (None, None)
    return {
        "name": task.name,
        **_describe_stored(task),
        "metric": task.spec.metric,
        "num_examples": task.num_train,
        "num_eval": task.num_eval,
        "mean_tokens": None if means[0] is None else float(means[0]),
        "mean_target_tokens": None if means[1] is None else float(means[1]),
        "reason": task.reason,
    }


def _lengths(store: store_lib.Store, tasks: Sequence[store_lib.StoredTask]) -> dict[str, Any]:
    trained = [task for task in tasks if task.num_train]
    benchmarks = sorted({task.spec.benchmark for task in trained})
    return {
        "all": summary.length_table(store, trained),
        "benchmarks": {
            name: summary.length_table(store, [t for t in trained if t.spec.benchmark == name])
            for name in benchmarks
        },
    }


def _grouped_shares(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return {name: _group(members) for name, members in sorted(groups.items())}


def _group(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    examples = sum(row["num_examples"] for row in members)
    # As drawn: a task counts as often as its rate says.
    weights = [row["example_share"] for row in members]
    content: dict[str, Any] = {"num_tasks": len(members), "num_examples": examples}
    content |= {name: sum(row[name] for row in members) for name in SHARES}
    for name in ("mean_tokens", "mean_target_tokens"):
        total = sum(weight * row[name] for weight, row in zip(weights, members))
        content[name] = total / sum(weights)
    counted = all(row["epochs"] is not None for row in members)
    drawn = sum(row["epochs"] * row["num_examples"] for row in members) if counted else None
    content["epochs"] = None if drawn is None else drawn / examples
    return content
