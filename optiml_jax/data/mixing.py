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
import sys
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

SLACK = 1e-9
"""Shares such as .04 + .02 + ... do not sum to 1 exactly."""

NEGLIGIBLE = 2.0**-52
"""A rate below it is 0: beside the others a float's sum does not notice it, nor would a run."""


@dataclasses.dataclass(frozen=True)
class MixtureSpec:
    """How tasks are mixed; the one definition behind the stream and the `seqio.Mixture`.

    Attributes:
        eps: maximum mixing rate, the cap on a task's size (OPT-IML: 4096); None for no cap.
        alpha: exponent on the capped shares before they are renormalised (metaseq's default: 1).
        proportions: benchmark -> share of the examples. Benchmarks that are not named share what
            is left, in the ratio of their capped sizes; where none is left to take it, shares have
            to sum to 1. None keeps the capped sizes.
        equalize_clusters: within a benchmark every category gets the same share.
        rate_fn: replaces cap and alpha by a user's function; proportions still apply.
        num_tasks: train on a random subset of so many of the tasks that have a rate above 0; None
            for all. See `subsets`.
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
        if not isinstance(self.equalize_clusters, bool):
            raise InputError(
                f"MixtureSpec.equalize_clusters is {self.equalize_clusters!r}, expected True or"
                " False."
            )
        if self.rate_fn is not None and not callable(self.rate_fn):
            raise InputError(
                f"MixtureSpec.rate_fn is {self.rate_fn!r}, expected a function of a task and its"
                " number of examples, or None. In gin: import YOUR_MODULE, then @your_function."
            )
        _check_shares("proportions", self.proportions, "the capped sizes")
        _check_shares("ingredients", self.ingredients, "no such shares")
        if both := sorted(set(self.proportions or ()) & set(self.ingredients or ())):
            raise InputError(
                f"MixtureSpec: '{both[0]}' stands in proportions and in ingredients. Leave it out"
                " of one of the two."
            )
        self._check_giver()
        if self.replay_unit not in REPLAY_UNITS:
            raise errors.unknown("replay_unit", self.replay_unit, REPLAY_UNITS, "MixtureSpec")
        if self.replay_unit == "rows" and "replay" not in (self.ingredients or ()):
            raise InputError(
                "MixtureSpec.replay_unit is 'rows', but the ingredients give replay no share. Set"
                " MixtureSpec.ingredients = {'replay': 0.05}."
            )

    def _check_giver(self) -> None:
        giver = self.ingredients_from
        if giver is None:
            return
        if not isinstance(giver, str):
            raise InputError(
                f"MixtureSpec.ingredients_from is {giver!r}, expected the name of a benchmark, or"
                " None for all."
            )
        if not self.ingredients:
            raise InputError(
                f"MixtureSpec.ingredients_from is '{giver}', but there are no ingredients to give"
                " to. Set MixtureSpec.ingredients, or leave it out."
            )
        if giver in self.ingredients:
            raise InputError(
                f"MixtureSpec.ingredients_from is '{giver}', which is an ingredient itself. Name"
                " another benchmark, or None for all others."
            )

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values; a `rate_fn` by its name."""
        row = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("proportions", "ingredients"):
            row[name] = None if row[name] is None else dict(row[name])
        if self.rate_fn is not None:
            row["rate_fn"] = getattr(self.rate_fn, "__name__", repr(self.rate_fn))
        return row


