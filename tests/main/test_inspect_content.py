"""What `optiml inspect` finds out, against the store itself."""

import collections
import dataclasses
import json

import numpy as np
import pytest

from optiml_jax.bench import catalog, record
from optiml_jax.data import mixing, packing, prepare, rendering, stream, vocabularies
from optiml_jax.data import store as store_lib
from optiml_jax.errors import InputError
from optiml_jax.main import inspect_content, inspect_samples
from optiml_jax.main.inspect_content import Filters
from tests.cli.commands import task_file
from tests.data.conftest import WORDS, assign, make_task

FLAN = [make_task(number, 30 + 20 * number, benchmark="flan") for number in range(3)]
SNI = [make_task(number, 25 + 9 * number) for number in range(4)]
HELD_OUT = SNI[0].spec.name  # category Translation
SPEC = mixing.MixtureSpec()


@pytest.fixture(scope="module")
def vocabulary():
    return vocabularies.train_vocabulary([" ".join(WORDS), "Definition Input Output Answer"], 320)


@pytest.fixture(scope="module")
def store(vocabulary, tmp_path_factory):
    out = tmp_path_factory.mktemp("store")
    tasks = FLAN + SNI
    config = prepare.PrepareConfig(
        render=rendering.RenderConfig(num_renderings=2, shots=(0, 1)), num_shards=2
    )
    prepare.prepare_store(tasks, assign(tasks, held_out={HELD_OUT}), out, vocabulary, config)
    return store_lib.open_store(out)


def names(tasks):
    return {task.name for task in tasks}


# --- filters -------------------------------------------------------------------------------------


def test_filters_combine(store):
    every = names(store.tasks)
    assert names(inspect_content.chosen_tasks(store, Filters())) == every
    flan = inspect_content.chosen_tasks(store, Filters(benchmark="flan"))
    assert names(flan) == {task.spec.name for task in FLAN}
    both = inspect_content.chosen_tasks(store, Filters(benchmark="flan", category="translation"))
    assert names(both) == {FLAN[0].spec.name, FLAN[2].spec.name}
    held_out = inspect_content.chosen_tasks(store, Filters(level="fully_held_out", role="test"))
    assert names(held_out) == {HELD_OUT}


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (Filters(benchmark="flam"), "unknown benchmark 'flam'. Did you mean 'flan'?"),
        (Filters(benchmark=""), "unknown benchmark ''. Known: "),
        (Filters(category="Translator"), "unknown category 'Translator'. Did you mean 'Transl"),
        (Filters(level="held_out"), "unknown level 'held_out'. Did you mean 'fully_held_out'?"),
        (Filters(role="tset"), "unknown role 'tset'. Did you mean 'test'?"),
        (Filters(role="excluded"), "none of its 7 tasks has role 'excluded'"),
        (
            Filters(benchmark="flan", level="fully_held_out"),
            "none of its 7 tasks has benchmark 'flan' and level 'fully_held_out'",
        ),
    ],
)
def test_filters_that_let_nothing_through(store, filters, message):
    with pytest.raises(InputError) as error:
        inspect_content.chosen_tasks(store, filters)
    assert message in str(error.value)


# --- store and mixture ---------------------------------------------------------------------------


def test_tasks_of_a_store(store):
    content = inspect_content.store_content(store, Filters(category="Translation"), True)
    rows = {row["name"]: row for row in content["tasks"]}
    assert set(rows) == {t.spec.name for t in FLAN + SNI if t.spec.category == "Translation"}
    assert content["num_tasks"] == len(rows)
    row = rows[HELD_OUT]
    assert (row["num_examples"], row["mean_tokens"], row["num_eval"]) == (0, None, 25)
    row = rows[FLAN[2].spec.name]
    stored = store.by_name[FLAN[2].spec.name]
    tokens = [
        len(store.train_tokens(rendering_number, stored.name, number))
        for rendering_number in range(2)
        for number in range(stored.num_train)
    ]
    assert row["mean_tokens"] == pytest.approx(sum(tokens) / len(tokens))
    assert "tasks" not in inspect_content.store_content(store, Filters())


