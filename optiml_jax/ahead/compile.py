"""A program compiled for a slice that is not there: does it fit, and what does it send?

The step is the one that `train.loop` runs, traced with shapes alone and lowered for the slice's
devices. What the compiler answers is the truth about memory: it lays out every buffer. Where the
program is too large it stops early and says so.
"""

import dataclasses
import functools
import math
import re
import time
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from optiml_jax import types
from optiml_jax.ahead import collectives
from optiml_jax.ahead.topology import Slice
from optiml_jax.errors import InputError
from optiml_jax.infer import arrays, decoding
from optiml_jax.model import decoder, partitioning
from optiml_jax.model.config import OptConfig
from optiml_jax.model.partitioning import LogicalRules
from optiml_jax.train import losses
from optiml_jax.train import state as states
from optiml_jax.train import step as steps
from optiml_jax.train.optimizer import OptimizerConfig

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the compiler said of a program, per chip.

    Attributes:
        fits: it compiled, and its peak is within the limit.
        peak_bytes: most memory in use at once, the program's `resident_bytes` with it. Of a
            program that is too large it is what the compiler said it needs, a lower bound.
        argument_bytes: of what goes in: the state and the batch.
        host_bytes: of the host's memory (the optimizer's moments, where they live there); not in
            the peak.
        donated_bytes: of arguments whose memory the results take over.
        traffic: collectives by kind; none where it does not fit.
        text: the compiled program, "" where it does not fit.
    """

    fits: bool
    peak_bytes: int
    limit_bytes: int
    argument_bytes: int
    donated_bytes: int
    compile_seconds: float
    traffic: Mapping[str, collectives.Traffic]
    host_bytes: int = 0
    text: str = dataclasses.field(default="", repr=False)


@dataclasses.dataclass(frozen=True)
class Program:
    """A program for a slice, not compiled yet.

    Attributes:
        argument_bytes: of what goes in, on the chip that holds most.
        resident_bytes: of what else lies on the chip while it runs.
        loop_trips: rounds of the loops whose length depends on data, where all of it counts.
    """

    lowered: jax.stages.Lowered
    mesh: Mesh
    argument_bytes: int
    loop_trips: int = 1
    resident_bytes: int = 0


def train_step(
    config: OptConfig,
    optimizer: OptimizerConfig,
    mesh: Mesh,
    batch_size: int,
    length: int,
    *,
    num_microbatches: int = 1,
    rules: LogicalRules | None = None,
) -> Program:
    """The training step on a mesh of devices that need not be there."""
    # Nothing may be computed under `set_mesh`: its devices cannot.
    with partitioning.use_rules(rules or {}):
        state = states.abstract_state(config, optimizer, mesh)
        rows = partitioning.batch_sharding(mesh)
        batch = {
            name: jax.ShapeDtypeStruct((batch_size, length), _dtype(name), sharding=rows)
            for name in types.BATCH_FIELDS
        }
        rng = _key(mesh)
        step: Any = steps.compile_train_step(
            config, optimizer, mesh, num_microbatches=num_microbatches
        )
        with jax.set_mesh(mesh):
            lowered = step.lower(state, batch, rng)
    row_shards = mesh.shape["data"] * mesh.shape["fsdp"]
    chunk = losses.chunk_length(config, batch_size // num_microbatches, length, row_shards)
    return Program(lowered, mesh, _shard_bytes((state, batch)), -(-length // chunk))


def decode(
    config: OptConfig,
    mesh: Mesh,
    batch_size: int,
    prompt_length: int,
    new_tokens: int,
    *,
    rules: LogicalRules | None = None,
) -> dict[str, Program]:
    """Serving: "prefill" reads all prompts, "step" adds a token to each row.

    Both count what `infer.engine` holds all the while: the stacked parameters that prefill reads
    and the weights that steps read (`decoding.prepare`), which share the embedding tables. The
    step's cache has room for prompt and new tokens, and is donated from step to step.
    """

    def params_of(rng):
        return arrays.cast_kernels(config, decoder.init_params(config, rng))

    def prefill(params, prompts, lengths):
        scores, cache = decoding.prompt_scores(config, params, prompts, lengths)
        return scores, decoder.unstack_cache(cache, new_tokens)

    def step(weights, tokens, positions, cache, slot):
        return decoding.step_scores(config, weights, tokens, positions, cache, slot)

    params = jax.eval_shape(params_of, jax.random.key(0))
    weights = jax.eval_shape(lambda values: decoding.prepare(config, values), params)
    prompts = jax.ShapeDtypeStruct((batch_size, prompt_length), "int32")
    numbers = jax.ShapeDtypeStruct((batch_size,), "int32")
    slot = jax.ShapeDtypeStruct((), "int32")
    _, cache = jax.eval_shape(prefill, params, prompts, numbers)
    axes = decoder.logical_axes(config)
    with partitioning.use_rules(rules or {}):
        lie = functools.partial(partitioning.shardings, mesh)
        entry = lie(("batch", "heads", "length", "head_dim"))
        cache_lies = {
            "layers": ({"keys": entry, "values": entry},) * config.num_layers,
            "segment_ids": lie(("batch", "length")),
        }
        row = lie(("batch",))
        read = _placed((params, prompts, numbers), (lie(axes), cache_lies["segment_ids"], row))
        stepped = _placed(
            (weights, numbers, numbers, cache, slot),
            (lie(_unstacked(config, axes)), row, row, cache_lies, lie(())),
        )
        with jax.set_mesh(mesh):
            prefilled = jax.jit(prefill).lower(*read)
            one_step = jax.jit(step, donate_argnums=3, out_shardings=(None, cache_lies)).lower(
                *stepped
            )
    tables = {name: read[0][name] for name in decoding.TABLES}
    shared = _shard_bytes(tables)
    if read[0]["token_embedding"].dtype == stepped[0]["head"].dtype:
        shared += _shard_bytes(stepped[0]["head"])
    return {
        "prefill": Program(
            prefilled, mesh, _shard_bytes(read), resident_bytes=_shard_bytes(stepped[0]) - shared
        ),
        "step": Program(
            one_step,
            mesh,
            _shard_bytes(stepped),
            resident_bytes=_shard_bytes(read[0]) - _shard_bytes(tables),
        ),
    }


def _placed(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at),
        shapes,
        shardings,
    )


def _unstacked(config: OptConfig, axes: Mapping[str, Any]) -> dict[str, Any]:
    """The logical axes of `decoding.prepare`'s weights: a tree per layer, and the head."""
    layer = jax.tree.map(
        lambda names: names[1:], axes["layers"], is_leaf=lambda node: isinstance(node, tuple)
    )
    own = {f"{decoder.UNSTACKED}{number}": layer for number in range(config.num_layers)}
    others = {name: value for name, value in axes.items() if name != "layers"}
    return {"params": {**others, **own}, "head": axes["token_embedding"]}


