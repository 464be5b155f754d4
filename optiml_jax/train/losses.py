"""Cross-entropy over the vocabulary without ever holding the logits of a whole batch.

The head is most of a small model's arithmetic: with V = 50,272 and d = 128, nine tenths of it. Two
things keep it cheap and exact:

1. Positions are brought into an order where those with loss come first in each row, and only as
   many chunks are computed as hold any. Instruction rows carry loss on about a seventh of their
   tokens; a row of plain text carries it everywhere, and then every chunk is computed.
2. Each chunk's gradient is made beside its loss, in the forward pass, so that nothing of size
   [tokens, V] outlives its chunk and the backward pass is one multiplication.

The chunk cuts the time axis, so that rows stay where the mesh put them. The table's gradient is
summed over the rows of each device first, and over devices once, after the last chunk.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from optiml_jax.model import partitioning
from optiml_jax.model.config import OptConfig

# Tokens per chunk and row shard. A chunk passes over its scores (tokens x V) and over the table's
# gradient (D x V), so about D tokens balance the two; 512 x 50,272 float32 scores are 103 MB.
MIN_CHUNK_TOKENS, MAX_CHUNK_TOKENS = 128, 512


def summed_cross_entropy(
    config: OptConfig,
    params: dict,
    hidden: Float[Array, "B T E"],
    targets: Int[Array, "B T"],
    loss_weights: Float[Array, "B T"],
    *,
    chunk_tokens: int | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sums of -weight * log p(target) in nats, and of the weights; both float32.

    Divide the first by the *global* second for OPT-IML's mean over target tokens.

    Args:
        hidden: position t predicts `targets[:, t]`.
        chunk_tokens: positions per chunk and row shard, a matter of memory and speed only;
            default: the model width, within 128 and 512.

    Example:
        weights [[0, 0, 1, 1]]: the last two positions count, and one chunk is computed.

    Source: OPT-IML (arXiv 2212.12017) §3.1; metaseq multiplies gradients by 1 / sample_size.
    """
    mesh = jax.sharding.get_abstract_mesh()
    row_shards = 1 if mesh.empty else mesh.shape["data"] * mesh.shape["fsdp"]
    batch, length = targets.shape
    chunk = chunk_length(config, batch, length, row_shards, chunk_tokens)
    # Rows of weight first; the order is stable, so equal weights keep their places.
    weights = loss_weights.astype(jnp.float32)
    order = jnp.argsort((weights == 0.0).astype(jnp.int32), axis=1, stable=True)
    padding = -length % chunk
    ordered_weights = jnp.pad(jnp.take_along_axis(weights, order, axis=1), ((0, 0), (0, padding)))
    ordered_targets = jnp.pad(jnp.take_along_axis(targets, order, axis=1), ((0, 0), (0, padding)))
    ordered_hidden = jnp.pad(
        jnp.take_along_axis(hidden, order[:, :, None], axis=1), ((0, 0), (0, padding), (0, 0))
    )
    total: Any = _ordered_loss(
        ordered_hidden,
        params["token_embedding"],
        ordered_targets,
        ordered_weights,
        chunk,
        row_shards if batch % row_shards == 0 else 1,
        config.dtype,
    )
    return total, jnp.sum(weights)


def chunk_length(
    config: OptConfig, batch: int, length: int, row_shards: int, chunk_tokens: int | None = None
) -> int:
    """Positions of a row in one chunk."""
    if chunk_tokens is None:
        chunk_tokens = min(MAX_CHUNK_TOKENS, max(MIN_CHUNK_TOKENS, config.d_model))
    return max(1, min(length, chunk_tokens * row_shards // batch))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _ordered_loss(hidden, table, targets, weights, chunk, row_shards, dtype):
    """The summed loss of rows whose weighted positions come first."""
    del row_shards
    kernel = partitioning.constrain(table.astype(dtype), ("vocab", "features"))

    def add_chunk(index, total):
        loss, _ = _chunk(hidden, kernel, targets, weights, index, chunk)
        return total + loss

    return lax.fori_loop(0, _num_chunks(weights, chunk), add_chunk, jnp.float32(0.0))


def _ordered_loss_forward(hidden, table, targets, weights, chunk, row_shards, dtype):
    kernel = partitioning.constrain(table.astype(dtype), ("vocab", "features"))

    def add_chunk(index, carry):
        total, hidden_gradient, table_gradient = carry
        loss, (rows, scores_gradient) = _chunk(hidden, kernel, targets, weights, index, chunk)
        scores_gradient = scores_gradient.astype(dtype)
        rows_gradient = jnp.dot(scores_gradient, kernel).astype(hidden.dtype)
        table_gradient += jnp.einsum(
            "snv,sne->sve",
            scores_gradient.reshape(row_shards, -1, scores_gradient.shape[-1]),
            rows.reshape(row_shards, -1, rows.shape[-1]),
            preferred_element_type=jnp.float32,
        )
        table_gradient = partitioning.constrain(table_gradient, ("batch", "vocab", "features"))
        hidden_gradient = lax.dynamic_update_slice_in_dim(
            hidden_gradient, rows_gradient, index * chunk, axis=1
        )
        return total + loss, hidden_gradient, table_gradient

    zeros = jnp.zeros((row_shards, *table.shape), jnp.float32)
    start = (jnp.float32(0.0), jnp.zeros_like(hidden), zeros)
    total, hidden_gradient, table_gradient = lax.fori_loop(
        0, _num_chunks(weights, chunk), add_chunk, start
    )
    table_gradient = partitioning.constrain(jnp.sum(table_gradient, axis=0), ("vocab", "embed"))
    return total, (hidden_gradient, table_gradient)


def _ordered_loss_backward(chunk, row_shards, dtype, saved, gradient):
    del chunk, row_shards, dtype
    hidden_gradient, table_gradient = saved
    scaled = hidden_gradient * gradient.astype(hidden_gradient.dtype)
    return scaled, table_gradient * gradient, None, None


_ordered_loss.defvjp(_ordered_loss_forward, _ordered_loss_backward)


def _num_chunks(weights, chunk):
    """Chunks up to the last that holds a weight: the same number on every device."""
    used = jnp.max(jnp.sum(weights != 0.0, axis=1, dtype=jnp.int32))
    return (used + jnp.int32(chunk - 1)) // jnp.int32(chunk)


def _chunk(hidden, kernel, targets, weights, index, chunk):
    """Loss of one chunk, its hidden states, and the gradient of its scores."""
    rows = lax.dynamic_slice_in_dim(hidden, index * chunk, chunk, axis=1)
    targets = lax.dynamic_slice_in_dim(targets, index * chunk, chunk, axis=1)
    weights = lax.dynamic_slice_in_dim(weights, index * chunk, chunk, axis=1)
    scores = jnp.einsum("btd,vd->btv", rows, kernel, preferred_element_type=jnp.float32)
    scores = partitioning.constrain(scores, ("batch", "length", "vocab"))
    scores = scores - jnp.max(scores, axis=-1, keepdims=True)
    exponents = jnp.exp(scores)
    normalizers = jnp.sum(exponents, axis=-1, keepdims=True)
    is_target = targets[:, :, None] == jnp.arange(kernel.shape[0], dtype=targets.dtype)
    target_scores = jnp.sum(jnp.where(is_target, scores, jnp.float32(0.0)), axis=-1)
    loss = jnp.sum(weights * (jnp.log(normalizers[..., 0]) - target_scores))
    probs = exponents * (weights[:, :, None] / normalizers)
    return loss, (rows, probs - jnp.where(is_target, weights[:, :, None], jnp.float32(0.0)))
