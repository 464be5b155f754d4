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

from optiml_jax.model import decoder, partitioning
from optiml_jax.model.config import OptConfig
from optiml_jax.train import optimizer as optimizers
from optiml_jax.train.optimizer import OptimizerConfig

State = dict[str, Any]


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
    """The NamedSharding of every array of the state: moments lie as their parameters do."""
    shapes = jax.eval_shape(
        lambda rng: init_state(config, optimizer_config, rng), jax.random.key(0)
    )
    params = partitioning.shardings(mesh, decoder.logical_axes(config), rules)
    like_params = jax.tree.structure(params)
    whole = NamedSharding(mesh, PartitionSpec())

    def place(node):
        return params if jax.tree.structure(node) == like_params else whole

    return jax.tree.map(place, shapes, is_leaf=lambda node: jax.tree.structure(node) == like_params)


def abstract_state(
    config: OptConfig,
    optimizer_config: OptimizerConfig,
    mesh: Mesh | None = None,
    rules: partitioning.LogicalRules | None = None,
) -> State:
    """Shapes and dtypes of the state, with shardings when a mesh is given."""
    shapes = jax.eval_shape(
        lambda rng: init_state(config, optimizer_config, rng), jax.random.key(0)
    )
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
