"""Shares and lengths against a count over the stored token ids, example by example."""

import collections

import numpy as np
import pytest

from optiml_jax.data import mixing, prepare, rendering, stream, summary
from optiml_jax.data import store as store_lib
from optiml_jax.errors import InputError
from tests.data.conftest import assign, make_task

TASKS = [
    make_task(number, 15 + 11 * number, benchmark=benchmark, words=4 + 9 * number)
    for benchmark, count in (("flan", 3), ("super_natural_instructions", 4))
    for number in range(count)
]
HELD_OUT = TASKS[-1].spec.name


@pytest.fixture(scope="module", params=[1, 2], ids=["one rendering", "two renderings"])
def store(request, vocabulary, tmp_path_factory):
    out = tmp_path_factory.mktemp("mixed")
    render = rendering.RenderConfig(num_renderings=request.param)
    config = prepare.PrepareConfig(render=render, num_shards=2, max_tokens=45)
    prepare.prepare_store(TASKS, assign(TASKS, held_out={HELD_OUT}), out, vocabulary, config)
    return store_lib.open_store(out)


def counted(store, task, row_tokens=10**9):
    """(tokens, target tokens) of every stored example of a task, cut on the left, one by one."""
    for rendering_number in range(store.num_renderings):
        for number in range(task.num_train):
            ids = store.train_tokens(rendering_number, task.name, number)
            start = store.loss_starts[rendering_number, task.first_example + number]
            own = [at >= start for at in range(len(ids))][-row_tokens:]
            yield len(own), sum(own[1:])


@pytest.mark.parametrize(
    "arguments",
    [{}, {"eps": 20}, {"eps": None, "alpha": 0.5}, {"proportions": {"flan": 0.1}}],
    ids=str,
)
@pytest.mark.parametrize("feature_length", [None, 2, 18, 2048])
def test_shares_are_those_of_a_count(store, arguments, feature_length):
    spec = mixing.MixtureSpec(**arguments)
    shares = summary.mixture_shares(store, None, spec, feature_length)
    trained = sorted((t for t in store.tasks if t.num_train), key=lambda task: task.name)
    assert [share.task for share in shares] == [task.name for task in trained]
    assert HELD_OUT not in {share.task for share in shares}

    rates = mixing.mixing_rates(spec, [t.spec for t in trained], [t.num_train for t in trained])
    # What 1,000 draws at these rates hold, as the mean of each task's own examples.
    tokens, targets = [], []
    for task, rate in zip(trained, rates):
        rows = list(counted(store, task, 10**9 if feature_length is None else feature_length + 1))
        tokens.append(1000 * rate * sum(row[0] for row in rows) / len(rows))
        targets.append(1000 * rate * sum(row[1] for row in rows) / len(rows))
    for got, expected in (
        ([share.example_share for share in shares], rates),
        ([share.token_share for share in shares], np.array(tokens) / sum(tokens)),
        ([share.target_share for share in shares], np.array(targets) / sum(targets)),
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-12)
        assert sum(got) == pytest.approx(1.0)


def test_cut_examples_are_those_that_a_stream_packs(store):
    """Mean tokens and target tokens of what is drawn, against the batches themselves."""
    length = 18
    shares = summary.mixture_shares(store, "flan", mixing.MixtureSpec(), length)
    assert store.lengths.max() > length + 1
    for mean, loss_on, without in (("tokens", "all", 1), ("target_tokens", "targets", 0)):
        config = stream.StreamConfig("flan", feature_length=length, batch_size=500, loss_on=loss_on)
        source = stream.TrainStream(store, config)
        num_examples = sum(len(row) for row in source.examples(0))
        packed = source.batch(0)["loss_weights"].sum() / num_examples + without
        shown = sum(share.example_share * getattr(share, f"mean_{mean}") for share in shares)
        assert shown == pytest.approx(packed, rel=0.02)


def test_shares_of_tokens_are_not_those_of_examples(store):
    """The reason for the three columns: longer examples weigh more."""
    shares = {s.task: s for s in summary.mixture_shares(store, None, mixing.MixtureSpec())}
    short, long = shares["flan__task000_made"], shares["flan__task002_made"]
    assert long.mean_tokens > 1.2 * short.mean_tokens
    assert long.token_share / long.example_share > 1.2 * short.token_share / short.example_share


def test_a_stored_mixture_brings_its_own_rates(store):
    """As the stream does: a SeqIO mixture's rates replace the cap."""
    rates = {"flan__task000_made": 3.0, "flan__task001_made": 1.0}
    own = store.with_mixture("mine", rates)
    shares = summary.mixture_shares(own, "mine", mixing.MixtureSpec(eps=1))
    assert {one.task: one.example_share for one in shares} == {
        "flan__task000_made": 0.75,
        "flan__task001_made": 0.25,
    }


