"""Rates against the released algorithm, written out as a loop."""

import math

import numpy as np
import pytest

from optiml_jax.data import mixing, packing
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


@pytest.mark.parametrize("alpha", [100.0, 300.0, 1e308])
@pytest.mark.parametrize("eps", [None, 4096])
def test_a_high_power_leaves_the_largest(alpha, eps):
    """Powers of the sizes themselves would leave the floats; logarithms of them do not."""
    capped = [min(size, eps or size) for size in SIZES]
    powers = [math.exp(alpha * math.log(size / max(capped))) for size in capped]
    np.testing.assert_allclose(
        rates(eps=eps, alpha=alpha), np.array(powers) / sum(powers), atol=mixing.NEGLIGIBLE
    )


def test_a_negligible_rate_is_none():
    """2^-52 of the examples is never drawn, and an epoch of its draws would have no end."""
    got = rates(rate_fn=lambda task, size: 2.0**-60 if task is TASKS[0] else 1.0)
    assert got[0] == 0.0
    np.testing.assert_allclose(got[1:], 1 / (len(SIZES) - 1))


def test_large_rates_are_still_shares():
    np.testing.assert_allclose(rates(rate_fn=lambda task, size: 1e308), 1 / len(SIZES))


def test_a_cap_that_no_float_holds_is_none():
    np.testing.assert_array_equal(rates(eps=10**400), rates(eps=None))


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
        ({"rate_fn": lambda task, size: float("inf")}, "returned inf for task"),
        ({"rate_fn": lambda task, size: 10**400}, "for task 'flan__task000_made'"),
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
        ({"alpha": 10**400}, "alpha is 1000"),
        ({"equalize_clusters": "no"}, "equalize_clusters is 'no', expected True or False"),
        ({"rate_fn": 5}, "rate_fn is 5, expected a function of a task and its number of examples"),
        ({"rate_fn": "sqrt"}, "rate_fn is 'sqrt', expected a function"),
        ({"proportions": {5: 0.5, "flan": 0.2}}, "proportions names 5, expected the name of a be"),
        ({"ingredients": {None: 0.5}}, "ingredients names None, expected the name of a benchmark"),
        (
            {"ingredients": {"replay": 0.1}, "ingredients_from": 5},
            "ingredients_from is 5, expected the name of a benchmark, or None",
        ),
        ({"replay_unit": ["rows"]}, r"unknown replay_unit \['rows'\]\. Known: examples, rows"),
        ({"replay_unit": None}, r"unknown replay_unit None\. Known"),
        ({"proportions": [0.5]}, r"proportions is \[0.5\], expected {'BENCHMARK': share}"),
        ({"proportions": 0}, "proportions is 0"),
        ({"proportions": {"flan": True}}, r"proportions\['flan'\] is True"),
        ({"proportions": {"flan": "half"}}, r"proportions\['flan'\] is 'half'"),
    ],
)
def test_fields_of_another_kind_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        mixing.MixtureSpec(**arguments)


# --- subsets and ingredients ---------------------------------------------------------------------

BENCH = [
    make_task(number, 5, benchmark=benchmark).spec
    for benchmark, count in (("flan", 3), ("t5", 2), ("reasoning", 2), ("replay", 2))
    for number in range(count)
]
BENCH_SIZES = [30, 9000, 4096, 5000, 100, 700, 12, 4000, 90000]


def bench_shares(**arguments):
    """Benchmark -> share."""
    got = mixing.mixing_rates(mixing.MixtureSpec(**arguments), BENCH, BENCH_SIZES)
    assert got.sum() == pytest.approx(1)
    assert got.min() >= 0
    names = [task.benchmark for task in BENCH]
    return {name: sum(r for r, n in zip(got, names) if n == name) for name in dict.fromkeys(names)}


def test_ingredients_are_shares_of_the_whole():
    ingredients = {"replay": 0.05, "reasoning": 0.01}
    proportions = {"flan": 0.4, "t5": 0.6}
    got = bench_shares(proportions=proportions, ingredients=ingredients)
    assert got == pytest.approx({"flan": 0.376, "t5": 0.564, **ingredients})
    got = bench_shares(proportions=proportions, ingredients=ingredients, ingredients_from="flan")
    assert got == pytest.approx({"flan": 0.34, "t5": 0.6, **ingredients})


