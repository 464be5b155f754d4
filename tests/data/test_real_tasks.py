"""The store of all real Super-NaturalInstructions tasks, where they are at hand."""

import os
import pathlib

import numpy as np
import pytest

from optiml_jax import tasks as declarations
from optiml_jax.data import prepare, stream, summary, vocabularies
from optiml_jax.data import store as store_lib

BENCHMARK = "super_natural_instructions"


@pytest.fixture(scope="module")
def real_store(tmp_path_factory):
    root = os.environ.get("OPTIML_TEST_DATA")
    if not root:
        pytest.skip("OPTIML_TEST_DATA is not set: no real data here")
    found, assignments = declarations.read(BENCHMARK, pathlib.Path(root) / BENCHMARK)
    out = tmp_path_factory.mktemp("real")
    result = prepare.prepare_store(
        found, assignments, out, vocabularies.gpt2_vocabulary(), prepare.PrepareConfig()
    )
    assert result.num_tasks == 1282
    return store_lib.open_store(out)


def test_levels_and_roles(real_store):
    content = summary.summarize(real_store)
    assert content["num_tasks"] + content["num_excluded_tasks"] == 1282
    levels = content["levels"]
    assert {name: row["num_tasks"] for name, row in levels.items()} == {
        "fully_held_out": 52,
        "partially_supervised": 6,
        "fully_supervised": 956,
    }
    assert all(row["num_eval"] > 0 for row in levels.values())
    held_out = {t.spec.category for t in real_store.tasks if t.level == "fully_held_out"}
    trained = {t.spec.category for t in real_store.tasks if t.num_train}
    assert not held_out & trained


def test_no_instance_is_in_training_and_evaluation(real_store):
    task = next(t for t in real_store.tasks if t.num_train and t.num_eval > 2)
    evaluated = {record.source for record in real_store.eval_records("eval_0shot", [task.name])}
    vocabulary = real_store.vocabulary()
    for number in range(task.num_train):
        ids = real_store.train_tokens(0, task.name, number)
        start = real_store.loss_starts[0, task.first_example + number]
        assert vocabulary.decode(ids[:start]) not in evaluated


def test_every_training_task_comes_in_the_first_epoch(real_store):
    config = stream.StreamConfig(feature_length=512, batch_size=64)
    one = stream.TrainStream(real_store, config)
    seen = np.zeros(real_store.lengths.shape[1], np.int64)
    for step in range(180):
        for examples in one.examples(step):
            np.add.at(seen, examples, 1)
    covered = sum(
        seen[t.first_example : t.first_example + t.num_train].sum() > 0 for t in one.tasks
    )
    assert covered == len(one.tasks)


def test_target_tokens_decode_to_the_answers(real_store):
    one = stream.TrainStream(real_store, stream.StreamConfig(feature_length=512, batch_size=2))
    batch = one.batch(0)
    vocabulary = real_store.vocabulary()
    for row, examples in enumerate(one.examples(0)):
        for segment in range(1, len(examples) + 1):
            own = (batch["segment_ids"][row] == segment) & (batch["loss_weights"][row] > 0)
            answer = batch["targets"][row][own]
            assert answer[-1] == vocabulary.eos_id
            cut_within_the_answer = len(answer) > 510
            assert cut_within_the_answer or vocabulary.decode(answer).startswith(" ")
