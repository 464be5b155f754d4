"""Meta-ICL: training examples that show demonstrations themselves, a drawn number of them.

The number k of demonstrations of an example follows Zipf's law with exponent a, cut at K and scaled
to sum to 1:

    P(k) = (k + 1) ** -a / sum over j = 0..K of (j + 1) ** -a

With K = 5 that gives 92.5 % of zero-shot examples at a = 4 and 67.1 % at a = 2, the paper's shares.
Its footnote 9 describes another law (an uncut Zipf variable whose values above K are set to K),
which gives 92.4 % and 60.8 %.

Source: OPT-IML (arXiv 2212.12017) §4.7, Tables 8 and 20.
"""

import bisect
import dataclasses
import functools
import itertools
import math
import numbers

from optiml_jax.bench import demonstrations
from optiml_jax.errors import InputError

_STEPS = 2**53


@dataclasses.dataclass(frozen=True)
class MetaIclConfig:
    """How training examples show demonstrations; evaluation has its own number of shots.

    Attributes:
        exponent: a of Zipf's law (OPT-IML: 2 and 4).
        max_shots: K.
        suffix_loss: the loss begins at the first demonstration's answer and stays on; without it
            only the example's own answer carries loss.

    Raises:
        InputError: an exponent that is not a number of 0 or more, or no shots at all.
    """

    exponent: float = 4.0
    max_shots: int = 5
    suffix_loss: bool = False

    def __post_init__(self):
        is_number = isinstance(self.exponent, numbers.Real) and not isinstance(self.exponent, bool)
        if not is_number or not 0 <= self.exponent < math.inf:
            raise InputError(
                f"MetaIclConfig.exponent is {self.exponent!r}, expected a number of 0 or more."
            )
        is_count = isinstance(self.max_shots, int) and not isinstance(self.max_shots, bool)
        if not is_count or self.max_shots < 1:
            raise InputError(f"MetaIclConfig.max_shots is {self.max_shots!r}, expected 1 or more.")
        if not isinstance(self.suffix_loss, bool):
            raise InputError(
                f"MetaIclConfig.suffix_loss is {self.suffix_loss!r}, expected True or False."
            )


def shares(config: MetaIclConfig) -> tuple[float, ...]:
    """P(k) for k = 0..K.

    Example:
        exponent 2, K = 5 -> .6705 .1676 .0745 .0419 .0268 .0186
    """
    weights = [(k + 1) ** -float(config.exponent) for k in range(config.max_shots + 1)]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def draw_shots(config: MetaIclConfig, seed: int, task: str, example: str, rendering: int) -> int:
    """The number of demonstrations of an example: a pure function of the arguments."""
    place = demonstrations.draw(seed, task, example, rendering, "shots", _STEPS) / _STEPS
    return min(bisect.bisect_right(_ends(config), place), config.max_shots)


@functools.cache
def _ends(config: MetaIclConfig) -> tuple[float, ...]:
    return tuple(itertools.accumulate(shares(config)))