def test_without_proportions_the_capped_sizes_share_what_is_left():
    got = bench_shares(ingredients={"replay": 0.5, "reasoning": 0.0}, eps=1000)
    flan, t5 = 30 + 1000 + 1000, 1000 + 100
    expected = {"flan": flan / (flan + t5) / 2, "t5": t5 / (flan + t5) / 2}
    assert got == pytest.approx({**expected, "reasoning": 0, "replay": 0.5})


def test_an_ingredients_tasks_are_mixed_by_their_capped_sizes():
    spec = mixing.MixtureSpec(eps=8000, ingredients={"replay": 0.3})
    got = mixing.mixing_rates(spec, BENCH, BENCH_SIZES)
    np.testing.assert_allclose(got[-2:], [0.1, 0.2])


def test_ingredients_that_are_all_there_is():
    assert bench_shares(ingredients={"replay": 1.0})["replay"] == 1
    only = BENCH[-2:]
    got = mixing.mixing_rates(mixing.MixtureSpec(ingredients={"replay": 1.0}), only, [10, 30])
    np.testing.assert_allclose(got, [0.25, 0.75])


def test_a_share_of_nothing_needs_no_benchmark():
    flan = BENCH[:3]
    none = {"replay": 0.0, "dialogue": 0.0, "reasoning": 0.0}
    got = mixing.mixing_rates(mixing.MixtureSpec(ingredients=none), flan, BENCH_SIZES[:3])
    np.testing.assert_array_equal(
        got, mixing.mixing_rates(mixing.MixtureSpec(), flan, BENCH_SIZES[:3])
    )


def test_subsets_leave_ingredients_alone():
    ingredients = {"replay": 0.2, "reasoning": 0.0}
    spec = mixing.MixtureSpec(num_tasks=2, ingredients=ingredients)
    got = mixing.mixing_rates(spec, BENCH, BENCH_SIZES)
    assert np.count_nonzero(got[:5]) == 2
    assert got[5:7].tolist() == [0, 0]
    assert got[7:].sum() == pytest.approx(0.2)
    np.testing.assert_array_equal(mixing.members(spec, BENCH, [True] * 9), got > 0)
    larger = mixing.mixing_rates(
        mixing.MixtureSpec(num_tasks=4, ingredients=ingredients), BENCH, BENCH_SIZES
    )
    assert set(np.flatnonzero(got)) < set(np.flatnonzero(larger))
    # Tasks without examples are not chosen.
    first = np.flatnonzero(got)[0]
    sizes = [0 if i == first else n for i, n in enumerate(BENCH_SIZES)]
    again = mixing.mixing_rates(spec, BENCH, sizes)
    assert np.count_nonzero(again[:5]) == 2
    assert again[first] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"proportions": {"flan": 0.5, "t5": 0.5, "reasoning": 0.0, "replay": 0.0}},
        {"proportions": {"flan": 0.5, "t5": 0.5}},  # Nothing is left for the others.
        {"rate_fn": lambda task, size: float(task.benchmark in ("flan", "t5"))},
    ],
    ids=["shares of 0", "no share left", "weights of 0"],
)
def test_a_subset_is_of_tasks_that_can_be_drawn(arguments):
    """Of flan and t5 five tasks, so that both are among four."""
    spec = mixing.MixtureSpec(num_tasks=4, **arguments)
    got = mixing.mixing_rates(spec, BENCH, BENCH_SIZES)
    assert np.count_nonzero(got[:5]) == np.count_nonzero(got) == 4
    with pytest.raises(InputError, match="num_tasks is 6, but the mixture has 5 tasks to choose"):
        bench_shares(num_tasks=6, **arguments)
    # Two categories, of which Question Answering is always in.
    got = mixing.mixing_rates(mixing.MixtureSpec(num_clusters=2, **arguments), BENCH, BENCH_SIZES)
    assert np.flatnonzero(got).tolist() == [0, 1, 2, 3, 4]


