"""cuDNN's attention without a GPU: what is refused, what would be called, what is computed.

The last test runs the kernel where there is a GPU.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optiml_jax import errors
from optiml_jax.model import attention, cudnn

SEGMENTS = np.array([[1, 1, 1, 2, 3, 3, 3, 3, 0, 0], [1, 2, 2, 2, 2, 2, 2, 0, 0, 0]], np.int32)
SLOTS = np.broadcast_to(np.arange(10, dtype=np.int32), (2, 10))


def _arrays(dtype, head_dim=8):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(2, 10, 3, head_dim)), dtype) for _ in range(4)]


def _attend(function, query, key, value):
    return function(
        query,
        key,
        value,
        query_segment_ids=jnp.asarray(SEGMENTS),
        key_segment_ids=jnp.asarray(SEGMENTS),
        query_slots=jnp.asarray(SLOTS),
        dropout_rate=0.0,
        dropout_rng=None,
    )


@pytest.fixture
def gpu(monkeypatch):
    """Lowers as on a machine with a GPU and cuDNN 9.10."""
    from jax._src.cudnn import fused_attention_stablehlo

    monkeypatch.setattr(attention, "platform_in_use", lambda: "gpu")
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)


def test_other_platforms_are_refused():
    message = r"'cudnn': it runs on NVIDIA GPUs, not on cpu\. Use attention = 'auto' or 'dense'"
    with pytest.raises(errors.InputError, match=message):
        _attend(cudnn.attend, *_arrays(jnp.bfloat16)[:3])


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": jnp.float32}, r"computes in bfloat16 or float16, not in float32"),
        ({"head_dim": 12}, r"heads have a size that is a multiple of 8 .* not 12"),
        ({"head_dim": 136}, r"at most 128, not 136"),
    ],
)
def test_what_the_kernel_has_not_is_refused(change, message):
    arrays = _arrays(**{"dtype": jnp.bfloat16, **change})
    with pytest.raises(errors.InputError, match=message):
        _attend(cudnn.attend, *arrays[:3])


@pytest.mark.usefixtures("gpu")
def test_the_mask_reaches_the_kernels():
    """Both kernels are of the kind with a bias, and read one of a row's whole square."""

    def total(query, key, value):
        return jnp.sum(_attend(cudnn.attend, query, key, value).astype(jnp.float32))

    traced = jax.jit(jax.grad(total, argnums=(0, 1, 2))).trace(*_arrays(jnp.bfloat16)[:3])
    program = traced.lower(lowering_platforms=("cuda",)).as_text()
    calls = [line for line in program.splitlines() if "__cudnn$fmha" in line]
    for name in ("__cudnn$fmhaScaleBiasSoftmax(", "__cudnn$fmhaScaleBiasSoftmaxBackward("):
        (call,) = (line for line in calls if name in line.replace('"', ""))
        assert "tensor<2x1x10x10xbf16>" in call.split("->")[0]
        assert "\\22fmha_scale\\22: 1.0" in call
        assert "\\22mask_type\\22: \\22NO_MASK\\22" in call


@pytest.mark.parametrize("platform_call", ["xla"])
def test_the_same_call_without_cudnn_equals_dense(platform_call):
    query, key, value, weights = _arrays(jnp.float32)
    mask = attention.document_mask(*map(jnp.asarray, (SEGMENTS, SEGMENTS, SLOTS)))
    ours = functools.partial(cudnn.masked_attention, mask=mask, implementation=platform_call)
    _assert_close(ours, functools.partial(_attend, attention.dense), query, key, value, weights)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("head_dim", [64, 80, 128])
def test_the_kernel_equals_dense(head_dim):
    arrays = _arrays(jnp.bfloat16, head_dim)
    _assert_close(
        functools.partial(_attend, cudnn.attend),
        functools.partial(_attend, attention.dense),
        *arrays,
        # Two roundings to bfloat16 (8 bits) apart.
        tolerance=2**-6,
    )


def _assert_close(one, other, query, key, value, weights, tolerance=1e-5):
    def run(function):
        def total(*arrays):
            mixed = function(*arrays)
            return jnp.sum((mixed * weights).astype(jnp.float32)), mixed

        gradients, mixed = jax.grad(total, argnums=(0, 1, 2), has_aux=True)(query, key, value)
        return mixed, *gradients

    for ours, expected in zip(run(one), run(other), strict=True):
        error = jnp.max(jnp.abs(ours - expected)) / jnp.max(jnp.abs(expected))
        assert float(error) <= tolerance
