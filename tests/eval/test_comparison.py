"""Differences of two evaluations: against scipy on one task, against loops on the tree."""

import copy
import itertools
import json

import numpy as np
import pytest
import scipy.stats

from optiml_jax.errors import InputError
from optiml_jax.eval import aggregation, comparison, significance
from optiml_jax.eval.tasks import EvalTask

RUN = {"step": 3, "suite": "s", "shots": 0, "split": "opt_iml"}

TASKS = {
    row.name: row
    for row in (
        EvalTask("a__1", "a", "X", "exact_match", "fully_held_out"),
        EvalTask("a__2", "a", "X", "rouge_l", "fully_held_out"),
        EvalTask("a__3", "a", "Y", "accuracy", "fully_held_out"),
        EvalTask("b__algebra", "b", "MMLU", "accuracy", "partially_supervised", "mmlu"),
        EvalTask("b__law", "b", "MMLU", "accuracy", "partially_supervised", "mmlu"),
        EvalTask("c__mmlu", "c", "MMLU", "accuracy", "partially_supervised", "mmlu"),
        EvalTask("a__4", "a", "X", "exact_match", "fully_supervised"),
    )
}


def sample(task, number, score, prompt="p"):
    metric = TASKS[task].metric if task in TASKS else "exact_match"
    return {
        "key": f"{task}{number}{prompt}",
        "task": task,
        "id": f"i{number:05d}",
        "prompt_id": prompt,
        "prompt_hash": f"h{number}",
        "method": "rank" if metric == "accuracy" else "generate",
        "metric": metric,
        "references": ["yes"],
        "options": ["yes", "no"] if metric == "accuracy" else [],
        "score": score,
        "scores": {metric: score},
        "truncated": False,
    }


def many(task, scores):
    return [sample(task, number, float(score)) for number, score in enumerate(scores)]


def results_of(samples, tasks=TASKS, **changes):
    return aggregation.aggregate(
        samples, tasks, **{"model": "m", **RUN, **changes}, num_resamples=200
    )


def compare(before, after, tasks=TASKS, **changes):
    trees = [results_of(samples, tasks) for samples in (before, after)]
    return comparison.compare(*trees, before, after, **changes)


def random_side(seed, shift=0.0):
    rng = np.random.default_rng(seed)
    made = []
    for task, count in zip(TASKS, (20, 30, 15, 12, 9, 25, 40)):
        scores = np.clip(rng.normal(40 + shift, 30, count), 0, 100)
        if TASKS[task].metric != "rouge_l":
            scores = 100.0 * (scores > 50)
        made += many(task, scores)
    return made


BEFORE, AFTER = random_side(0), random_side(1, 20)


@pytest.fixture(scope="module")
def tree():
    return compare(BEFORE, AFTER)


def test_interval_and_p_of_one_task_equal_scipys():
    rng = np.random.default_rng(3)
    before = rng.choice([0.0, 30.0, 100.0], size=150)
    after = np.clip(before + rng.choice([-30.0, 0.0, 0.0, 45.0], size=150), 0, 100)
    node = compare(many("a__1", before), many("a__1", after), num_resamples=20_000)["overall"]

    def statistic(a, b, axis=-1):
        return np.mean(b, axis=axis) - np.mean(a, axis=axis)

    assert node["difference"] == pytest.approx(statistic(before, after))
    wanted = scipy.stats.bootstrap(
        (before, after), statistic, paired=True, method="percentile", n_resamples=20_000, rng=1
    ).confidence_interval
    # Two draws of 20,000 replicates: the tails differ by about 1 % of the width.
    width = wanted.high - wanted.low
    np.testing.assert_allclose(node["ci"], [wanted.low, wanted.high], atol=0.03 * width)
    tested = scipy.stats.permutation_test(
        (before, after), statistic, permutation_type="samples", n_resamples=20_000, rng=1
    )
    # The standard error of a share among 10,000 draws, both sides.
    error = 3 * np.sqrt(tested.pvalue * (1 - tested.pvalue) * (1 / 10_000 + 4 / 20_000))
    assert 0.0005 < tested.pvalue < 0.9
    assert node["p"] == pytest.approx(tested.pvalue, abs=error)