def test_shares_that_do_not_depend_on_sizes():
    """Without a store: what only sizes could tell is NaN, the rest is as with one."""
    nan = float("nan")
    unknown = dict.fromkeys(("flan", "t5", "reasoning", "replay"), nan)
    none = {"reasoning": 0.0}

    def shares(**arguments):
        return mixing.benchmark_shares(mixing.MixtureSpec(**arguments), unknown)

    given = {"flan": 0.4, "t5": 0.6}
    ingredients = {"replay": 0.05, **none}
    for arguments in (
        {"proportions": given, "ingredients": ingredients},
        {"proportions": given, "ingredients": ingredients, "ingredients_from": "t5"},
        {"proportions": {"flan": 0.4}, "ingredients": ingredients},  # One is left.
    ):
        assert shares(**arguments) == pytest.approx(bench_shares(**arguments))
    got = shares(ingredients=ingredients)
    assert got == pytest.approx({"flan": nan, "t5": nan, **ingredients}, nan_ok=True)
    rows = shares(proportions=given, ingredients=ingredients, replay_unit="rows")
    assert rows == pytest.approx({"flan": nan, "t5": nan, "replay": nan, **none}, nan_ok=True)
    for arguments, message in (
        (
            {"proportions": given, "ingredients": {"replay": 0.5}, "ingredients_from": "flan"},
            "take a share of 0.5 from 'flan', which has 0.4",
        ),
        ({"proportions": dict.fromkeys(unknown, 0.1)}, "proportions sum to 0.4, and no other"),
    ):
        with pytest.raises(InputError, match=message):
            shares(**arguments)
        with pytest.raises(InputError, match=message):
            bench_shares(**arguments)


def test_clusters_then_tasks():
    """Even tasks translate, odd ones answer questions, which every subset of clusters has."""
    spec = mixing.MixtureSpec(num_clusters=1, ingredients={"replay": 0.0, "reasoning": 0.0})
    got = mixing.mixing_rates(spec, BENCH, BENCH_SIZES)
    assert np.flatnonzero(got).tolist() == [1, 4]
    both = mixing.MixtureSpec(
        num_clusters=1, num_tasks=1, ingredients={"replay": 0.0, "reasoning": 0.0}
    )
    assert np.count_nonzero(mixing.mixing_rates(both, BENCH, BENCH_SIZES)) == 1


def test_shares_that_sum_to_a_hair_more_than_one_leave_no_negative_rate():
    """Decimal shares in floats: what is left for the other benchmarks is nothing, not less."""
    shares = {"flan": 0.33, "t5": 0.56, "replay": 0.11}
    assert 1 < sum(shares.values()) < 1 + 1e-9
    assert bench_shares(proportions=shares)["reasoning"] == 0


def test_a_share_of_nothing_needs_no_tasks():
    shares = {"flan": 0.5, "t5": 0.5, **dict.fromkeys(("crossfit", "unifiedskg", "mini"), 0.0)}
    got = bench_shares(proportions=shares, ingredients={"dialogue": 0.0, "exmix": 0.0})
    assert got == pytest.approx({"flan": 0.5, "t5": 0.5, "reasoning": 0, "replay": 0})


