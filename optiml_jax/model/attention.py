"""Attention back-ends: one function each, listed in `BACK_ENDS`, all with the face of `dense`.

A query sees a key when both are of the same document (`segment_ids`) and the key's place in the
row is not after the query's. That is OPT-IML's document mask: without it packed examples would
read each other. `dense` holds the whole [T, S] square; it is the reference and the CPU's choice.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from optiml_jax.model import layers

# Finite, so that a query which sees nothing gets an average of junk and never NaN.
MASKED_SCORE = -1e30


def document_mask(
    query_segment_ids: Int[Array, "B T"],
    key_segment_ids: Int[Array, "B S"],
    query_slots: Int[Array, "B T"],
) -> Bool[Array, "B T S"]:
    """True where a query may attend: same document, and the key's slot is not later.

    Padding (segment 0) sees earlier padding, itself included, so no row of the mask is empty.

    Args:
        query_slots: place of each query along the key axis (0..T-1 without a cache).

    Example:
        segment_ids [[1, 1, 2]] -> [[[1, 0, 0], [1, 1, 0], [0, 0, 1]]]

    Source: OPT-IML (arXiv 2212.12017) §3.2; metaseq `buffered_future_mask`.
    """
    same = query_segment_ids[:, :, None] == key_segment_ids[:, None, :]
    slots = jnp.arange(key_segment_ids.shape[1], dtype=query_slots.dtype)
    return same & (slots[None, None, :] <= query_slots[:, :, None])


def dense(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S N H"],
    value: Float[Array, "B S N H"],
    *,
    query_segment_ids: Int[Array, "B T"],
    key_segment_ids: Int[Array, "B S"],
    query_slots: Int[Array, "B T"],
    dropout_rate: float,
    dropout_rng: Key[Array, ""] | None,
) -> Float[Array, "B T N H"]:
    """Softmax attention over the whole square, softmax in float32.

    Args:
        query: already scaled by head_dim ** -0.5, as OPT does.
        dropout_rng: None turns dropout on probabilities off.
    """
    mask = document_mask(query_segment_ids, key_segment_ids, query_slots)[:, None]
    scores = jnp.einsum("btnh,bsnh->bnts", query, key, preferred_element_type=jnp.float32)
    scores = jnp.where(mask, scores, jnp.float32(MASKED_SCORE))
    scores = jnp.exp(scores - lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    probs = scores / jnp.sum(scores, axis=-1, keepdims=True)
    probs = layers.dropout(probs.astype(value.dtype), dropout_rate, dropout_rng)
    return jnp.einsum("bnts,bsnh->btnh", probs, value)


BACK_ENDS: dict[str, Callable[..., jax.Array]] = {"dense": dense}