@pytest.mark.parametrize("seed", range(6))
def test_p_of_few_instances_equals_scipys_exactly(seed):
    rng = np.random.default_rng(seed)
    before = rng.choice([0.0, 100.0, 37.5], size=10)
    after = rng.choice([0.0, 100.0, 37.5], size=10)
    node = compare(many("a__1", before), many("a__1", after))["overall"]
    tested = scipy.stats.permutation_test(
        (before, after),
        lambda a, b, axis: np.mean(b, axis=axis) - np.mean(a, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert node["p"] == pytest.approx(min(tested.pvalue, 1.0), abs=1e-12)


def by_hand(samples):
    """Scores of every node, written out."""
    mean = {
        task: np.mean([s["score"] for s in samples if s["task"] == task])
        for task in TASKS
        if any(s["task"] == task for s in samples)
    }
    x, y, other = (mean["a__1"] + mean["a__2"]) / 2, mean["a__3"], mean["a__4"]
    mmlu = ((mean["b__algebra"] + mean["b__law"]) / 2 + mean["c__mmlu"]) / 2
    return {
        ("overall",): (x + y + mmlu + other) / 4,
        ("levels", "fully_held_out"): (x + y) / 2,
        ("levels", "fully_held_out", "categories", "X"): x,
        ("levels", "fully_held_out", "categories", "X", "tasks", "a__2"): mean["a__2"],
        ("levels", "partially_supervised"): mmlu,
        ("levels", "partially_supervised", "categories", "MMLU", "tasks", "mmlu"): mmlu,
        ("levels", "fully_supervised", "categories", "X"): other,
    }


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def test_differences_of_the_tree_equal_those_by_hand(tree):
    old, new = by_hand(BEFORE), by_hand(AFTER)
    for path in old:
        node = at(tree, path)
        assert node["before"] == pytest.approx(old[path])
        assert node["after"] == pytest.approx(new[path])
        assert node["difference"] == pytest.approx(new[path] - old[path])
        assert node["ci"][0] < node["difference"] < node["ci"][1]
    assert tree["overall"]["n"] == len(BEFORE)
    assert tree["before"] == {"name": "before", "model": "m", "step": 3, "num_left_out": 0}
    assert json.loads(json.dumps(tree)) == tree


def test_p_of_a_tree_equals_a_loop_over_flips():
    """Few instances in all: every flip of every instance, averaged by hand."""
    rng = np.random.default_rng(8)
    counts = dict(zip(TASKS, (2, 1, 2, 2, 1, 2, 2)))
    before = [s for t, n in counts.items() for s in many(t, rng.uniform(0, 100, n))]
    after = [{**s, "score": float(rng.uniform(0, 100))} for s in before]
    tree = compare(before, after)
    difference = [b["score"] - a["score"] for a, b in zip(before, after)]
    observed = {path: by_hand(after)[path] - old for path, old in by_hand(before).items()}
    hits = dict.fromkeys(observed, 0)
    for signs in itertools.product((1, -1), repeat=len(before)):
        flipped = [{**s, "score": d * g} for s, d, g in zip(before, difference, signs)]
        for path, value in by_hand(flipped).items():
            hits[path] += abs(value) >= abs(observed[path]) - 1e-9
    for path, count in hits.items():
        assert at(tree, path)["p"] == pytest.approx(count / 2 ** len(before), abs=1e-12)
    assert len(set(hits.values())) > 3


def test_both_sides_have_the_same_draws():
    """A constant shift: every resampling differs by it, so the interval has no width."""
    before = [s for s in BEFORE if s["task"] == "a__2"]
    before = [{**s, "score": min(s["score"], 90.0)} for s in before]
    after = [{**s, "score": s["score"] + 10} for s in before]
    node = compare(before, after)["overall"]
    np.testing.assert_allclose(node["ci"], [10, 10])
    # The interval of either side has a width.
    low, high = results_of(before)["overall"]["ci"]
    assert high - low > 5


def test_equal_evaluations_do_not_differ():
    tree = compare(BEFORE, BEFORE)
    node = tree["overall"]
    assert (node["difference"], node["ci"], node["p"]) == (0, [0, 0], 1)


def test_swapping_the_sides_mirrors_the_tree(tree):
    mirrored = compare(AFTER, BEFORE)
    for path in by_hand(BEFORE):
        one, other = at(tree, path), at(mirrored, path)
        assert one["difference"] == pytest.approx(-other["difference"])
        assert one["ci"] == pytest.approx([-bound for bound in other["ci"]][::-1])
        assert one["p"] == other["p"]


def test_order_of_samples_does_not_matter(tree):
    assert compare(BEFORE[::-1], AFTER) == tree


def test_prompts_of_one_instance_flip_together():
    differences = [100.0, 0.0, 40.0, -100.0, 60.0, 80.0]
    before = many("a__1", [0 if d > 0 else 100 for d in differences])
    after = many("a__1", [b["score"] + d for b, d in zip(before, differences)])
    once = compare(before, after)["overall"]

    def thrice(samples):
        return [{**s, "prompt_id": p, "key": s["key"] + p} for s in samples for p in "pqr"]

    three = compare(thrice(before), thrice(after))["overall"]
    assert three["n"] == 18
    assert three["p"] == once["p"]
    assert three["ci"] == once["ci"]


def test_p_values_are_uniform_where_models_do_not_differ():
    """Of 400 comparisons of interchangeable models, about 5 % and 30 % lie below 0.05 and 0.3."""
    rng = np.random.default_rng(11)
    found = []
    for _ in range(400):
        flips = significance.average(
            [significance.flip_task(rng.normal(0, 30, n), range(n), rng, 400) for n in (12, 30)]
        )
        found.append(flips.p_value())
    # Three standard errors of a binomial share.
    assert np.mean(np.asarray(found) < 0.05) == pytest.approx(0.05, abs=0.033)
    assert np.mean(np.asarray(found) < 0.3) == pytest.approx(0.3, abs=0.07)


def test_adjusted_p_values(tree):
    rng = np.random.default_rng(2)
    values = rng.uniform(size=50) ** 3
    wanted = scipy.stats.false_discovery_control(values, method="bh")
    np.testing.assert_allclose(significance.adjust(values.tolist()), wanted)
    rows = {
        name: row
        for node in tree["levels"].values()
        for inner in node["categories"].values()
        for name, row in inner["tasks"].items()
    }
    assert len(rows) == 5
    wanted = scipy.stats.false_discovery_control([row["p"] for row in rows.values()])
    np.testing.assert_allclose([row["p_adjusted"] for row in rows.values()], wanted)


def test_only_common_examples(tree):
    fewer = [s for s in AFTER if not (s["task"] == "a__1" and s["id"] > "i00014")]
    with pytest.raises(InputError) as refused:
        compare(BEFORE, fewer, names=("one", "two"))
    assert str(refused.value) == (
        "the examples differ: 5 are in one only (such as task 'a__1', example 'i00015')."
        " 146 are the same in both: compare those with --common."
    )
    part = compare(BEFORE, fewer, common=True)
    assert part["before"]["num_left_out"] == 5
    assert part["after"]["num_left_out"] == 0
    assert part["overall"]["n"] == 146
    # Other tasks are what they were.
    path = ("levels", "fully_held_out", "categories", "X", "tasks", "a__2")
    one, other = dict(at(part, path)), dict(at(tree, path))
    del one["p_adjusted"], other["p_adjusted"]
    assert one == other


def test_a_task_that_only_one_has():
    fewer = [s for s in AFTER if s["task"] != "a__3"]
    with pytest.raises(InputError, match=r"15 are in before only \(such as task 'a__3'"):
        compare(BEFORE, fewer)
    for sides in ((BEFORE, fewer), (fewer, BEFORE)):
        part = compare(*sides, common=True)
        assert list(part["levels"]["fully_held_out"]["categories"]) == ["X"]


def test_examples_with_another_text():
    other = copy.deepcopy(AFTER)
    other[0]["prompt_hash"] = "another"
    other[1]["references"] = ["no"]
    with pytest.raises(InputError, match="2 of them are in both with another text or references"):
        compare(BEFORE, other)
    assert compare(BEFORE, other, common=True)["overall"]["n"] == len(BEFORE) - 2
    for one in other:
        one["prompt_hash"] = "another"
    with pytest.raises(InputError, match="None is the same in both"):
        compare(BEFORE, other, common=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite": "t"}, "A and B cannot be compared: suite is 's' and 't'"),
        ({"split": "mini"}, "split is 'opt_iml' and 'mini'"),
        ({"shots": 5}, "shots is 0 and 5"),
    ],
)
def test_other_conditions_are_refused(change, message):
    trees = results_of(BEFORE), results_of(AFTER, **change)
    with pytest.raises(InputError, match=message):
        comparison.compare(*trees, BEFORE, AFTER, names=("A", "B"))


def test_a_task_at_another_place_is_refused():
    other = dict(TASKS, a__4=EvalTask("a__4", "a", "Y", "exact_match", "fully_supervised"))
    with pytest.raises(InputError, match="task 'a__4' has the category 'X' and 'Y'"):
        comparison.compare(results_of(BEFORE), results_of(AFTER, other), BEFORE, AFTER)


def test_another_metric_is_refused():
    generated = {
        "metric": "rouge_l",
        "method": "generate",
    }
    other = [{**s, **generated, "scores": {"rouge_l": s["score"]}} for s in AFTER]
    trees = results_of(BEFORE), results_of(other)
    with pytest.raises(InputError, match=r"is scored by exact_match in before and by rouge_l in"):
        comparison.compare(*trees, BEFORE, other)


def test_samples_of_another_method_do_not_count():
    """One folder that was evaluated with two methods: results.json is of the last."""
    generated = [{**s, "method": "generate", "score": 0.0} for s in AFTER if s["options"]]
    assert generated
    trees = results_of(BEFORE), results_of(AFTER)
    wanted = comparison.compare(*trees, BEFORE, AFTER)
    assert comparison.compare(*trees, BEFORE, generated + AFTER) == wanted
    trees[1]["settings"]["method"] = "generate"
    with pytest.raises(InputError, match="are not of one evaluation"):
        comparison.compare(*trees, BEFORE, generated + AFTER)


def test_settings_that_differ_are_told():
    trees = results_of(BEFORE), results_of(AFTER)
    trees[0]["settings"].update(normalization="none", seed=3)
    trees[1]["settings"].update(normalization="per_token", seed=4)
    made = comparison.compare(*trees, BEFORE, AFTER)
    assert made["settings"] == {"normalization": ["none", "per_token"]}


@pytest.mark.parametrize("settings", [None, [], "absent"])
def test_results_of_other_tools_need_no_settings(tree, settings):
    trees = results_of(BEFORE), results_of(AFTER)
    for one in trees:
        one["settings"] = settings
        if settings == "absent":
            del one["settings"]
    assert comparison.compare(*trees, BEFORE, AFTER) == tree


def test_samples_that_are_not_those_of_the_results():
    trees = results_of(BEFORE), results_of(AFTER)
    with pytest.raises(InputError, match=r"task 'a__1' has 19 samples there, n = 20"):
        comparison.compare(*trees, BEFORE, AFTER[1:])
    changed = [{**AFTER[0], "score": 100.0 - AFTER[0]["score"]}, *AFTER[1:]]
    with pytest.raises(InputError, match=r"after: samples.jsonl and results.json are not of one"):
        comparison.compare(*trees, BEFORE, changed)


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (lambda s: s.pop("prompt_hash"), "line 2: field 'prompt_hash' is missing"),
        (lambda s: s.update(score="high"), "line 2: field 'score' is 'high'"),
    ],
)
def test_broken_samples_are_named(alter, message):
    broken = copy.deepcopy(AFTER)
    alter(broken[0])
    with pytest.raises(InputError, match=message):
        comparison.compare(results_of(BEFORE), results_of(AFTER), BEFORE, broken)
