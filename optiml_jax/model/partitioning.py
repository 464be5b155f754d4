"""Logical axes to mesh axes: the only place that knows how arrays lie on devices.

Layers name what an axis means ("heads", "embed"); `DEFAULT_RULES` tells which mesh axis it is cut
along. The mesh has three axes: `data` (copies of the weights; between slices), `fsdp` (weights
cut, gathered layer by layer) and `model` (heads, feed-forward and vocabulary cut). All are Auto:
XLA places the collectives, and `constrain` pins activations where it would choose badly.

Rules are read while a function is traced; a function that was traced under one set keeps it.
"""

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from optiml_jax import errors
from optiml_jax.model.config import OptConfig

MESH_AXES = ("data", "fsdp", "model")
LogicalRules = Mapping[str, str | tuple[str, ...] | None]

DEFAULT_RULES: LogicalRules = {
    # Parameters.
    "layers": None,
    "vocab": "model",
    "positions": None,
    "embed": "fsdp",
    "embedding_width": None,
    "heads": "model",
    "qkv": None,
    "head_dim": None,
    "ffn": "model",
    "norm": None,
    # Activations.
    "batch": ("data", "fsdp"),
    # Rows of the embedding lookup, which runs where the table's columns are.
    "lookup_batch": "data",
    "length": None,
    # The residual stream between blocks; "model" is sequence parallelism (arXiv 2205.05198).
    "residual_length": None,
    "features": None,
}
LENGTHS = ("length", "residual_length")
# Axes that meet in one array: parameters (as in `decoder.logical_axes`), then activations.
ARRAYS = (
    ("vocab", "embed"),
    ("positions", "embed"),
    ("embedding_width", "embed"),
    ("embed", "embedding_width"),
    ("layers", "embed", "heads", "qkv", "head_dim"),
    ("layers", "heads", "qkv", "head_dim"),
    ("layers", "heads", "head_dim", "embed"),
    ("layers", "embed", "ffn"),
    ("layers", "ffn", "embed"),
    ("layers", "ffn"),
    ("layers", "norm"),
    ("norm",),
    ("vocab", "features"),
    ("positions", "features"),
    ("batch", "heads", "length", "head_dim"),
    ("lookup_batch", "length", "embed"),
    ("batch", "length", "heads", "qkv", "head_dim"),
    ("batch", "length", "features"),
    ("batch", "residual_length", "features"),
    ("batch", "length", "ffn"),
    ("batch", "length", "vocab"),
    ("batch", "vocab", "features"),
)
_rules: contextvars.ContextVar[LogicalRules] = contextvars.ContextVar(
    "logical_rules", default=DEFAULT_RULES
)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many ways each mesh axis cuts; one of them may be -1: what the devices leave."""

    data: int = -1
    fsdp: int = 1
    model: int = 1

    def __post_init__(self) -> None:
        sizes = dataclasses.asdict(self)
        for name, size in sizes.items():
            if isinstance(size, bool) or not isinstance(size, int) or (size < 1 and size != -1):
                raise errors.InputError(
                    f"mesh: '{name}' is {size!r}, expected a whole number of at least 1, or -1."
                )
        if sum(size == -1 for size in sizes.values()) > 1:
            raise errors.InputError(f"mesh: only one axis may be -1, got {sizes}.")


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of all `devices` (default: every device of the job) with axes `MESH_AXES`.

    Raises:
        InputError: the axes do not multiply to the number of devices, or do not suit its slices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = dataclasses.asdict(config)
    known = math.prod(size for size in sizes.values() if size != -1)
    if len(devices) % known or (-1 not in sizes.values() and known != len(devices)):
        raise errors.InputError(
            f"mesh: {' x '.join(f'{name}={size}' for name, size in sizes.items())} does not fit "
            f"{len(devices)} device(s). The axes must multiply to the number of devices; "
            "set one of them to -1 to have it filled in."
        )
    shape = tuple(len(devices) // known if size == -1 else size for size in sizes.values())
    axis_types = (AxisType.Auto,) * len(MESH_AXES)
    if devices[0].platform == "tpu":
        return Mesh(lay_out(shape, devices), MESH_AXES, axis_types=axis_types)
    return jax.make_mesh(shape, MESH_AXES, axis_types=axis_types, devices=devices)


def lay_out(shape: Sequence[int], devices: Sequence[Any]) -> np.ndarray:
    """TPU chips as an array [data, fsdp, model], neighbours on the torus where it matters.

    A job may run on several slices, which only a data-centre network joins: `data` goes through
    the slices, `fsdp` and `model` stay within one. An axis may be a part of one of the torus'
    (model=4 on 16x16).

    Raises:
        InputError: `data` is not a multiple of the number of slices.
    """
    num_slices = len({getattr(device, "slice_index", 0) for device in devices})
    if num_slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    data, *within = shape
    if data % num_slices:
        raise errors.InputError(
            f"mesh: data={data} on {num_slices} slices. fsdp and model stay within a slice, whose "
            f"{len(devices) // num_slices} chips they must divide: make 'data' a multiple of "
            f"{num_slices}, and fsdp x model at most {len(devices) // num_slices}."
        )
    return mesh_utils.create_hybrid_device_mesh(
        (data // num_slices, *within),
        (num_slices, 1, 1),
        devices,
        allow_split_physical_axes=True,
    )


def check_divides(
    config: OptConfig,
    mesh: Mesh,
    batch_size: int | None = None,
    num_microbatches: int = 1,
    *,
    length: int | None = None,
) -> None:
    """Checks that every dimension which the mesh cuts, by the rules in use, divides evenly.

    Args:
        batch_size: rows of the global batch, checked when given.
        length: tokens of a row, checked when given.

    Raises:
        InputError: names the dimension, the mesh axis and the change that helps.
    """
    dimensions = [
        ("heads", "num_heads", config.num_heads),
        ("ffn", "ffn_dim", config.ffn_dim),
        ("vocab", "vocab_size", config.vocab_size),
        ("embed", "d_model", config.d_model),
        ("embed", "embedding_dim", config.embedding_width),
        ("embedding_width", "embedding_dim", config.embedding_width),
        ("features", "d_model", config.d_model),
        ("features", "embedding_dim", config.embedding_width),
        ("norm", "d_model", config.d_model),
        ("head_dim", "the size of a head", config.head_dim),
        ("qkv", "query, key and value:", 3),
        ("layers", "num_layers", config.num_layers),
        ("positions", "max_positions + 2 =", config.max_positions + 2),
    ]
    if length is not None:
        dimensions += [(name, "the length of a row,", length) for name in LENGTHS]
    for logical_name, dimension, value in dimensions:
        axes, ways = _ways(mesh, logical_name)
        if value % ways:
            raise errors.InputError(
                f"mesh: {dimension} {value} does not divide by the mesh axis {axes}={ways}, along "
                f"which the logical rule '{logical_name}' cuts it. Choose {axes} among the "
                f"divisors of {value}, or map '{logical_name}' to None in logical_axis_rules."
            )
    for logical_name in ("batch", "lookup_batch"):
        axes, ways = _ways(mesh, logical_name)
        if batch_size is not None and batch_size % (ways * num_microbatches):
            raise errors.InputError(
                f"mesh: the batch of {batch_size} rows does not divide by {axes} = {ways} "
                f"times {num_microbatches} microbatch(es). Use a batch size that is a multiple of "
                f"{ways * num_microbatches}, or fewer microbatches, or a larger 'model' axis."
            )


def _ways(mesh: Mesh | AbstractMesh, logical_name: str) -> tuple[str, int]:
    """The mesh axes of a logical axis, for messages, and into how many parts they cut it."""
    axes = _as_tuple(_rules.get()[logical_name])
    return " x ".join(axes), math.prod(mesh.shape[axis] for axis in axes)


def _as_tuple(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (axes,) if isinstance(axes, str) else tuple(axes or ())


@contextlib.contextmanager
def use_rules(rules: LogicalRules) -> Iterator[None]:
    """Traces what is inside under other rules than `DEFAULT_RULES`.

    Args:
        rules: those that differ.

    Raises:
        InputError: an unknown logical or mesh axis, or one mesh axis for two axes of an array.
    """
    where = "logical_axis_rules"
    for name, axes in rules.items():
        if name not in DEFAULT_RULES:
            raise errors.unknown("logical axis", name, DEFAULT_RULES, where)
        if not (axes is None or isinstance(axes, str | tuple | list)):
            raise errors.InputError(
                f"{where}: '{name}' is {axes!r}, expected a mesh axis, a tuple of them, or None. "
                f"Mesh axes: {', '.join(MESH_AXES)}."
            )
        for axis in axes if isinstance(axes, tuple | list) else _as_tuple(axes):
            if axis not in MESH_AXES:
                raise errors.unknown("mesh axis", str(axis), MESH_AXES, f"{where}, '{name}'")
    changed = {
        name: tuple(axes) if isinstance(axes, list) else axes for name, axes in rules.items()
    }
    merged = {**DEFAULT_RULES, **changed}
    for array in ARRAYS:
        pairs = [(axis, name) for name in array for axis in _as_tuple(merged[name])]
        for index, (axis, name) in enumerate(pairs):
            earlier = dict(reversed(pairs[:index]))
            if axis in earlier:
                raise errors.InputError(
                    f"{where}: the mesh axis '{axis}' would cut both '{earlier[axis]}' and "
                    f"'{name}' of arrays [{', '.join(array)}]; an axis cuts an array once. Map "
                    f"one of the two to another mesh axis or to None."
                )
    token = _rules.set(merged)
    try:
        yield
    finally:
        _rules.reset(token)


def partition_spec(names: Sequence[str | None], rules: LogicalRules | None = None) -> PartitionSpec:
    """The PartitionSpec of an array whose axes have these logical names.

    Example:
        ("batch", "length", "features") -> P(("data", "fsdp"), None, None)
    """
    rules = _rules.get() if rules is None else rules
    return PartitionSpec(*(None if name is None else rules[name] for name in names))


def shardings(mesh: Mesh, logical_axes: Any, rules: LogicalRules | None = None) -> Any:
    """The NamedSharding of every leaf of a pytree of tuples of logical names."""
    return jax.tree.map(
        lambda names: NamedSharding(mesh, partition_spec(names, rules)),
        logical_axes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def batch_sharding(mesh: Mesh, rules: LogicalRules | None = None) -> NamedSharding:
    """The sharding of a [B, T] array of a batch."""
    return NamedSharding(mesh, partition_spec(("batch", "length"), rules))


def constrain(values: jax.Array, names: Sequence[str | None]) -> jax.Array:
    """Pins `values` to its logical axes on the mesh in use; without a mesh it does nothing."""
    if jax.sharding.get_abstract_mesh().empty:
        return values
    return jax.lax.with_sharding_constraint(values, partition_spec(names))


def on_shards(
    function: Callable[..., jax.Array],
    inputs: Sequence[Sequence[str | None]],
    output: Sequence[str | None],
) -> Callable[..., jax.Array]:
    """`function` run by every device of the mesh in use on its own part, by the logical axes.

    For kernels, which XLA cannot cut. The function sees arrays of its part's shape, whole along
    axes without a name, and along those that do not divide: the single row with which parameters
    are initialised is computed by every device. Without a mesh, or on one device, nothing changes.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function

    def run(*arrays: jax.Array) -> jax.Array:
        whole = {
            name
            for array, names in zip(arrays, inputs, strict=True)
            for size, name in zip(array.shape, names, strict=True)
            if name is not None and size % _ways(mesh, name)[1]
        }

        def spec(names):
            return partition_spec([None if name in whole else name for name in names])

        # A kernel's outputs do not say along which mesh axes they vary, so that is not checked.
        return jax.shard_map(
            function,
            in_specs=tuple(map(spec, inputs)),
            out_specs=spec(output),
            check_vma=False,
        )(*arrays)

    return run
