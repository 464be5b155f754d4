"""Batches: against a plain loop, for any number of hosts, from any step."""

from typing import Any

import numpy as np
import pytest

from optiml_jax.data import mixing, stream
from optiml_jax.data import store as store_lib
from optiml_jax.errors import InputError

T = 48


@pytest.fixture
def store(store_path):
    return store_lib.open_store(store_path)


PACKINGS = pytest.mark.parametrize("packing", ["greedy", "first_fit"])


def make_stream(store, batch_size=8, seed=5, length=T, packing="greedy", **arguments):
    config = stream.StreamConfig(
        feature_length=length, batch_size=batch_size, seed=seed, packing=packing
    )
    return stream.TrainStream(store, config, **arguments)


def example_tokens(store, index):
    rendering, number = divmod(int(index), store.lengths.shape[1])
    task = next(t for t in store.tasks if t.first_example <= number < t.first_example + t.num_train)
    tokens = store.train_tokens(rendering, task.name, number - task.first_example)
    return tokens, int(store.loss_starts[rendering, number])


def expected_row(store, examples, length):
    """Packs one row token by token."""
    row = {name: [] for name in ("inputs", "targets", "loss_weights", "segment_ids", "positions")}
    flat = []
    for segment, index in enumerate(examples, start=1):
        tokens, loss_start = example_tokens(store, index)
        cut = max(0, len(tokens) - (length + 1))
        for position, token in enumerate(tokens[cut:].tolist()):
            flat.append((token, segment, position, position + cut >= loss_start and position > 0))
    for here, following in zip(flat, [*flat[1:], None]):
        same = following is not None and following[1] == here[1]
        row["inputs"].append(here[0])
        row["segment_ids"].append(here[1])
        row["positions"].append(here[2])
        row["targets"].append(following[0] if same else 0)
        row["loss_weights"].append(float(same and following[3]))
    return {name: (values[:length] + [0] * length)[:length] for name, values in row.items()}


@PACKINGS
@pytest.mark.parametrize("length", [T, 16])
def test_batches_equal_a_loop_over_tokens(store, length, packing):
    one = make_stream(store, length=length, packing=packing)
    for step in (0, 1, 37):
        batch = one.batch(step)
        for row, examples in enumerate(one.examples(step)):
            expected = expected_row(store, examples, length)
            for name, values in batch.items():
                assert values[row].tolist() == expected[name], (step, row, name)


def test_fields_shapes_and_types(store):
    batch = make_stream(store).batch(0)
    assert {name: (v.shape, str(v.dtype)) for name, v in batch.items()} == {
        "inputs": ((8, T), "int32"),
        "targets": ((8, T), "int32"),
        "loss_weights": ((8, T), "float32"),
        "segment_ids": ((8, T), "int32"),
        "positions": ((8, T), "int32"),
    }


@pytest.mark.parametrize("hosts", [1, 2, 4])
@PACKINGS
def test_any_number_of_hosts_reads_the_same_rows(store, hosts, packing):
    whole = make_stream(store, packing=packing)
    share = 8 // hosts
    parts = [
        make_stream(store, packing=packing, rows=(h * share, (h + 1) * share)) for h in range(hosts)
    ]
    for step in (0, 9):
        for name, values in whole.batch(step).items():
            joined = np.concatenate([part.batch(step)[name] for part in parts])
            np.testing.assert_array_equal(values, joined)


def test_iterating_equals_random_access_and_starts_anywhere(store):
    one = make_stream(store)
    iterator = one.iterate(30)
    for step in range(30, 70):
        np.testing.assert_array_equal(next(iterator)["inputs"], one.batch(step)["inputs"])


def test_reading_ahead_follows_a_jump(store):
    one = make_stream(store)
    ahead = stream.ReadAhead(make_stream(store))
    for step in (0, 1, 2, 50, 51, 3):
        np.testing.assert_array_equal(ahead.batch(step)["inputs"], one.batch(step)["inputs"])
    assert ahead.state(51) == one.state(51)


@PACKINGS
def test_state_opens_the_stream_without_recounting(store, monkeypatch, packing):
    monkeypatch.setattr(stream.packing.Plan.__init__, "__defaults__", (200, "greedy"))
    first = make_stream(store, packing=packing)
    step = 20 * first._steps_per_chunk  # the first of the steps that are read together
    expected = first.batch(step)["inputs"]
    state = first.state(step)
    assert len(state["row_prefix"]) > 20
    second = make_stream(store, packing=packing)
    second.restore(state)
    computed = []
    original = second._plan.block
    monkeypatch.setattr(
        second._plan, "block", lambda index: computed.append(index) or original(index)
    )
    np.testing.assert_array_equal(second.batch(step)["inputs"], expected)
    assert min(computed) == len(state["row_prefix"]) - 1


def test_held_out_tasks_and_instances_never_train(store, tasks, store_path):
    one = make_stream(store)
    held_out = store.by_name[tasks[0].spec.name]
    assert held_out.num_train == 0
    assert tasks[0].spec.name not in {task.name for task in one.tasks}
    per_task = {t.name: t.num_train + t.num_eval for t in store.tasks if t.role == "train"}
    assert per_task == {t.spec.name: t.spec.num_examples for t in tasks[1:]}


