"""The fastest way to run a model on a slice that fits its memory: mesh x remat x microbatches.

Candidates come in the order of their estimated step time, computed from what they should send
(`estimate.expected_traffic`). Those that cannot fit by the plainest count are left out; the others
are compiled, one after another, until a few fit: what does not fit is known in seconds. Those that
fit are ranked by the estimate made of what the compiler placed. The order depends on nothing but
the arguments.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from optiml_jax.ahead import estimate
from optiml_jax.ahead.compile import Outcome
from optiml_jax.ahead.topology import Slice
from optiml_jax.model.config import REMAT, OptConfig

Tell = Callable[[str], None]
# Compiled until so many fit: their order by the compiled program may differ from the expected one.
NUM_FITTING = 3
MAX_COMPILED = 40
MAX_MICROBATCHES = 16
KEEPS = ("full", "save_projections", "minimal", "none")
"""Remat policies from the least memory to the most."""
# Within one host's chips and a little beyond; wider tensor parallelism is bound by the links.
MAX_MODEL_AXIS = 16


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to run a step."""

    data: int
    fsdp: int
    model: int
    num_microbatches: int
    remat: str

    def apply(self, config: OptConfig) -> OptConfig:
        """The model with this remat policy."""
        return dataclasses.replace(config, remat=self.remat)

    def rules(self, rules: Any) -> dict[str, Any]:
        """The job's rules; with a model axis, the residual stream is cut along it too."""
        return {**({"residual_length": "model"} if self.model > 1 else {}), **(rules or {})}

    @property
    def mesh(self) -> dict[str, int]:
        """Axis sizes by name."""
        return {"data": self.data, "fsdp": self.fsdp, "model": self.model}


@dataclasses.dataclass(frozen=True)
class Row:
    """A candidate that was compiled."""

    candidate: Candidate
    outcome: Outcome
    estimate: estimate.Estimate


@dataclasses.dataclass(frozen=True)
class Plan:
    """What was tried: first those that fit, fastest first, then the others in their order.

    Attributes:
        num_candidates: all that divide evenly.
        num_pruned: of those, how many cannot fit and were not compiled.
    """

    tried: tuple[Row, ...]
    num_candidates: int
    num_pruned: int

    @property
    def best(self) -> Row | None:
        """The fastest that fits."""
        return self.tried[0] if self.tried and self.tried[0].outcome.fits else None


def search(
    config: OptConfig,
    of: Slice,
    batch_size: int,
    length: int,
    measure: Callable[[Candidate], Outcome],
    *,
    tell: Tell = lambda text: None,
) -> Plan:
    """Compiles the likeliest candidates and ranks them.

    Args:
        measure: compiles one.
        tell: hears what is being compiled.
    """

    def expected(candidate: Candidate) -> estimate.Estimate:
        traffic = estimate.expected_traffic(
            candidate.apply(config),
            candidate.mesh,
            batch_size,
            length,
            candidate.num_microbatches,
            of.num_slices,
        )
        return _estimate(config, of, batch_size, length, candidate, traffic)

    everything = list(candidates(config, of, batch_size, length))
    possible = [
        candidate
        for candidate in everything
        if least_bytes(config, candidate, batch_size, length) <= of.chip.limit_bytes
    ]
    possible.sort(key=lambda one: (expected(one).seconds, dataclasses.astuple(one)))
    rows: list[Row] = []
    for candidate in possible:
        if any(_needs_no_more(row, candidate) for row in rows):
            continue
        outcome = measure(candidate)
        traffic = outcome.traffic if outcome.fits else {}
        found = (
            _estimate(config, of, batch_size, length, candidate, traffic)
            if outcome.fits
            else expected(candidate)
        )
        rows.append(Row(candidate, outcome, found))
        verdict = "fits" if outcome.fits else "does not fit"
        tell(f"{len(rows)}: {_shown(candidate)}: {verdict}")
        if sum(row.outcome.fits for row in rows) == NUM_FITTING or len(rows) == MAX_COMPILED:
            break
    rows.sort(key=lambda row: row.estimate.seconds if row.outcome.fits else float("inf"))
    return Plan(tuple(rows), len(everything), len(everything) - len(possible))


def _needs_no_more(failed: Row, candidate: Candidate) -> bool:
    """Whether a candidate cannot fit because one that needs less memory did not."""
    if failed.outcome.fits or failed.candidate.mesh != candidate.mesh:
        return False
    ours, theirs = candidate.num_microbatches, failed.candidate.num_microbatches
    # One microbatch alone needs no sum of gradients beside the gradient.
    fewer = ours == theirs or 1 < ours < theirs
    return fewer and KEEPS.index(candidate.remat) >= KEEPS.index(failed.candidate.remat)


def _shown(candidate: Candidate) -> str:
    mesh = " x ".join(f"{name}={size}" for name, size in candidate.mesh.items() if size > 1)
    return f"{mesh or 'one chip'}, {candidate.num_microbatches} microbatch(es), {candidate.remat}"


def _estimate(config, of, batch_size, length, candidate, traffic) -> estimate.Estimate:
    return estimate.train_step(
        candidate.apply(config),
        of,
        candidate.mesh,
        batch_size,
        length,
        candidate.num_microbatches,
        traffic,
    )


def candidates(config: OptConfig, of: Slice, batch_size: int, length: int) -> Iterator[Candidate]:
    """Every way in which model, batch and row divide evenly over the slice.

    Between slices there is `data` alone; within one, weights are cut by `fsdp` and `model`.
    """
    chips = of.num_chips // of.num_slices
    for model in _divisors(chips):
        fits_model = all(
            size % model == 0
            for size in (config.num_heads, config.ffn_dim, config.vocab_size, length)
        )
        if not fits_model or model > MAX_MODEL_AXIS:
            continue
        for fsdp in _divisors(chips // model):
            rows = of.num_slices * (chips // model)
            if config.embedding_width % fsdp or config.d_model % fsdp or batch_size % rows:
                continue
            for num_microbatches in _divisors(batch_size // rows):
                if num_microbatches > MAX_MICROBATCHES:
                    continue
                for remat in REMAT:
                    yield Candidate(rows // fsdp, fsdp, model, num_microbatches, remat)


def least_bytes(config: OptConfig, candidate: Candidate, batch_size: int, length: int) -> float:
    """A bound below the peak: state, gradients, and what the layers keep for the backward pass."""
    cut = candidate.fsdp * candidate.model
    weights = 4 * config.num_params() / cut
    rows = batch_size / (candidate.data * candidate.fsdp * candidate.num_microbatches)
    width, hidden = config.d_model, config.ffn_dim
    # In units of one value a token and layer; the model axis cuts all but the layer's input when
    # the residual stream is whole, and that as well when it is cut.
    kept = {
        "full": width,
        "save_projections": width + 3 * width + width,
        "minimal": width + 3 * width + 2 * width + hidden,
        "none": width + 3 * width + 2 * width + 2 * hidden,
    }[candidate.remat]
    return 4 * weights + 2 * rows * length * config.num_layers * kept / candidate.model


def _divisors(number: int) -> list[int]:
    return [one for one in range(1, number + 1) if number % one == 0]
