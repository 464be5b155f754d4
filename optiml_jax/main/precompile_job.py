"""What `optiml precompile` asks: a recipe built from gin, compiled for a slice, as plain values.

The recipe is the one that `optiml train` runs; only what its step depends on counts. Neighbours:
`precompile` parses flags, `precompile_report` turns these values into text.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

import optiml_jax
from optiml_jax.ahead import compile as ahead
from optiml_jax.ahead import estimate, plan, topology
from optiml_jax.ahead.topology import Slice
from optiml_jax.errors import InputError
from optiml_jax.infer import arrays
from optiml_jax.main import gin_config, train_job
from optiml_jax.main.train_job import TrainJob
from optiml_jax.model import attention, partitioning

ROWS_A_SHARD = 8
DEFAULT_RUN = "runs/pretrain.gin"
# Where the step's data lie and where it is written: no step depends on it.
UNSET = {"STORE": "not read", "MODEL_DIR": "not written"}


@dataclasses.dataclass(frozen=True)
class DecodeShape:
    """A batch of prompts; None stands for what mesh and model suggest."""

    rows: int | None = None
    prompt_length: int | None = None
    new_tokens: int = 256


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training run, and the files that it came from."""

    job: TrainJob
    files: tuple[str, ...]


def read(sources: gin_config.Sources) -> Recipe:
    """The recipe of a command line; a model alone is pre-trained."""
    if sources.files and not gin_config.configures(sources, "train", train_job.CONFIGURABLES):
        sources = dataclasses.replace(sources, files=(*sources.files, DEFAULT_RUN))
    built = gin_config.build(sources, "train", train_job.CONFIGURABLES, unset=UNSET)
    return Recipe(built.value, sources.files)


def mesh_of(job: TrainJob, of: Slice, mode: str) -> Mesh:
    """The recipe's mesh on the slice; the training batch and its attention count in training alone.

    Raises:
        InputError: what does not divide, or an attention back-end that cannot do it.
    """
    devices = topology.devices(of)
    if mode == "train":
        return train_job.check_shapes(job, devices)
    mesh = partitioning.make_mesh(job.mesh, devices)
    with partitioning.use_rules(job.logical_axis_rules or {}):
        partitioning.check_divides(job.model, mesh)
    return mesh


def compile_job(recipe: Recipe, of: Slice, mode: str, decode_shape: DecodeShape) -> dict[str, Any]:
    """Compiles, and returns what `--json` prints."""
    job = recipe.job
    mesh = mesh_of(job, of, mode)
    if mode == "decode":
        return _decode(recipe, of, mesh, decode_shape)
    program = ahead.train_step(
        job.model,
        job.optimizer,
        mesh,
        job.loop.batch_size,
        job.feature_length,
        num_microbatches=job.loop.num_microbatches,
        rules=job.logical_axis_rules,
    )
    outcome = ahead.run(program, of)
    content = {**_common(recipe, of, mesh, "train"), **_outcome(outcome)}
    content |= _flops(job)
    content["estimate"] = None
    if outcome.fits:
        content["estimate"] = _estimate(job, of, mesh.shape, outcome.traffic)
    return content


def _decode(recipe: Recipe, of: Slice, mesh: Mesh, shape: DecodeShape) -> dict[str, Any]:
    """Prefill and one step; the numbers at the top are of the one that needs more memory."""
    job = recipe.job
    model = dataclasses.replace(job.model, dropout_rate=0.0, attention_dropout_rate=0.0)
    row_shards = mesh.shape["data"] * mesh.shape["fsdp"]
    rows = ROWS_A_SHARD * row_shards if shape.rows is None else shape.rows
    if rows < 1 or rows % row_shards:
        raise InputError(
            f"--rows is {rows}, expected a multiple of data x fsdp = {row_shards}, at least one."
        )
    room = model.max_positions - shape.new_tokens
    prompt_length = room if shape.prompt_length is None else shape.prompt_length
    if shape.new_tokens < 1 or not 1 <= prompt_length <= room:
        raise InputError(
            f"--prompt_length {prompt_length} and --new_tokens {shape.new_tokens} do not fit the "
            f"model's {model.max_positions} positions, at least one each."
        )
    programs = ahead.decode(
        model, mesh, rows, prompt_length, shape.new_tokens, rules=job.logical_axis_rules
    )
    compiled = {name: ahead.run(program, of) for name, program in programs.items()}
    outcomes = {
        name: {**_outcome(one), "resident_bytes": programs[name].resident_bytes}
        for name, one in compiled.items()
    }
    largest = max(outcomes.values(), key=lambda one: one["peak_bytes"])
    step = compiled["step"]
    context = prompt_length + shape.new_tokens
    found = estimate.decode_step(model, of, rows, context, step.argument_bytes, step.traffic)
    return {
        **_common(recipe, of, mesh, "decode"),
        "batch_size": rows,
        "prompt_length": prompt_length,
        "new_tokens": shape.new_tokens,
        **largest,
        "fits": all(one["fits"] for one in outcomes.values()),
        "compile_seconds": round(sum(one["compile_seconds"] for one in outcomes.values()), 1),
        "programs": outcomes,
        "flops_per_token": model.flops_per_token(prompt_length) / 3,
        "estimate": _estimate_values(found) if step.fits else None,
    }


