"""From task sizes to mixing rates: cap, proportions, clusters, subsets, ingredients.

A rate is the share of *examples* that a task contributes, not of tokens (OPT-IML code,
`_alpha_sampling`). `packing` turns rates into an order; `seqio_tasks` gives the same numbers to a
`seqio.Mixture`. What a rate means in tokens is shown by `optiml inspect`.

    sizes --cap, alpha--> weights --subset--> equal clusters, proportions --ingredients--> rates

Neighbours: `subsets` chooses tasks and clusters; `summary.in_examples` knows the lengths that
`replay_unit = "rows"` asks for.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from optiml_jax import errors
from optiml_jax.bench import catalog, catalog_table
from optiml_jax.data import subsets
from optiml_jax.errors import InputError

RateFn = Callable[[catalog.TaskSpec, int], float]
"""(task, number of its training examples) -> a non-negative weight."""

INGREDIENTS = ("replay", "dialogue", "reasoning")
"""Benchmarks that OPT-IML adds to the instruction tasks, or leaves out (§4.5-4.7). As an
ingredient, or in proportions, each may have a share of 0 where it is not in the store at all."""

BENCHMARKS = (*catalog_table.BENCHMARKS, "replay", "dialogue", "mini")
"""Those that this package knows. A share of 0 may be given to any of them, present or not."""

REPLAY_UNITS = ("examples", "rows")


@dataclasses.dataclass(frozen=True)
class MixtureSpec:
    """How tasks are mixed; the one definition behind the stream and the `seqio.Mixture`.

    Attributes:
        eps: maximum mixing rate, the cap on a task's size (OPT-IML: 4096); None for no cap.
        alpha: exponent on the capped shares before they are renormalised (metaseq's default: 1).
        proportions: benchmark -> share of the examples. Benchmarks that are not named share what
            is left, in the ratio of their capped sizes. None keeps the capped sizes.
        equalize_clusters: within a benchmark every category gets the same share.
        rate_fn: replaces cap and alpha by a user's function; proportions still apply.
        num_tasks: train on a random subset of so many tasks; None for all. See `subsets`.
        num_clusters: train on so many categories; None for all. See `subsets`.
        subset_seed: of the random subsets.
        ingredients: benchmark -> share of all examples, e.g. {"replay": 0.05, "dialogue": 0.0}.
            Subsets and proportions are then about the other benchmarks, which share what is left.
            A share of 0 leaves a benchmark out. None makes no difference between benchmarks.
        ingredients_from: the benchmark that gives up what the ingredients take; None: all others
            do, each as much of its share.
        replay_unit: what the share of replay counts: "examples", or "rows" of the packed input,
            that is tokens. OPT-IML says "updates" (§4.5); a replayed example fills a row, where
            ten of a task do.

    A SeqIO mixture of a user's brings rates of its own (`mixing_rates`): like a `rate_fn` they
    replace cap and alpha, and what else is asked for applies on top.

    Example:
        proportions {"flan": 0.4, "t5": 0.6} and ingredients {"replay": 0.05, "reasoning": 0.05}
        give flan .36, t5 .54, replay .05, reasoning .05; with ingredients_from "t5" flan .4, t5 .5.

    Source: OPT-IML (arXiv 2212.12017) §4.2-4.7; metaseq branch opt_instruct, `_alpha_sampling`.
    """

    eps: int | None = 4096
    alpha: float = 1.0
    proportions: Mapping[str, float] | None = None
    equalize_clusters: bool = False
    rate_fn: RateFn | None = None
    num_tasks: int | None = None
    num_clusters: int | None = None
    subset_seed: int = 0
    ingredients: Mapping[str, float] | None = None
    ingredients_from: str | None = None
    replay_unit: str = "examples"

    def __post_init__(self):
        _check_count("eps", self.eps, "examples", "no cap")
        _check_count("num_tasks", self.num_tasks, "tasks", "all")
        _check_count("num_clusters", self.num_clusters, "categories", "all")
        if not is_whole(self.subset_seed) or self.subset_seed < 0:
            raise InputError(
                f"MixtureSpec.subset_seed is {self.subset_seed!r}, expected a whole number of 0 or"
                " more."
            )
        if not _is_share(self.alpha):
            raise InputError(f"MixtureSpec.alpha is {self.alpha!r}, expected 0 or more.")
        _check_shares("proportions", self.proportions, "the capped sizes")
        _check_shares("ingredients", self.ingredients, "no such shares")
        if both := sorted(set(self.proportions or ()) & set(self.ingredients or ())):
            raise InputError(
                f"MixtureSpec: '{both[0]}' stands in proportions and in ingredients. Leave it out"
                " of one of the two."
            )
        if self.ingredients_from is not None and not self.ingredients:
            raise InputError(
                f"MixtureSpec.ingredients_from is {self.ingredients_from!r}, but there are no"
                " ingredients to give to. Set MixtureSpec.ingredients, or leave it out."
            )
        if self.ingredients_from in (self.ingredients or ()):
            raise InputError(
                f"MixtureSpec.ingredients_from is '{self.ingredients_from}', which is an ingredient"
                " itself. Name another benchmark, or None for all others."
            )
        if self.replay_unit not in REPLAY_UNITS:
            raise errors.unknown("replay_unit", self.replay_unit, REPLAY_UNITS, "MixtureSpec")
        if self.replay_unit == "rows" and "replay" not in (self.ingredients or ()):
            raise InputError(
                "MixtureSpec.replay_unit is 'rows', but the ingredients give replay no share. Set"
                " MixtureSpec.ingredients = {'replay': 0.05}."
            )

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values, `rate_fn` aside."""
        row = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del row["rate_fn"]
        for name in ("proportions", "ingredients"):
            row[name] = None if row[name] is None else dict(row[name])
        return row


def describe(settings: Mapping[str, Any]) -> str:
    """Subsets and ingredients of `MixtureSpec.to_json` in words, "" where there are none.

    Example:
        "16 tasks (seed 0); replay=0.05 (of rows), reasoning=0.01 from super_natural_instructions"
    """
    parts = []
    if settings["num_clusters"] is not None:
        parts.append(f"{settings['num_clusters']} clusters")
    if settings["num_tasks"] is not None:
        parts.append(f"{settings['num_tasks']:,} tasks (seed {settings['subset_seed']})")
    shares = []
    for name, share in (settings["ingredients"] or {}).items():
        in_rows = name == "replay" and settings["replay_unit"] == "rows"
        shares.append(f"{name}={share:g}{' (of rows)' * in_rows}")
    if shares:
        giver = settings["ingredients_from"]
        parts.append(", ".join(shares) + (f" from {giver}" if giver else ""))
    return "; ".join(parts)


def is_whole(value: Any) -> bool:
    """Whether a setting is a whole number; True and 1.0 are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_share(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0


def _check_count(name: str, value: Any, unit: str, none: str) -> None:
    if value is not None and (not is_whole(value) or value < 1):
        raise InputError(
            f"MixtureSpec.{name} is {value!r}, expected a whole number of {unit}, 1 or more, or"
            f" None for {none}."
        )


def _check_shares(name: str, shares: Any, none: str) -> None:
    if shares is None:
        return
    if not isinstance(shares, Mapping):
        raise InputError(
            f"MixtureSpec.{name} is {shares!r}, expected {{'BENCHMARK': share}}, or None for"
            f" {none}."
        )
    for benchmark, share in shares.items():
        if not _is_share(share):
            raise InputError(
                f"MixtureSpec.{name}['{benchmark}'] is {share!r}, expected a share of 0 or more."
            )
    if (total := sum(shares.values())) > 1 + 1e-9:
        raise InputError(
            f"MixtureSpec.{name} sum to {total:g}, expected at most 1. Give shares, not"
            " percentages."
        )


def mixing_rates(
    spec: MixtureSpec,
    tasks: Sequence[catalog.TaskSpec],
    sizes: Sequence[int],
    rates: Mapping[str, float] | None = None,
) -> np.ndarray:
    """Each task's share of the examples, float64 [num_tasks], summing to 1.

    Args:
        tasks: the tasks of the mixture.
        sizes: training examples of each; 0 gives rate 0.
        rates: task -> rate of a stored mixture (`Store.mixtures`); None where there is none.

    Raises:
        InputError: no task has a positive rate, a proportion or ingredient gives a share to an
            absent benchmark or names an unknown one, a subset is larger than the mixture, the
            user's function returned something that is no rate, there are both such a function and
            `rates`, or replay is counted in rows, which sizes do not tell (`summary.in_examples`).

    Example:
        sizes 100 and 9000 with eps 4096 give 100 / 4196 and 4096 / 4196.
    """
    if spec.replay_unit == "rows" and (spec.ingredients or {}).get("replay"):
        raise InputError(
            "MixtureSpec.replay_unit is 'rows', which needs the lengths of a store's examples."
            " summary.in_examples(spec, store, name, feature_length) gives the same mixture in"
            " examples; SeqIO's mixtures can only have 'examples'."
        )
    sizes_array = np.asarray(sizes, np.float64)
    weights = _weights(spec, tasks, sizes, rates)
    if not len(tasks) or weights.sum() <= 0:
        raise InputError(
            f"mixture: none of its {len(tasks)} tasks has a positive rate. Prepare tasks with the"
            " role 'train', or check the rates."
        )
    benchmarks = np.array([task.benchmark for task in tasks])
    _check_present(spec, benchmarks)
    weights = np.where(members(spec, tasks, sizes_array > 0), weights, 0.0)
    is_ingredient = np.isin(benchmarks, list(spec.ingredients or ()))
    if weights.sum() <= 0:
        raise InputError(
            "MixtureSpec: its subset and ingredients leave every task with rate 0. Change"
            " num_tasks, num_clusters or ingredients."
        )
    shares = weights / weights.sum()
    if spec.equalize_clusters:
        shares = _equalize_clusters(shares, benchmarks, [task.category for task in tasks])
    if spec.proportions is not None:
        others = np.where(is_ingredient, 0.0, shares)
        shares = np.where(
            is_ingredient, shares, _apply_proportions(others, benchmarks, spec.proportions)
        )
    if spec.ingredients is not None:
        shares = _add_ingredients(shares, benchmarks, spec.ingredients, spec.ingredients_from)
    return shares


def members(
    spec: MixtureSpec, tasks: Sequence[subsets.Named], can_train: Sequence[bool] | np.ndarray
) -> np.ndarray:
    """Which tasks a mixture may draw at all, bool [num_tasks]: its subset and its ingredients.

    Args:
        can_train: whether a task has training examples; others are not chosen.

    Raises:
        InputError: a subset is larger than there are tasks or categories.
    """
    ingredients = spec.ingredients or {}
    chosen = np.array(
        [bool(can) and ingredients.get(t.benchmark, 1) > 0 for t, can in zip(tasks, can_train)],
        bool,
    )
    base = [t for t, in_it in zip(tasks, chosen) if in_it and t.benchmark not in ingredients]
    if spec.num_clusters is not None:
        kept = set(subsets.choose_categories(base, spec.num_clusters))
        base = [task for task in base if task.category in kept]
    if spec.num_tasks is not None:
        named = subsets.choose_tasks(base, spec.num_tasks, spec.subset_seed)
        base = [task for task in base if task.name in named]
    names = {task.name for task in base}
    is_in = [task.benchmark in ingredients or task.name in names for task in tasks]
    return chosen & np.array(is_in, bool)


def _weights(
    spec: MixtureSpec,
    tasks: Sequence[catalog.TaskSpec],
    sizes: Sequence[int],
    rates: Mapping[str, float] | None,
) -> np.ndarray:
    """What tasks weigh before anything is shared out; 0 without examples."""
    sizes_array = np.asarray(sizes, np.float64)
    if rates is not None:
        if spec.rate_fn is not None:
            raise InputError(
                "MixtureSpec.rate_fn is set, but the mixture has rates of its own (it is a SeqIO"
                " mixture). Leave one of the two out."
            )
        weights = np.array([_checked_rate(rates[t.name], t, "the mixture") for t in tasks])
    elif spec.rate_fn is not None:
        weights = np.array(
            [
                _checked_rate(spec.rate_fn(t, n), t, "the rate function")
                for t, n in zip(tasks, sizes)
            ]
        )
    else:
        capped = sizes_array if spec.eps is None else np.minimum(sizes_array, spec.eps)
        return np.where(capped > 0, capped ** float(spec.alpha), 0.0)
    return np.where(sizes_array > 0, weights, 0.0)


def _checked_rate(rate: Any, task: catalog.TaskSpec, who: str) -> float:
    if not (isinstance(rate, int | float | np.number) and math.isfinite(rate) and rate >= 0):
        raise InputError(
            f"mixture: {who} returned {rate!r} for task '{task.name}', expected a finite number of"
            " 0 or more."
        )
    return float(rate)


def _check_present(spec: MixtureSpec, benchmarks: np.ndarray) -> None:
    """Refuses names that are none, and shares above 0 for benchmarks that are not there."""
    present = set(benchmarks.tolist())
    taken = sum((spec.ingredients or {}).values())
    asked: dict[str, Mapping[str, float]] = {
        "ingredients_from": {spec.ingredients_from: taken} if spec.ingredients_from else {},
        "proportions": spec.proportions or {},
        "ingredients": spec.ingredients or {},
    }
    for field, shares in asked.items():
        for name in shares:
            if name not in present and name not in BENCHMARKS:
                known = present | set(BENCHMARKS)
                raise errors.unknown("benchmark", name, known, f"MixtureSpec.{field}")
        absent = [name for name, share in shares.items() if share and name not in present]
        if absent:
            many = len(absent) > 1
            raise InputError(
                f"MixtureSpec.{field}: benchmark{'s' * many}"
                f" {', '.join(absent) if many else repr(absent[0])} {'have' if many else 'has'} no"
                f" training task in this store; present: {', '.join(sorted(present))}. Prepare"
                f" {'them' if many else 'it'} into the store, or give shares of those that are"
                " present."
            )


def _equalize_clusters(
    shares: np.ndarray, benchmarks: np.ndarray, categories: Sequence[str]
) -> np.ndarray:
    """Keeps each benchmark's share and divides it evenly among its categories."""
    result = np.zeros_like(shares)
    categories_array = np.array(categories)
    for benchmark in np.unique(benchmarks):
        own = benchmarks == benchmark
        present = [
            c for c in np.unique(categories_array[own]) if _sum(shares, own, categories_array, c)
        ]
        for category in present:
            cluster = own & (categories_array == category)
            target = shares[own].sum() / len(present)
            result[cluster] = shares[cluster] * target / shares[cluster].sum()
    return result


def _sum(shares: np.ndarray, own: np.ndarray, categories: np.ndarray, category: str) -> float:
    return float(shares[own & (categories == category)].sum())


def _apply_proportions(
    shares: np.ndarray, benchmarks: np.ndarray, proportions: Mapping[str, float]
) -> np.ndarray:
    """Shares that sum to 1 again; those given stand for the named benchmarks."""
    result = np.zeros_like(shares)
    for benchmark, proportion in proportions.items():
        own = benchmarks == benchmark
        if proportion > 0:
            _check_examples("proportions", benchmark, proportion, shares[own])
            result[own] = shares[own] * proportion / shares[own].sum()
    named = np.isin(benchmarks, list(proportions))
    rest = shares[~named].sum()
    if rest > 0:
        # Shares such as .04 + .02 + ... sum to a hair more than 1.
        left = max(0.0, 1 - sum(proportions.values()))
        result[~named] = shares[~named] * left / rest
    if result.sum() <= 0:
        raise InputError("MixtureSpec.proportions leave every task with rate 0.")
    return result / result.sum()


def _add_ingredients(
    shares: np.ndarray, benchmarks: np.ndarray, ingredients: Mapping[str, float], giver: str | None
) -> np.ndarray:
    """Gives the ingredients their shares of the whole, and the others what is left."""
    is_base = ~np.isin(benchmarks, list(ingredients))
    taken, total = sum(ingredients.values()), shares[is_base].sum()
    if total <= 0 and taken < 1 - 1e-9:
        raise InputError(
            f"MixtureSpec.ingredients sum to {taken:g}, and no other task has a positive rate."
            " Prepare tasks beside them, or give shares that sum to 1."
        )
    result = np.where(is_base, shares / (total or 1.0), 0.0)
    if giver is None:
        result *= max(0.0, 1 - taken)
    else:
        own = benchmarks == giver
        has = float(result[own].sum())
        if taken > has + 1e-9:
            raise InputError(
                f"MixtureSpec.ingredients take a share of {taken:g} from '{giver}', which has"
                f" {has:.4g}. Give smaller shares, or set ingredients_from to another benchmark or"
                " to None, for all."
            )
        if taken:
            result[own] *= max(0.0, has - taken) / has
    for benchmark, share in ingredients.items():
        own = benchmarks == benchmark
        if share > 0:
            _check_examples("ingredients", benchmark, share, shares[own])
            result[own] = shares[own] * share / shares[own].sum()
    return result / result.sum()


def _check_examples(field: str, benchmark: str, share: float, own: np.ndarray) -> None:
    if own.sum() <= 0:
        raise InputError(
            f"MixtureSpec.{field} gives '{benchmark}' a share of {share:g}, but its tasks have no"
            " training examples here, or the subset leaves none of them."
        )
