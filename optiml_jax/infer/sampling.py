"""Sampling: scores of the next token -> which ids stay, and one id drawn from them.

Everything is a pure function of scores, settings and keys. The settings are traced, so that a
change of temperature compiles nothing; a row's key comes from (seed, prompt, token) alone, so that
a prompt draws the same numbers in any batch. The order is that of `transformers`: temperature,
top-k, top-p.

Neither filter sorts the vocabulary: a sort of 16 x 50,272 scores costs more on a CPU than the rest
of a small model's step. Both look for a threshold by halving the range of float32's bits, which is
exact after 32 halvings.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, UInt

REMOVED = -jnp.inf


def row_keys(
    seed: UInt[Array, ""], prompts: Int[Array, " B"], token: Int[Array, ""]
) -> Key[Array, " B"]:
    """One key per row, from the run's seed, the prompt's number and the new token's number."""

    def key_of(prompt):
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), prompt), token)

    return jax.vmap(key_of)(prompts)


def sample(
    scores: Float[Array, "B V"], settings: dict[str, Any], keys: Key[Array, " B"]
) -> Int[Array, " B"]:
    """One id of each row, drawn from the softmax of the filtered scores."""
    return jax.vmap(jax.random.categorical)(keys, filtered(scores, settings)).astype(jnp.int32)


def filtered(scores: Float[Array, "B V"], settings: dict[str, Any]) -> Float[Array, "B V"]:
    """Scores over the temperature, minus infinity where top-k or top-p removes an id.

    Args:
        settings: scalars "temperature" (> 0), "top_k" (0 keeps all), "top_p" (1 keeps all).

    Source: `transformers` 5, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper.
    """
    scores = scores.astype(jnp.float32) / settings["temperature"]
    scores = lax.cond(
        settings["top_k"] > 0,
        lambda values: jnp.where(top_k(values, settings["top_k"]), values, REMOVED),
        lambda values: values,
        scores,
    )
    return lax.cond(
        settings["top_p"] < 1.0,
        lambda values: jnp.where(top_p(values, settings["top_p"]), values, REMOVED),
        lambda values: values,
        scores,
    )


def top_k(scores: Float[Array, "B V"], k: Int[Array, ""]) -> Bool[Array, "B V"]:
    """True for the `k` best ids of each row, and for all that tie with the last of them."""
    ranks = _ranks(scores)

    def few_above(limit):
        return jnp.sum(ranks > limit, axis=-1, keepdims=True) < k

    return ranks >= _smallest(few_above, scores.shape[0])


def top_p(scores: Float[Array, "B V"], p: Float[Array, ""]) -> Bool[Array, "B V"]:
    """True for the smallest set of likeliest ids whose probabilities reach `p`.

    Of ids that tie at the edge of the set the higher ones come first; `transformers` leaves their
    order to torch's sort.

    Example:
        probabilities [0.5, 0.3, 0.2], p 0.6 -> [True, True, False]
    """
    probs = jax.nn.softmax(scores, axis=-1)
    ranks = _ranks(scores)

    def little_above(limit):
        return jnp.sum(jnp.where(ranks > limit, probs, 0.0), axis=-1, keepdims=True) < p

    edge = _smallest(little_above, scores.shape[0])
    above, ties = ranks > edge, ranks == edge
    mass = jnp.sum(jnp.where(above, probs, 0.0), axis=-1, keepdims=True)
    # How many of the tied ids stand before this one.
    before = jnp.sum(ties, axis=-1, keepdims=True) - jnp.cumsum(ties, axis=-1)
    return above | (ties & (mass + before.astype(jnp.float32) * probs < p))


def _ranks(scores: jax.Array) -> jax.Array:
    """Float32 as uint32 of the same order."""
    # -0.0 ties with 0.0.
    bits = lax.bitcast_convert_type(scores + jnp.float32(0.0), jnp.uint32)
    negative = bits >> jnp.uint32(31) == jnp.uint32(1)
    return jnp.where(negative, ~bits, bits | jnp.uint32(0x80000000))


def _smallest(holds: Callable[[jax.Array], jax.Array], rows: int) -> jax.Array:
    """The smallest uint32 of each row, [B, 1], for which `holds`; it does for all larger ones."""

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low) // jnp.uint32(2)
        fits = holds(middle)
        return jnp.where(fits, low, middle + jnp.uint32(1)), jnp.where(fits, middle, high)

    low = jnp.zeros((rows, 1), jnp.uint32)
    high = jnp.full((rows, 1), 0xFFFFFFFF, jnp.uint32)
    return lax.fori_loop(0, 32, halve, (low, high))[1]
