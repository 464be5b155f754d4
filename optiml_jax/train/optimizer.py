"""AdamW as OPT trains with it, whose learning rate and clipping can be turned while it runs.

`update` reads two traced numbers, `controls["learning_rate_factor"]` and `controls["clip_norm"]`:
a guard that lowers them in the middle of a run (as OPT-175B's authors did by hand) costs no
recompilation. Weight decay is decoupled and falls on every parameter, norms and biases included,
as in metaseq, whose optimizer has one parameter group.
"""

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from optiml_jax import errors

# metaseq (and PyTorch) add this to the norm before dividing.
CLIP_EPS = 1e-6
MEMORIES = ("device", "host")
# A stack of matrices has at least as many axes.
STACKED_NDIM = 3


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up from 0 and linear decay.

    Attributes:
        learning_rate: the peak.
        warmup_steps: updates until the peak (OPT-IML: 60).
        total_steps: updates until the end of the decay; the rate stays there afterwards.
        final_fraction: end of the decay as a share of the peak (OPT-IML: 0, OPT: 0.1).
        clip_norm: largest L2 norm of the gradient; 0 turns clipping off.
        memory: where the moments live between updates: "device", or "host" (pinned memory of the
            machine). The numbers are the same. Every update moves 8 bytes a parameter to the device
            and back, a layer of each matrix at a time.

    Source: OPT-IML (arXiv 2212.12017) §3.3, Table 3; OPT (arXiv 2205.01068) §2.2; metaseq launcher.
    """

    learning_rate: float
    warmup_steps: int
    total_steps: int
    final_fraction: float = 0.0
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    memory: str = "device"

    def __post_init__(self) -> None:
        if self.memory not in MEMORIES:
            raise errors.unknown("memory", str(self.memory), MEMORIES, "optimizer")
        for field in dataclasses.fields(self):
            if field.name == "memory":
                continue
            value = getattr(self, field.name)
            number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if not (number and math.isfinite(value)):
                raise errors.InputError(
                    f"optimizer: '{field.name}' is {value!r}, expected a finite number."
                )
        bounds = {
            "learning_rate": (self.learning_rate >= 0, "0 or more"),
            "warmup_steps": (self.warmup_steps >= 0, "0 or more"),
            "total_steps": (self.total_steps >= 1, "1 or more"),
            "final_fraction": (0 <= self.final_fraction <= 1, "0 to 1"),
            "b1": (0 <= self.b1 < 1, "0 or more and less than 1"),
            "b2": (0 <= self.b2 < 1, "0 or more and less than 1"),
            "eps": (self.eps > 0, "more than 0"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "clip_norm": (self.clip_norm >= 0, "0 or more"),
        }
        for name, (holds, expected) in bounds.items():
            if not holds:
                raise errors.InputError(
                    f"optimizer: '{name}' is {getattr(self, name)!r}, which is out of range:"
                    f" expected {expected}."
                )
        if self.warmup_steps > self.total_steps:
            raise errors.InputError(
                f"optimizer: warmup_steps {self.warmup_steps} is more than total_steps "
                f"{self.total_steps}. Warm up for fewer steps or train longer."
            )


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Two pure functions.

    Attributes:
        init: params -> opt_state.
        update: (gradients, opt_state, params, step, controls) -> (params, opt_state, metrics);
            `step` counts earlier updates, metrics are `grad_norm` (before clipping) and
            `learning_rate`.
    """

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any, dict[str, jax.Array]]]


def make_schedule(config: OptimizerConfig) -> Callable[[Int[Array, ""]], Float[Array, ""]]:
    """Learning rate as a function of the number of earlier updates.

    Example:
        peak 1, warm-up 2, total 6, final 0: steps 0..6 -> 0, .5, 1, .75, .5, .25, 0

    Source: OPT-IML (arXiv 2212.12017) §3.3; metaseq `polynomial_decay` of power 1, which also
    starts at 0.
    """

    def schedule(step):
        done = jnp.asarray(step).astype(jnp.float32)
        warmup = done / max(config.warmup_steps, 1)
        decay_steps = max(config.total_steps - config.warmup_steps, 1)
        left = jnp.clip(1.0 - (done - config.warmup_steps) / decay_steps, 0.0, 1.0)
        decay = config.final_fraction + (1.0 - config.final_fraction) * left
        return config.learning_rate * jnp.where(done < config.warmup_steps, warmup, decay)

    return schedule


def initial_controls(config: OptimizerConfig) -> dict[str, jax.Array]:
    """The controls of a fresh run: the schedule as it is, the configured clip norm."""
    return {
        "learning_rate_factor": jnp.ones((), jnp.float32),
        "clip_norm": jnp.asarray(config.clip_norm, jnp.float32),
    }


def make_optimizer(config: OptimizerConfig) -> Optimizer:
    """AdamW with clipping by global norm; everything in float32."""
    schedule = make_schedule(config)
    adam = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)

    def update(gradients, opt_state, params, step, controls):
        norm = optax.tree.norm(gradients)
        clip = controls["clip_norm"]
        factor = jnp.where(clip > 0.0, jnp.minimum(1.0, clip / (norm + CLIP_EPS)), 1.0)
        rate = schedule(step) * controls["learning_rate_factor"]

        def change(gradient, mu, nu, param):
            """The array after its update, and its moments."""
            # Optax raises a float to an integer count, which strict promotion refuses.
            with jax.numpy_dtype_promotion("standard"):
                state: Any = optax.ScaleByAdamState(opt_state.count, mu, nu)
                direction, state = adam.update(gradient * factor, state)
            param = param - rate * (direction + config.weight_decay * param)
            return param, state.mu, state.nu

        if config.memory == "host":
            change = _from_host(change)
        changed = jax.tree.map(change, gradients, opt_state.mu, opt_state.nu, params)
        params, mu, nu = jax.tree.transpose(
            jax.tree.structure(params), jax.tree.structure((0, 0, 0)), changed
        )
        opt_state = optax.ScaleByAdamState(optax.safe_increment(opt_state.count), mu, nu)
        return params, opt_state, {"grad_norm": norm, "learning_rate": rate}

    return Optimizer(init=adam.init, update=update)


def _from_host(change: Callable[..., tuple]) -> Callable[..., tuple]:
    """`change` of an array whose moments live in host memory.

    A stack of layers' matrices is changed in a loop over its first axis, so that the moments of one
    layer are on the device at a time; all at once they would need more of its memory than if they
    lived there.
    """
    device, host = jax.memory.Space.Device, jax.memory.Space.Host

    def visit(gradient, mu, nu, param):
        mu, nu = jax.device_put((mu, nu), device)
        param, mu, nu = change(gradient, mu, nu, param)
        return param, *jax.device_put((mu, nu), host)

    def visit_layer(number, gradient, changing):
        param, mu, nu = (lax.dynamic_index_in_dim(one, number, keepdims=False) for one in changing)
        gradient = lax.dynamic_index_in_dim(gradient, number, keepdims=False)
        return tuple(
            lax.dynamic_update_index_in_dim(whole, one, number, 0)
            for whole, one in zip(changing, visit(gradient, mu, nu, param), strict=True)
        )

    def visit_array(gradient, mu, nu, param):
        if gradient.ndim < STACKED_NDIM:
            return visit(gradient, mu, nu, param)
        return lax.fori_loop(
            0,
            gradient.shape[0],
            lambda number, changing: visit_layer(number, gradient, changing),
            (param, mu, nu),
        )

    return visit_array