def test_a_share_tells_its_task(store):
    (share,) = summary.mixture_shares(store, "flan__task001_made", mixing.MixtureSpec())
    row = store.by_name["flan__task001_made"]
    assert (share.example_share, share.token_share, share.target_share) == (1, 1, 1)
    assert (share.benchmark, share.category) == ("flan", "Question Answering")
    assert (share.role, share.level) == ("train", "fully_supervised")
    assert share.num_examples == row.num_train


def test_what_cannot_be_mixed_is_refused(store):
    with pytest.raises(InputError, match=r"unknown mixture or task 'flam'\. Did you mean 'flan'"):
        summary.mixture_shares(store, "flam", mixing.MixtureSpec())
    with pytest.raises(InputError, match=f"'{HELD_OUT}' has no training examples"):
        summary.mixture_shares(store, HELD_OUT, mixing.MixtureSpec())


def test_lengths_are_those_of_a_count(store):
    tasks = [task for task in store.tasks if task.num_train]
    rows = [row for task in tasks for row in counted(store, task)]
    content = summary.length_table(store, tasks)
    for column, kind in enumerate(("tokens", "target_tokens")):
        values = sorted(row[column] for row in rows)
        assert content[kind]["max"] == values[-1]
        for percent in (50, 90, 99):
            mark = content[kind][f"p{percent}"]
            below = sum(value < mark for value in values) / len(values)
            assert mark in values
            assert below <= percent / 100 <= sum(v <= mark for v in values) / len(values)
    cut = sum(task.num_truncated for task in tasks)
    assert 0 < cut < content["num_examples"]
    assert content["cut_share"] == cut / sum(task.num_train for task in tasks)


def test_a_held_out_task_has_no_lengths(store):
    content = summary.length_table(store, [store.by_name[HELD_OUT]])
    assert content == {"tokens": {}, "target_tokens": {}, "num_examples": 0, "cut_share": 0.0}


def test_a_selection_counts_alone(store):
    flan = [task for task in store.tasks if task.spec.benchmark == "flan"]
    content = summary.summarize(store, flan)
    assert list(content["benchmarks"]) == ["flan"]
    assert content["num_tasks"] == len(flan)
    sizes = collections.Counter(task.spec.category for task in flan)
    assert {name: row["num_tasks"] for name, row in content["categories"].items()} == sizes


# --- replay in rows, subsets ---------------------------------------------------------------------

MIXED = [
    make_task(number, 20 + 5 * number, benchmark=benchmark, words=words)
    for benchmark, count, words in (("flan", 3, 6), ("t5", 2, 15), ("reasoning", 1, 20))
    for number in range(count)
] + [make_task(number, 30, benchmark="replay", words=60) for number in range(2)]


@pytest.fixture(scope="module")
def mixed(vocabulary, tmp_path_factory):
    out = tmp_path_factory.mktemp("mixed_with_replay")
    prepare.prepare_store(MIXED, assign(MIXED), out, vocabulary, prepare.PrepareConfig())
    return store_lib.open_store(out)


def replays_part_of_the_tokens(store, spec, row_tokens):
    """Of 10,000 draws at the spec's rates, example by example."""
    trained = [task for task in store.tasks if task.num_train]
    rates = mixing.mixing_rates(spec, [t.spec for t in trained], [t.num_train for t in trained])
    tokens = collections.Counter()
    for task, rate in zip(trained, rates):
        for length, _ in counted(store, task):
            tokens[task.spec.benchmark] += 10_000 * rate / task.num_train * min(length, row_tokens)
    return tokens["replay"] / tokens.total()


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.9])
@pytest.mark.parametrize("feature_length", [None, 50])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"eps": 25},
        {"proportions": {"flan": 0.2, "t5": 0.8}},
        {"num_tasks": 2},
        {"ingredients": {"reasoning": 0.02}},
    ],
    ids=str,
)
def test_replay_in_rows_is_its_share_of_the_tokens(mixed, share, feature_length, arguments):
    ingredients = {**arguments.get("ingredients", {"reasoning": 0.0}), "replay": share}
    spec = mixing.MixtureSpec(**{**arguments, "ingredients": ingredients, "replay_unit": "rows"})
    solved = summary.in_examples(spec, mixed, None, feature_length)
    assert solved.replay_unit == "examples"
    assert solved.ingredients["replay"] < share  # its texts are longer
    assert solved.ingredients["reasoning"] == ingredients["reasoning"]
    row_tokens = 10**9 if feature_length is None else feature_length + 1
    assert replays_part_of_the_tokens(mixed, solved, row_tokens) == pytest.approx(share, rel=1e-9)