def test_a_seqio_mixtures_own_rates_take_ingredients_too():
    rates = {task.name: float(number) for number, task in enumerate(BENCH)}
    spec = mixing.MixtureSpec(ingredients={"replay": 0.5, "reasoning": 0.0})
    got = mixing.mixing_rates(spec, BENCH, BENCH_SIZES, rates)
    np.testing.assert_allclose(got, [0, 0.05, 0.1, 0.15, 0.2, 0, 0, 0.5 * 7 / 15, 0.5 * 8 / 15])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_tasks": 0}, "num_tasks is 0, expected a whole number of tasks, 1 or more, or None"),
        ({"num_tasks": True}, "num_tasks is True"),
        ({"num_clusters": 4.0}, "num_clusters is 4.0, expected a whole number of categories"),
        ({"subset_seed": -1}, "subset_seed is -1"),
        ({"ingredients": {"replay": -0.05}}, r"ingredients\['replay'\] is -0.05"),
        ({"ingredients": {"replay": float("nan")}}, r"ingredients\['replay'\] is nan"),
        ({"ingredients": {"replay": 5}}, "ingredients sum to 5, expected at most 1. Give shares"),
        ({"ingredients": 0.05}, r"ingredients is 0.05, expected {'BENCHMARK': share}"),
        (
            {"ingredients": {"replay": 0.1}, "proportions": {"replay": 0.1}},
            "'replay' stands in proportions and in ingredients",
        ),
        ({"ingredients_from": "flan"}, "ingredients_from is 'flan', but there are no ingredients"),
        (
            {"ingredients": {"replay": 0.1}, "ingredients_from": "replay"},
            "ingredients_from is 'replay', which is an ingredient itself",
        ),
        ({"replay_unit": "row"}, "unknown replay_unit 'row'. Did you mean 'rows'?"),
        ({"replay_unit": "rows"}, "replay_unit is 'rows', but the ingredients give replay no sh"),
    ],
)
def test_bad_fields_of_subsets_and_ingredients(arguments, message):
    with pytest.raises(InputError, match=message):
        mixing.MixtureSpec(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_tasks": 10}, "num_tasks is 10, but the mixture has 9 tasks to choose from"),
        ({"num_clusters": 3}, "num_clusters is 3, but the mixture has tasks of 2 categories"),
        ({"ingredients": {"relpay": 0.0}}, "unknown benchmark 'relpay'. Did you mean 'replay'?"),
        (
            {"ingredients": {"dialogue": 0.1}},
            "ingredients: benchmark 'dialogue' has no training task in this store; present: flan,",
        ),
        ({"proportions": {"flan": 1.0, "flna": 0.0}}, "unknown benchmark 'flna'. Did you mean 'fl"),
        (
            {"ingredients": {"replay": 0.1}, "ingredients_from": "exmix"},
            "ingredients_from: benchmark 'exmix' has no training task in this store",
        ),
        (
            {"ingredients": {"replay": 0.1}, "ingredients_from": "t6"},
            "ingredients_from: unknown benchmark 't6'. Did you mean 't5'?",
        ),
        (
            {
                "proportions": {"flan": 0.95, "t5": 0.05},
                "ingredients": {"replay": 0.1},
                "ingredients_from": "t5",
            },
            "ingredients take a share of 0.1 from 't5', which has 0.05",
        ),
        (
            {"proportions": {"flan": 0.5, "exmix": 0.2, "crossfit": 0.3}},
            "benchmarks exmix, crossfit have no training task in this store; present: flan,",
        ),
        (
            {"proportions": {"flan": 0.3, "t5": 0, "reasoning": 0, "replay": 0}},
            "proportions sum to 0.3, and no other benchmark is left to take the rest",
        ),
        (
            {"proportions": {"flan": 0.3, "t5": 0.3}, "ingredients": {"replay": 0, "reasoning": 0}},
            "proportions sum to 0.6, and no other benchmark is left",
        ),
        (
            {"proportions": dict.fromkeys(("flan", "t5", "replay", "reasoning"), 0.0)},
            "its proportions, ingredients and subset leave every task with rate 0",
        ),
        (
            {"num_tasks": 1, "proportions": {"flan": 0.5, "t5": 0.5}},
            "its tasks have no training examples here, or the subset leaves none of them",
        ),
        (
            {"ingredients": dict.fromkeys(("flan", "t5", "replay", "reasoning"), 0.0)},
            "its proportions, ingredients and subset leave every task with rate 0",
        ),
        (
            {"ingredients": {"flan": 0.5, "t5": 0.0, "replay": 0.0, "reasoning": 0.0}},
            "ingredients sum to 0.5, and no other task has a positive rate",
        ),
        (
            {"ingredients": {"replay": 0.1}, "replay_unit": "rows"},
            "replay_unit is 'rows', which needs the lengths of a store's examples",
        ),
    ],
)
def test_mixtures_that_cannot_be(arguments, message):
    with pytest.raises(InputError, match=message):
        bench_shares(**arguments)


