"""What `optiml train` configures, and how its parts are put together.

    TrainJob --resolve--> Parts (store, vocabulary, mesh, stream) --run--> train.loop.train

Everything that can be refused is refused in `resolve`, before a device computes or a file is
written; `describe` is what `--dry_run` prints. Neighbours: `train.loop` does the work.
"""

import contextlib
import dataclasses
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from optiml_jax import types
from optiml_jax.bench import record
from optiml_jax.data import mixing, stream, vocabularies
from optiml_jax.data import store as store_lib
from optiml_jax.errors import InputError
from optiml_jax.eval import aggregation, evaluator
from optiml_jax.eval import tasks as eval_tasks
from optiml_jax.eval.evaluator import EvalConfig
from optiml_jax.infer import decoding, engine
from optiml_jax.main import checks, eval_job, mixture_files, run_record, user_tasks
from optiml_jax.model import attention, partitioning
from optiml_jax.model.config import OptConfig
from optiml_jax.model.partitioning import MeshConfig
from optiml_jax.train import checkpoints, loop
from optiml_jax.train import state as states
from optiml_jax.train import step as steps
from optiml_jax.train.loop import TrainConfig
from optiml_jax.train.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class TrainJob:
    """One training run; `train` in gin.

    Attributes:
        model_dir: where the run lives; an existing one is gone on with.
        store: a folder made by `optiml prepare`.
        task_feature_lengths: {"targets": T}, tokens of a packed row.
        mixture_or_task_name: a mixture, benchmark or task of the store; None for its own mixture.
        mixture_or_task_module: your modules of SeqIO tasks (a name, several with commas, or a
            list), imported at the start; the rates that a SeqIO mixture has there count. None: the
            store's own, without SeqIO.
        logical_axis_rules: where logical axes lie on the mesh, where that differs from
            `partitioning.DEFAULT_RULES`, e.g. {"residual_length": "model"}.
        initial_checkpoint_path: MODEL_DIR or checkpoint whose parameters the run starts from;
            None draws them. Optimizer, schedule and data begin anew.
        packing: of examples into rows: "greedy" (OPT-IML's) or "first_fit", see `data.packing`.
        loss_on: "targets" (instruction tuning) or "all" (pre-training), see `data.stream`.
        evaluation: how the store's evaluation records are scored every `loop.eval_period` steps;
            None, or a period of 0, for not at all.
        eval_roles: which tasks are scored so; the paper watches its validation tasks.
    """

    model_dir: str
    store: str
    model: OptConfig
    mesh: MeshConfig
    optimizer: OptimizerConfig
    loop: TrainConfig
    mixture: mixing.MixtureSpec
    task_feature_lengths: Mapping[str, int]
    mixture_or_task_name: str | None = None
    mixture_or_task_module: str | Sequence[str] | None = None
    logical_axis_rules: partitioning.LogicalRules | None = None
    initial_checkpoint_path: str | None = None
    packing: str = "greedy"
    loss_on: str = "targets"
    evaluation: EvalConfig | None = None
    eval_roles: Sequence[str] = ("validation",)

    def __post_init__(self):
        checks.check_paths(
            {
                "STORE": self.store,
                "MODEL_DIR": self.model_dir,
                "INITIAL_CHECKPOINT_PATH": self.initial_checkpoint_path,
            }
        )
        checks.check_roles(self.eval_roles, eval_job.ROLES)
        checks.check_rules(self.logical_axis_rules)
        lengths = self.task_feature_lengths
        length = lengths.get("targets") if isinstance(lengths, Mapping) else None
        if type(length) is not int or set(lengths) != {"targets"} or length < 2:
            raise InputError(
                f"TASK_FEATURE_LENGTHS is {lengths!r}, expected {{'targets': T}} with T tokens a "
                "row: source and target of an example share a row of a decoder."
            )
        if length > self.model.max_positions:
            raise InputError(
                f"TASK_FEATURE_LENGTHS: rows of {length} tokens do not fit the model, whose "
                f"max_positions is {self.model.max_positions}."
            )

    @property
    def feature_length(self) -> int:
        """Tokens of a packed row."""
        return self.task_feature_lengths["targets"]


