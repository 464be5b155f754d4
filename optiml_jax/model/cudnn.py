"""Attention by cuDNN's fused kernel on NVIDIA GPUs, through `jax.nn.dot_product_attention`.

That function takes no segment ids, but a mask: the document mask becomes a bias of 0 or -2 ** 41 on
the scores, which cuDNN adds before the softmax in the forward and again in the backward pass (an
exponential of it is exactly 0 in float32). So documents are told apart exactly, at the price of a
[T, S] bias a row; the scores of all heads are never held. Neither `is_causal` nor sequence lengths
are given: they could only repeat what the mask says.

Left out: dropout on probabilities, attention to a cache, float32.
"""

import functools
from typing import Literal

import jax
from jaxtyping import Array, Bool, Float, Int, Key

from optiml_jax import errors
from optiml_jax.model import attention, partitioning


def attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T N H"],
    value: Float[Array, "B T N H"],
    *,
    query_segment_ids: Int[Array, "B T"],
    key_segment_ids: Int[Array, "B T"],
    query_slots: Int[Array, "B T"],
    dropout_rate: float,
    dropout_rng: Key[Array, ""] | None,
) -> Float[Array, "B T N H"]:
    """Document-masked causal attention, see `attention.dense` for the arguments.

    Raises:
        InputError: not a GPU, or shapes, dtype or dropout that the kernel does not have.
    """
    attention.check_whole_rows("cudnn", query, key, dropout_rate, dropout_rng)
    problem = attention.cudnn_problem(query.shape[-1], query.dtype.name, query.shape[1])
    if attention.platform_in_use() != "gpu":
        problem = f"it runs on NVIDIA GPUs, not on {attention.platform_in_use()}"
    if problem:
        raise errors.InputError(
            f"attention back-end 'cudnn': {problem}. Use attention = 'auto' or 'dense'."
        )
    mask = attention.document_mask(query_segment_ids, key_segment_ids, query_slots)
    heads = ("batch", None, "heads", None)
    attend_on_shards = partitioning.on_shards(
        functools.partial(masked_attention, implementation="cudnn"),
        inputs=(heads, heads, heads, ("batch", None, None)),
        output=heads,
    )
    return attend_on_shards(query, key, value, mask)


def masked_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S N H"],
    value: Float[Array, "B S N H"],
    mask: Bool[Array, "B T S"],
    implementation: Literal["cudnn", "xla"],
) -> Float[Array, "B T N H"]:
    """JAX's attention under a mask, queries scaled already; "xla" is the same without cuDNN."""
    return jax.nn.dot_product_attention(
        query, key, value, mask=mask[:, None], scale=1.0, implementation=implementation
    )
