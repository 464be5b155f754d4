import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optiml_jax import errors
from optiml_jax.model import decoder
from optiml_jax.train import optimizer as optimizers
from optiml_jax.train import state as states
from optiml_jax.train import step as steps
from optiml_jax.train.optimizer import OptimizerConfig

pytestmark = pytest.mark.usefixtures("strict_promotion")
OPTIMIZER = OptimizerConfig(1e-2, 0, 20)


def _state(config):
    return jax.jit(lambda rng: states.init_state(config, OPTIMIZER, rng))(jax.random.key(0))


def _step(config, num_microbatches=1):
    return jax.jit(steps.make_train_step(config, OPTIMIZER, num_microbatches=num_microbatches))


def _without_dropout(config):
    return dataclasses.replace(config, dropout_rate=0.0, attention_dropout_rate=0.0)


def _assert_near(ours, expected, tolerance):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        ours,
        expected,
    )


def test_one_step_equals_loss_gradient_and_update_by_hand(tiny, make_batch):
    config = _without_dropout(tiny)
    state, batch = _state(config), make_batch(0)

    def mean_loss(params):
        hidden, _ = decoder.hidden_states(
            config, params, batch["inputs"], batch["segment_ids"], batch["positions"]
        )
        log_probs = jax.nn.log_softmax(decoder.logits(config, params, hidden))
        picked = jnp.take_along_axis(log_probs, batch["targets"][..., None], -1)[..., 0]
        weights = batch["loss_weights"]
        return -jnp.sum(picked * weights) / jnp.sum(weights)

    params = state["policy"]["params"]
    loss, gradients = jax.jit(jax.value_and_grad(mean_loss))(params)
    expected, _, _ = optimizers.make_optimizer(OPTIMIZER).update(
        gradients, state["policy"]["opt_state"], params, state["step"], state["controls"]
    )
    after, metrics = _step(config)(state, batch, jax.random.key(1))
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-6)
    assert float(metrics["target_tokens"]) == batch["loss_weights"].sum()
    assert int(metrics["tokens"]) == (batch["segment_ids"] != 0).sum()
    norm = sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(gradients)) ** 0.5
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-5)
    assert float(metrics["learning_rate"]) == pytest.approx(1e-2)
    assert (int(after["step"]), int(after["data_position"])) == (1, 1)
    # The first step of Adam is a sign: where a gradient is rounding alone it may go either way,
    # so compare where it is not.
    jax.tree.map(
        lambda a, b, g: np.testing.assert_allclose(
            np.where(np.abs(g) > 1e-5, a, 0), np.where(np.abs(g) > 1e-5, b, 0), atol=2e-5
        ),
        after["policy"]["params"],
        expected,
        gradients,
    )


@pytest.mark.parametrize("num_microbatches", [2, 4])
def test_microbatches_equal_the_plain_batch(tiny, make_batch, num_microbatches):
    """The target tokens are uneven over the rows, so a mean of means would differ."""
    config = _without_dropout(tiny)
    batch = make_batch(3)
    batch["loss_weights"][0] *= 0.0
    batch["loss_weights"][1, :3] = 0.0
    plain, plain_metrics = _step(config)(_state(config), batch, jax.random.key(1))
    ours, metrics = _step(config, num_microbatches)(_state(config), batch, jax.random.key(1))
    for name in plain_metrics:
        assert float(metrics[name]) == pytest.approx(float(plain_metrics[name]), rel=1e-6)
    # Moments are linear and quadratic in the gradient: no sign hides a difference.
    _assert_near(ours["policy"]["opt_state"], plain["policy"]["opt_state"], 1e-6)


def test_microbatches_that_do_not_divide(tiny, make_batch):
    with pytest.raises(errors.InputError, match="4 rows does not divide into 3 microbatches"):
        _step(tiny, 3)(_state(tiny), make_batch(0), jax.random.key(1))


def test_a_batch_without_targets_changes_no_moment(tiny, make_batch):
    batch = make_batch(0)
    batch["loss_weights"] = np.zeros_like(batch["loss_weights"])
    before = _state(tiny)
    after, metrics = _step(tiny)(before, batch, jax.random.key(1))
    assert float(metrics["loss"]) == float(metrics["grad_norm"]) == 0.0
    for leaf in jax.tree.leaves(after["policy"]["opt_state"].mu):
        assert not np.asarray(leaf).any()
    # What is left is weight decay.
    _assert_near(
        after["policy"]["params"],
        jax.tree.map(lambda leaf: leaf * (1 - 1e-2 * 0.1), before["policy"]["params"]),
        1e-7,
    )


def test_rows_of_padding_add_nothing(tiny, make_batch):
    config = _without_dropout(tiny)
    batch = make_batch(0)
    padded = {name: np.concatenate([rows, np.zeros_like(rows)]) for name, rows in batch.items()}
    plain, plain_metrics = _step(config)(_state(config), batch, jax.random.key(1))
    ours, metrics = _step(config)(_state(config), padded, jax.random.key(1))
    assert float(metrics["loss"]) == pytest.approx(float(plain_metrics["loss"]), rel=1e-6)
    _assert_near(ours["policy"]["opt_state"], plain["policy"]["opt_state"], 1e-6)


def test_dropout_is_a_function_of_seed_step_and_microbatch(tiny, make_batch):
    state, batch = _state(tiny), make_batch(0)
    step = _step(tiny)

    def loss(state, rng, function=step):
        return float(function(state, batch, rng)[1]["loss"])

    first = loss(state, jax.random.key(1))
    assert loss(state, jax.random.key(1)) == first
    assert loss(state, jax.random.key(2)) != first
    assert loss({**state, "step": jnp.int32(1)}, jax.random.key(1)) != first
    # Two microbatches of the same rows draw apart from each other.
    rows = {name: np.repeat(values[:1], 2, axis=0) for name, values in batch.items()}
    twice = float(_step(tiny, 2)(state, rows, jax.random.key(1))[1]["loss"])
    one = {name: values[:1] for name, values in rows.items()}
    once = float(step(state, one, jax.random.key(1))[1]["loss"])
    assert twice != pytest.approx(once, rel=1e-7)


def test_bfloat16_state_stays_float32_and_learns(tiny, make_batch):
    config = dataclasses.replace(tiny, dtype="bfloat16")
    state, step, batch = _state(config), _step(config), make_batch(0)
    seen = []
    for _ in range(20):
        state, metrics = step(state, batch, jax.random.key(1))
        seen.append(float(metrics["loss"]))
    floats = [leaf.dtype for leaf in jax.tree.leaves(state) if leaf.dtype != jnp.int32]
    assert set(floats) == {jnp.dtype("float32")}
    assert seen[-1] < seen[0] - 0.2
