import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optiml_jax.model import layers


def test_linear_equals_its_plain_form():
    rng = np.random.default_rng(0)
    inputs, kernel, bias = (
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((6, 3), (3, 4), (4,))
    )
    gradient = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)
    value, pull = jax.vjp(lambda *args: layers.linear(*args, jnp.float32), inputs, kernel, bias)
    expected, pull_plain = jax.vjp(lambda x, w, b: x @ w + b, inputs, kernel, bias)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for ours, plain in zip(pull(gradient), pull_plain(gradient), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-6)


def test_linear_keeps_float32_gradients_of_weights():
    inputs = jnp.ones((5, 3), jnp.bfloat16)
    kernel, bias = jnp.ones((3, 2), jnp.float32), jnp.zeros(2, jnp.float32)
    value, pull = jax.vjp(lambda *args: layers.linear(*args, jnp.bfloat16), inputs, kernel, bias)
    assert value.dtype == jnp.bfloat16
    assert [leaf.dtype for leaf in pull(value)] == [jnp.bfloat16, jnp.float32, jnp.float32]


def test_layer_norm_equals_numpy():
    rng = np.random.default_rng(1)
    inputs = rng.normal(3.0, 2.0, size=(2, 5, 8)).astype(np.float32)
    scale, bias = rng.normal(size=(2, 8)).astype(np.float32)
    ours = layers.layer_norm(jnp.asarray(inputs), jnp.asarray(scale), jnp.asarray(bias))
    wide = inputs.astype(np.float64)
    expected = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(ours, expected * scale + bias, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("last", [1, 7, 64])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(last, rate):
    values = jnp.ones((64, 512, last), jnp.float32)
    dropped = np.asarray(layers.dropout(values, rate, jax.random.key(0)))
    # Five standard deviations of a binomial share.
    slack = 5 * (rate * (1 - rate) / dropped.size) ** 0.5
    assert abs((dropped == 0).mean() - rate) < slack
    assert dropped.mean() == pytest.approx(1.0, abs=slack / (1 - rate))
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / layers.kept_share(rate))}


def test_dropout_halves_of_a_draw_are_independent():
    kept = np.asarray(layers.keep_mask(jax.random.key(3), 0.5, (512, 512)))
    both = (kept[:, 0::2] & kept[:, 1::2]).mean()
    assert both == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / kept.size * 2) ** 0.5)


def test_dropout_off():
    values = jnp.arange(4.0)
    assert layers.dropout(values, 0.5, None) is values
    assert layers.dropout(values, 0.0, jax.random.key(0)) is values
