import dataclasses
import gc
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optiml_jax import errors
from optiml_jax.data import vocabularies
from optiml_jax.train import checkpoints as checkpointing
from optiml_jax.train import state as states
from optiml_jax.train.checkpoints import Checkpoints, ModelCard
from optiml_jax.train.optimizer import OptimizerConfig

OPTIMIZER = OptimizerConfig(1e-2, 0, 20)


@pytest.fixture
def state(tiny, one_device):
    return states.make_state(tiny, OPTIMIZER, one_device, jax.random.key(0))


@pytest.fixture
def model_dir(tiny, tmp_path):
    return checkpointing.prepare_model_dir(tmp_path / "run", ModelCard(tiny, "", "digest"))


def _assert_equal(ours, expected):
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


def test_save_and_restore(tiny, one_device, state, model_dir):
    state = {**state, "step": jnp.int32(5), "data_position": jnp.int32(5)}
    with Checkpoints(model_dir) as saved:
        assert saved.latest_step() is None
        saved.save(5, state, {"data_position": 5, "source": {"prefix": [1, 2]}})
        saved.wait()
    with Checkpoints(model_dir) as saved:
        assert saved.latest_step() == 5
        assert saved.metadata() == {"data_position": 5, "source": {"prefix": [1, 2]}}
        back = saved.restore(states.abstract_state(tiny, OPTIMIZER, one_device))
    _assert_equal(back, state)


def test_retention(state, model_dir):
    with Checkpoints(model_dir, keep=2, keep_period=4) as saved:
        for step in range(1, 8):
            saved.save(step, state, {})
    assert checkpointing.saved_steps(model_dir) == [4, 6, 7]


def test_leftovers_of_a_killed_save_are_ignored(tiny, one_device, state, model_dir):
    with Checkpoints(model_dir) as saved:
        saved.save(3, state, {})
    leftover = model_dir / "checkpoints" / "4.orbax-checkpoint-tmp"
    leftover.mkdir()
    (leftover / "half").write_text("written")
    assert checkpointing.saved_steps(model_dir) == [3]
    with Checkpoints(model_dir) as saved:
        assert saved.latest_step() == 3
        saved.restore(states.abstract_state(tiny, OPTIMIZER, one_device))
        # And the step can be saved after all.
        saved.save(4, state, {})
    assert checkpointing.saved_steps(model_dir) == [3, 4]


def test_load_params(tiny, one_device, state, model_dir):
    with Checkpoints(model_dir) as saved:
        saved.save(3, state, {})
        saved.save(6, {**state, "policy": jax.tree.map(lambda x: x + 1, state["policy"])}, {})
    card, params, step = checkpointing.load_params(model_dir)
    assert (card, step) == (ModelCard(tiny, "", "digest"), 6)
    _assert_equal(params, jax.tree.map(lambda x: x + 1, state["policy"]["params"]))
    for where, options in (
        (model_dir, {"step": 3}),
        (model_dir / "checkpoints" / "3", {}),
        (model_dir, {"step": 3, "mesh": one_device}),
    ):
        _, params, step = checkpointing.load_params(where, **options)
        assert step == 3
        _assert_equal(params, state["policy"]["params"])


def test_vocabulary_is_saved_once(tiny, tmp_path):
    calls = []

    def save(directory):
        calls.append(directory)
        (directory / "vocab.json").write_text("{}")

    for _ in range(2):
        checkpointing.prepare_model_dir(tmp_path / "run", ModelCard(tiny), save)
    assert len(calls) == 1
    assert (tmp_path / "run" / "vocabulary" / "vocab.json").read_text() == "{}"


def test_card_says_what_the_model_is(tiny, model_dir):
    values = json.loads((model_dir / "model.json").read_text())
    assert values["format"] == 1
    assert values["architecture"]["num_layers"] == tiny.num_layers
    assert (values["prompt_prefix"], values["vocabulary"]) == ("", "digest")


def test_other_ways_to_run_the_same_model_are_accepted(tiny, model_dir):
    other = dataclasses.replace(tiny, dtype="bfloat16", dropout_rate=0.0, remat="full")
    checkpointing.prepare_model_dir(model_dir, ModelCard(other, "", "digest"))


