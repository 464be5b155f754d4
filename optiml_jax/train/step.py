"""One update: a pure function (state, batch, rng) -> (state, metrics).

The loss is the mean over the *global* number of target tokens: gradients of summed losses are
added over microbatches in float32 and divided once, so that the number of microbatches does not
change the result beyond rounding. Dropout depends on (seed, step, microbatch) alone.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from optiml_jax import errors
from optiml_jax.model import decoder, partitioning
from optiml_jax.model.config import OptConfig
from optiml_jax.train import losses
from optiml_jax.train import optimizer as optimizers
from optiml_jax.train import state as states
from optiml_jax.train.optimizer import OptimizerConfig
from optiml_jax.train.state import State
from optiml_jax.types import Batch

TrainStep = Callable[[State, Batch, jax.Array], tuple[State, dict[str, jax.Array]]]


def summed_loss(
    config: OptConfig, params: dict, batch: Batch, dropout_rng: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Summed cross-entropy of a batch and its number of target tokens."""
    hidden, _ = decoder.hidden_states(
        config,
        params,
        batch["inputs"],
        batch["segment_ids"],
        batch["positions"],
        dropout_rng=dropout_rng,
    )
    return losses.summed_cross_entropy(
        config, params, hidden, batch["targets"], batch["loss_weights"]
    )


def make_train_step(
    config: OptConfig,
    optimizer_config: OptimizerConfig,
    *,
    num_microbatches: int = 1,
) -> TrainStep:
    """Builds the update.

    The function's `rng` is the run's key, the same at every step: the dropout key of microbatch m
    of step s is fold_in(fold_in(rng, s), m). Dropout is off where both rates are 0.

    Metrics (float32 scalars): `loss`, `target_tokens`, `tokens` (padding excluded), `grad_norm`,
    `learning_rate`. A batch without target tokens has loss 0 and gradient 0.
    """
    optimizer = optimizers.make_optimizer(optimizer_config)
    has_dropout = config.dropout_rate > 0 or config.attention_dropout_rate > 0
    gradient_of = jax.value_and_grad(summed_loss, argnums=1, has_aux=True)

    def accumulate(params, batch, step_rng):
        def microbatch_gradient(index, microbatch):
            rng = jax.random.fold_in(step_rng, index) if has_dropout else None
            return gradient_of(config, params, microbatch, rng)

        if num_microbatches == 1:
            return microbatch_gradient(0, batch)

        def add(carry, indexed):
            totals = microbatch_gradient(*indexed)
            return jax.tree.map(jnp.add, carry, totals), None

        microbatches = {name: _split_rows(rows, num_microbatches) for name, rows in batch.items()}
        zeros = (
            (jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32)),
            jax.tree.map(jnp.zeros_like, params),
        )
        return lax.scan(add, zeros, (jnp.arange(num_microbatches), microbatches))[0]

    def train_step(state, batch, rng):
        policy = state["policy"]
        step_rng = jax.random.fold_in(rng, state["step"])
        (loss_sum, target_tokens), gradients = accumulate(policy["params"], batch, step_rng)
        divisor = jnp.where(target_tokens > 0, target_tokens, jnp.ones_like(target_tokens))
        gradients = jax.tree.map(lambda gradient: gradient / divisor, gradients)
        params, opt_state, metrics = optimizer.update(
            gradients, policy["opt_state"], policy["params"], state["step"], state["controls"]
        )
        metrics["loss"] = loss_sum / divisor
        metrics["target_tokens"] = target_tokens
        metrics["tokens"] = jnp.sum(batch["segment_ids"] != 0, dtype=jnp.int32)
        state = {
            **state,
            "step": state["step"] + jnp.int32(1),
            "data_position": state["data_position"] + jnp.int32(1),
            "policy": {"params": params, "opt_state": opt_state},
        }
        return state, metrics

    return train_step


def compile_train_step(
    config: OptConfig,
    optimizer_config: OptimizerConfig,
    mesh: Mesh,
    *,
    num_microbatches: int = 1,
) -> TrainStep:
    """`make_train_step` under `jit` on a mesh; the state that comes in is donated."""
    shardings = states.state_shardings(config, optimizer_config, mesh)
    batch = partitioning.batch_sharding(mesh)
    return jax.jit(
        make_train_step(config, optimizer_config, num_microbatches=num_microbatches),
        in_shardings=(shardings, batch, None),
        out_shardings=(shardings, None),
        donate_argnums=0,
    )


def _split_rows(rows: jax.Array, num_microbatches: int) -> jax.Array:
    """[B, ...] -> [M, B / M, ...], every M-th row together, so that no row changes its device."""
    batch = rows.shape[0]
    if batch % num_microbatches:
        raise errors.InputError(
            f"a batch of {batch} rows does not divide into {num_microbatches} microbatches."
        )
    split = rows.reshape(batch // num_microbatches, num_microbatches, *rows.shape[1:])
    return partitioning.constrain(split.swapaxes(0, 1), (None, "batch", "length"))