CONFIGURABLES: Mapping[str, Any] = {
    "train": TrainJob,
    "OptConfig": OptConfig,
    "MeshConfig": MeshConfig,
    "OptimizerConfig": OptimizerConfig,
    "TrainConfig": TrainConfig,
    "MixtureSpec": mixing.MixtureSpec,
    "EvalConfig": EvalConfig,
}


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a job's names stand for on this machine."""

    store: store_lib.Store
    vocabulary: vocabularies.Vocabulary
    mesh: Mesh
    source: stream.TrainStream
    tasks: Mapping[str, eval_tasks.EvalTask]
    records: Sequence[record.EvalRecord]


def resolve(job: TrainJob) -> Parts:
    """Opens the store, lays out the mesh, and checks that all parts fit each other.

    Raises:
        InputError: a part is missing or two do not fit.
    """
    store = user_tasks.with_module(
        store_lib.open_store(job.store), job.mixture_or_task_name, job.mixture_or_task_module
    )
    vocabulary = store.vocabulary()
    checks.check_vocabulary(job.model, vocabulary, f"store '{job.store}'")
    if job.initial_checkpoint_path is not None:
        card, _ = checks.read_checkpoint(job.initial_checkpoint_path)
        checks.check_same_model(job.model, card, job.initial_checkpoint_path)
        checks.check_same_vocabulary(vocabulary, card, job.initial_checkpoint_path, job.store)
    mesh = check_shapes(job, jax.devices())
    config = stream.StreamConfig(
        mixture_or_task_name=job.mixture_or_task_name,
        mixture=job.mixture,
        feature_length=job.feature_length,
        batch_size=job.loop.batch_size,
        seed=job.loop.seed,
        loss_on=job.loss_on,
        packing=job.packing,
    )
    rows = job.loop.batch_size // jax.process_count()
    first = rows * jax.process_index()
    source = stream.TrainStream(store, config, rows=(first, first + rows))
    if not job.loop.eval_period or job.evaluation is None:
        return Parts(store, vocabulary, mesh, source, {}, ())
    tasks, records = eval_job.select_records(
        store, job.mixture_or_task_name, job.eval_roles, job.evaluation.shots
    )
    evaluator.plan(records, tasks, job.evaluation)
    decoding.check_room(job.model, job.evaluation.max_new_tokens)
    return Parts(store, vocabulary, mesh, source, tasks, records)


def check_shapes(job: TrainJob, devices: Sequence[Any]) -> Mesh:
    """The job's mesh over `devices`, on which model and batch are known to divide.

    Raises:
        InputError: names the dimension that does not, or what the attention back-end cannot do.
    """
    mesh = partitioning.make_mesh(job.mesh, devices)
    with partitioning.use_rules(job.logical_axis_rules or {}):
        partitioning.check_divides(
            job.model,
            mesh,
            job.loop.batch_size,
            job.loop.num_microbatches,
            length=job.feature_length,
        )
    _attention(job, mesh)
    return mesh


def _attention(job: TrainJob, mesh: Mesh) -> attention.Choice:
    """The back-end that the job's steps run, and why."""
    rate = job.model.attention_dropout_rate
    choice = attention.choose(
        job.model.attention,
        mesh.devices.flat[0].platform,
        head_dim=job.model.head_dim,
        dtype=job.model.dtype,
        length=job.feature_length,
        dropout_rate=rate,
    )
    if rate > 0.0 and choice.back_end in attention.WITHOUT_DROPOUT:
        raise InputError(
            f"OptConfig.attention is '{choice.back_end}', which holds no attention probabilities "
            f"and cannot drop any, but attention_dropout_rate is {rate}. Set "
            "--gin.ATTENTION_DROPOUT_RATE=0.0, or --gin.OptConfig.attention=\"'dense'\"."
        )
    if job.model.attention in attention.WITHOUT_DROPOUT:
        _trace_attention(job, mesh)
    return choice


