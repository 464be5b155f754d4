"""What decoding and scoring both do with arrays: padding rows, placing them, casting weights."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from optiml_jax.model import partitioning
from optiml_jax.model.config import OptConfig


def pad_rows(
    rows: Sequence[Sequence[int]], batch: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows padded with 0 on the right and below, and their lengths; both int32.

    Example:
        [[5, 6], [7]], batch 3, length 4 -> [[5, 6, 0, 0], [7, 0, 0, 0], [0, 0, 0, 0]], [2, 1, 0]
    """
    padded = np.zeros((batch, length), np.int32)
    lengths = np.zeros(batch, np.int32)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
        lengths[number] = len(row)
    return padded, lengths


def place_rows(
    rows: Sequence[Sequence[int]], batch: int, length: int, mesh: Mesh | None
) -> tuple[jax.Array, jax.Array]:
    """`pad_rows`, placed on the devices."""
    padded, lengths = pad_rows(rows, batch, length)
    return place(padded, mesh), place(lengths, mesh)


def place(values: np.ndarray, mesh: Mesh | None) -> jax.Array:
    """`values` on the devices, rows cut as the mesh cuts a batch."""
    if mesh is None:
        return jnp.asarray(values)
    names = ("batch", "length")[: values.ndim]
    return jax.device_put(values, NamedSharding(mesh, partitioning.partition_spec(names)))


def on_mesh(mesh: Mesh | None) -> Any:
    """The context that a jitted function is called in: `mesh`, or nothing."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def for_inference(config: OptConfig) -> OptConfig:
    """The model with the attention back-end that suits the machine it runs on now.

    A run's own choice was for the machine that it was trained on; `dense` stays.
    """
    return config if config.attention == "dense" else dataclasses.replace(config, attention="auto")


def cast_kernels(config: OptConfig, params: Any) -> Any:
    """Weight matrices in the compute dtype, all else as it is; the results stay the same bits.

    Done once ahead of the loop: a decoding step reads every weight once, and reads half as much
    when it is bfloat16 already. Norms and embedding sums are float32 and stay so.
    """
    return jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), params, held_dtypes(config, params))


def held_dtypes(config: OptConfig, params: Any) -> Any:
    """The dtype in which inference holds each array, see `cast_kernels`."""
    compute = jnp.dtype(config.dtype)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: compute if path[-1].key == "kernel" else leaf.dtype, params
    )