def _dtype(field: str) -> str:
    return "float32" if field == "loss_weights" else "int32"


def _key(mesh: Mesh) -> jax.ShapeDtypeStruct:
    key = jax.eval_shape(lambda: jax.random.key(0))
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=whole)


def _shard_bytes(arrays: Any) -> int:
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(arrays)
    )


def run(program: Program, of: Slice) -> Outcome:
    """Compiles a program.

    Raises:
        InputError: the compiler failed for another reason than memory.
    """
    began = time.monotonic()
    try:
        compiled = program.lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = out_of_memory(str(error))
        if needed is None:
            told = " ".join(str(error).split())[:500]
            raise InputError(
                f"the compiler cannot make this program for {of.name}: {told}. Try another mesh, "
                "attention back-end or remat."
            ) from error
        return Outcome(
            fits=False,
            peak_bytes=needed[0] + program.resident_bytes,
            limit_bytes=needed[1],
            argument_bytes=program.argument_bytes,
            donated_bytes=0,
            compile_seconds=time.monotonic() - began,
            traffic={},
        )
    seconds = time.monotonic() - began
    memory: Any = compiled.memory_analysis()
    text = compiled.as_text() or ""
    slices = [getattr(device, "slice_index", None) or 0 for device in program.mesh.devices.flat]
    host_bytes = in_host_memory(memory)
    peak_bytes = memory.peak_memory_in_bytes - host_bytes + program.resident_bytes
    return Outcome(
        fits=peak_bytes <= of.chip.limit_bytes,
        peak_bytes=peak_bytes,
        limit_bytes=of.chip.limit_bytes,
        argument_bytes=memory.argument_size_in_bytes,
        donated_bytes=memory.alias_size_in_bytes,
        compile_seconds=seconds,
        traffic=collectives.traffic(text, data_dependent_trips=program.loop_trips, slices=slices),
        host_bytes=host_bytes,
        text=text,
    )


def in_host_memory(memory: Any) -> int:
    """Bytes of the host's memory that a program uses; the compiler's peak counts them too."""
    arguments, results = memory.host_argument_size_in_bytes, memory.host_output_size_in_bytes
    own = results - memory.host_alias_size_in_bytes
    return arguments + own + memory.host_temp_size_in_bytes


def out_of_memory(message: str) -> tuple[int, int] | None:
    """(bytes needed, bytes there are) of the compiler's message; None for any other message.

    Example:
        "... required for HLO temporaries (89.62G) exceeds available HBM (15.75G)."
    """
    for pattern in (
        r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)",
        r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm",
    ):
        if match := re.search(pattern, message):
            needed, unit, limit, limit_unit = match.groups()
            return int(float(needed) * _UNITS[unit]), int(float(limit) * _UNITS[limit_unit])
    return None