def test_a_mixture_adds_up(store):
    content = inspect_content.mixture_content(store, None, SPEC, Filters())
    assert len(content["tasks"]) == content["num_tasks"] == len(FLAN) + len(SNI) - 1
    for share in inspect_content.SHARES:
        by_task = sum(row[share] for row in content["tasks"])
        for group in ("benchmarks", "categories"):
            assert sum(row[share] for row in content[group].values()) == pytest.approx(1)
        assert by_task == pytest.approx(1)
    flan = [row for row in content["tasks"] if row["benchmark"] == "flan"]
    drawn = sum(row["example_share"] * row["mean_tokens"] for row in flan)
    assert content["benchmarks"]["flan"]["mean_tokens"] == pytest.approx(
        drawn / sum(row["example_share"] for row in flan)
    )


def test_a_benchmark_without_a_share_is_not_of_the_mixture(store):
    spec = mixing.MixtureSpec(proportions={"flan": 1.0})
    content = inspect_content.mixture_content(store, None, spec, Filters())
    assert list(content["benchmarks"]) == ["flan"]
    assert content["num_tasks"] == len(content["tasks"]) == len(FLAN)
    assert content["num_examples"] == sum(
        task.num_train for task in store.tasks if task.spec.benchmark == "flan"
    )


def test_notes_on_what_a_mixture_assumes(store):
    def notes(spec, file=None):
        return inspect_content.mixture_content(store, None, spec, Filters(), file=file)["notes"]

    assert notes(SPEC, "mixtures/eps_128.gin") == notes(SPEC, "mixtures/opt_iml.gin") == []
    (told,) = notes(SPEC, "mixtures/opt_iml_max.gin")
    assert "is the mixture of the split 'opt_iml_max', but these tasks are placed by 'opt_" in told
    (told,) = notes(mixing.MixtureSpec(num_tasks=3))
    assert "4 of them cannot be drawn here: flan__squad_v1, promptsource__blended_skill" in told
    (told,) = notes(mixing.MixtureSpec(num_clusters=1))
    assert "2 of them cannot be drawn here: Dialogue Generation, Summarization." in told


def test_a_filter_shows_part_of_the_same_mixture(store):
    whole = inspect_content.mixture_content(store, None, SPEC, Filters())
    part = inspect_content.mixture_content(store, None, SPEC, Filters(benchmark="flan"))
    assert part["benchmarks"] == {"flan": whole["benchmarks"]["flan"]}
    assert part["num_tasks"] == whole["num_tasks"]
    assert list(part["lengths"]["benchmarks"]) == ["flan"]
    alone = inspect_content.mixture_content(store, "flan", SPEC, Filters())
    assert alone["benchmarks"]["flan"]["example_share"] == pytest.approx(1)


def test_epochs_are_those_of_the_rows_that_training_packs(store):
    """Counted again from the plan; a row of feature length 100 holds 101 tokens."""
    spec = mixing.MixtureSpec(eps=40)
    trained = [task for task in store.tasks if task.num_train]
    sizes = [task.num_train for task in trained]
    plan = packing.Plan(
        packing.PlanTasks(
            names=tuple(task.name for task in trained),
            rates=mixing.mixing_rates(spec, [task.spec for task in trained], sizes),
            first_examples=[task.first_example for task in trained],
            sizes=sizes,
        ),
        store.lengths,
        row_tokens=101,
        seed=0,
    )
    block = plan.block(0)
    owner = {
        task.first_example + number: task.name
        for task in trained
        for number in range(task.num_train)
    }
    examples = block.examples[: block.row_starts[70]] % store.lengths.shape[1]
    counts = collections.Counter(owner[int(example)] for example in examples)
    content = inspect_content.mixture_content(store, None, spec, Filters(), 70, 100)
    assert content["num_drawn_examples"] == len(examples)
    for row in content["tasks"]:
        assert row["epochs"] == pytest.approx(counts[row["name"]] / row["num_examples"])
    flan = content["benchmarks"]["flan"]
    drawn = sum(count for name, count in counts.items() if name.startswith("flan__"))
    assert flan["epochs"] == pytest.approx(drawn / flan["num_examples"])


