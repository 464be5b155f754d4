"""How long a step should take on a slice: a roofline, never a measurement.

    step = max(compute, memory, interconnect, network) / EFFICIENCY

Each of the four is the time that one unit of a chip would need at its full rate, all of them at
work at once. EFFICIENCY stands for what is lost beside. What is counted: the operations of every
matrix product (recomputed ones too), the bytes that a chip's memory must move at least, and the
bytes that the compiled program sends (`collectives`).
"""

import dataclasses
from collections.abc import Mapping

from optiml_jax.ahead.collectives import Traffic
from optiml_jax.ahead.topology import Slice
from optiml_jax.model.config import OptConfig

# Published runs of dense models reach 0.52 to 0.71 of the peak with their recomputation counted:
# GPT-3 175B on v6e:16x16 385 of 918 TFLOP/s without it, full remat (AI-Hypercomputer/tpu-recipes,
# trillium/GPT3-175B); 32B to 1024B on v5p 0.64 to 0.71, 16B to 128B on v5e 0.56 to 0.67 (MaxText
# 0.2.4, configs/tpu). Models below about 1B stay under it.
EFFICIENCY = 0.6
# Adam reads and writes parameter, mean and variance and reads the gradient, float32.
UPDATE_BYTES = 4 * (3 + 3 + 1)


@dataclasses.dataclass(frozen=True)
class Flops:
    """Floating-point operations for one token of a full row, forward and backward pass.

    Attributes:
        parameters: 6 a parameter, the usual "6ND".
        with_attention: 6 a weight of a matrix product, and half of the attention square: it is
            causal. What MFU is stated with here.
        with_remat: and what the backward pass computes again.
    """

    parameters: float
    with_attention: float
    with_remat: float


def flops_per_token(config: OptConfig, length: int) -> Flops:
    """The three counts for rows of `length` tokens."""
    counted = config.flops_per_token(length)
    return Flops(
        6.0 * config.num_params(), counted, counted + recomputed_flops_per_token(config, length)
    )


def recomputed_flops_per_token(config: OptConfig, length: int) -> float:
    """What `config.remat` adds to the backward pass, for one token.

    fc2 is never computed again: its gradient needs its input only. Attention is wherever its
    output is not kept.
    """
    width, hidden = config.d_model, config.ffn_dim
    qkv, out, fc1 = 2 * 3 * width**2, 2 * width**2, 2 * width * hidden
    attention = 2 * 2 * length * width / 2
    layer = {
        "none": 0,
        "minimal": 0,
        "save_projections": attention + fc1,
        "full": qkv + attention + out + fc1,
    }[config.remat]
    return float(config.num_layers * layer)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A step's time and what follows from it.

    Attributes:
        seconds: of one step.
        tokens_per_second: of the whole job.
        mfu: share of the peak in `Flops.with_attention`.
        bound_by: the unit that takes longest.
        parts: seconds of each unit at its full rate.
    """

    seconds: float
    tokens_per_second: float
    mfu: float
    bound_by: str
    parts: Mapping[str, float]


def train_step(
    config: OptConfig,
    of: Slice,
    mesh_shape: Mapping[str, int],
    batch_size: int,
    length: int,
    num_microbatches: int,
    traffic: Mapping[str, Traffic],
) -> Estimate:
    """The estimate of one training step.

    Args:
        traffic: what the compiled step sends, or `expected_traffic`.
    """
    tokens = batch_size * length
    flops = flops_per_token(config, length)
    memory = hbm_bytes(config, mesh_shape, batch_size, length, num_microbatches)
    counted = flops.with_attention * tokens
    return _roofline(of, tokens, counted, flops.with_remat * tokens, memory, traffic)


def decode_step(
    config: OptConfig,
    of: Slice,
    rows: int,
    context: int,
    argument_bytes: float,
    traffic: Mapping[str, Traffic],
) -> Estimate:
    """The estimate of one token more in each of `rows` rows.

    Args:
        context: tokens that each row reads.
        argument_bytes: weights and cache of a chip, all of which a step reads.
    """
    attention = 4 * config.num_layers * config.d_model * context
    flops = rows * (2.0 * config.num_params() + attention)
    return _roofline(of, rows, flops, flops, argument_bytes, traffic)


def _roofline(
    of: Slice,
    tokens: int,
    counted_flops: float,
    flops: float,
    memory_bytes: float,
    traffic: Mapping[str, Traffic],
) -> Estimate:
    """Of a program that does so much on the slice, and moves so many bytes of a chip's memory."""
    far = sum(row.dcn_bytes for row in traffic.values())
    near = sum(row.bytes for row in traffic.values()) - far
    chip, chips = of.chip, of.num_chips
    parts = {
        "compute": flops / chips / chip.peak_flops,
        "memory": memory_bytes / chip.hbm_bytes_per_second,
        "interconnect": near / chip.ici_bytes_per_second,
        "network": far / chip.dcn_bytes_per_second,
    }
    bound_by = max(parts, key=lambda name: parts[name])
    seconds = parts[bound_by] / EFFICIENCY
    return Estimate(
        seconds=seconds,
        tokens_per_second=tokens / seconds,
        mfu=counted_flops / (seconds * chips * chip.peak_flops),
        bound_by=bound_by,
        parts=parts,
    )


