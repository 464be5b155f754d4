"""Rates against the released algorithm, written out as a loop."""

import numpy as np
import pytest

from optiml_jax.data import mixing
from optiml_jax.errors import InputError
from tests.data.conftest import make_task

TASKS = [
    make_task(number, 5, benchmark=benchmark).spec
    for benchmark, count in (("flan", 4), ("super_natural_instructions", 5), ("crossfit", 2))
    for number in range(count)
]
SIZES = [30, 9000, 4096, 5000, 100, 70000, 12, 4000, 900, 7, 50]


def rates(**arguments):
    return mixing.mixing_rates(mixing.MixtureSpec(**arguments), TASKS, SIZES)


def released(eps, alpha, proportions):
    """metaseq's `_alpha_sampling`, step by step."""
    p = [min(size, eps) for size in SIZES]
    p = [x / sum(p) for x in p]
    p = [x**alpha for x in p]
    p = [x / sum(p) for x in p]
    if proportions:
        current = {}
        for task, x in zip(TASKS, p):
            current[task.benchmark] = current.get(task.benchmark, 0) + x
        rest = sum(x for name, x in current.items() if name not in proportions)
        left = 1 - sum(proportions.values())
        for i, task in enumerate(TASKS):
            if task.benchmark in proportions:
                p[i] *= proportions[task.benchmark] / current[task.benchmark]
            else:
                p[i] *= left / rest
    return p


@pytest.mark.parametrize("eps", [128, 4096, 10**6])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize(
    "proportions", [None, {"flan": 0.25}, {"flan": 0.2, "super_natural_instructions": 0.5}]
)
def test_rates_are_the_released_ones(eps, alpha, proportions):
    got = rates(eps=eps, alpha=alpha, proportions=proportions)
    np.testing.assert_allclose(got, released(eps, alpha, proportions), rtol=1e-12)


def test_no_cap_is_in_the_ratio_of_sizes():
    np.testing.assert_allclose(rates(eps=None), np.array(SIZES) / sum(SIZES))


def test_equal_clusters_share_alike():
    got = rates(equalize_clusters=True)
    plain = rates()
    for benchmark in {task.benchmark for task in TASKS}:
        own = [i for i, task in enumerate(TASKS) if task.benchmark == benchmark]
        categories = {TASKS[i].category for i in own}
        assert sum(got[own]) == pytest.approx(sum(plain[own]))
        for category in categories:
            cluster = [i for i in own if TASKS[i].category == category]
            assert sum(got[cluster]) == pytest.approx(sum(plain[own]) / len(categories))


def test_a_users_function():
    got = rates(rate_fn=lambda task, size: 3.0 if task.benchmark == "flan" else size / 1000)
    expected = [3.0 if t.benchmark == "flan" else n / 1000 for t, n in zip(TASKS, SIZES)]
    np.testing.assert_allclose(got, np.array(expected) / sum(expected))


def test_a_task_without_examples_has_no_rate():
    sizes = [0, *SIZES[1:]]
    assert mixing.mixing_rates(mixing.MixtureSpec(), TASKS, sizes)[0] == 0
    spec = mixing.MixtureSpec(rate_fn=lambda task, size: 1.0)
    assert mixing.mixing_rates(spec, TASKS, sizes)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": 0}, "eps is 0"),
        ({"alpha": -1.0}, "alpha is -1"),
        ({"proportions": {"flan": -0.1}}, r"proportions\['flan'\] is -0.1"),
        ({"proportions": {"flan": 25.0}}, "Give shares, not percentages"),
        ({"proportions": {"flam": 0.5}}, "unknown benchmark 'flam'. Did you mean 'flan'"),
        ({"rate_fn": lambda task, size: -1.0}, "returned -1.0 for task 'flan__task000_made'"),
        ({"rate_fn": lambda task, size: 0.0}, "none of its 11 tasks has a positive rate"),
        ({"proportions": dict.fromkeys(("flan", "crossfit"), 0.0)}, None),
    ],
)
def test_bad_rates(arguments, message):
    if message is None:
        assert rates(**arguments)[0] == 0
        return
    with pytest.raises(InputError, match=message):
        rates(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"alpha": float("inf")}, "alpha is inf"),
        ({"alpha": "1"}, "alpha is '1'"),
        ({"proportions": [0.5]}, r"proportions is \[0.5\], expected {'BENCHMARK': share}"),
        ({"proportions": 0}, "proportions is 0"),
        ({"proportions": {"flan": True}}, r"proportions\['flan'\] is True"),
        ({"proportions": {"flan": "half"}}, r"proportions\['flan'\] is 'half'"),
    ],
)
def test_fields_of_another_kind_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        mixing.MixtureSpec(**arguments)
