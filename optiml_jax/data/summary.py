"""What a store holds, in numbers, and what a mixture makes of it.

    summarize        examples and tokens by benchmark, category and level, as they lie
    mixture_rates    the tasks of a mixture and their rates, whatever its replay is counted in
    mixture_shares   what each task contributes once these rates apply
    in_examples      a mixture whose replay is counted in rows, as one counted in examples
    lengths          percentiles of tokens and target tokens, and how many examples were cut

Neighbours: `store` holds the tables, `mixing` turns sizes into rates; `stream` draws by them,
`optiml inspect` and `optiml report` show what comes out. The rows of a run cut longer examples:
what depends on it takes a feature length, and counts examples as stored without one.
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
        mean_tokens: tokens of an example as it lies in a row, over all renderings.
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
    store: store_lib.Store,
    name: str | None,
    spec: mixing.MixtureSpec,
    feature_length: int | None = None,
) -> list[MixtureShare]:
    """Shares of every task that a mixture draws: of examples, tokens and target tokens.

    Each kind of share sums to 1 over the list, which is sorted by task name. A rate is a share of
    examples; long examples make it a larger share of tokens, long answers one of target tokens.
    Tasks with the rate 0 are not in the list.

    Args:
        name: a mixture, benchmark or task of the store; None for the store's own mixture.
        spec: how its tasks are mixed.
        feature_length: tokens of a row; longer examples count as cut to it. None counts them as
            stored.

    Raises:
        InputError: unknown name, nothing trainable in it, or rates that cannot be.

    Example:
        two tasks of equal rate with 30 and 10 tokens an example have token shares 0.75 and 0.25
    """
    found = zip(*mixture_rates(store, name, spec, feature_length))
    drawn = sorted(((t, r) for t, r in found if r > 0), key=lambda pair: pair[0].name)
    tasks, rates = [task for task, _ in drawn], np.array([rate for _, rate in drawn])
    totals = np.stack([lengths_of(store, [t], feature_length).mean(axis=1) for t in tasks])
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


def mixture_rates(
    store: store_lib.Store,
    name: str | None,
    spec: mixing.MixtureSpec,
    feature_length: int | None = None,
) -> tuple[list[store_lib.StoredTask], np.ndarray]:
    """The trained tasks of a mixture in the store's order, and their rates, float64 [num_tasks].

    Args:
        name: a mixture, benchmark or task of the store; None for the store's own mixture.
        feature_length: see `in_examples`.

    Raises:
        InputError: no mixture, benchmark or task of this name, none of its tasks is trained on, or
            rates that cannot be.
    """
    tasks = _trained(store, name)
    return tasks, _rates(in_examples(spec, store, name, feature_length), store, name, tasks)


def in_examples(
    spec: mixing.MixtureSpec,
    store: store_lib.Store,
    name: str | None,
    feature_length: int | None = None,
) -> mixing.MixtureSpec:
    """The same mixture with replay's share in examples, where it is given in rows.

    Rows are token space: a share s of it for replay means that of the tokens of drawn examples a
    share s is replay's, as the mean lengths of the tasks have it. Padding is nobody's.

    Args:
        feature_length: tokens of a row; longer examples count as cut to it. None counts them as
            stored.

    Raises:
        InputError: rates that cannot be, or other ingredients that leave replay no room.

    Example:
        replay of 2,000 tokens, tasks of 100: 5 % of the rows is a share r of the examples with
        2000 r = .05 (2000 r + 100 (1 - r)), that is 0.26 %.
    """
    share = (spec.ingredients or {}).get("replay", 0)
    if spec.replay_unit == "examples" or not share:
        return dataclasses.replace(spec, replay_unit="examples")
    others = {k: v for k, v in (spec.ingredients or {}).items() if k != "replay"}
    tasks = _trained(store, name)
    tokens = np.array([lengths_of(store, [task], feature_length)[0].mean() for task in tasks])

    def rates_with(**changes: Any) -> np.ndarray:
        changed = dataclasses.replace(spec, replay_unit="examples", **changes)
        return _rates(changed, store, name, tasks)

    alone: dict[str, Any] = {"num_tasks": None, "num_clusters": None, "proportions": None}
    alone |= {"ingredients": {"replay": 1.0}, "ingredients_from": None}
    replay_tokens = rates_with(**alone) @ tokens
    without = rates_with(ingredients={**others, "replay": 0.0})
    gives = np.array(
        [
            task.spec.benchmark == spec.ingredients_from
            if spec.ingredients_from
            else task.spec.benchmark not in (spec.ingredients or {})
            for task in tasks
        ]
    )
    has = without[gives].sum()
    given_tokens = without[gives] @ tokens[gives] / has if has else 0.0
    # r examples of replay take the place of r others: r m = s (r m + N - r g), solved for r.
    rate = share * (without @ tokens) / (replay_tokens * (1 - share) + share * given_tokens)
    room = 1 - sum(others.values())
    if rate > room + 1e-9:
        raise InputError(
            f"MixtureSpec.ingredients: replay in {share:g} of the rows is {rate:.4g} of the"
            f" examples, but the other ingredients leave {room:.4g}. Give smaller shares."
        )
    ingredients = {**(spec.ingredients or {}), "replay": float(min(rate, room))}
    return dataclasses.replace(spec, replay_unit="examples", ingredients=ingredients)


def _rates(
    spec: mixing.MixtureSpec,
    store: store_lib.Store,
    name: str | None,
    tasks: Sequence[store_lib.StoredTask],
) -> np.ndarray:
    sizes = [task.num_train for task in tasks]
    own = store.mixtures.get(name or "")
    return mixing.mixing_rates(spec, [task.spec for task in tasks], sizes, own)


def _trained(store: store_lib.Store, name: str | None) -> list[store_lib.StoredTask]:
    selected = store.select(name)
    tasks = [task for task in selected if task.num_train]
    if not tasks:
        raise InputError(
            f"store '{store.path}': '{name or store.meta['mixture']}' has no training examples: its"
            f" {len(selected)} task(s) are held out under the split '{store.meta['split']}'. Choose"
            " another mixture, benchmark or task."
        )
    return tasks


def lengths_of(
    store: store_lib.Store,
    tasks: Sequence[store_lib.StoredTask],
    feature_length: int | None = None,
) -> np.ndarray:
    """Tokens and target tokens of all training examples of these tasks, int64 [2, examples].

    Every rendering of an example is one entry. A first token never carries loss, so an empty
    source has its loss on all tokens but one.

    Args:
        feature_length: tokens of a row; it holds the last `feature_length + 1` of a longer example
            (see `stream.pack_rows`). None counts examples as stored.
    """
    own = [slice(task.first_example, task.first_example + task.num_train) for task in tasks]
    empty = np.zeros((store.num_renderings, 0), np.int64)
    tokens = np.concatenate([empty, *(store.lengths[:, one] for one in own)], axis=1)
    starts = np.concatenate([empty, *(store.loss_starts[:, one] for one in own)], axis=1)
    kept = tokens if feature_length is None else np.minimum(tokens, feature_length + 1)
    targets = kept - np.maximum(starts.astype(np.int64) - (tokens - kept), 1)
    return np.stack([kept.ravel(), targets.ravel()]).astype(np.int64)


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
