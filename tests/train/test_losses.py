import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optiml_jax.model import decoder
from optiml_jax.train import losses

pytestmark = pytest.mark.usefixtures("strict_promotion")


def _inputs(tiny, weights):
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(*weights.shape, tiny.d_model)).astype(np.float32)
    table = rng.normal(size=(tiny.vocab_size, tiny.d_model)).astype(np.float32)
    targets = rng.integers(0, tiny.vocab_size, weights.shape).astype(np.int32)
    return hidden, {"token_embedding": table}, targets


def _brute_force(table, hidden, targets, weights):
    """Loss and gradients in float64, the whole [B, T, V] at once."""
    table, hidden = table.astype(np.float64), hidden.astype(np.float64)
    scores = hidden @ table.T
    scores -= scores.max(-1, keepdims=True)
    probs = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    picked = np.take_along_axis(probs, targets[..., None], -1)[..., 0]
    error = (probs - np.eye(table.shape[0])[targets]) * weights[..., None]
    return (
        -(weights * np.log(picked)).sum(),
        error @ table,
        np.einsum("btv,btd->vd", error, hidden),
    )


def _weights(kind):
    rng = np.random.default_rng(1)
    return {
        "all": np.ones((3, 10), np.float32),
        "none": np.zeros((3, 10), np.float32),
        "few": (rng.random((3, 10)) < 0.2).astype(np.float32),
        "fractions": rng.random((3, 10)).astype(np.float32) * (rng.random((3, 10)) < 0.5),
        "one row": np.concatenate([np.ones((1, 10)), np.zeros((2, 10))]).astype(np.float32),
    }[kind].astype(np.float32)


@pytest.mark.parametrize("chunk_tokens", [1, 7, 12, 1000])
@pytest.mark.parametrize("kind", ["all", "none", "few", "fractions", "one row"])
def test_equals_brute_force(tiny, kind, chunk_tokens):
    weights = _weights(kind)
    hidden, params, targets = _inputs(tiny, weights)

    def total(hidden, params):
        return losses.summed_cross_entropy(
            tiny, params, hidden, targets, weights, chunk_tokens=chunk_tokens
        )

    (loss, count), gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(
        hidden, params
    )
    expected = _brute_force(params["token_embedding"], hidden, targets, weights)
    assert float(count) == pytest.approx(float(weights.sum()))
    assert float(loss) == pytest.approx(expected[0], rel=2e-6)
    np.testing.assert_allclose(gradients[0], expected[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradients[1]["token_embedding"], expected[2], rtol=1e-4, atol=1e-4)
    # Without a gradient it is another program, with the same value.
    assert float(jax.jit(total)(hidden, params)[0]) == pytest.approx(float(loss), rel=1e-6)


def test_gradient_is_scaled_by_what_follows(tiny):
    weights = _weights("few")
    hidden, params, targets = _inputs(tiny, weights)

    def total(hidden, scale):
        loss, _ = losses.summed_cross_entropy(tiny, params, hidden, targets, weights)
        return loss * scale

    plain = jax.grad(total)(jnp.asarray(hidden), jnp.float32(1.0))
    np.testing.assert_allclose(
        jax.grad(total)(jnp.asarray(hidden), jnp.float32(3.0)), 3 * np.asarray(plain), rtol=1e-6
    )


def test_no_array_of_all_scores(tiny):
    """The largest array of the compiled gradient is far below [B, T, V]."""
    config = dataclasses.replace(tiny, vocab_size=4096)
    weights = np.ones((4, 64), np.float32)
    hidden, params, targets = _inputs(config, weights)

    def total(hidden, params):
        return losses.summed_cross_entropy(
            config, params, hidden, targets, weights, chunk_tokens=16
        )[0]

    compiled = jax.jit(jax.grad(total, argnums=(0, 1))).lower(hidden, params).compile()
    whole = 4 * weights.size * 4096
    assert compiled.memory_analysis().temp_size_in_bytes < whole


def test_bfloat16_is_near_float32(tiny):
    weights = _weights("all")
    hidden, params, targets = _inputs(tiny, weights)
    low = dataclasses.replace(tiny, dtype="bfloat16")
    loss, _ = losses.summed_cross_entropy(
        low, params, jnp.asarray(hidden, jnp.bfloat16), targets, weights
    )
    assert loss.dtype == jnp.float32
    expected = _brute_force(params["token_embedding"], hidden, targets, weights)[0]
    assert float(loss) == pytest.approx(expected, rel=2e-2)


def test_packed_equals_unpacked(tiny):
    """Ragged documents in two rows, and each in a row of its own: one loss, one gradient."""
    rng = np.random.default_rng(3)
    documents = [rng.integers(4, 48, size) for size in (6, 3, 7, 5, 9)]
    params = jax.jit(decoder.init_params, static_argnums=0)(tiny, jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf * jnp.float32(20.0), params)

    def fields(rows, length):
        out = {
            name: np.zeros((len(rows), length), np.int32)
            for name in ("inputs", "targets", "segment_ids", "positions")
        }
        weights = np.zeros((len(rows), length), np.float32)
        for row, numbers in enumerate(rows):
            start = 0
            for segment, number in enumerate(numbers, 1):
                tokens = documents[number]
                size = len(tokens) - 1
                place = slice(start, start + size)
                out["inputs"][row, place] = tokens[:-1]
                out["targets"][row, place] = tokens[1:]
                out["segment_ids"][row, place] = segment
                out["positions"][row, place] = np.arange(size)
                weights[row, start + 1 : start + size] = 1.0
                start += size
        return out, weights

    def total(params, out, weights):
        hidden, _ = decoder.hidden_states(
            tiny, params, out["inputs"], out["segment_ids"], out["positions"]
        )
        return losses.summed_cross_entropy(tiny, params, hidden, out["targets"], weights)

    run = jax.jit(jax.value_and_grad(total, has_aux=True))
    (packed, count), packed_gradients = run(params, *fields([[0, 1, 2], [3, 4]], 16))
    (alone, alone_count), gradients = run(params, *fields([[n] for n in range(5)], 9))
    assert float(count) == float(alone_count) == sum(len(d) - 2 for d in documents)
    assert float(packed) == pytest.approx(float(alone), rel=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a, b, rtol=1e-4, atol=2e-6 * max(np.abs(b).max(), 1.0)
        ),
        packed_gradients,
        gradients,
    )