@pytest.mark.parametrize(("packing", "seed"), [("greedy", 7), ("first_fit", 0), ("first_fit", 7)])
def test_epochs_are_those_of_the_runs_packing_and_seed(store, packing, seed):
    config = stream.StreamConfig(feature_length=100, batch_size=70, packing=packing, seed=seed)
    examples = np.concatenate(stream.TrainStream(store, config).examples(0))
    content = inspect_content.mixture_content(
        store, None, SPEC, Filters(), 70, 100, packing=packing, seed=seed
    )
    assert content["num_drawn_examples"] == len(examples)
    assert (content["packing"], content["seed"]) == (packing, seed)
    plain = inspect_content.drawn_examples(store, None, SPEC, 70, 100)
    if packing == "first_fit":
        assert len(examples) > sum(plain.values())
    else:
        own = {row["name"]: row["epochs"] * row["num_examples"] for row in content["tasks"]}
        assert own != pytest.approx(plain)


def test_rows_are_counted_beyond_one_step_of_the_stream(store):
    few = inspect_content.drawn_examples(store, None, SPEC, 4096, 64)
    more = inspect_content.drawn_examples(store, None, SPEC, 4100, 64)
    assert 0 < sum(more.values()) - sum(few.values()) < 40


@pytest.mark.parametrize(
    ("rows", "length", "message"),
    [
        (0, 64, r"--rows \(steps x batch size\) is 0, expected 1 to 1,000,000,000"),
        (10**10, 64, "is 10,000,000,000, expected 1 to 1,000,000,000: every row is counted"),
        (5, 0, "--feature_length is 0"),
        (None, 0, "--feature_length is 0"),
    ],
)
def test_rows_that_cannot_be(store, rows, length, message):
    with pytest.raises(InputError, match=message):
        inspect_content.mixture_content(store, None, SPEC, Filters(), rows, length)


# --- samples -------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["train_0", "train_1"])
def test_a_training_sample_is_the_stored_example(store, view):
    """Source and target are those that were rendered; the marked part is what carries loss."""
    task = FLAN[1]
    config = rendering.RenderConfig(num_renderings=2, shots=(0, 1))
    content = task.load()
    parts = rendering.partition(task.spec, content, assign([task])[task.spec.name], config)
    texts = rendering.train_examples(task.spec, content, parts, config, int(view[-1]))
    shown = inspect_samples.samples_content(store, Filters(), 3, task.spec.name, view)
    assert shown["view"] == view
    assert [sample["number"] for sample in shown["samples"]] == [
        0,
        len(texts) // 3,
        2 * len(texts) // 3,
    ]
    for sample in shown["samples"]:
        text = texts[sample["number"]]
        assert sample["source"] == text.source.rstrip(" ")
        assert sample["target"] == f" {text.target.rstrip()}</s>"
        assert 1 < sample["num_target_tokens"] < sample["num_tokens"]


def test_an_evaluation_sample_is_the_stored_record(store):
    content = inspect_samples.samples_content(store, Filters(), 2, HELD_OUT, "eval_1shot")
    records = list(store.eval_records("eval_1shot", [HELD_OUT]))
    for sample in content["samples"]:
        one = records[sample["number"]]
        assert (
            record.EvalRecord.from_json({k: v for k, v in sample.items() if k in one.to_json()})
            == one
        )
    assert len({sample["number"] for sample in content["samples"]}) == 2


def test_samples_are_spread_over_the_tasks(store):
    content = inspect_samples.samples_content(store, Filters(benchmark="flan"), 5)
    counts = collections.Counter(sample["task"] for sample in content["samples"])
    assert counts == {FLAN[0].spec.name: 2, FLAN[1].spec.name: 2, FLAN[2].spec.name: 1}
    two = inspect_samples.samples_content(store, Filters(), 2)
    assert len({sample["task"] for sample in two["samples"]}) == 2
    assert two == inspect_samples.samples_content(store, Filters(), 2)


def test_no_more_samples_than_there_are(store):
    content = inspect_samples.samples_content(store, Filters(), 1000, HELD_OUT)
    assert content["view"] == "eval_0shot"  # it has no training view
    assert [sample["number"] for sample in content["samples"]] == list(range(25))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Filters(), 0), "--samples is 0, expected 1 or more"),
        ((Filters(), 1, "task001"), "unknown task 'task001'. Did you mean 'flan__task001_made'?"),
        ((Filters(), 1, None, "eval_5shot"), "unknown view 'eval_5shot'. Did you mean 'eval_"),
        ((Filters(), 1, HELD_OUT, "train_0"), "has no records in the view 'train_0' (role test)"),
        ((Filters(benchmark="flan"), 1, HELD_OUT), f"--task={HELD_OUT} does not pass --benchmark"),
    ],
)
def test_samples_that_are_not_there(store, arguments, message):
    with pytest.raises(InputError) as error:
        inspect_samples.samples_content(store, *arguments)
    assert message in str(error.value)


