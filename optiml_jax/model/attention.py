"""Attention back-ends: one function each, listed in `BACK_ENDS`, all with the face of `dense`.

A query sees a key when both are of the same document (`segment_ids`) and the key's place in the
row is not after the query's. That is OPT-IML's document mask: without it packed examples would
read each other.

    dense    holds the whole [T, S] square; the reference, the CPU's choice, and the only one that
             reads a cache (steps of decoding) or drops attention probabilities
    splash   a Pallas kernel for TPU that never holds the square (`model/splash.py`)
    cudnn    the fused kernel of NVIDIA GPUs (`model/cudnn.py`)

The last two attend from whole rows to themselves: T = S, slots 0..T-1. `attend` is what the
decoder calls; `choose` tells what "auto" means on a platform, and why.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int, Key

from optiml_jax import errors
from optiml_jax.model import layers

# Finite, so that a query which sees nothing gets an average of junk and never NaN.
MASKED_SCORE = -1e30
# What cuDNN's kernel computes (jax/_src/cudnn/fused_attention_stablehlo.py, jax 0.10.2): heads of a
# multiple of 8, at most 128 before Hopper.
CUDNN_DTYPES = ("bfloat16", "float16")
CUDNN_HEAD_DIM_STEP = 8
CUDNN_MAX_HEAD_DIM = 128


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


def _splash(query, key, value, **options):
    """`model/splash.py`; Pallas is imported when the first program is traced, not before."""
    from optiml_jax.model import splash

    return splash.attend(query, key, value, **options)


def _cudnn(query, key, value, **options):
    """`model/cudnn.py`."""
    from optiml_jax.model import cudnn

    return cudnn.attend(query, key, value, **options)


BACK_ENDS: dict[str, Callable[..., jax.Array]] = {
    "dense": dense,
    "splash": _splash,
    "cudnn": _cudnn,
}
AUTO = "auto"
# Those that hold no probabilities, and so have none to drop.
WITHOUT_DROPOUT = ("splash", "cudnn")


class Choice(NamedTuple):
    """A back-end and the reason for it, to be shown to the user."""

    back_end: str
    reason: str


def choose(
    name: str,
    platform: str,
    *,
    head_dim: int = 64,
    dtype: str = "bfloat16",
    length: int | None = None,
    dropout_rate: float = 0.0,
) -> Choice:
    """The back-end that `name` stands for on `platform`, and why.

    Args:
        name: of a back-end, or "auto".
        platform: "cpu", "gpu" or "tpu", see `platform_in_use`.
        dropout_rate: on attention probabilities; 0 where dropout is off.

    Example:
        ("auto", "tpu") -> ("splash", "the platform is tpu")
        ("auto", "tpu", dropout_rate=0.1) -> ("dense", "splash cannot drop attention ...")
    """
    if name != AUTO:
        if name not in BACK_ENDS:
            raise errors.unknown("attention back-end", name, (AUTO, *BACK_ENDS))
        slow = name == "splash" and platform == "cpu"
        return Choice(
            name,
            "the configuration names it"
            + ("; a CPU interprets its kernel, slowly" if slow else ""),
        )
    fused = {"tpu": "splash", "gpu": "cudnn"}.get(platform)
    if fused is None:
        return Choice("dense", f"the platform is {platform}")
    if dropout_rate > 0.0:
        return Choice(
            "dense",
            f"{fused} cannot drop attention probabilities (attention_dropout_rate {dropout_rate})",
        )
    if fused == "cudnn" and (problem := cudnn_problem(head_dim, dtype, length)):
        return Choice("dense", f"cudnn cannot: {problem}")
    return Choice(fused, f"the platform is {platform}")


def resolve(name: str, platform: str, **options: Any) -> str:
    """The back-end of `choose`, without the reason."""
    return choose(name, platform, **options).back_end


def cudnn_problem(head_dim: int, dtype: str, length: int | None = None) -> str | None:
    """What keeps cuDNN's kernel from such an attention, or None."""
    if dtype not in CUDNN_DTYPES:
        return f"it computes in {' or '.join(CUDNN_DTYPES)}, not in {dtype}"
    if head_dim % CUDNN_HEAD_DIM_STEP or head_dim > CUDNN_MAX_HEAD_DIM:
        return (
            f"its heads have a size that is a multiple of {CUDNN_HEAD_DIM_STEP} and at most "
            f"{CUDNN_MAX_HEAD_DIM}, not {head_dim}"
        )
    if length is not None and length % 2:
        return f"its rows have an even number of tokens, not {length}"
    return None


def platform_in_use() -> str:
    """Where the program being traced will run: "cpu", "gpu" or "tpu".

    The mesh in use knows: its devices may be of a slice that is only compiled for. Without a mesh
    it is JAX's default.
    """
    mesh = jax.sharding.get_abstract_mesh()
    device = None if mesh.empty else mesh.abstract_device
    return jax.default_backend() if device is None else device.platform


def attend(
    back_end: str,
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S N H"],
    value: Float[Array, "B S N H"],
    *,
    query_segment_ids: Int[Array, "B T"],
    key_segment_ids: Int[Array, "B S"],
    query_slots: Int[Array, "B T"],
    dropout_rate: float,
    dropout_rng: Key[Array, ""] | None,
    cached: bool,
) -> Float[Array, "B T N H"]:
    """Attention by the named back-end, or by the one that suits the platform ("auto").

    Args:
        cached: the keys are a cache's, longer than the queries: `dense`, whatever the name.

    For rematerialisation the output of `dense` is named "mixed". `splash` names its own output and
    its softmax sums "attention_residuals": with them the backward pass need not run it again.
    """
    if cached:
        name = "dense"
    else:
        name = resolve(
            back_end,
            platform_in_use(),
            head_dim=query.shape[-1],
            dtype=query.dtype.name,
            length=query.shape[1],
            dropout_rate=0.0 if dropout_rng is None else dropout_rate,
        )
    mixed = BACK_ENDS[name](
        query,
        key,
        value,
        query_segment_ids=query_segment_ids,
        key_segment_ids=key_segment_ids,
        query_slots=query_slots,
        dropout_rate=dropout_rate,
        dropout_rng=dropout_rng,
    )
    return checkpoint_name(mixed, "mixed") if name == "dense" else mixed


def check_whole_rows(
    name: str,
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S N H"],
    dropout_rate: float,
    dropout_rng: Key[Array, ""] | None,
) -> None:
    """Refuses what only `dense` can do.

    Raises:
        InputError: dropout on probabilities is on.
        ValueError: queries and keys are not of the same rows.
    """
    if dropout_rng is not None and dropout_rate > 0.0:
        raise errors.InputError(
            f"attention back-end '{name}' cannot drop attention probabilities, got "
            f"attention_dropout_rate {dropout_rate}. Set it to 0, or use attention = 'dense'."
        )
    if query.shape != key.shape:
        raise ValueError(
            f"attention back-end '{name}' attends from whole rows to themselves, got queries "
            f"{query.shape} and keys {key.shape}; `attend(..., cached=True)` reads a cache."
        )
