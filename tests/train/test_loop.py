import io
import os
import shutil
import signal

import numpy as np
import pytest

from optiml_jax import errors
from optiml_jax.train import checkpoints as checkpointing
from optiml_jax.train import loop, metrics_writer
from optiml_jax.train.loop import Evaluator, TrainConfig
from optiml_jax.train.optimizer import OptimizerConfig

STEPS = 8
CONFIG = TrainConfig(steps=STEPS, batch_size=4, seed=3, log_period=1, save_period=3)


class _Source:
    """Batches by position; signals itself at a position, and keeps what it is asked."""

    def __init__(self, make_batch, signal_at=None, number=signal.SIGTERM, poison_at=None):
        self.make_batch = make_batch
        self.signal_at = signal_at
        self.number = number
        self.poison_at = poison_at
        self.asked = []
        self.restored = None

    def batch(self, position):
        self.asked.append(position)
        if position == self.signal_at:
            os.kill(os.getpid(), self.number)
        batch = self.make_batch(position)
        if position == self.poison_at:
            batch["loss_weights"][0, 0] = np.nan
        return batch

    def state(self, position):
        return {"rows_before": position * 4}

    def restore(self, value):
        self.restored = value


@pytest.fixture
def run(tiny, one_device, tmp_path):
    def train(source, name="run", config=CONFIG, **options):
        stream = io.StringIO()
        learning = OptimizerConfig(1e-2, 2, STEPS)
        try:
            result = loop.train(
                config,
                tiny,
                learning,
                one_device,
                source,
                tmp_path / name,
                stream=stream,
                **options,
            )
        except loop.Stopped as stopped:
            return stopped, stream.getvalue()
        return result, stream.getvalue()

    return train


def _curve(directory):
    return [
        (line["step"], line["loss"], line["grad_norm"], line["learning_rate"])
        for line in metrics_writer.read_metrics(directory)
    ]


@pytest.mark.parametrize("signal_at", [3, 5])
def test_a_resumed_run_is_bit_identical(run, make_batch, tmp_path, signal_at):
    """Dropout on; stopped by SIGTERM at a step that is, and one that is not, a save step."""
    result, _ = run(_Source(make_batch), "whole")
    assert result.step == STEPS
    source = _Source(make_batch, signal_at=signal_at)
    stopped, text = run(source, "parts")
    assert isinstance(stopped, loop.Preempted)
    assert (stopped.exit_code, stopped.step) == (75, signal_at + 1)
    assert "Start the same command again" in str(stopped)
    source = _Source(make_batch)
    result, text = run(source, "parts")
    assert f"resumed from step {stopped.step}" in text
    assert source.restored == {"rows_before": stopped.step * 4}
    assert source.asked[0] == stopped.step
    assert result.step == STEPS
    assert _curve(tmp_path / "parts") == _curve(tmp_path / "whole")
    assert [step for step, *_ in _curve(tmp_path / "parts")] == list(range(1, STEPS + 1))
    for ours, theirs in zip(_flat(tmp_path / "parts"), _flat(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def _flat(directory):
    import jax

    _, params, step = checkpointing.load_params(directory)
    assert step == STEPS
    return jax.tree.leaves(params)


def test_the_curve_after_a_crash_has_one_value_a_step(run, make_batch, tmp_path):
    """A crash after step 5 (the last save is of step 3): steps 4 and 5 are written anew."""

    class _Crash(Exception):
        pass

    source = _Source(make_batch)

    def crash(position):
        if position == 6:
            raise _Crash
        return source.batch(position)

    with pytest.raises(_Crash):
        run(crash, "crashed")
    assert len(_curve(tmp_path / "crashed")) >= 5
    run(source, "crashed")
    run(source, "whole")
    assert _curve(tmp_path / "crashed") == _curve(tmp_path / "whole")


def test_fields_and_files(run, make_batch, tmp_path):
    def save_vocabulary(directory):
        (directory / "vocab.txt").write_text("a")

    seen = []

    def evaluate(params, step):
        seen.append(step)
        return {"rouge_l": 12.5}

    config = TrainConfig(steps=5, batch_size=4, log_period=2, save_period=0, eval_period=3)
    result, text = run(
        _Source(make_batch),
        config=config,
        save_vocabulary=save_vocabulary,
        evaluators=[Evaluator("test", evaluate)],
    )
    lines = metrics_writer.read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2, 4, 5]
    for line in lines:
        assert {
            "step",
            "loss",
            "learning_rate",
            "grad_norm",
            "tokens_per_second",
            "target_tokens",
            "tokens",
            "seconds",
        } == set(line)
    batch = make_batch(4)
    assert lines[-1]["target_tokens"] == batch["loss_weights"].sum()
    assert lines[-1]["tokens"] == (batch["segment_ids"] != 0).sum()
    assert result.metrics["loss"] == lines[-1]["loss"]
    assert seen == [3, 5]
    assert "step 3: test: rouge_l 12.5" in text
    # The last checkpoint is saved without a period.
    assert checkpointing.saved_steps(tmp_path / "run") == [5]
    assert (tmp_path / "run" / "vocabulary" / "vocab.txt").exists()
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_learns(run, make_batch, tmp_path):
    config = TrainConfig(steps=STEPS, batch_size=4, log_period=1, save_period=0)
    run(lambda position: make_batch(0), config=config)
    losses = [loss for _, loss, *_ in _curve(tmp_path / "run")]
    assert losses[-1] < losses[0] - 0.1


def test_a_complete_run_does_nothing(run, make_batch):
    config = TrainConfig(steps=2, batch_size=4, save_period=0)
    run(_Source(make_batch), config=config)
    source = _Source(make_batch)
    result, text = run(source, config=config)
    assert (result.step, source.asked) == (2, [])
    assert "complete already" in text


def test_control_c_saves_and_says_how_to_go_on(run, make_batch, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    stopped, text = run(_Source(make_batch, signal_at=2, number=signal.SIGINT))
    assert isinstance(stopped, loop.Interrupted)
    assert "SIGINT: finishing this step, then saving" in text
    assert checkpointing.saved_steps(tmp_path / "run")[-1] == stopped.step
    assert signal.getsignal(signal.SIGINT) is before


def test_nan_is_a_clear_stop(run, make_batch, tmp_path):
    stopped, _ = run(_Source(make_batch, poison_at=4))
    assert isinstance(stopped, loop.Diverged)
    assert stopped.exit_code == 3
    assert "step 5: loss nan" in str(stopped)
    assert "The last checkpoint, step 3, is from before" in str(stopped)
    assert checkpointing.saved_steps(tmp_path / "run") == [3]
    assert all(np.isfinite(loss) for _, loss, *_ in _curve(tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 4}, "saved with seed=3, this run asks for 4"),
        ({"batch_size": 8}, "saved with batch_size=4, this run asks for 8"),
    ],
)
def test_another_run_in_the_same_place_is_refused(run, make_batch, changes, message):
    base = {"steps": 1, "batch_size": 4, "seed": 3}
    run(_Source(make_batch), config=TrainConfig(**base))
    with pytest.raises(errors.InputError, match=message):
        run(_Source(make_batch), config=TrainConfig(**{**base, "steps": 2, **changes}))


