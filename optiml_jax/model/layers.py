"""The small pieces of a decoder layer: linear map, layer norm, dropout.

Each is a pure function, and a Linen module that owns its parameters where it has any. Products
run in the compute dtype; sums over many numbers (norms, gradients of weights) are float32.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Key

# OPT uses PyTorch's default (metaseq modules/layer_norm.py).
LAYER_NORM_EPS = 1e-5


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def linear(
    inputs: Float[Array, "M K"],
    kernel: Float[Array, "K P"],
    bias: Float[Array, " P"],
    dtype: jnp.dtype,
) -> Float[Array, "M P"]:
    """`inputs @ kernel + bias` in `dtype`, with float32 gradients for kernel and bias.

    The gradient of the kernel is written as `inputs.T @ gradient`: XLA's own transposition of a
    matrix product is slower on CPU, and this form keeps its sum in float32.
    """
    return jnp.dot(inputs, kernel.astype(dtype)) + bias.astype(dtype)


def _linear_forward(inputs, kernel, bias, dtype):
    return linear(inputs, kernel, bias, dtype), (inputs, kernel)


def _linear_backward(dtype, saved, gradient):
    inputs, kernel = saved
    return (
        jnp.dot(gradient, kernel.T.astype(dtype)),
        jnp.dot(inputs.T, gradient, preferred_element_type=jnp.float32),
        jnp.sum(gradient.astype(jnp.float32), axis=0),
    )


linear.defvjp(_linear_forward, _linear_backward)


def layer_norm(
    inputs: Float[Array, "*batch D"], scale: Float[Array, " D"], bias: Float[Array, " D"]
) -> Float[Array, "*batch D"]:
    """Normalises the last axis in float32 and returns the dtype that came in."""
    values = inputs.astype(jnp.float32)
    centred = values - jnp.mean(values, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return (centred * lax.rsqrt(variance + LAYER_NORM_EPS) * scale + bias).astype(inputs.dtype)


def keep_mask(dropout_rng: Key[Array, ""], rate: float, shape: tuple[int, ...]) -> Array:
    """True where dropout keeps: 16 random bits a place, two places from one 32-bit draw.

    Half the draws of a 32-bit mask. The rate is rounded to 1 / 65,536 (0.1 becomes 0.100006), and
    `kept_share` returns the rounded share, so that the expectation stays exact.
    """
    *leading, last = shape
    draws = jax.random.bits(dropout_rng, (*leading, (last + 1) // 2), jnp.uint32)
    bits = jnp.stack([draws & jnp.uint32(0xFFFF), draws >> jnp.uint32(16)], axis=-1)
    bits = bits.reshape(*leading, -1)[..., :last]
    return bits >= jnp.uint32(round(rate * 65536))


def kept_share(rate: float) -> float:
    """The share of places that `keep_mask` keeps."""
    return 1.0 - round(rate * 65536) / 65536


def dropout(
    inputs: Float[Array, "*shape"], rate: float, dropout_rng: Key[Array, ""] | None
) -> Float[Array, "*shape"]:
    """Zeroes a share `rate` of `inputs` and scales the rest up; None as key means off."""
    if dropout_rng is None or rate == 0.0:
        return inputs
    scale = jnp.asarray(1.0 / kept_share(rate), inputs.dtype)
    return jnp.where(
        keep_mask(dropout_rng, rate, inputs.shape), inputs * scale, jnp.zeros_like(inputs)
    )


class Linear(nn.Module):
    """A linear map whose input and output axes may each be several (heads x head size).

    Attributes:
        input_shape: the last axes of the input, which are summed over.
        output_shape: the axes that take their place; they lead with the axis that may be sharded,
            so that flattening them keeps the shards whole.
        has_bias: False for the projections of narrow embeddings.
    """

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    init_std: float
    dtype: jnp.dtype
    has_bias: bool = True

    @nn.compact
    def __call__(self, inputs):
        """Returns [..., *output_shape] in `dtype`."""
        shape = (*self.input_shape, *self.output_shape)
        kernel = self.param("kernel", nn.initializers.normal(self.init_std), shape, jnp.float32)
        bias = jnp.zeros(self.output_shape, jnp.float32)
        if self.has_bias:
            bias = self.param("bias", nn.initializers.zeros, self.output_shape, jnp.float32)
        leading = inputs.shape[: inputs.ndim - len(self.input_shape)]
        size = functools.reduce(lambda a, b: a * b, self.input_shape)
        outputs: Any = linear(
            inputs.reshape(-1, size), kernel.reshape(size, -1), bias.reshape(-1), self.dtype
        )
        return outputs.reshape(*leading, *self.output_shape)


class LayerNorm(nn.Module):
    """`layer_norm` with its scale (1 at first) and bias (0 at first)."""

    @nn.compact
    def __call__(self, inputs):
        """Returns `inputs` normalised over the last axis."""
        width = (inputs.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, width, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, width, jnp.float32)
        return layer_norm(inputs, scale, bias)


def zero_row(init: Callable, row: int) -> Callable:
    """An initializer like `init`, with one row of the first axis zero."""

    def initialize(rng, shape, dtype):
        values = init(rng, shape, dtype)
        return jnp.where(jnp.arange(shape[0])[:, None] == row, jnp.zeros((), dtype), values)

    return initialize