def _trace_attention(job: TrainJob, mesh: Mesh) -> None:
    """Lets the back-end that the job names refuse platform, dtype and shapes before anything runs.

    Raises:
        InputError: what it cannot do.
    """
    model = job.model
    rows = (job.loop.batch_size // job.loop.num_microbatches, job.feature_length)
    heads = jax.ShapeDtypeStruct((*rows, model.num_heads, model.head_dim), model.dtype)
    ids = jax.ShapeDtypeStruct(rows, "int32")

    def attend(query, key, value, segment_ids, slots):
        return attention.attend(
            model.attention,
            query,
            key,
            value,
            query_segment_ids=segment_ids,
            key_segment_ids=segment_ids,
            query_slots=slots,
            dropout_rate=0.0,
            dropout_rng=None,
            cached=False,
        )

    with partitioning.use_rules(job.logical_axis_rules or {}), jax.set_mesh(mesh):
        jax.eval_shape(attend, heads, heads, heads, ids, ids)


def run(job: TrainJob, parts: Parts, config_text: str, command_line: str) -> int:
    """Trains, and returns the exit code; the config goes into MODEL_DIR first."""
    with partitioning.use_rules(job.logical_axis_rules or {}):
        return _run(job, parts, config_text, command_line)


def _run(job: TrainJob, parts: Parts, config_text: str, command_line: str) -> int:
    card = checkpoints.ModelCard(job.model, vocabulary_digest=parts.vocabulary.digest)
    directory = checkpoints.prepare_model_dir(job.model_dir, card, parts.vocabulary.save)
    # A run that goes on in there must not see its config.gin change.
    with checkpoints.writing(directory):
        _check_same_run(job, parts, directory)
        if jax.process_index() == 0:
            run_record.write_config(directory, config_text, command_line)
    try:
        loop.train(
            job.loop,
            job.model,
            job.optimizer,
            parts.mesh,
            stream.ReadAhead(parts.source),
            directory,
            vocabulary_digest=parts.vocabulary.digest,
            save_vocabulary=parts.vocabulary.save,
            initial_params=_initial_params(job, parts),
            evaluators=_evaluators(job, parts),
        )
    except loop.Stopped as stopped:
        with contextlib.suppress(OSError):  # The exit code tells it too.
            print(f"optiml train: {stopped}", file=sys.stderr, flush=True)
        return stopped.exit_code
    return 0


def notes(job: TrainJob, parts: Parts, files: Sequence[str]) -> list[str]:
    """What the mixture assumes that does not hold for the store; `files` are the gin files."""
    drawn = _drawn(parts)
    return mixture_files.notes(
        files,
        job.mixture,
        parts.store.meta["split"],
        {task.name for task in drawn},
        {task.spec.category for task in drawn},
    )


def _drawn(parts: Parts) -> list[store_lib.StoredTask]:
    """A subset, or a share of 0, leaves tasks of the store out."""
    return [task for task, rate in zip(parts.source.tasks, parts.source.rates) if rate > 0]


def describe(job: TrainJob, parts: Parts) -> str:
    """What the job would do, after tracing a step with abstract shapes; compiles nothing."""
    with partitioning.use_rules(job.logical_axis_rules or {}):
        return _describe(job, parts)


def _describe(job: TrainJob, parts: Parts) -> str:
    state = states.abstract_state(job.model, job.optimizer, parts.mesh)
    leaves = jax.tree.leaves(state)
    per_device = sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves
    )
    train_step = steps.make_train_step(
        job.model, job.optimizer, num_microbatches=job.loop.num_microbatches
    )
    rows = (job.loop.batch_size, job.feature_length)
    kinds = {"loss_weights": "float32"}
    batch = {
        name: jax.ShapeDtypeStruct(rows, kinds.get(name, "int32")) for name in types.BATCH_FIELDS
    }
    with jax.set_mesh(parts.mesh):
        _, metrics = jax.eval_shape(train_step, state, batch, jax.random.key(0))
    tasks = _drawn(parts)
    num_examples = sum(task.num_train for task in tasks)
    num_tokens = sum(task.num_tokens for task in tasks)
    tokens = math.prod(rows)
    shape = " x ".join(f"{name}={size}" for name, size in parts.mesh.shape.items())
    attends = _attention(job, parts.mesh)
    lines = {
        "model": f"{job.model.num_params():,} parameters, {job.model.num_layers} layers, width "
        f"{job.model.d_model}, {job.model.num_heads} heads, computes in {job.model.dtype}",
        "attention": f"{attends.back_end}: {attends.reason}; rematerialisation: {job.model.remat}",
        "state": f"{per_device / 2**20:,.1f} MiB a device (parameters and optimizer; gradients and "
        "activations come on top)",
        "mesh": f"{shape} over {parts.mesh.size} {jax.devices()[0].platform} device(s), "
        f"{jax.process_count()} process(es)",
        "store": f"{job.store}: {len(tasks):,} training tasks, {num_examples:,} examples, "
        f"{num_tokens:,} tokens, split {parts.store.meta['split']}",
        "vocabulary": f"{parts.vocabulary.name}, {parts.vocabulary.size:,} ids",
        "mixture": f"{job.mixture_or_task_name or parts.store.meta['mixture']}, "
        + mixing.describe(
            job.mixture.to_json(), (job.mixture_or_task_name or "") in parts.store.mixtures
        ),
        "batch": f"{rows[0]} rows of {rows[1]} tokens = {tokens:,} tokens a step, "
        f"{job.loop.num_microbatches} microbatch(es)",
        "run": f"{job.loop.steps:,} steps, at most {job.loop.steps * tokens:,} tokens, "
        f"{job.loop.steps * tokens * job.model.flops_per_token(job.feature_length):.3g} "
        "floating-point operations",
        "evaluates": f"{len(parts.records):,} records of {len(parts.tasks):,} tasks every "
        f"{job.loop.eval_period:,} steps"
        if parts.records
        else "not while training",
        "starts from": job.initial_checkpoint_path or "random parameters",
        "writes": f"{job.model_dir} (metrics: {', '.join(sorted(metrics))})",
    }
    return "\n".join(f"{name + ':':<12} {text}" for name, text in lines.items())