def test_wrong_batches_are_refused(run, make_batch):
    def without_positions(position):
        batch = make_batch(position)
        del batch["positions"]
        return batch

    with pytest.raises(errors.InputError, match="batch 0: field 'positions' is missing"):
        run(without_positions, "a")
    with pytest.raises(errors.InputError, match=r"shape \[3, 16\], expected 4 rows"):
        run(lambda position: make_batch(position, rows=3), "b")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("seed", -1),
        ("seed", 2**32),
        ("log_period", 0),
        ("keep", 0),
        ("keep", 1.5),
        ("keep_period", 0),
        ("keep_period", True),
    ],
)
def test_wrong_config_is_refused(name, value):
    with pytest.raises(errors.InputError, match=f"'{name}' is {value}"):
        TrainConfig(**{"steps": 1, "batch_size": 1, name: value})


def test_one_run_at_a_time_in_a_model_dir(run, make_batch, tmp_path):
    """The second run is refused while the first holds the folder, and changes nothing."""

    def second(position):
        before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
        with pytest.raises(errors.InputError, match=r"is being trained by another process\. Wait"):
            run(_Source(make_batch))
        assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
        return make_batch(position)

    config = TrainConfig(steps=2, batch_size=4, save_period=0)
    run(second, config=config)
    result, text = run(_Source(make_batch), config=config)  # The lock is free again.
    assert result.step == 2
    assert "complete already" in text


@pytest.mark.parametrize("damage", ["empty folder", "no metadata"])
def test_a_damaged_checkpoint_is_named(run, make_batch, tmp_path, damage):
    config = TrainConfig(steps=2, batch_size=4, save_period=1)
    run(_Source(make_batch), config=config)
    saved = tmp_path / "run" / "checkpoints"
    if damage == "empty folder":
        (saved / "99").mkdir()
    else:
        (saved / "2" / "_CHECKPOINT_METADATA").unlink()
    step = 99 if damage == "empty folder" else 2
    with pytest.raises(
        errors.InputError, match=rf"checkpoints/{step}: .* is damaged .*Delete that folder"
    ):
        run(_Source(make_batch), config=config)
    shutil.rmtree(saved / str(step))
    result, _ = run(_Source(make_batch), config=config)
    assert result.step == 2
