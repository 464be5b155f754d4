"""What a store holds, in numbers: tasks, examples and tokens by benchmark, category and level."""

import collections
from collections.abc import Iterable
from typing import Any

from optiml_jax.bench import splits
from optiml_jax.data import store as store_lib


def summarize(store: store_lib.Store) -> dict[str, Any]:
    """The content of `optiml inspect --store=STORE --json`.

    Examples and tokens are those of one training rendering; `num_eval` counts the evaluation
    records of one view. A training task stands in the level `fully_supervised` with its held-out
    instances.
    """
    included = [task for task in store.tasks if task.role != "excluded"]
    excluded = [task for task in store.tasks if task.role == "excluded"]
    return {
        "num_tasks": len(included),
        **_counts(included),
        "num_excluded_tasks": len(excluded),
        "mixture": store.meta["mixture"],
        "split": store.meta["split"],
        "vocabulary": store.meta["vocabulary"],
        "views": sorted(store.shards),
        "num_renderings": store.num_renderings,
        "max_tokens": store.meta["max_tokens"],
        "benchmarks": _grouped(included, lambda task: task.spec.benchmark),
        "categories": _grouped(included, lambda task: task.spec.category),
        "roles": _grouped(included, lambda task: task.role),
        "levels": {
            level: _group([task for task in included if task.level == level])
            for level in splits.LEVELS
        },
        "excluded": dict(collections.Counter(task.reason for task in excluded)),
    }


def _counts(tasks: Iterable[store_lib.StoredTask]) -> dict[str, int]:
    tasks = list(tasks)
    return {
        "num_examples": sum(task.num_train for task in tasks),
        "num_eval": sum(task.num_eval for task in tasks),
        "num_tokens": sum(task.num_tokens for task in tasks),
        "num_target_tokens": sum(task.num_target_tokens for task in tasks),
        "num_truncated": sum(task.num_truncated for task in tasks),
    }


def _group(tasks: list[store_lib.StoredTask]) -> dict[str, int]:
    return {"num_tasks": len(tasks), **_counts(tasks)}


def _grouped(tasks: list[store_lib.StoredTask], key: Any) -> dict[str, dict[str, int]]:
    groups: dict[str, list[store_lib.StoredTask]] = collections.defaultdict(list)
    for task in tasks:
        groups[key(task)].append(task)
    return {name: _group(members) for name, members in sorted(groups.items())}