def describe(settings: Mapping[str, Any], has_own_rates: bool = False) -> str:
    """`MixtureSpec.to_json` in words.

    Args:
        has_own_rates: it is of a stored SeqIO mixture, whose rates replace cap and alpha.

    Example:
        "eps 4,096, alpha 1, proportions as they come; 16 tasks (seed 0); replay=0.05 (of rows),
        reasoning=0.01 from super_natural_instructions"
    """
    rates = "no cap" if settings["eps"] is None else f"eps {settings['eps']:,}"
    rates += f", alpha {settings['alpha']:g}"
    if settings["rate_fn"] is not None:
        rates = f"rates by {settings['rate_fn']}"
    if has_own_rates:
        rates = "rates of its own (SeqIO)"
    proportions = ", ".join(f"{k}={v:g}" for k, v in (settings["proportions"] or {}).items())
    rates += f", proportions {proportions or 'as they come'}"
    parts = [rates + ", equal clusters" * settings["equalize_clusters"]]
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
    """Whether a setting is a number of 0 or more that a float can hold."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value <= sys.float_info.max


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
        if not isinstance(benchmark, str):
            raise InputError(
                f"MixtureSpec.{name} names {benchmark!r}, expected the name of a benchmark, e.g."
                " 'flan'."
            )
        if not _is_share(share):
            raise InputError(
                f"MixtureSpec.{name}['{benchmark}'] is {share!r}, expected a share of 0 or more."
            )
    if (total := sum(shares.values())) > 1 + SLACK:
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
            absent benchmark or names an unknown one, shares do not sum to 1 and nobody takes the
            rest, a subset is larger than the mixture, the user's function returned something that
            is no rate, there are both such a function and `rates`, or replay is counted in rows,
            which sizes do not tell (`summary.in_examples`).

    Example:
        sizes 100 and 9000 with eps 4096 give 100 / 4196 and 4096 / 4196.
    """
    if spec.replay_unit == "rows" and (spec.ingredients or {}).get("replay"):
        raise InputError(
            "MixtureSpec.replay_unit is 'rows', which needs the lengths of a store's examples:"
            " SeqIO's mixtures can only have 'examples'."
        )
    weights = _weights(spec, tasks, np.asarray(sizes, np.float64), rates)
    if not len(tasks) or weights.sum() <= 0:
        raise InputError(
            f"mixture: none of its {len(tasks)} tasks has a positive rate. Prepare tasks with the"
            " role 'train', or check the rates."
        )
    benchmarks = np.array([task.benchmark for task in tasks])
    _check_present(spec, set(benchmarks.tolist()))
    weights = np.where(members(spec, tasks, weights > 0), weights, 0.0)
    if spec.equalize_clusters:
        categories = np.array([task.category for task in tasks])
        weights = _equalize_clusters(weights, benchmarks, categories)
    totals = {str(n): float(weights[benchmarks == n].sum()) for n in np.unique(benchmarks)}
    result = np.zeros_like(weights)
    for name, share in benchmark_shares(spec, totals).items():
        if share > 0:
            own = benchmarks == name
            result[own] = weights[own] / totals[name] * share
    result = np.where(result < NEGLIGIBLE, 0.0, result)
    return result / result.sum()


def benchmark_shares(spec: MixtureSpec, weights: Mapping[str, float]) -> dict[str, float]:
    """Benchmark -> its share of the examples, summing to 1.

    Args:
        weights: what the tasks of each benchmark weigh together, 0 where none of them is drawn, NaN
            where that is not known, as without a store. A share that depends on such a weight is
            NaN too, and what only it could tell is not refused.

    Raises:
        InputError: no benchmark has a weight, a share goes to one that has none, shares sum to less
            than 1 and nobody takes the rest, or ingredients take more than their giver has.

    Example:
        proportions {"flan": 0.4} and ingredients {"replay": 0.05} over flan, t5, exmix and replay
        give flan .38, replay .05 and t5 and exmix .57 together, in the ratio of their weights.
    """
    if not any(weight != 0 for weight in weights.values()):
        raise InputError(
            "MixtureSpec: its proportions, ingredients and subset leave every task with rate 0."
            " Change proportions, ingredients, num_tasks or num_clusters."
        )
    proportions, ingredients = dict(spec.proportions or {}), dict(spec.ingredients or {})
    for field, given in (("proportions", proportions), ("ingredients", ingredients)):
        for name, share in given.items():
            if share > 0 and weights.get(name, 0) == 0:
                raise InputError(
                    f"MixtureSpec.{field} gives '{name}' a share of {share:g}, but its tasks have"
                    " no training examples here, or the subset leaves none of them."
                )
    if spec.replay_unit == "rows" and ingredients.get("replay"):
        ingredients["replay"] = math.nan  # Lengths decide.
    taken, left = sum(ingredients.values()), _left(proportions)
    rest = {
        name: weight
        for name, weight in weights.items()
        if weight != 0 and left and name not in proportions and name not in ingredients
    }
    if left and not rest and taken < 1 - SLACK:
        if proportions:
            raise InputError(
                f"MixtureSpec.proportions sum to {1 - left:g}, and no other benchmark is left to"
                " take the rest. Give shares that sum to 1."
            )
        raise InputError(
            f"MixtureSpec.ingredients sum to {taken:g}, and no other task has a positive rate."
            " Prepare tasks beside them, or give shares that sum to 1."
        )
    shares = dict.fromkeys(weights, 0.0) | proportions
    total = sum(rest.values())
    shares |= {n: left * (weight / total if len(rest) > 1 else 1.0) for n, weight in rest.items()}
    giver = spec.ingredients_from
    if giver is None:
        shares = {name: share and share * max(1 - taken, 0.0) for name, share in shares.items()}
    elif taken > shares.get(giver, 0.0) + SLACK:
        raise InputError(
            f"MixtureSpec.ingredients take a share of {taken:g} from '{giver}', which has"
            f" {shares.get(giver, 0.0):.4g}. Give smaller shares, or set ingredients_from to"
            " another benchmark or to None, for all."
        )
    else:
        shares[giver] = max(shares.get(giver, 0.0) - taken, 0.0)
    return shares | ingredients


