"""Splash attention: Pallas kernels for TPU that never hold the [T, S] square.

The kernels are JAX's own (jax.experimental.pallas.ops.tpu.splash_attention): the causal part of the
mask is computed inside, blocks above the diagonal are skipped, documents are told apart by segment
ids, softmax is float32. Here is what they need around them: heads before length, rows a multiple of
128 long, one call per device, and on CPU the interpreter, which computes the same, slowly.

The kernels read queries' places from their order and padding from its segment, so a row attends to
itself: `query_slots` must be 0..T-1. Left out: dropout on probabilities, attention to a cache.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention
from jaxtyping import Array, Float, Int, Key

from optiml_jax import errors
from optiml_jax.model import attention, partitioning

# For remat policies: the output and the logarithms of the softmax sums, all that the backward
# kernels need beside queries, keys and values.
RESIDUALS = "attention_residuals"
# A vector register of a TPU holds 128 numbers along a row; the kernels' blocks are multiples.
LANES = 128
# Largest block of queries and of keys by length of the row. 512 to 2048 are the sizes of tuned
# recipes on v5p and v6e (AI-Hypercomputer/tpu-recipes, `sa_block_*`); 512 compiles on every slice.
LARGEST_BLOCK = {4096: 512}
LARGEST_BLOCK_BEYOND = 1024
# Tokens that lengthen a row are a document of their own; ids in batches are 0 and up.
FILL_SEGMENT = -1


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
        InputError: dropout on probabilities, or a platform that is neither TPU nor CPU.
    """
    del query_slots
    attention.check_whole_rows("splash", query, key, dropout_rate, dropout_rng)
    platform = attention.platform_in_use()
    if platform not in ("tpu", "cpu"):
        raise errors.InputError(
            f"attention back-end 'splash' runs on TPU (and, interpreted, on CPU), not on "
            f"{platform}. Use attention = 'auto', or 'cudnn', or 'dense'."
        )
    heads, ids = ("batch", None, "heads", None), ("batch", None)
    attend_on_shards = partitioning.on_shards(
        functools.partial(_attend, interpret=platform == "cpu"),
        inputs=(heads, heads, heads, ids, ids),
        output=heads,
    )
    return attend_on_shards(query, key, value, query_segment_ids, key_segment_ids)


def block_size(length: int) -> int:
    """Tokens per block of a row of `length` (a multiple of 128): the largest that divides it.

    Example:
        128 -> 128; 640 -> 128; 768 -> 384; 2048 -> 512; 8192 -> 1024
    """
    limits = [limit for longest, limit in LARGEST_BLOCK.items() if length <= longest]
    largest = min([*limits, LARGEST_BLOCK_BEYOND])
    return max(size for size in range(LANES, largest + 1, LANES) if length % size == 0)


def _attend(query, key, value, query_segment_ids, key_segment_ids, *, interpret):
    """One device's rows and heads."""
    length = query.shape[1]
    fill = -length % LANES

    def lay_out(values):
        return jnp.pad(values, ((0, 0), (0, fill), (0, 0), (0, 0))).swapaxes(1, 2)

    def lengthen(segment_ids):
        return jnp.pad(segment_ids, ((0, 0), (0, fill)), constant_values=FILL_SEGMENT)

    segments = splash_attention.SegmentIds(lengthen(query_segment_ids), lengthen(key_segment_ids))
    kernel = _kernel(query.shape[2], length + fill, interpret)
    # The kernel is annotated for the case that it returns its residuals too.
    mixed: Any = jax.vmap(kernel)(lay_out(query), lay_out(key), lay_out(value), segments)
    return mixed.swapaxes(1, 2)[:, :length]


def _kernel(num_heads, length, interpret):
    """The forward and backward kernels for one row: [N, T, H] queries, keys and values."""
    block = block_size(length)
    return splash_attention.make_splash_mha(
        splash_attention.MultiHeadMask([_causal_mask(length)] * num_heads),
        head_shards=1,
        q_seq_shards=1,
        block_sizes=splash_attention.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        residual_checkpoint_name=RESIDUALS,
        interpret=interpret,
    )


@functools.lru_cache(maxsize=16)
def _causal_mask(length):
    """Kept, because a new mask is a new function to JAX, which would trace the kernel again."""
    return splash_attention.CausalMask((length, length))
