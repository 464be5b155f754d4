"""Splash kernels, interpreted, against `dense`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optiml_jax.model import attention, splash

ROWS, HEADS = 2, 2


def _case(length, head_dim, seed=0):
    """Query, key, value, weights of the output, and ragged segments with padding at the end."""
    rng = np.random.default_rng(seed)
    shape = (ROWS, length, HEADS, head_dim)
    query, key, value, weights = (rng.normal(size=shape).astype(np.float32) for _ in range(4))
    segments = np.zeros((ROWS, length), np.int32)
    for row in range(ROWS):
        start, segment = 0, 1
        while start < length - 11:
            size = int(rng.integers(1, length // 2))
            segments[row, start : min(start + size, length - 5 * (row + 1))] = segment
            start, segment = start + size, segment + 1
    assert len(np.unique(segments)) > 2
    assert (segments[:, -5:] == 0).all()
    scaled = query * np.float32(head_dim**-0.5)
    return *map(jnp.asarray, (scaled, key, value, weights)), jnp.asarray(segments)


@functools.partial(jax.jit, static_argnums=0)
def _outputs_and_gradients(back_end, query, key, value, weights, segments):
    slots = jnp.broadcast_to(jnp.arange(query.shape[1], dtype=jnp.int32), segments.shape)

    def total(query, key, value):
        mixed = attention.attend(
            back_end,
            query,
            key,
            value,
            query_segment_ids=segments,
            key_segment_ids=segments,
            query_slots=slots,
            dropout_rate=0.0,
            dropout_rng=None,
            cached=False,
        )
        return jnp.sum(mixed * weights), mixed

    gradients, mixed = jax.grad(total, argnums=(0, 1, 2), has_aux=True)(query, key, value)
    return mixed, *gradients


# The heads of 125M, of 2.7B and of 6.7B upwards; no length is a multiple of 128.
@pytest.mark.parametrize(("length", "head_dim"), [(300, 64), (130, 80), (200, 128)])
def test_outputs_and_gradients_equal_dense(length, head_dim):
    case = _case(length, head_dim)
    for ours, expected in zip(
        _outputs_and_gradients("splash", *case),
        _outputs_and_gradients("dense", *case),
        strict=True,
    ):
        assert float(jnp.max(jnp.abs(ours - expected)) / jnp.max(jnp.abs(expected))) <= 1e-5


def test_documents_do_not_leak():
    """Another first document, and every later one keeps its outputs and gradients bit for bit."""
    query, key, value, weights, segments = _case(200, 64)
    before = _outputs_and_gradients("splash", query, key, value, weights, segments)
    first = segments == 1
    changed = [
        jnp.where(first[:, :, None, None], values * jnp.float32(-3.0) + jnp.float32(1.0), values)
        for values in (query, key, value, weights)
    ]
    after = _outputs_and_gradients("splash", *changed, segments)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one[~first], other[~first])
        assert not np.array_equal(one[first], other[first])


def test_what_fills_a_row_up_is_not_seen():
    """A row of 130 tokens is the start of one of 256 whose other documents differ."""
    query, key, value, weights, segments = _case(256, 64)
    documents = segments.at[:, 130:].set(9)
    weights = weights.at[:, 130:].set(0.0)
    whole = _outputs_and_gradients("splash", query, key, value, weights, documents)
    part = _outputs_and_gradients(
        "splash", *(values[:, :130] for values in (query, key, value, weights, documents))
    )
    for one, other in zip(part, whole, strict=True):
        np.testing.assert_allclose(one, other[:, :130], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("length", "block"),
    [(128, 128), (640, 128), (768, 384), (2048, 512), (4096, 512), (8192, 1024)],
)
def test_blocks_divide_rows(length, block):
    assert splash.block_size(length) == block


def test_a_policy_can_keep_what_the_backward_kernels_need(capsys):
    """The output and the sums, by name: nothing else of the forward kernel is left to run again."""
    query, key, value, _, segments = _case(130, 16)

    def attend(query):
        return splash.attend(
            query,
            key,
            value,
            query_segment_ids=segments,
            key_segment_ids=segments,
            query_slots=segments,
            dropout_rate=0.0,
            dropout_rng=None,
        )

    def saved(policy):
        jax.ad_checkpoint.print_saved_residuals(jax.checkpoint(attend, policy=policy), query)
        lines = capsys.readouterr().out.splitlines()
        return [line.split()[0] for line in lines if "'_splash_attention'" in line]

    named = jax.checkpoint_policies.save_only_these_names(splash.RESIDUALS)
    assert saved(named) == ["f32[2,2,256,16]", "f32[2,2,256]"]
    assert saved(jax.checkpoint_policies.nothing_saveable) == []
