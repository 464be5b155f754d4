"""The tree of scores against numbers added by hand, and intervals against scipy."""

import copy
import json

import numpy as np
import pytest
import scipy.stats

from optiml_jax.errors import InputError
from optiml_jax.eval import aggregation
from optiml_jax.eval.tasks import EvalTask

RUN = {"model": "m", "step": 300, "suite": "s", "shots": 0}


def sample(task, number, score, prompt="p", metric="exact_match"):
    return {
        "task": task,
        "id": f"i{number:05d}",
        "prompt_id": prompt,
        "metric": metric,
        "score": score,
        "scores": {metric: score},
        "truncated": number == 0,
    }


def many(task, scores):
    return [sample(task, number, score) for number, score in enumerate(scores)]


@pytest.fixture(scope="module")
def rows():
    made = [
        EvalTask("a__1", "a", "X", "exact_match", "fully_held_out"),
        EvalTask("a__2", "a", "X", "exact_match", "fully_held_out"),
        EvalTask("a__3", "a", "Y", "exact_match", "fully_held_out"),
        EvalTask("b__algebra", "b", "MMLU", "exact_match", "partially_supervised", "mmlu"),
        EvalTask("b__law", "b", "MMLU", "exact_match", "partially_supervised", "mmlu"),
        EvalTask("c__mmlu", "c", "MMLU", "exact_match", "partially_supervised", "mmlu"),
        EvalTask("a__4", "a", "X", "exact_match", "fully_supervised"),
    ]
    return {row.name: row for row in made}


@pytest.fixture(scope="module")
def samples():
    return [
        *many("a__1", [100.0, 0.0, 0.0, 0.0]),  # 25
        *many("a__2", [100.0]),  # 100
        *many("a__3", [0.0, 50.0]),  # 25
        *many("b__algebra", [100.0, 0.0]),  # 50
        *many("b__law", [100.0] * 7 + [0.0]),  # 87.5
        *many("c__mmlu", [0.0, 0.0, 0.0, 100.0]),  # 25
        *many("a__4", [80.0, 60.0]),  # 70
    ]


def test_scores_equal_those_added_by_hand(rows, samples):
    results = aggregation.aggregate(samples, rows, **RUN)
    held = results["levels"]["fully_held_out"]
    assert held["categories"]["X"]["tasks"]["a__1"]["score"] == 25
    assert held["categories"]["X"]["score"] == (25 + 100) / 2
    assert held["categories"]["Y"]["score"] == 25
    assert held["score"] == (62.5 + 25) / 2
    partial = results["levels"]["partially_supervised"]
    # Subjects of one benchmark first, then the benchmarks that have the task.
    wanted = ((50 + 87.5) / 2 + 25) / 2
    assert partial["categories"]["MMLU"]["tasks"]["mmlu"]["score"] == wanted
    assert partial["score"] == wanted
    assert results["levels"]["fully_supervised"]["score"] == 70
    # Over categories of all levels, as the published averages are; not over levels.
    assert results["overall"]["score"] == pytest.approx((62.5 + 25 + wanted + 70) / 4)
    assert results["overall"]["n"] == len(samples)
    assert results["num_truncated"] == 7
    aggregation.check_results(results)
    task = partial["categories"]["MMLU"]["tasks"]["mmlu"]
    assert (task["benchmark"], task["metric"], task["n"]) == ("b+c", "exact_match", 14)
    assert sorted(task["subtasks"]) == ["b__algebra", "b__law", "c__mmlu"]


def test_the_order_of_samples_does_not_matter(rows, samples):
    forward = aggregation.aggregate(samples, rows, **RUN)
    backward = aggregation.aggregate(samples[::-1], rows, **RUN)
    assert json.dumps(forward) == json.dumps(backward)


def test_other_tasks_do_not_change_an_interval(rows, samples):
    whole = aggregation.aggregate(samples, rows, **RUN)
    part = aggregation.aggregate([s for s in samples if s["task"] == "a__1"], rows, **RUN)
    path = ("levels", "fully_held_out", "categories", "X", "tasks", "a__1")
    for key in path:
        whole, part = whole[key], part[key]
    assert whole == part