def hbm_bytes(
    config: OptConfig,
    mesh_shape: Mapping[str, int],
    batch_size: int,
    length: int,
    num_microbatches: int,
) -> float:
    """Bytes that a step must at least move between a chip's memory and its cores.

    The update; the gathered weights, written once and read by each pass; and what every layer
    reads and writes of activations.
    """
    model, rows_cut = mesh_shape["model"], mesh_shape["data"] * mesh_shape["fsdp"]
    again = config.remat in ("save_projections", "full")
    passes = 4 if again else 3
    weights = config.num_params() / model
    held = weights / mesh_shape["fsdp"]
    width, hidden = config.d_model, config.ffn_dim
    # In and out of: qkv, attention and out (cut by the model axis), fc1 and fc2; norms, residual.
    values = (4 * width + 4 * width + hidden * 2) / model + 2 * width + 10 * width
    tokens = batch_size * length / rows_cut
    activations = passes * config.num_layers * tokens * values * 2
    return UPDATE_BYTES * held + num_microbatches * 2 * passes * weights * 2 + activations


def expected_traffic(
    config: OptConfig,
    mesh_shape: Mapping[str, int],
    batch_size: int,
    length: int,
    num_microbatches: int,
    num_slices: int = 1,
) -> dict[str, Traffic]:
    """What a step should send, before anything is compiled; to rank candidates.

    Weights are gathered over `fsdp` once a pass in bfloat16, gradients reduced once a microbatch
    in float32, both also over `data`; the `model` axis sums activations twice a layer and pass.
    """
    data, fsdp, model = (mesh_shape[name] for name in ("data", "fsdp", "model"))
    again = config.remat in ("save_projections", "full")
    weights = config.num_params() / model
    gathers = (3 if again else 2) * num_microbatches
    rows: dict[str, tuple[int, float, float]] = {
        "all-gather": (gathers, weights * 2 * (fsdp - 1) / fsdp, 0),
        "reduce-scatter": (num_microbatches, weights * 4 * (fsdp - 1) / fsdp, 0),
    }
    if data > 1:
        size = 2 * weights / fsdp * 4 * (data - 1) / data
        rows["all-reduce"] = (num_microbatches, size, size if num_slices > 1 else 0)
    if model > 1:
        tokens = batch_size * length / (data * fsdp)
        passes = (3 if again else 2) * 2 * config.num_layers
        rows["all-to-all"] = (passes, 2 * tokens * config.d_model * 2 * (model - 1) / model, 0)
    return {
        kind: Traffic(count, round(count * size), round(count * far))
        for kind, (count, size, far) in rows.items()
        if size > 0
    }