def _left(proportions: Mapping[str, float]) -> float:
    """What proportions leave to the benchmarks that they do not name."""
    left = 1 - sum(proportions.values())
    return left if left > SLACK else 0.0


def members(
    spec: MixtureSpec, tasks: Sequence[subsets.Named], can_train: Sequence[bool] | np.ndarray
) -> np.ndarray:
    """Which tasks a mixture may draw at all, bool [num_tasks].

    Left out are those whose benchmark has a share of 0, and those that its subset leaves out: a
    subset is of tasks that can be drawn.

    Args:
        can_train: whether a task has training examples and a weight; others are not chosen.

    Raises:
        InputError: a subset is larger than there are tasks or categories.
    """
    ingredients = spec.ingredients or {}
    shares = {**(spec.proportions or {}), **ingredients}
    left = _left(spec.proportions or {})
    chosen = np.array(
        [bool(can) and shares.get(t.benchmark, left) > 0 for t, can in zip(tasks, can_train)],
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


def _called(rate_fn: RateFn, task: catalog.TaskSpec, size: int) -> Any:
    try:
        return rate_fn(task, size)
    except Exception as error:
        name = getattr(rate_fn, "__name__", repr(rate_fn))
        told = str(error).splitlines()
        raise InputError(
            f"MixtureSpec.rate_fn: {name}(task '{task.name}', {size:,} examples) ended with"
            f" {type(error).__name__}: {told[0] if told else 'no message'}. It is called with a"
            " task (`catalog.TaskSpec`) and its number of examples, and returns a rate."
        ) from error


def _weights(
    spec: MixtureSpec,
    tasks: Sequence[catalog.TaskSpec],
    sizes: np.ndarray,
    rates: Mapping[str, float] | None,
) -> np.ndarray:
    """What tasks weigh before anything is shared out, at most 1; 0 without examples."""
    alpha = 1.0
    if rates is not None:
        if spec.rate_fn is not None:
            raise InputError(
                "MixtureSpec.rate_fn is set, but the mixture has rates of its own (it is a SeqIO"
                " mixture). Leave one of the two out."
            )
        weights = np.array([_checked_rate(rates[t.name], t, "the mixture") for t in tasks])
    elif (rate_fn := spec.rate_fn) is not None:
        given = [_called(rate_fn, task, int(size)) for task, size in zip(tasks, sizes)]
        weights = np.array(
            [_checked_rate(rate, t, "the rate function") for rate, t in zip(given, tasks)]
        )
    else:
        most = float(sizes.max(initial=1.0))
        weights = np.minimum(sizes, most if spec.eps is None else min(spec.eps, most))
        alpha = float(spec.alpha)
    weights = np.where(sizes > 0, weights, 0.0)
    # Of the largest: neither a high power nor a sum of large rates leaves the floats.
    weights = weights / (weights.max(initial=0.0) or 1.0)
    return np.where(weights > 0, weights**alpha, 0.0)


def _checked_rate(rate: Any, task: catalog.TaskSpec, who: str) -> float:
    is_number = isinstance(rate, int | float | np.number)
    if not (is_number and 0 <= rate <= sys.float_info.max):
        raise InputError(
            f"mixture: {who} returned {rate!r} for task '{task.name}', expected a finite number of"
            " 0 or more."
        )
    return float(rate)


def _check_present(spec: MixtureSpec, present: set[str]) -> None:
    """Refuses names that are none, and shares above 0 for benchmarks that are not there."""
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
    weights: np.ndarray, benchmarks: np.ndarray, categories: np.ndarray
) -> np.ndarray:
    """Keeps each benchmark's weight and divides it evenly among its categories."""
    result = np.zeros_like(weights)
    for benchmark in np.unique(benchmarks):
        own = (benchmarks == benchmark) & (weights > 0)
        present = np.unique(categories[own])
        for category in present:
            cluster = own & (categories == category)
            part = weights[own].sum() / len(present)
            result[cluster] = weights[cluster] / weights[cluster].sum() * part
    return result