@pytest.mark.parametrize("feature_length", [None, 30])
def test_replay_in_rows_is_shown_as_it_was_asked_for(mixed, feature_length):
    """Rates and shares are of the same rows."""
    spec = mixing.MixtureSpec(ingredients={"replay": 0.05}, replay_unit="rows")
    shares = summary.mixture_shares(mixed, None, spec, feature_length)
    replay = sum(one.token_share for one in shares if one.benchmark == "replay")
    assert replay == pytest.approx(0.05, rel=1e-9)


def test_a_benchmark_without_a_share_is_not_listed(mixed):
    none = dict.fromkeys(("t5", "reasoning", "replay"), 0.0)
    for spec in (
        mixing.MixtureSpec(proportions={"flan": 1.0}),
        mixing.MixtureSpec(ingredients=none),
        mixing.MixtureSpec(rate_fn=lambda task, size: float(task.benchmark == "flan")),
    ):
        assert {one.benchmark for one in summary.mixture_shares(mixed, None, spec)} == {"flan"}
        tasks, rates = summary.mixture_rates(mixed, None, spec)
        assert {task.spec.benchmark for task, rate in zip(tasks, rates) if rate} == {"flan"}


def test_replay_in_rows_from_one_benchmark(mixed):
    """The tokens that t5 gives up are longer than the mean."""
    spec = mixing.MixtureSpec(
        proportions={"flan": 0.5, "t5": 0.5},
        ingredients={"replay": 0.05, "reasoning": 0.01},
        ingredients_from="t5",
        replay_unit="rows",
    )
    solved = summary.in_examples(spec, mixed, None)
    assert replays_part_of_the_tokens(mixed, solved, 10**9) == pytest.approx(0.05, rel=1e-9)
    shares = summary.mixture_shares(mixed, None, spec)
    assert sum(one.token_share for one in shares if one.benchmark == "replay") == pytest.approx(
        0.05
    )
    assert sum(one.example_share for one in shares if one.benchmark == "flan") == pytest.approx(0.5)


def test_replay_in_rows_without_a_share_or_with_all(mixed):
    none = {"ingredients": {"replay": 0.0, "reasoning": 0.0}}
    spec = mixing.MixtureSpec(**none, replay_unit="rows")
    assert summary.in_examples(spec, mixed, None) == mixing.MixtureSpec(**none)
    spec = mixing.MixtureSpec(ingredients={"replay": 1.0}, replay_unit="rows")
    assert summary.in_examples(spec, mixed, None).ingredients == pytest.approx({"replay": 1.0})
    in_examples = mixing.MixtureSpec(ingredients={"replay": 0.05})
    assert summary.in_examples(in_examples, mixed, None) == in_examples


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {
                "proportions": {"flan": 0.99, "t5": 0.01},
                "ingredients": {"replay": 0.5},
                "ingredients_from": "t5",
            },
            "ingredients take a share of .* from 't5', which has 0.01",
        ),
        (
            {"ingredients": {"replay": 0.5}, "proportions": {"flam": 1.0}},
            "unknown benchmark 'flam'",
        ),
    ],
)
def test_rows_that_replay_cannot_have(mixed, arguments, message):
    spec = mixing.MixtureSpec(**arguments, replay_unit="rows")
    with pytest.raises(InputError, match=message):
        summary.mixture_shares(mixed, None, spec)


def test_a_subset_lists_its_tasks_alone(mixed):
    spec = mixing.MixtureSpec(num_tasks=3, ingredients={"replay": 0.1, "reasoning": 0.0})
    shares = summary.mixture_shares(mixed, None, spec)
    assert len(shares) == 5  # as many as training draws
    assert np.count_nonzero(summary.mixture_rates(mixed, None, spec)[1]) == 5
    assert {one.benchmark for one in shares} <= {"flan", "t5", "replay"}
    assert sum(one.example_share for one in shares) == pytest.approx(1)


def test_short_texts_cannot_fill_the_rows_beside_long_ones(vocabulary, tmp_path):
    """Ninety short replayed texts and ten long examples of reasoning are not 90 % replay."""
    tasks = [make_task(0, 30, benchmark="replay", words=1)]
    tasks += [
        make_task(n, 30, benchmark=name, words=60) for n, name in enumerate(("t5", "reasoning"))
    ]
    prepare.prepare_store(tasks, assign(tasks), tmp_path, vocabulary, prepare.PrepareConfig())
    store = store_lib.open_store(tmp_path)
    ingredients = {"replay": 0.9, "reasoning": 0.1}
    spec = mixing.MixtureSpec(ingredients=ingredients, replay_unit="rows")
    message = "replay in 0.9 of the rows is .* but the other ingredients leave 0.9. Give smaller"
    with pytest.raises(InputError, match=message):
        summary.in_examples(spec, store, None)