def test_seed_is_used(rows):
    rng = np.random.default_rng(0)
    samples = many("a__1", rng.uniform(0, 100, 40).tolist())
    first, again, other = (
        aggregation.aggregate(samples, rows, seed=seed, **RUN)["overall"]["ci"]
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_single_instances_have_no_interval(rows, samples):
    results = aggregation.aggregate(samples, rows, **RUN)
    held = results["levels"]["fully_held_out"]["categories"]["X"]
    assert held["tasks"]["a__2"]["ci"] is None
    # Two tasks can be resampled although one of them has one instance.
    assert held["ci"][1] == 100
    alone = aggregation.aggregate(many("a__2", [100.0]), rows, **RUN)
    assert alone["overall"]["ci"] is None
    aggregation.check_results(alone)


def test_flat_interval_equals_scipys(rows):
    rng = np.random.default_rng(7)
    scores = rng.choice([0.0, 30.0, 100.0], size=200).tolist()
    results = aggregation.aggregate(many("a__1", scores), rows, num_resamples=20_000, **RUN)
    wanted = scipy.stats.bootstrap(
        (np.asarray(scores),), np.mean, method="percentile", n_resamples=20_000, rng=1
    ).confidence_interval
    # Two draws of 20,000 replicates: the tails differ by about 1 % of the width.
    width = wanted.high - wanted.low
    for node in (results["overall"], results["levels"]["fully_held_out"]):
        np.testing.assert_allclose(node["ci"], [wanted.low, wanted.high], atol=0.03 * width)


def test_prompts_of_one_instance_are_drawn_together(rows):
    scores = [100.0, 0.0] * 20
    once = many("a__1", scores)
    thrice = [sample("a__1", i, s, prompt) for i, s in enumerate(scores) for prompt in "pqr"]
    one = aggregation.aggregate(once, rows, **RUN)["overall"]
    three = aggregation.aggregate(thrice, rows, **RUN)["overall"]
    assert (one["n"], three["n"]) == (40, 120)
    assert one["ci"] == three["ci"]


def test_tasks_are_the_clusters():
    """Many instances of few tasks: the interval is that of the tasks."""
    rng = np.random.default_rng(0)
    means = rng.uniform(20, 80, 12)
    rows = {
        f"a__{k}": EvalTask(f"a__{k}", "a", "X", "exact_match", "fully_held_out") for k in range(12)
    }
    samples = [
        one for k, mean in enumerate(means) for one in many(f"a__{k}", [mean - 1, mean + 1] * 50)
    ]
    results = aggregation.aggregate(samples, rows, num_resamples=10_000, **RUN)
    wanted = scipy.stats.bootstrap(
        (means,), np.mean, method="percentile", n_resamples=10_000, rng=1
    ).confidence_interval
    low, high = results["overall"]["ci"]
    assert low == pytest.approx(wanted.low, abs=0.04 * (high - low))
    assert high == pytest.approx(wanted.high, abs=0.04 * (high - low))


def test_two_stage_interval_covers_the_truth():
    """Coverage of simulated suites: near 95 %, and clearly more than a flat bootstrap's."""
    rows = {
        f"a__{k}": EvalTask(f"a__{k}", "a", "X", "exact_match", "fully_held_out") for k in range(20)
    }
    covered = 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        samples = []
        for k in range(20):
            chance = np.clip(rng.normal(0.5, 0.15), 0, 1)
            samples += many(f"a__{k}", (100.0 * (rng.random(10) < chance)).tolist())
        result = aggregation.aggregate(samples, rows, num_resamples=500, **RUN)["overall"]
        covered += result["ci"][0] <= 50 <= result["ci"][1]
    assert covered >= 52


def test_written_whole_and_read_back(rows, samples, tmp_path):
    results = aggregation.aggregate(samples, rows, **RUN)
    path = aggregation.write_results(tmp_path / "out", results)
    assert path.name == "results.json"
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]
    assert aggregation.read_results(path) == results
    assert aggregation.read_results(path.parent) == results
    bad = copy.deepcopy(results)
    bad["overall"]["score"] = float("nan")
    with pytest.raises(InputError, match="overall: field 'score' is nan"):
        aggregation.write_results(tmp_path / "out", bad)
    assert aggregation.read_results(path) == results


def change(path, value):
    def apply(results):
        node = results
        for key in path[:-1]:
            node = node[key]
        if value is None:
            del node[path[-1]]
        else:
            node[path[-1]] = value

    return apply


MMLU = ("levels", "partially_supervised", "categories", "MMLU", "tasks", "mmlu")


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (change(["schema"], 2), "schema 2, this version reads 1"),
        (change(["step"], None), "field 'step' is missing"),
        (change(["overall", "n"], 3), "levels: their n add up to 23, the node above has 3"),
        (change(["overall", "score"], 101.0), "expected a number from 0 to 100"),
        (change(["overall", "ci"], [60.0, 20.0]), r"overall: field 'ci' is \[60.0, 20.0\]"),
        (change(["levels", "fully_held_out", "categories", "X", "tasks"], {}), "X.tasks: empty"),
        (
            change(["levels", "fully_held_out", "categories", "X", "tasks", "a__1", "metric"], 3),
            "tasks.a__1: field 'metric' is 3, expected str",
        ),
        (
            change([*MMLU, "subtasks", "b__law", "n"], 7),
            "mmlu.subtasks: their n add up to 13, the node above has 14",
        ),
        (
            change([*MMLU, "subtasks", "b__law", "metric"], None),
            "b__law: field 'metric' is missing",
        ),
        (change(["num_truncated"], "3"), "field 'num_truncated' is '3', expected int"),
        (change(["split"], 3), "field 'split' is 3, expected str"),
        (change([*MMLU, "subtasks", "b__law", "metrics"], 3), "b__law: field 'metrics' is 3"),
        (
            change([*MMLU, "subtasks", "b__law", "metrics"], {"rouge_l": "x"}),
            "b__law.metrics: field 'rouge_l' is 'x', expected a number from 0 to 100",
        ),
        (
            lambda r: r["levels"].update(held_out=r["levels"].pop("fully_held_out")),
            "fully_held_out",
        ),
    ],
)
def test_broken_results_are_named(rows, samples, alter, message):
    results = aggregation.aggregate(samples, rows, **RUN)
    alter(results)
    with pytest.raises(InputError, match=message):
        aggregation.check_results(results)


def test_results_that_are_no_object():
    with pytest.raises(InputError, match=r"results.json: expected an object, found list"):
        aggregation.check_results([])


def test_missing_results(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        aggregation.read_results(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        aggregation.read_results(tmp_path)


def test_nothing_and_strangers(rows):
    with pytest.raises(InputError, match="no samples to aggregate"):
        aggregation.aggregate([], rows, **RUN)
    with pytest.raises(InputError, match="unknown task 'a__9'"):
        aggregation.aggregate(many("a__9", [1.0]), rows, **RUN)


def test_summary(rows, samples):
    results = aggregation.aggregate(samples, rows, **RUN)
    summary = aggregation.summarize(results)
    assert list(summary) == [
        "overall",
        "fully_held_out",
        "partially_supervised",
        "fully_supervised",
    ]
    assert summary["fully_supervised"] == 70
