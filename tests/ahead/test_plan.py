"""The search for the fastest way that fits, on a made-up compiler."""

import dataclasses

import pytest

from optiml_jax.ahead import plan, topology
from optiml_jax.ahead.compile import Outcome
from optiml_jax.model import config as model_config

CONFIG = model_config.published("1.3b", remat="full")
SLICE = topology.parse("v5e:4x4")
GIB = 2**30


def outcome(fits):
    return Outcome(fits, 10 * GIB, SLICE.chip.limit_bytes, GIB, GIB, 1.0, {})


def search(measure, **changes):
    values = {"config": CONFIG, "of": SLICE, "batch_size": 256, "length": 2048, **changes}
    return plan.search(**values, measure=measure)


def test_candidates_divide_evenly():
    found = list(plan.candidates(CONFIG, SLICE, 256, 2048))
    assert len(found) == len(set(found))
    for one in found:
        assert one.data * one.fsdp * one.model == 16
        assert CONFIG.num_heads % one.model == 0
        assert 256 % (one.data * one.fsdp * one.num_microbatches) == 0
    assert {one.remat for one in found} == set(model_config.REMAT)


def test_weights_stay_within_a_slice():
    of = topology.parse("v5e:4x4", num_slices=2)
    found = list(plan.candidates(CONFIG, of, 256, 2048))
    assert found
    assert all(one.data % 2 == 0 and one.fsdp * one.model <= 16 for one in found)


def test_what_cannot_fit_is_not_compiled():
    tried = []

    def measure(candidate):
        tried.append(candidate)
        return outcome(True)

    found = search(measure)
    assert found.num_pruned > 0
    assert 0 < len(tried) == plan.NUM_FITTING
    for candidate in tried:
        assert plan.least_bytes(CONFIG, candidate, 256, 2048) <= SLICE.chip.limit_bytes


def test_the_fastest_that_fits_comes_first_and_the_others_follow():
    def measure(candidate):
        return outcome(candidate.fsdp == 16)

    found = search(measure)
    assert found.best is not None
    assert found.best.candidate.fsdp == 16
    fitting = [row for row in found.tried if row.outcome.fits]
    assert list(found.tried[: len(fitting)]) == fitting
    seconds = [row.estimate.seconds for row in fitting]
    assert seconds == sorted(seconds)


def test_nothing_fits():
    found = search(lambda candidate: outcome(False))
    assert found.best is None
    assert 0 < len(found.tried) <= plan.MAX_COMPILED


def test_what_needs_more_than_one_that_failed_is_left_out():
    assert set(plan.KEEPS) == set(model_config.REMAT)
    failed = plan.Row(plan.Candidate(1, 16, 1, 2, "minimal"), outcome(False), None)
    for candidate, left_out in (
        (plan.Candidate(1, 16, 1, 2, "none"), True),
        (plan.Candidate(1, 16, 1, 2, "full"), False),
        (plan.Candidate(1, 16, 1, 4, "none"), False),
        (plan.Candidate(1, 16, 1, 1, "none"), False),
        (plan.Candidate(1, 8, 2, 2, "none"), False),
    ):
        assert plan._needs_no_more(failed, candidate) == left_out


def test_the_search_is_the_same_every_time():
    first, second = ([], [])
    for tried in (first, second):
        search(lambda one, tried=tried: tried.append(one) or outcome(len(tried) % 2 == 0))
    assert first == second


def test_less_memory_with_more_recomputation():
    base = plan.Candidate(1, 16, 1, 1, "full")
    sizes = [
        plan.least_bytes(CONFIG, dataclasses.replace(base, remat=remat), 256, 2048)
        for remat in ("full", "save_projections", "minimal", "none")
    ]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(("model", "expected"), [(1, {}), (2, {"residual_length": "model"})])
def test_a_model_axis_brings_sequence_parallelism(model, expected):
    candidate = plan.Candidate(1, 8, model, 1, "full")
    assert candidate.rules(None) == expected
    assert candidate.rules({"residual_length": None}) == {"residual_length": None}