def test_a_state_of_other_batches_is_refused(store):
    state = make_stream(store).state(3)
    make_stream(store).restore(state)
    changes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"length": 32}, "feature_length"),
        ({"seed": 6}, "seed"),
        ({"packing": "first_fit"}, "packing"),
    )
    for change, named in changes:
        with pytest.raises(
            InputError, match=f"would give: other {named} \\(.* in the ch.* here\\)"
        ):
            make_stream(store, **change).restore(state)
    config = stream.StreamConfig(
        mixture=mixing.MixtureSpec(eps=5), feature_length=T, batch_size=8, seed=5
    )
    with pytest.raises(InputError, match=r"other rates \(the mixture's settings, or the sizes of"):
        stream.TrainStream(store, config).restore(state)
    with pytest.raises(
        InputError,
        match=r"give: other seed \(5 in the checkpoint, 6 here\), other packing \(greedy in the"
        r" checkpoint, first_fit here\)\. Restore",
    ):
        make_stream(store, seed=6, packing="first_fit").restore(state)


def test_a_state_of_another_version_says_so(store):
    state = make_stream(store).state(3)
    state["order"]["plan"] = 2
    with pytest.raises(InputError, match=r"another version .* \(order 2, here 3\)\. Go on"):
        make_stream(store).restore(state)


@PACKINGS
def test_one_epoch_holds_every_example_once(store, packing):
    """Rows follow each other over batches and blocks; nothing is lost or doubled between them."""
    one = make_stream(store, packing=packing)
    num_examples = sum(task.num_train for task in one.tasks)
    block = stream.packing.BLOCK_DRAWS // num_examples * num_examples
    rows, step, drawn = [], 0, 0
    while drawn < block + num_examples:
        rows += (new := one.examples(step))
        drawn += sum(len(row) for row in new)
        step += 1
    order = np.concatenate(rows)
    for end in range(num_examples, block + 1, num_examples):
        counts = np.bincount(order[:end], minlength=num_examples)
        assert set(counts) == {end // num_examples}


def test_one_task_as_a_mixture(store, tasks):
    name = tasks[3].spec.name
    config = stream.StreamConfig(name, feature_length=T, batch_size=4)
    one = stream.TrainStream(store, config)
    own = store.by_name[name]
    for examples in one.examples(0):
        assert np.all(examples >= own.first_example)
        assert np.all(examples < own.first_example + own.num_train)


def test_rates_follow_the_mixture(store):
    config = stream.StreamConfig(mixture=mixing.MixtureSpec(eps=20), feature_length=T, batch_size=4)
    one = stream.TrainStream(store, config)
    sizes = np.array([min(20, task.num_train) for task in one.tasks])
    np.testing.assert_allclose(one.rates, sizes / sizes.sum())


def test_loss_on_all_tokens_but_the_first(store):
    config = stream.StreamConfig(feature_length=T, batch_size=4, seed=5, loss_on="all")
    batch = stream.TrainStream(store, config).batch(0)
    plain = make_stream(store, batch_size=4).batch(0)
    np.testing.assert_array_equal(batch["inputs"], plain["inputs"])
    same_document = batch["targets"] != 0
    np.testing.assert_array_equal(batch["loss_weights"], same_document.astype(np.float32))
    assert batch["loss_weights"].sum() > plain["loss_weights"].sum()


def test_bad_requests(store, tasks):
    with pytest.raises(InputError, match="unknown mixture or task"):
        stream.TrainStream(store, stream.StreamConfig("super_natural_instruction"))
    with pytest.raises(InputError, match="has no training examples"):
        stream.TrainStream(store, stream.StreamConfig(tasks[0].spec.name))
    with pytest.raises(InputError, match="rows 0 to 9"):
        make_stream(store, rows=(0, 9))
    with pytest.raises(InputError, match="unknown loss_on 'al'"):
        stream.StreamConfig(loss_on="al")
    with pytest.raises(InputError, match=r"unknown packing 'first-fit'.*mean 'first_fit'"):
        stream.StreamConfig(packing="first-fit")
    with pytest.raises(InputError, match="batch_size is 0"):
        stream.StreamConfig(batch_size=0)
    with pytest.raises(InputError, match="batch_size is True, expected a whole number, 1 or more"):
        stream.StreamConfig(batch_size=True)
    with pytest.raises(InputError, match=r"seed is 1\.5, expected a whole number, 0 or more"):
        stream.StreamConfig(seed=1.5)
    with pytest.raises(
        InputError, match=r"seed is 9223372036854775808, expected less than 2\*\*63"
    ):
        stream.StreamConfig(seed=2**63)
    assert make_stream(store, seed=2**63 - 1).batch(0)["inputs"].any()
    for packing in (None, ["greedy"]):
        with pytest.raises(InputError, match=r"unknown packing (None|\['greedy'\])\. Known: "):
            stream.StreamConfig(packing=packing)
    with pytest.raises(InputError, match="mixture is None, expected a MixtureSpec"):
        stream.StreamConfig(mixture=None)
    one = make_stream(store)
    for ask in (one.batch, one.examples, one.state, one.iterate):
        with pytest.raises(InputError, match="step is -1, expected 0 or more"):
            ask(-1)
