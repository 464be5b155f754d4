"""May a difference between two models be chance? Sign flips of paired differences, and many tests.

If two models are interchangeable on an instance, the difference of their scores could as well have
the other sign. So the signs are flipped at random, the flipped differences averaged as the scores
are, and the p-value is the share of flips whose mean is at least as far from 0 as the observed one.
Neighbour: `comparison` walks the tree of scores with it.

Source: the randomization test of paired scores, Fisher, "The Design of Experiments", 1935;
Benjamini and Hochberg, "Controlling the false discovery rate", 1995.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

NUM_FLIPS = 10_000

# Going through all 2 ** 13 = 8,192 flips costs no more than drawing.
_MOST_EXACT = 13

# Signs drawn at a time: 32 MB when they are multiplied.
_BLOCK = 1 << 22

# Scores are percentages: differences below this are rounding.
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True)
class Flips:
    """A mean of paired differences, and what it is under flips.

    Attributes:
        units: what each instance that differs adds to the mean; they flip independently.
        draws: the mean under drawn flips, [R].
    """

    units: np.ndarray
    draws: np.ndarray

    def p_value(self) -> float:
        """Two-sided. Exact where at most 13 instances differ; else from the draws and never 0."""
        observed = abs(self.units.sum()) - _ROUNDING
        if len(self.units) > _MOST_EXACT:
            # The observed signs are one flip more.
            return float((1 + (np.abs(self.draws) >= observed).sum()) / (1 + len(self.draws)))
        sums = np.zeros(1)
        for unit in self.units:
            sums = np.concatenate([sums + unit, sums - unit])
        return float((np.abs(sums) >= observed).mean())


def flip_task(
    differences: Sequence[float], ids: Sequence[str], rng: np.random.Generator, num_flips: int
) -> Flips:
    """The flips of one task's mean difference.

    Args:
        ids: of the instances: several prompts of one instance flip together.

    Example:
        differences [100, 0, -100, 0], ids "abcd" -> units [25, -25], p-value 1
    """
    _, numbers = np.unique(np.asarray(ids), return_inverse=True)
    sums = np.bincount(numbers, np.asarray(differences, np.float64)) / len(differences)
    units = sums[np.abs(sums) > _ROUNDING]
    draws = np.zeros(num_flips)
    block = max(1, _BLOCK // max(1, len(units)))
    for start in range(0, num_flips if len(units) else 0, block):
        rows = min(block, num_flips - start)
        flipped = rng.integers(2, size=(rows, len(units)), dtype=np.int8)
        draws[start : start + rows] = units.sum() - 2 * (flipped @ units)
    return Flips(units, draws)


def average(parts: Sequence[Flips]) -> Flips:
    """The unweighted mean of independent parts."""
    return Flips(
        np.concatenate([part.units for part in parts]) / len(parts),
        np.mean([part.draws for part in parts], axis=0),
    )


def adjust(p_values: Sequence[float]) -> list[float]:
    """Benjamini-Hochberg adjusted p-values, in the same order.

    Of those below 0.05 about 5 % are false finds at most. It is meant for looking which of many
    tasks moved. Holm's adjustment guards against a single false find instead, and could find
    nothing among 500 tasks with p-values no smaller than 1 / 10,001.

    Example:
        [0.01, 0.04, 0.03] -> [0.03, 0.04, 0.04]
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values)[::-1]
    scaled = values[order] * len(values) / np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled), 1.0)
    return adjusted.tolist()
