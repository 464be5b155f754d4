"""Subsets of tasks and clusters, on the catalog's own training tasks."""

import collections
import itertools
import types

import pytest

from optiml_jax.bench import catalog_table
from optiml_jax.data import subsets
from optiml_jax.errors import InputError
from optiml_jax.tasks import declaration

TABLE = catalog_table.read(declaration.CATALOG)
TASKS = [
    row
    for row in TABLE.values()
    if row.role_and_level("opt_iml")[0] == "train" and row.benchmark != "reasoning"
]


def test_subsets_of_tasks_are_nested_and_exact():
    sets = [subsets.choose_tasks(TASKS, number) for number in (16, 64, 256, 1024)]
    assert [len(one) for one in sets] == [16, 64, 256, 1024]
    for smaller, larger in itertools.pairwise(sets):
        assert smaller < larger
    assert subsets.choose_tasks(TASKS, len(TASKS)) == {task.name for task in TASKS}


def test_a_subset_depends_on_names_and_seed_alone():
    one = subsets.choose_tasks(TASKS, 64)
    assert subsets.choose_tasks(TASKS[::-1], 64) == one
    other = subsets.choose_tasks(TASKS, 64, seed=1)
    assert len(one & other) < 20
    # Fewer tasks to choose from: those that were chosen and are still there stay chosen.
    fewer = [task for task in TASKS if task.benchmark != "super_natural_instructions"]
    kept = {task.name for task in fewer} & one
    assert kept <= subsets.choose_tasks(fewer, 64)


def test_benchmarks_are_drawn_in_proportion():
    """A fair draw: of 1,024 tasks Super-NaturalInstructions has about its part, 81 %."""
    chosen = subsets.choose_tasks(TASKS, 1024)
    part = sum(name.startswith("super_natural") for name in chosen) / 1024
    whole = sum(task.benchmark.startswith("super_natural") for task in TASKS) / len(TASKS)
    assert part == pytest.approx(whole, abs=0.03)


def test_what_the_evaluation_needs_is_always_in():
    """The rows are those of Table 15: each trains in the catalog, in a category always in."""
    for name in subsets.ALWAYS_TASKS:
        assert TABLE[name].role_and_level("opt_iml") == ("train", "fully_supervised")
        assert TABLE[name].category in subsets.ALWAYS_CATEGORIES
    for seed in range(5):
        chosen = subsets.choose_tasks(TASKS, 5, seed)
        assert set(subsets.ALWAYS_TASKS) < chosen
    for number in (3, 4, 16, 64, 90):
        chosen = subsets.choose_categories(TASKS, number)
        assert len(set(chosen)) == number
        assert set(subsets.ALWAYS_CATEGORIES) <= set(chosen)


def test_clusters_are_those_with_most_tasks():
    """Table 17 counts 673 tasks in 4 clusters of 93: only so is the catalog's number near it."""
    counts = collections.Counter(task.category for task in TASKS)
    chosen = subsets.choose_categories(TASKS, 4)
    assert set(chosen) == {*subsets.ALWAYS_CATEGORIES, counts.most_common()[0][0]}
    assert sum(counts[name] for name in chosen) == pytest.approx(673, rel=0.03)
    assert sum(count for _, count in counts.most_common(4)) > 750
    assert len(counts) == pytest.approx(93, abs=3)
    ordered = subsets.choose_categories(TASKS, 64)
    assert ordered[:4] == chosen
    left_out = counts.keys() - set(ordered)
    assert min(counts[name] for name in ordered[3:]) >= max(counts[name] for name in left_out)
    assert [counts[n] for n in ordered[3:]] == sorted(counts[n] for n in ordered[3:])[::-1]


def test_clusters_of_one_size_follow_the_alphabet():
    tasks = [
        types.SimpleNamespace(name=f"flan__{i}", benchmark="flan", category=category)
        for i, category in enumerate("cabbd")
    ]
    assert subsets.choose_categories(tasks, 3) == ["b", "a", "c"]
    assert subsets.choose_categories(tasks[::-1], 3) == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("choose", "number", "message"),
    [
        (subsets.choose_tasks, 10**4, f"num_tasks is 10,000, but the mixture has {len(TASKS):,} t"),
        (
            subsets.choose_tasks,
            3,
            "num_tasks is 3, but 4 tasks are in every subset: flan__squad_v1",
        ),
        (subsets.choose_categories, 200, "num_clusters is 200, but the mixture has tasks of 9"),
        (subsets.choose_categories, 2, "num_clusters is 2, but 3 categories are in every subset"),
    ],
)
def test_subsets_that_cannot_be(choose, number, message):
    with pytest.raises(InputError, match=message):
        choose(TASKS, number)