def plan_job(recipe: Recipe, of: Slice, tell: plan.Tell) -> dict[str, Any]:
    """Searches, and returns what `--plan --json` prints; `tell` hears of each compilation."""
    job = recipe.job
    devices = topology.devices(of)

    def measure(candidate: plan.Candidate) -> ahead.Outcome:
        changed = candidate.apply(job.model)
        mesh = train_job.check_shapes(plan_change(job, candidate), devices)
        program = ahead.train_step(
            changed,
            job.optimizer,
            mesh,
            job.loop.batch_size,
            job.feature_length,
            num_microbatches=candidate.num_microbatches,
            rules=candidate.rules(job.logical_axis_rules),
        )
        return ahead.run(program, of)

    found = plan.search(job.model, of, job.loop.batch_size, job.feature_length, measure, tell=tell)
    if not found.num_candidates:
        raise InputError(
            f"--plan: no mesh of {of.num_chips} chips divides {job.loop.batch_size} rows of "
            f"{job.feature_length} tokens and the model. Use a --gin.BATCH_SIZE that is a multiple "
            f"of {of.num_chips}."
        )
    best = found.best
    return {
        **_common(recipe, of, None, "train"),
        "fits": best is not None,
        "best": None if best is None else _row(best, job),
        "tried": [_row(row, job) for row in found.tried],
        "num_candidates": found.num_candidates,
        "num_pruned": found.num_pruned,
    }


def plan_change(job: TrainJob, candidate: plan.Candidate) -> TrainJob:
    """The job with a candidate's mesh, microbatches, remat and rules."""
    return dataclasses.replace(
        job,
        model=candidate.apply(job.model),
        mesh=dataclasses.replace(
            job.mesh, data=candidate.data, fsdp=candidate.fsdp, model=candidate.model
        ),
        loop=dataclasses.replace(job.loop, num_microbatches=candidate.num_microbatches),
        logical_axis_rules=candidate.rules(job.logical_axis_rules),
    )


def _row(row: plan.Row, job: TrainJob) -> dict[str, Any]:
    return {
        **dataclasses.asdict(row.candidate),
        "rules": row.candidate.rules(job.logical_axis_rules),
        "fits": row.outcome.fits,
        "peak_bytes": row.outcome.peak_bytes,
        "limit_bytes": row.outcome.limit_bytes,
        "compile_seconds": round(row.outcome.compile_seconds, 1),
        "estimate": _estimate_values(row.estimate),
    }


def _common(recipe: Recipe, of: Slice, mesh: Mesh | None, mode: str) -> dict[str, Any]:
    job = recipe.job
    is_decoding = mode == "decode"
    model = arrays.for_inference(job.model) if is_decoding else job.model
    attends = attention.choose(
        model.attention,
        "tpu",
        head_dim=model.head_dim,
        dtype=model.dtype,
        length=job.feature_length,
        dropout_rate=0.0 if is_decoding else model.attention_dropout_rate,
    )
    if is_decoding:
        attends = attends._replace(reason=f"{attends.reason}; steps read the cache with dense")
    return {
        "mode": mode,
        "files": list(recipe.files),
        "topology": of.name,
        "num_slices": of.num_slices,
        "num_chips": of.num_chips,
        "num_params": job.model.num_params(),
        "mesh": None if mesh is None else {name: int(size) for name, size in mesh.shape.items()},
        "batch_size": job.loop.batch_size,
        "length": job.feature_length,
        "num_microbatches": job.loop.num_microbatches,
        "remat": job.model.remat,
        "attention": attends.back_end,
        "attention_reason": attends.reason,
        "rules": dict(job.logical_axis_rules or {}),
        "libtpu": topology.libtpu_version(),
        "optiml_jax": optiml_jax.__version__,
    }


def _outcome(outcome: ahead.Outcome) -> dict[str, Any]:
    return {
        "fits": outcome.fits,
        "peak_bytes": outcome.peak_bytes,
        "limit_bytes": outcome.limit_bytes,
        "argument_bytes": outcome.argument_bytes,
        "host_bytes": outcome.host_bytes,
        "donated_bytes": outcome.donated_bytes,
        "compile_seconds": round(outcome.compile_seconds, 1),
        "collectives": {kind: dataclasses.asdict(row) for kind, row in outcome.traffic.items()},
    }


def _flops(job: TrainJob) -> dict[str, Any]:
    flops = estimate.flops_per_token(job.model, job.feature_length)
    return {
        "flops_per_token": flops.with_attention,
        "flops_per_token_6nd": flops.parameters,
        "flops_per_token_with_remat": flops.with_remat,
    }


def _estimate(
    job: TrainJob, of: Slice, shape: Mapping[str, int], traffic: Mapping[str, Any]
) -> dict[str, Any]:
    return _estimate_values(
        estimate.train_step(
            job.model,
            of,
            shape,
            job.loop.batch_size,
            job.feature_length,
            job.loop.num_microbatches,
            traffic,
        )
    )


def _estimate_values(found: estimate.Estimate) -> dict[str, Any]:
    return {
        "is": "a roofline estimate, not a measurement",
        "efficiency": estimate.EFFICIENCY,
        **dataclasses.asdict(found),
    }
