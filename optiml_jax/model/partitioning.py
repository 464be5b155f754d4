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
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

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
    "length": None,
    # The residual stream between blocks; "model" is sequence parallelism (arXiv 2205.05198).
    "residual_length": None,
    "features": None,
}
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
        InputError: the axes do not multiply to the number of devices.
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
    return jax.make_mesh(
        shape, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES), devices=devices
    )


def check_divides(
    config: OptConfig,
    mesh: Mesh,
    batch_size: int | None = None,
    num_microbatches: int = 1,
    *,
    length: int | None = None,
) -> None:
    """Checks that every dimension which the mesh cuts divides evenly.

    Args:
        batch_size: rows of the global batch, checked when given.
        length: tokens of a row, checked when given.

    Raises:
        InputError: names the dimension, the mesh axis and the change that helps.
    """
    size = dict(mesh.shape)
    rows = size["data"] * size["fsdp"]
    checks = [
        ("num_heads", config.num_heads, "model", size["model"]),
        ("ffn_dim", config.ffn_dim, "model", size["model"]),
        ("vocab_size", config.vocab_size, "model", size["model"]),
        ("d_model", config.d_model, "fsdp", size["fsdp"]),
    ]
    for name, value, axis, ways in checks:
        if value % ways:
            raise errors.InputError(
                f"mesh: {name} {value} does not divide by the mesh axis {axis}={ways}. "
                f"Choose {axis} among the divisors of {value}."
            )
    if batch_size is not None and batch_size % (rows * num_microbatches):
        raise errors.InputError(
            f"mesh: the batch of {batch_size} rows does not divide by data x fsdp = {rows} "
            f"times {num_microbatches} microbatch(es). Use a batch size that is a multiple of "
            f"{rows * num_microbatches}, or fewer microbatches, or a larger 'model' axis."
        )


@contextlib.contextmanager
def use_rules(rules: LogicalRules) -> Iterator[None]:
    """Traces what is inside under other rules than `DEFAULT_RULES`."""
    for name, axes in rules.items():
        for axis in (axes,) if isinstance(axes, str) else axes or ():
            if axis not in MESH_AXES:
                raise errors.unknown("mesh axis", axis, MESH_AXES, f"logical rule '{name}'")
    token = _rules.set({**DEFAULT_RULES, **rules})
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
    axes without a name; without a mesh, or on one device, it is returned as it is.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function
    # A kernel's outputs do not say along which mesh axes they vary, so that is not checked.
    return jax.shard_map(
        function,
        in_specs=tuple(partition_spec(names) for names in inputs),
        out_specs=partition_spec(output),
        check_vma=False,
    )
