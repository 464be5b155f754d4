"""From task sizes to mixing rates: cap, proportions, equal clusters, or a user's function.

A rate is the share of *examples* that a task contributes, not of tokens (OPT-IML code,
`_alpha_sampling`). `packing` turns rates into an order; `seqio_tasks` gives the same numbers to a
`seqio.Mixture`. What a rate means in tokens is shown by `optiml inspect`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from optiml_jax import errors
from optiml_jax.bench import catalog
from optiml_jax.errors import InputError

RateFn = Callable[[catalog.TaskSpec, int], float]
"""(task, number of its training examples) -> a non-negative weight."""


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

    A SeqIO mixture of a user's brings rates of its own (`mixing_rates`): like a `rate_fn` they
    replace cap and alpha, and proportions and equal clusters, if asked for, apply on top.

    Source: OPT-IML (arXiv 2212.12017) §4.2, §4.3; metaseq branch opt_instruct, `_alpha_sampling`.
    """

    eps: int | None = 4096
    alpha: float = 1.0
    proportions: Mapping[str, float] | None = None
    equalize_clusters: bool = False
    rate_fn: RateFn | None = None

    def __post_init__(self):
        def is_share(value):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            return number and math.isfinite(value) and value >= 0

        if self.eps is not None and (not isinstance(self.eps, int) or self.eps < 1):
            raise InputError(
                f"MixtureSpec.eps is {self.eps!r}, expected a whole number of examples, 1 or more,"
                " or None for no cap."
            )
        if not is_share(self.alpha):
            raise InputError(f"MixtureSpec.alpha is {self.alpha!r}, expected 0 or more.")
        if self.proportions is not None and not isinstance(self.proportions, Mapping):
            raise InputError(
                f"MixtureSpec.proportions is {self.proportions!r}, expected {{'BENCHMARK': share}},"
                " or None for the capped sizes."
            )
        for benchmark, share in (self.proportions or {}).items():
            if not is_share(share):
                raise InputError(
                    f"MixtureSpec.proportions['{benchmark}'] is {share!r}, expected a share of 0"
                    " or more."
                )
        total = sum((self.proportions or {}).values())
        if total > 1 + 1e-9:
            raise InputError(
                f"MixtureSpec.proportions sum to {total:g}, expected at most 1. Give shares, not"
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
        InputError: no task has a positive rate, a proportion names an absent benchmark, the
            user's function returned something that is no rate, or there are both such a function
            and `rates`.

    Example:
        sizes 100 and 9000 with eps 4096 give 100 / 4196 and 4096 / 4196.
    """
    sizes_array = np.asarray(sizes, np.float64)
    if rates is not None:
        if spec.rate_fn is not None:
            raise InputError(
                "MixtureSpec.rate_fn is set, but the mixture has rates of its own (it is a SeqIO"
                " mixture). Leave one of the two out."
            )
        named = dict(rates)
        spec = dataclasses.replace(spec, rate_fn=lambda task, size: named[task.name])
    if spec.rate_fn is None:
        capped = sizes_array if spec.eps is None else np.minimum(sizes_array, spec.eps)
        weights = np.where(capped > 0, capped ** float(spec.alpha), 0.0)
    else:
        weights = np.array([_user_rate(spec.rate_fn, t, n) for t, n in zip(tasks, sizes)])
        weights = np.where(sizes_array > 0, weights, 0.0)
    if not len(tasks) or weights.sum() <= 0:
        raise InputError(
            f"mixture: none of its {len(tasks)} tasks has a positive rate. Prepare tasks with the"
            " role 'train', or check the rates."
        )
    shares = weights / weights.sum()
    benchmarks = np.array([task.benchmark for task in tasks])
    if spec.equalize_clusters:
        shares = _equalize_clusters(shares, benchmarks, [task.category for task in tasks])
    if spec.proportions is not None:
        shares = _apply_proportions(shares, benchmarks, spec.proportions)
    return shares


def _user_rate(rate_fn: RateFn, task: catalog.TaskSpec, size: int) -> float:
    rate = rate_fn(task, size)
    if not (isinstance(rate, int | float | np.number) and math.isfinite(rate) and rate >= 0):
        raise InputError(
            f"mixture: the rate function returned {rate!r} for task '{task.name}', expected a"
            " finite number of 0 or more."
        )
    return float(rate)


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
    present = set(benchmarks.tolist())
    for benchmark in proportions:
        if benchmark not in present:
            raise errors.unknown(
                "benchmark", benchmark, present, "MixtureSpec.proportions (of this mixture)"
            )
    assigned = sum(proportions.values())
    named = np.isin(benchmarks, list(proportions))
    result = np.zeros_like(shares)
    for benchmark, proportion in proportions.items():
        own = benchmarks == benchmark
        if proportion > 0 and shares[own].sum() <= 0:
            raise InputError(
                f"MixtureSpec.proportions gives '{benchmark}' a share of {proportion:g}, but its"
                " tasks have no training examples here."
            )
        if proportion > 0:
            result[own] = shares[own] * proportion / shares[own].sum()
    rest = shares[~named].sum()
    if rest > 0:
        result[~named] = shares[~named] * (1 - assigned) / rest
    if result.sum() <= 0:
        raise InputError("MixtureSpec.proportions leave every task with rate 0.")
    return result / result.sum()