def _check_same_run(job: TrainJob, parts: Parts, directory: pathlib.Path) -> None:
    """Refuses what the loop would refuse on resume, so that config.gin stays the run's own."""
    if not checkpoints.saved_steps(directory):
        return
    with checkpoints.Checkpoints(directory) as saved:
        metadata = saved.metadata(required=("seed", "batch_size", "source"))
    for name, macro in (("seed", "RANDOM_SEED"), ("batch_size", "BATCH_SIZE")):
        if metadata.get(name) != getattr(job.loop, name):
            raise InputError(
                f"MODEL_DIR '{job.model_dir}': its last checkpoint was saved with {name} "
                f"{metadata.get(name)}, this run asks for {getattr(job.loop, name)}: it would not "
                f"be the same run. Set --gin.{macro}={metadata.get(name)}, or another MODEL_DIR."
            )
    try:
        parts.source.restore(metadata["source"])
    except InputError as error:
        raise InputError(f"MODEL_DIR '{job.model_dir}': {error}") from error


def _evaluators(job: TrainJob, parts: Parts) -> list[loop.Evaluator]:
    """The scores taken every `eval_period` steps, written to MODEL_DIR/eval/SUITE/STEP."""
    config = job.evaluation
    if not job.loop.eval_period or config is None:
        return []
    suite = job.mixture_or_task_name or parts.store.meta["mixture"]

    def evaluate(params: Any, step: int) -> Mapping[str, float]:
        model = engine.Engine(job.model, params, parts.vocabulary, mesh=parts.mesh)
        results = evaluator.evaluate(
            model,
            parts.records,
            parts.tasks,
            config,
            pathlib.Path(job.model_dir) / "eval" / suite / str(step),
            model_name=job.model_dir,
            step=step,
            suite=suite,
            split=parts.store.meta["split"],
        )
        return aggregation.summarize(results)

    return [loop.Evaluator(suite, evaluate)]


def _initial_params(job: TrainJob, parts: Parts) -> Any:
    path = job.initial_checkpoint_path
    if path is None:
        return None
    return lambda: checkpoints.load_params(path, parts.mesh)[1]