def test_a_view_that_another_run_left_out(vocabulary, tmp_path):
    """No split excludes the task: its records are of a view that is gone."""
    for tasks, shots in ((SNI[:2], (0,)), (FLAN[:1], (1,))):
        config = prepare.PrepareConfig(render=rendering.RenderConfig(shots=shots), num_shards=2)
        prepare.prepare_store(tasks, assign(tasks, {HELD_OUT}), tmp_path, vocabulary, config)
    store = store_lib.open_store(tmp_path)
    with pytest.raises(InputError) as error:
        inspect_samples.samples_content(store, Filters(), 1, HELD_OUT)
    assert f"(e.g. '{HELD_OUT}', role test) in its views eval_1shot, train_0." in str(error.value)


def test_plain_text_has_its_loss_on_all_but_the_first_token(vocabulary, tmp_path):
    """An empty source: nothing can predict a first token, so the mark begins behind it."""
    task = make_task(5, 12)
    spec = dataclasses.replace(task.spec, instruction_kind="text")
    records = tuple(dataclasses.replace(one, input="") for one in task.load().records)
    content = catalog.TaskContent("", (), records)
    plain = catalog.BenchTask(spec, lambda: content, "plain")
    prepare.prepare_store([plain], assign([plain]), tmp_path, vocabulary, prepare.PrepareConfig())
    store = store_lib.open_store(tmp_path)
    texts = {one.references[0] for one in records}
    for sample in inspect_samples.samples_content(store, Filters(), 3)["samples"]:
        assert sample["source"] + sample["target"].removesuffix("</s>") in texts
        assert sample["source"] == vocabulary.decode(
            store.train_tokens(0, spec.name, sample["number"])[:1]
        )
        assert sample["num_target_tokens"] == sample["num_tokens"] - 1


def test_a_cut_through_a_character_leaves_the_character_whole(vocabulary):
    text = "né 漢字"
    ids = vocabulary.encode(text)
    assert len(ids) > len(text)  # characters of several bytes are several tokens
    for start in range(len(ids) + 1):
        head, tail = inspect_samples.split_text(vocabulary, ids, start)
        assert head + tail == text
        assert "\ufffd" not in head + tail


# --- catalog -------------------------------------------------------------------------------------


def test_the_embedded_catalog_needs_no_folder():
    content = inspect_content.catalog_content("mini", None, None, Filters(benchmark="mini"))
    rows = content["tasks"]
    assert len(rows) >= 160
    assert {row["level"] for row in rows} >= {"fully_held_out", "partially_supervised"}
    wanted = ("name", "benchmark", "category", "level", "role", "metric", "num_examples")
    for row in rows:
        assert row.keys() >= {*wanted, "instruction_kind", "reason", "opt_iml"}
        assert isinstance(row["opt_iml"], bool)


def test_a_catalog_tells_who_takes_part_in_opt_iml(tmp_path):
    """`opt_iml` of a row is that split's, whatever split gives role and level."""
    for name, source in (("task001_a", "made"), ("task002_b", "bigbench_x"), ("task003_c", "snli")):
        (tmp_path / f"{name}.json").write_text(json.dumps(task_file(Source=[source])))
    content = inspect_content.catalog_content(
        "super_natural_instructions", str(tmp_path), "opt_iml", Filters()
    )
    shown = {row["name"][-9:]: (row["role"], row["opt_iml"]) for row in content["tasks"]}
    assert shown == {
        "task001_a": ("train", True),
        "task002_b": ("excluded", False),
        "task003_c": ("excluded", False),
    }


def test_a_catalog_without_its_folder():
    with pytest.raises(InputError, match="needs --data_dir=DIR"):
        inspect_content.catalog_content("super_natural_instructions", None, None, Filters())
