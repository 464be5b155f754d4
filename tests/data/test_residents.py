"""What may live in a store beside what is prepared: levels, names, mixtures."""

import dataclasses

import pytest

from optiml_jax.bench import catalog, splits
from optiml_jax.data import mixing, prepare, residents, stream
from optiml_jax.data import store as store_lib
from optiml_jax.errors import InputError
from tests.data.conftest import assign, make_task

CONFIG = prepare.PrepareConfig(num_shards=2)


def own_task(name, category="Misc.", role="train", version=0, benchmark="user"):
    """A user's task, and what its module makes of it."""
    made = make_task(0, 20, benchmark="user", version=version)
    spec = dataclasses.replace(
        made.spec,
        name=name,
        original_name=name,
        category=category,
        benchmark=benchmark,
        instruction_kind=residents.KIND,
    )
    content = dataclasses.replace(made.load(), definition="", demonstrations=())
    level = "fully_supervised" if role == "train" else "fully_held_out"
    return (
        catalog.BenchTask(spec, lambda: content, f"{name}{version}"),
        splits.Assignment(role, level, "the user's", category),
    )


def write(out, vocabulary, *own, bench=(), held_out=(), mixtures=None, prune=False):
    tasks = [*bench, *(task for task, _ in own)]
    assignments = {**assign(bench, held_out), **{task.spec.name: a for task, a in own}}
    prepare.prepare_store(
        tasks, assignments, out, vocabulary, CONFIG, prune=prune, mixtures=mixtures
    )
    return store_lib.open_store(out, verify=True)


def levels(store):
    return {t.name: t.level for t in store.tasks if t.spec.benchmark == "user"}


BENCH = [make_task(n, 20, benchmark="made") for n in range(3)]
HELD_OUT = BENCH[1]  # of "Question Answering"; the others train on "Translation"


def test_levels_follow_the_store(vocabulary, tmp_path):
    """Whatever is prepared first; a level that changes renders nothing again."""
    seen = own_task("seen", "Translation", "test")
    unseen = own_task("unseen", "Letter Counting", "test")
    trained = own_task("trained", "Letter Counting")
    assert set(levels(write(tmp_path, vocabulary, seen, unseen)).values()) == {"fully_held_out"}
    store = write(tmp_path, vocabulary, bench=BENCH, held_out={HELD_OUT.spec.name})
    assert levels(store) == {"seen": "partially_supervised", "unseen": "fully_held_out"}
    before = store.by_name["seen"].keys
    store = write(tmp_path, vocabulary, trained)
    assert levels(store) == {
        "seen": "partially_supervised",
        "unseen": "partially_supervised",
        "trained": "fully_supervised",
    }
    assert store.by_name["seen"].keys == before
    result = prepare.prepare_store([seen[0]], {"seen": seen[1]}, tmp_path, vocabulary, CONFIG)
    assert result.tasks_rendered == 0


def test_text_alone_trains_no_category(vocabulary, tmp_path):
    """Text without inputs, a user's or a benchmark's, teaches none of the category's tasks."""
    text, placed = own_task("text")
    text = (text, dataclasses.replace(placed, level=""))
    store = write(tmp_path, vocabulary, text, own_task("asked", role="test"))
    assert levels(store) == {"text": "", "asked": "fully_held_out"}


MESSAGE = (
    "task 'mine' trains on the category 'Question Answering', which the store's split holds out"
    " fully: 'made__task001_made' would no longer be fully held out. Give 'mine' its true category"
    " or the role 'test' in OPTIML, or prepare it in another store"
)


@pytest.mark.parametrize("own_first", [True, False])
def test_training_on_a_held_out_category_is_refused(vocabulary, tmp_path, own_first):
    mine = own_task("mine", "Question Answering")
    steps = [{"own": [mine]}, {"bench": BENCH, "held_out": {HELD_OUT.spec.name}}]
    first, second = steps if own_first else reversed(steps)
    write(tmp_path, vocabulary, *first.pop("own", ()), **first)
    index = (tmp_path / "index.json").read_bytes()
    with pytest.raises(InputError) as error:
        write(tmp_path, vocabulary, *second.pop("own", ()), **second)
    assert MESSAGE in str(error.value)
    assert (tmp_path / "index.json").read_bytes() == index
    # The way out that the message names.
    evaluated = own_task("mine", "Question Answering", "test")
    write(tmp_path, vocabulary, evaluated)
    store = write(tmp_path, vocabulary, bench=BENCH, held_out={HELD_OUT.spec.name})
    assert levels(store) == {"mine": "fully_held_out"}


def test_users_tasks_stay_unless_pruned(vocabulary, tmp_path):
    write(tmp_path, vocabulary, own_task("a"), own_task("b"), bench=BENCH)
    store = write(tmp_path, vocabulary, own_task("b", version=1), own_task("c"))
    assert set(levels(store)) == {"a", "b", "c"}
    assert len(store.tasks) == 6
    assert set(levels(write(tmp_path, vocabulary, own_task("c"), prune=True))) == {"c"}
    assert len(write(tmp_path, vocabulary, bench=BENCH[:1], prune=True).tasks) == 2


def test_two_tasks_of_one_name(vocabulary, tmp_path):
    name = BENCH[0].spec.name
    write(tmp_path, vocabulary, bench=BENCH)
    with pytest.raises(InputError, match=f"two tasks are named '{name}'"):
        write(tmp_path, vocabulary, own_task(name))
    # A user's task under another benchmark than before is the same task.
    write(tmp_path, vocabulary, own_task("mine"))
    store = write(tmp_path, vocabulary, own_task("mine", benchmark="ours"))
    assert store.by_name["mine"].spec.benchmark == "ours"