def test_another_model_is_refused(tiny, model_dir):
    other = dataclasses.replace(tiny, num_layers=3, ffn_dim=64)
    with pytest.raises(
        errors.InputError,
        match=r"holds another model: num_layers is 2 there and 3 here; ffn_dim is 32 .* 64 here; "
        r"vocabulary is 'digest' there and 'other' here",
    ):
        checkpointing.prepare_model_dir(model_dir, ModelCard(other, "", "other"))


def test_checkpoints_without_a_card_are_refused(tiny, tmp_path):
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    with pytest.raises(errors.InputError, match=r"holds checkpoints but no model\.json"):
        checkpointing.prepare_model_dir(tmp_path, ModelCard(tiny))


def test_unwritable_model_dir(tiny, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(errors.InputError, match=r"MODEL_DIR cannot be written \(Not a directory\)"):
        checkpointing.prepare_model_dir(tmp_path / "file" / "run", ModelCard(tiny))


def _no_card(directory):
    (directory / "model.json").unlink()


def _hugging_face(directory):
    _no_card(directory)
    (directory / "config.json").write_text('{"model_type": "opt"}')


def _broken_card(directory):
    (directory / "model.json").write_text("{")


def _later_card(directory):
    (directory / "model.json").write_text('{"format": 2}')


def _nothing(directory):
    pass


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_card, r"no model\.json there, so this is not a model directory"),
        (
            _hugging_face,
            r"^(.*): no model\.json there, so this is not a model directory\. Its config\.json is "
            r"a Hugging Face model's: run `optiml convert --from_hf=\1 --out=DIR` and give DIR\.$",
        ),
        (_broken_card, r"model\.json: cannot be read"),
        (_later_card, r"format 2, this version reads format 1"),
        (_nothing, r"no finished checkpoint\. Train first"),
    ],
)
def test_load_params_of_something_else(model_dir, damage, message):
    damage(model_dir)
    with pytest.raises(errors.InputError, match=message):
        checkpointing.load_params(model_dir)


def test_wrong_step_names_the_right_ones(state, model_dir):
    with Checkpoints(model_dir) as saved:
        saved.save(3, state, {})
    with pytest.raises(errors.InputError, match=r"no finished checkpoint of step 4; there are 3"):
        checkpointing.load_params(model_dir, step=4)


# Orbax leaves a coroutine that it never awaited when it refuses a tree.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_another_optimizer_or_damage_is_one_message(tiny, one_device, state, model_dir):
    with Checkpoints(model_dir) as saved:
        saved.save(3, {**state, "more": jnp.zeros(3)}, {})
        saved.wait()
        with pytest.raises(errors.InputError, match=r"checkpoints/3: this checkpoint cannot be"):
            saved.restore(states.abstract_state(tiny, OPTIMIZER, one_device))
    for path in (model_dir / "checkpoints" / "3" / "state").rglob("*"):
        if path.is_file() and path.stat().st_size > 64 and "METADATA" not in path.name:
            path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(errors.InputError, match=r"checkpoints/3: this checkpoint cannot be read"):
        checkpointing.load_params(model_dir)
    gc.collect()  # Here, where the warning is expected.


def _cut_vocab(folder):
    (folder / "vocab.json").write_text('{"<pad>"')


def _altered_merges(folder):
    (folder / "merges.txt").write_text("#version: 0.2\n")


def _other_digest(folder):
    (folder / "vocabulary.json").write_text("[]")


def _no_settings(folder):
    (folder / "vocabulary.json").unlink()


def _file(folder):
    shutil.rmtree(folder)
    folder.write_text("here")


@pytest.mark.parametrize(
    "damage", [_cut_vocab, _altered_merges, _other_digest, _no_settings, shutil.rmtree, _file]
)
def test_a_damaged_vocabulary_is_written_anew(tiny, tmp_path, damage):
    vocabulary = vocabularies.train_vocabulary(["the cat and the hat"] * 9, 272)
    calls = []

    def save(folder):
        calls.append(folder)
        vocabulary.save(folder)

    card = ModelCard(tiny, "", vocabulary.digest)
    model_dir = checkpointing.prepare_model_dir(tmp_path / "run", card, save)
    checkpointing.prepare_model_dir(model_dir, card, save)
    assert len(calls) == 1
    damage(model_dir / "vocabulary")
    checkpointing.prepare_model_dir(model_dir, card, save)
    assert len(calls) == 2
    assert vocabularies.load_vocabulary(model_dir / "vocabulary").digest == vocabulary.digest
    names = {path.name for path in model_dir.iterdir()}
    assert names == {"checkpoints", "model.json", "vocabulary"}
