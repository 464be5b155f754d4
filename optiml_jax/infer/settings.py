"""How text is continued: one frozen config of limits, sampling, beams and stop strings.

`decoding` samples and streams by it, `beam` searches by it; a combination that would be ignored in
part is refused.
"""

import dataclasses
import math
from typing import Any

from optiml_jax.errors import InputError

MAX_NEW_TOKENS = 256
"""OPT-IML decodes until `</s>` or this many tokens (arXiv 2212.12017, §4.1)."""

MAX_BEAMS = 1024
# Penalties and temperatures enter the programs as float32: what follows keeps its powers finite.
MAX_PENALTY = 10.0
TEMPERATURES = (1e-6, 1e6)

# Seeds and prompt numbers enter the random key as 32 bits.
SEEDS = 2**32


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """How a prompt is continued; the defaults are greedy decoding, as OPT-IML evaluates.

    Attributes:
        max_new_tokens: most tokens of a continuation.
        temperature: scores are divided by it before one token is drawn; 0 takes the best one.
        top_k: draw among so many best tokens; 0 among all.
        top_p: draw among the smallest set of tokens that reaches this probability; 1 among all.
        seed: of the draws; the same seed gives the same continuation of the same prompt.
        num_beams: sequences that beam search keeps; 1 is no search.
        length_penalty: a finished beam's log-probability is divided by length ** this.
        num_return_sequences: how many of the best beams are given.
        stop: texts that end a continuation where they first occur; they are not part of it.
    """

    max_new_tokens: int = MAX_NEW_TOKENS
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    num_return_sequences: int = 1
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (
            *(("max_new_tokens", 1), ("top_k", 0), ("seed", 0)),
            *(("num_beams", 1), ("num_return_sequences", 1)),
        ):
            self._check(name, isinstance(getattr(self, name), int), f"a whole number from {least}")
            self._check(name, getattr(self, name) >= least, f"a whole number from {least}")
        self._check("seed", self.seed < SEEDS, f"less than {SEEDS}")
        self._check("top_k", self.top_k < 2**31, f"less than {2**31}")
        self._check("num_beams", self.num_beams <= MAX_BEAMS, f"at most {MAX_BEAMS}")
        for name in ("temperature", "top_p", "length_penalty"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and math.isfinite(value)
            self._check(name, number, "a finite number")
        least, most = TEMPERATURES
        self._check(
            "temperature",
            self.temperature == 0.0 or least <= self.temperature <= most,
            f"0 (greedy) or a number from {least:g} to {most:g}",
        )
        self._check(
            "length_penalty",
            abs(self.length_penalty) <= MAX_PENALTY,
            f"a number from {-MAX_PENALTY:g} to {MAX_PENALTY:g}",
        )
        self._check("top_p", 0.0 < self.top_p <= 1.0, "0 < top_p <= 1")
        if not self.is_sampled and (self.top_k or self.top_p < 1.0):
            name = "top_k" if self.top_k else "top_p"
            raise InputError(
                f"decoding: '{name}' is {getattr(self, name)}, but with temperature 0 the best "
                "token is taken and nothing drawn. Set a temperature, e.g. 1.0."
            )
        if self.num_beams > 1 and (self.is_sampled or self.stop):
            other = "a temperature" if self.is_sampled else "stop strings"
            raise InputError(
                f"decoding: 'num_beams' is {self.num_beams}, and beam search does not go with "
                f"{other}. Leave one of the two out."
            )
        self._check(
            "num_return_sequences",
            self.num_return_sequences <= self.num_beams,
            f"at most num_beams, {self.num_beams}",
        )
        if self.num_beams == 1:
            self._check("length_penalty", self.length_penalty == 1.0, "1 without num_beams")
        texts = isinstance(self.stop, tuple) and all(isinstance(t, str) and t for t in self.stop)
        self._check("stop", texts, "a tuple of texts that are not empty")

    @property
    def is_sampled(self) -> bool:
        """Whether tokens are drawn."""
        return self.temperature > 0.0

    def end_of(self, text: str) -> int | None:
        """Where in `text` the first stop string begins, or None."""
        found = [place for stop in self.stop if (place := text.find(stop)) >= 0]
        return min(found, default=None)

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        return {**dataclasses.asdict(self), "stop": list(self.stop)}

    def _check(self, name: str, holds: bool, expected: str) -> None:
        if not holds or isinstance(getattr(self, name), bool):
            raise InputError(f"decoding: '{name}' is {getattr(self, name)!r}, expected {expected}.")
