import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optiml_jax import errors
from optiml_jax.train import optimizer as optimizers
from optiml_jax.train.optimizer import OptimizerConfig

pytestmark = pytest.mark.usefixtures("strict_promotion")


def test_schedule_example_of_the_docstring():
    schedule = optimizers.make_schedule(OptimizerConfig(1.0, 2, 6))
    rates = [float(schedule(jnp.int32(step))) for step in range(8)]
    assert rates == pytest.approx([0, 0.5, 1, 0.75, 0.5, 0.25, 0, 0])


def test_schedule_ends_at_its_fraction_and_may_skip_the_warmup():
    schedule = optimizers.make_schedule(OptimizerConfig(2.0, 0, 4, final_fraction=0.1))
    rates = [float(schedule(jnp.int32(step))) for step in (0, 2, 4, 100)]
    assert rates == pytest.approx([2.0, 1.1, 0.2, 0.2])


def _brute_force(config, params, gradients, factors, clips):
    """AdamW element by element in float64."""
    mean = {name: np.zeros_like(array) for name, array in params.items()}
    square = {name: np.zeros_like(array) for name, array in params.items()}
    norms = []
    for step, gradient in enumerate(gradients):
        norm = sum((array**2).sum() for array in gradient.values()) ** 0.5
        norms.append(norm)
        clip = min(1.0, clips[step] / (norm + 1e-6)) if clips[step] else 1.0
        if step < config.warmup_steps:
            rate = config.learning_rate * step / config.warmup_steps
        else:
            share = (step - config.warmup_steps) / (config.total_steps - config.warmup_steps)
            rate = config.learning_rate * (1 - (1 - config.final_fraction) * share)
        rate *= factors[step]
        for name in params:
            g = gradient[name] * clip
            mean[name] = config.b1 * mean[name] + (1 - config.b1) * g
            square[name] = config.b2 * square[name] + (1 - config.b2) * g * g
            m = mean[name] / (1 - config.b1 ** (step + 1))
            v = square[name] / (1 - config.b2 ** (step + 1))
            params[name] = params[name] - rate * (
                m / (np.sqrt(v) + config.eps) + config.weight_decay * params[name]
            )
    return params, norms


def test_equals_brute_force_adamw():
    """Clipped and unclipped steps, with controls that change on the way."""
    config = OptimizerConfig(3e-2, 3, 12, final_fraction=0.1, clip_norm=1.0)
    rng = np.random.default_rng(0)
    start = {"kernel": rng.normal(size=(4, 3)), "bias": rng.normal(size=3)}
    gradients = [
        {name: rng.normal(scale=scale, size=array.shape) for name, array in start.items()}
        for scale in (1.0, 0.1, 2.0, 0.05, 1.0, 5.0, 0.5, 0.01)
    ]
    factors = [1.0] * 4 + [0.5] * 4
    clips = [1.0] * 5 + [0.3, 0.0, 0.3]
    optimizer = optimizers.make_optimizer(config)
    params = {name: jnp.asarray(array, jnp.float32) for name, array in start.items()}
    opt_state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    norms = []
    for step, gradient in enumerate(gradients):
        controls = {
            "learning_rate_factor": jnp.float32(factors[step]),
            "clip_norm": jnp.float32(clips[step]),
        }
        params, opt_state, metrics = update(
            {name: jnp.asarray(array, jnp.float32) for name, array in gradient.items()},
            opt_state,
            params,
            jnp.int32(step),
            controls,
        )
        norms.append(float(metrics["grad_norm"]))
    assert update._cache_size() == 1  # Controls are traced.
    expected, expected_norms = _brute_force(config, start, gradients, factors, clips)
    assert norms == pytest.approx(expected_norms, rel=1e-6)
    for name, array in expected.items():
        np.testing.assert_allclose(params[name], array, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": -1.0}, "'learning_rate' is -1.0"),
        ({"total_steps": 0, "warmup_steps": 0}, "'total_steps' is 0"),
        ({"warmup_steps": 11}, "warmup_steps 11 is more than total_steps 10"),
        ({"b2": 1.0}, "'b2'"),
        ({"final_fraction": 2.0}, "'final_fraction'"),
        ({"learning_rate": math.inf}, "'learning_rate' is inf, expected a finite number"),
        ({"weight_decay": math.nan}, "'weight_decay' is nan"),
        ({"clip_norm": "1"}, "'clip_norm' is '1'"),
        ({"eps": True}, "'eps' is True"),
    ],
)
def test_wrong_fields_are_refused(change, message):
    with pytest.raises(errors.InputError, match=message):
        OptimizerConfig(**{"learning_rate": 1.0, "warmup_steps": 1, "total_steps": 10, **change})
