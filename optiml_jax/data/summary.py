"""What a store holds, in numbers, and what a mixture makes of it.

    summarize        examples and tokens by benchmark, category and level, as they lie
    mixture_shares   what each task contributes once the mixture's rates apply
    lengths          percentiles of tokens and target tokens, and how many examples were cut

Neighbours: `store` holds the tables, `mixing` turns sizes into rates; `optiml inspect` and
`optiml report` show what comes out. Left out on purpose: the rows of a run, which cut examples at
its own feature length; all numbers here are of the examples as stored.
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from optiml_jax.bench import splits
from optiml_jax.data import mixing
from optiml_jax.data import store as store_lib
from optiml_jax.errors import InputError

PERCENTILES = (50, 90, 99)


@dataclasses.dataclass(frozen=True)
class MixtureShare:
    """One task's part of a mixture.

    Attributes:
        task: `benchmark__task`.
        role: under the store's split; tasks with training examples have the role train.
        level: of generalization of its evaluation part.
        num_examples: training examples of one rendering.
        example_share: share of the examples that training draws: its mixing rate.
        token_share: share of the tokens of those examples, `</s>` included.
        target_share: share of the tokens that carry loss; what the gradient sees.
        mean_tokens: tokens of an example, over all renderings.
        mean_target_tokens: those that carry loss.
    """

    task: str
    benchmark: str
    category: str
    role: str
    level: str
    num_examples: int
    example_share: float
    token_share: float
    target_share: float
    mean_tokens: float
    mean_target_tokens: float


def mixture_shares(
    store: store_lib.Store, name: str | None, spec: mixing.MixtureSpec
) -> list[MixtureShare]:
    """Shares of every trained task in a mixture: of examples, tokens and target tokens.

    Each kind of share sums to 1 over the list, which is sorted by task name. A rate is a share of
    examples; long examples make it a larger share of tokens, long answers one of target tokens.

    Args:
        name: a mixture, benchmark or task of the store; None for the store's own mixture.
        spec: how its tasks are mixed.

    Raises:
        InputError: unknown name, nothing trainable in it, or rates that cannot be.

    Example:
        two tasks of equal rate with 30 and 10 tokens an example have token shares 0.75 and 0.25
    """
    tasks = sorted(trained_tasks(store, name), key=lambda task: task.name)
    sizes = [task.num_train for task in tasks]
    rates = mixing.mixing_rates(
        spec, [task.spec for task in tasks], sizes, store.mixtures.get(name or "")
    )
    totals = np.stack([lengths_of(store, [task]).mean(axis=1) for task in tasks])
    weighted = rates[:, None] * totals
    # A mixture without a target token has nothing to share; its shares are zero, not NaN.
    shares = weighted / np.maximum(weighted.sum(axis=0), np.finfo(np.float64).tiny)
    return [
        MixtureShare(
            task=task.name,
            benchmark=task.spec.benchmark,
            category=task.spec.category,
            role=task.role,
            level=task.level,
            num_examples=task.num_train,
            example_share=float(rate),
            token_share=float(share[0]),
            target_share=float(share[1]),
            mean_tokens=float(mean[0]),
            mean_target_tokens=float(mean[1]),
        )
        for task, rate, share, mean in zip(tasks, rates, shares, totals)
    ]


def trained_tasks(store: store_lib.Store, name: str | None) -> list[store_lib.StoredTask]:
    """The tasks of a mixture that have training examples.

    Raises:
        InputError: no mixture, benchmark or task of this name, or none of its tasks is trained on.
    """
    selected = store.select(name)
    tasks = [task for task in selected if task.num_train]
    if not tasks:
        raise InputError(
            f"store '{store.path}': '{name or store.meta['mixture']}' has no training examples: its"
            f" {len(selected)} task(s) are held out under the split '{store.meta['split']}'. Choose"
            " another mixture, benchmark or task."
        )
    return tasks


def lengths_of(store: store_lib.Store, tasks: Sequence[store_lib.StoredTask]) -> np.ndarray:
    """Tokens and target tokens of all training examples of these tasks, int64 [2, examples].

    Every rendering of an example is one entry. A first token never carries loss, so an empty
    source has its loss on all tokens but one.
    """
    own = [slice(task.first_example, task.first_example + task.num_train) for task in tasks]
    empty = np.zeros((store.num_renderings, 0), np.int64)
    tokens = np.concatenate([empty, *(store.lengths[:, one] for one in own)], axis=1)
    starts = np.concatenate([empty, *(store.loss_starts[:, one] for one in own)], axis=1)
    return np.stack([tokens.ravel(), (tokens - np.maximum(starts, 1)).ravel()]).astype(np.int64)


def length_table(store: store_lib.Store, tasks: Sequence[store_lib.StoredTask]) -> dict[str, Any]:
    """Percentiles and greatest value of tokens and target tokens, and the share that was cut.

    Example:
        {"tokens": {"p50": 81, "p90": 160, "p99": 240, "max": 412}, "target_tokens": {...},
         "num_examples": 2000, "cut_share": 0.0}; without an example the two tables are empty.
    """
    num_examples = sum(task.num_train for task in tasks)
    cut = sum(task.num_truncated for task in tasks)
    content: dict[str, Any] = {}
    for kind, values in zip(("tokens", "target_tokens"), lengths_of(store, tasks)):
        content[kind] = {}
        if len(values):
            # "higher" names a length that an example has.
            marks = np.percentile(values, PERCENTILES, method="higher")
            content[kind] = {f"p{p}": int(mark) for p, mark in zip(PERCENTILES, marks)}
            content[kind]["max"] = int(values.max())
    content["num_examples"] = num_examples
    content["cut_share"] = cut / num_examples if num_examples else 0.0
    return content


def summarize(
    store: store_lib.Store, tasks: Sequence[store_lib.StoredTask] | None = None
) -> dict[str, Any]:
    """The content of `optiml inspect --store=STORE --json`.

    Examples and tokens are those of one training rendering; `num_eval` counts the evaluation
    records of one view. A training task stands in the level `fully_supervised` with its held-out
    instances.

    Args:
        tasks: those that count; None for all of the store.
    """
    chosen = store.tasks if tasks is None else tasks
    included = [task for task in chosen if task.role != "excluded"]
    excluded = [task for task in chosen if task.role == "excluded"]
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