def test_an_ingredient_without_examples():
    spec = mixing.MixtureSpec(ingredients={"replay": 0.1})
    with pytest.raises(InputError, match=r"gives 'replay' a share of 0.1, but its tasks have no"):
        mixing.mixing_rates(spec, BENCH, [*BENCH_SIZES[:7], 0, 0])


def test_settings_in_words():
    spec = mixing.MixtureSpec(
        num_tasks=1024,
        num_clusters=4,
        ingredients={"replay": 0.05, "reasoning": 0.01},
        ingredients_from="t5",
        replay_unit="rows",
    )
    assert mixing.describe(spec.to_json()) == (
        "eps 4,096, alpha 1, proportions as they come; 4 clusters; 1,024 tasks (seed 0);"
        " replay=0.05 (of rows), reasoning=0.01 from t5"
    )
    assert mixing.MixtureSpec(**spec.to_json()) == spec
    spec = mixing.MixtureSpec(eps=None, proportions={"flan": 0.25}, equalize_clusters=True)
    assert mixing.describe(spec.to_json()) == (
        "no cap, alpha 1, proportions flan=0.25, equal clusters"
    )
    spec = mixing.MixtureSpec(rate_fn=released)
    assert mixing.describe(spec.to_json()) == "rates by released, proportions as they come"
    told = mixing.describe(mixing.MixtureSpec().to_json(), has_own_rates=True)
    assert told == "rates of its own (SeqIO), proportions as they come"


# --- what is drawn -------------------------------------------------------------------------------


def draw(spec, specs, sizes, epochs, seed=0):
    """Examples drawn of each task in `epochs` times the mixture's examples, by the plan."""
    sizes = np.array(sizes)
    first = np.cumsum(sizes) - sizes
    rates = mixing.mixing_rates(spec, specs, sizes)
    plan = packing.Plan(
        packing.PlanTasks(tuple(task.name for task in specs), rates, first, sizes),
        np.full((1, sizes.sum()), 9, np.int32),
        row_tokens=64,
        seed=seed,
        block_draws=int(sizes.sum()),
    )
    drawn = np.concatenate([plan.block(index).examples for index in range(epochs)])
    return rates, np.bincount(drawn, minlength=sizes.sum()), first


@pytest.mark.parametrize(
    "spec",
    [
        mixing.MixtureSpec(eps=256),
        mixing.MixtureSpec(proportions={"flan": 0.4, "t5": 0.5, "reasoning": 0.1, "replay": 0.0}),
        mixing.MixtureSpec(ingredients={"replay": 0.05, "reasoning": 0.01}),
        mixing.MixtureSpec(num_tasks=4, ingredients={"replay": 0.5, "reasoning": 0.0}),
    ],
    ids=["eps", "proportions", "ingredients", "subset"],
)
@pytest.mark.parametrize("epochs", [1, 3])
def test_what_is_drawn_is_the_mixture(spec, epochs):
    """As metaseq's epoch: task i gives len_i x ratio_i examples, none twice while that is <= 1.

    Closer than sampling: each task within two draws (its own rounding, and that of the sum), where
    chance would be off by hundreds. Above a ratio of 1 every example is drawn, and they differ by
    less than half of what chance would make them.
    """
    rates, counts, first = draw(spec, BENCH, BENCH_SIZES, epochs)
    ratios = set()
    for start, size, rate in zip(first, BENCH_SIZES, rates):
        own = counts[start : start + size]
        assert abs(own.sum() - rate * counts.sum()) < 2
        if own.sum() <= size:
            assert own.max() <= 1
        else:
            assert own.min() >= 1
            assert own.var() < own.mean() / 2
        ratios.add(bool(own.sum() > size))
    assert counts[np.repeat(rates == 0, BENCH_SIZES)].sum() == 0
    assert counts.sum() == pytest.approx(epochs * sum(BENCH_SIZES), rel=0.2)
    assert ratios == {True, False}