def test_a_users_task_under_a_benchmarks_name(vocabulary, tmp_path):
    write(tmp_path, vocabulary, bench=BENCH)
    with pytest.raises(InputError, match="OPTIML puts it under the benchmark 'made', whose own"):
        write(tmp_path, vocabulary, own_task("mine", benchmark="made"))


NAMES = [task.spec.name for task in BENCH]


@pytest.fixture
def mixed(vocabulary, tmp_path):
    mixtures = {"mix": {"mine": 0.25, NAMES[0]: 0.5, NAMES[1]: 0.0, NAMES[2]: 0.25}}
    return write(tmp_path, vocabulary, own_task("mine"), bench=BENCH, mixtures=mixtures)


def test_a_stored_mixture_selects_and_mixes(mixed):
    config = stream.StreamConfig("mix", feature_length=64, batch_size=8)
    source = stream.TrainStream(mixed, config)
    assert {t.name for t in source.tasks} == {"mine", *NAMES}
    expected = mixed.mixtures["mix"]
    for task, rate in zip(source.tasks, source.rates):
        assert rate == pytest.approx(expected[task.name])
    drawn = [i for step in range(400) for row in source.examples(step) for i in row]
    owner = {
        n: t.name
        for t in mixed.tasks
        for n in range(t.first_example, t.first_example + t.num_train)
    }
    num = mixed.lengths.shape[1]
    names = [owner[i % num] for i in drawn]
    for name, rate in expected.items():
        # Some 10,000 draws: 0.02 is more than four standard deviations.
        assert names.count(name) / len(names) == pytest.approx(rate, abs=0.02)


def test_proportions_apply_on_top_of_stored_rates(mixed):
    spec = mixing.MixtureSpec(proportions={"user": 0.5})
    source = stream.TrainStream(mixed, stream.StreamConfig("mix", spec, 64, 8))
    rates = dict(zip((t.name for t in source.tasks), source.rates))
    assert rates["mine"] == pytest.approx(0.5)
    assert rates[NAMES[0]] / rates[NAMES[2]] == pytest.approx(2)


def test_two_definitions_of_rates_are_refused(mixed):
    spec = mixing.MixtureSpec(rate_fn=lambda task, size: 1.0)
    with pytest.raises(InputError, match="rate_fn is set, but the mixture has rates of its own"):
        stream.TrainStream(mixed, stream.StreamConfig("mix", spec, 64, 8))


def test_mixtures_live_as_long_as_their_tasks(vocabulary, mixed):
    store = write(mixed.path, vocabulary, own_task("other"), mixtures={"two": {"other": 1.0}})
    assert set(store.mixtures) == {"mix", "two"}
    store = write(mixed.path, vocabulary, own_task("other"), prune=True)
    assert set(store.mixtures) == {"two"}


@pytest.mark.parametrize(
    ("mixtures", "message"),
    [
        ({"made": {"mine": 1.0}}, "mixture 'made' has the name of a task or benchmark"),
        ({"mine": {"mine": 1.0}}, "mixture 'mine' has the name of a task or benchmark"),
        ({"opt_iml": {"mine": 1.0}}, "mixture 'opt_iml' has the name of a task or benchmark"),
        ({"new": {"mone": 1.0}}, "mixture 'new': unknown task 'mone'. Did you mean 'mine'?"),
    ],
)
def test_bad_mixtures(vocabulary, mixed, mixtures, message):
    with pytest.raises(InputError) as error:
        write(mixed.path, vocabulary, own_task("mine"), mixtures=mixtures)
    assert message in str(error.value)


def test_the_splits_name_leaves_users_tasks_out(mixed):
    """A benchmark's scores under its split's name stay what they are beside users' tasks."""
    split = mixed.meta["split"]
    assert mixed.meta["mixture"] == f"{split}+user"
    assert {t.name for t in mixed.select(split)} == set(NAMES)
    for name in (None, f"{split}+user"):
        assert mixed.select(name) == mixed.tasks
    assert [t.name for t in mixed.select("user")] == ["mine"]
    assert {split, f"{split}+user", "user", "mix", "mine", *NAMES} < mixed.names


def test_other_rates_for_one_run(mixed):
    changed = mixed.with_mixture("mix", {"mine": 1.0})
    assert [t.name for t in changed.select("mix")] == ["mine"]
    assert len(mixed.select("mix")) == 4
    with pytest.raises(InputError, match="unknown mixture or task 'mux'"):
        changed.select("mux")
    with pytest.raises(InputError, match="unknown task 'mone'"):
        mixed.with_mixture("mix", {"mone": 1.0})


def test_a_store_without_mixtures_is_as_before(store_path):
    """Stores of earlier versions have no field `mixtures`."""
    index = store_lib.read_index(store_path)
    assert index is not None
    index.pop("mixtures")
    store = store_lib.Store(store_path, index)
    assert store.mixtures == {}
    assert store.select(None) == store.tasks


@pytest.mark.parametrize(("name", "value"), [("seed", 5), ("max_eval_examples", 7)])
def test_settings_of_tasks_that_stay_are_kept(vocabulary, tmp_path, name, value):
    write(tmp_path, vocabulary, bench=BENCH, held_out={HELD_OUT.spec.name})
    index = (tmp_path / store_lib.INDEX_FILE).read_bytes()
    task, assignment = own_task("mine")
    render = dataclasses.replace(CONFIG.render, **{name: value})
    config = dataclasses.replace(CONFIG, render=render)
    with pytest.raises(InputError, match=f"with {name} .* 3 of its tasks stay as they are"):
        prepare.prepare_store([task], {"mine": assignment}, tmp_path, vocabulary, config)
    assert (tmp_path / store_lib.INDEX_FILE).read_bytes() == index
