"""What a run is made of at one step: one pytree, checkpointed whole.

    step           int32, updates done
    data_position  int32, index of the next batch (batches, not examples: no run has 2**31)
    controls       {"learning_rate_factor", "clip_norm"}: float32 scalars that a guard may turn
    policy         {"params", "opt_state"}: the model in training

Other models of one run (a value model, a reference) are more names beside `policy`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Key

from optiml_jax import errors
from optiml_jax.model import decoder, partitioning
from optiml_jax.model.config import OptConfig
from optiml_jax.train import optimizer as optimizers
from optiml_jax.train.optimizer import OptimizerConfig

State = dict[str, Any]
# JAX's name of the machine's memory that a device reads without its processor.
HOST_MEMORY = "pinned_host"


def init_state(
    config: OptConfig,
    optimizer_config: OptimizerConfig,
    rng: Key[Array, ""],
    params: Any = None,
) -> State:
    """The state before the first update, with drawn parameters or the given ones."""
    if params is None:
        params = decoder.init_params(config, rng)
    return {
        "step": jnp.zeros((), jnp.int32),
        "data_position": jnp.zeros((), jnp.int32),
        "controls": optimizers.initial_controls(optimizer_config),
        "policy": {
            "params": params,
            "opt_state": optimizers.make_optimizer(optimizer_config).init(params),
        },
    }


def state_shardings(
    config: OptConfig,
    optimizer_config: OptimizerConfig,
    mesh: Mesh,
    rules: partitioning.LogicalRules | None = None,
) -> State:
    """The NamedSharding of every array of the state: moments lie as their parameters do.

    Raises:
        InputError: the moments are to live in host memory, and the mesh's devices have none.
    """
    shapes = _shapes(config, optimizer_config)
    params = partitioning.shardings(mesh, decoder.logical_axes(config), rules)
    like_params = jax.tree.structure(params)
    whole = NamedSharding(mesh, PartitionSpec())

    def place(node):
        return params if jax.tree.structure(node) == like_params else whole

    placed = jax.tree.map(
        place, shapes, is_leaf=lambda node: jax.tree.structure(node) == like_params
    )
    if optimizer_config.memory == "host":
        check_host_memory(mesh)
        policy = placed["policy"]
        policy["opt_state"] = jax.tree.map(
            lambda leaf, sharding: (
                sharding.with_memory_kind(HOST_MEMORY) if leaf.ndim else sharding
            ),
            shapes["policy"]["opt_state"],
            policy["opt_state"],
        )
    return placed


def _shapes(config: OptConfig, optimizer_config: OptimizerConfig) -> State:
    # The key is made inside: the mesh in use may be of devices that can only be compiled for.
    return jax.eval_shape(lambda: init_state(config, optimizer_config, jax.random.key(0)))


def check_host_memory(mesh: Mesh) -> None:
    """Checks that the devices of the mesh read the machine's memory.

    Raises:
        InputError: they have no such memory.
    """
    # A device of another process does not tell its memories.
    local = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    device = local[0] if local else mesh.devices.flat[0]
    kinds = sorted({memory.kind for memory in device.addressable_memories()})
    if HOST_MEMORY not in kinds:
        raise errors.InputError(
            f"optimizer: memory is 'host', but {device.device_kind} has no {HOST_MEMORY} memory "
            f"(only {', '.join(kinds)}). Set OptimizerConfig.memory = 'device'."
        )


def abstract_state(
    config: OptConfig,
    optimizer_config: OptimizerConfig,
    mesh: Mesh | None = None,
    rules: partitioning.LogicalRules | None = None,
) -> State:
    """Shapes and dtypes of the state, with shardings when a mesh is given."""
    shapes = _shapes(config, optimizer_config)
    if mesh is None:
        return shapes
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        state_shardings(config, optimizer_config, mesh, rules),
    )


def make_state(
    config: OptConfig,
    optimizer_config: OptimizerConfig,
    mesh: Mesh,
    rng: Key[Array, ""],
    params: Any = None,
) -> State:
    """`init_state` on a mesh: every array is made where it will live."""
    shardings = state_shardings(config, optimizer_config, mesh)
    with jax.set_mesh(mesh):
        if params is None:
            return jax.jit(
                lambda rng: init_state(config, optimizer_config, rng), out_shardings=shardings
            )(rng)
        params = jax.device_put(params, shardings["policy"]["params"])
        return jax.jit(
            lambda params: init_state(config, optimizer_config, jax.random.key(0), params),
            out_shardings=shardings,
        )(params)
