"""What `optiml eval` configures, and how its parts are put together.

    EvalJob --resolve--> Parts (store, records, checkpoint, mesh) --run--> eval.evaluator.evaluate

Everything that can be refused is refused in `resolve`, before a device computes or a file is
written; `describe` is what `--dry_run` prints. Neighbours: `eval.evaluator` does the work,
`train_job` evaluates with the same parts while it trains.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from optiml_jax import errors, types
from optiml_jax.bench import record, splits
from optiml_jax.data import store as store_lib
from optiml_jax.data import vocabularies
from optiml_jax.errors import InputError
from optiml_jax.eval import evaluator, table
from optiml_jax.eval import tasks as eval_tasks
from optiml_jax.eval.evaluator import EvalConfig
from optiml_jax.infer import decoding, engine
from optiml_jax.main import checks, run_record, user_tasks
from optiml_jax.model import partitioning
from optiml_jax.model.config import OptConfig
from optiml_jax.model.partitioning import MeshConfig
from optiml_jax.train import checkpoints

ROLES = tuple(role for role in splits.ROLES if role != "excluded")


@dataclasses.dataclass(frozen=True)
class EvalJob:
    """One evaluation; `evaluate` in gin.

    Attributes:
        store: a folder made by `optiml prepare`; its texts are asked, with the checkpoint's own
            vocabulary.
        checkpoint_path: MODEL_DIR (its latest checkpoint) or MODEL_DIR/checkpoints/STEP.
        output_dir: where results.json and samples.jsonl go.
        model: must be the checkpoint's; it decides dtype and back-end.
        mixture_or_task_name: a mixture, benchmark or task of the store; None for its own mixture.
        mixture_or_task_module: your modules of SeqIO tasks, see `train_job`.
        logical_axis_rules: see `train_job`.
        roles: which tasks: held-out instances of `train` tasks, `validation`, `test`.
    """

    store: str
    checkpoint_path: str
    output_dir: str
    model: OptConfig
    mesh: MeshConfig
    evaluation: EvalConfig
    mixture_or_task_name: str | None = None
    mixture_or_task_module: str | Sequence[str] | None = None
    logical_axis_rules: partitioning.LogicalRules | None = None
    roles: Sequence[str] = ROLES

    def __post_init__(self):
        checks.check_paths(
            {
                "STORE": self.store,
                "CHECKPOINT_PATH": self.checkpoint_path,
                "EVAL_OUTPUT_DIR": self.output_dir,
            }
        )
        checks.check_roles(self.roles, ROLES)
        checks.check_rules(self.logical_axis_rules)


CONFIGURABLES: Mapping[str, Any] = {
    "evaluate": EvalJob,
    "OptConfig": OptConfig,
    "MeshConfig": MeshConfig,
    "EvalConfig": EvalConfig,
}


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a job's names stand for on this machine."""

    store: store_lib.Store
    tasks: Mapping[str, eval_tasks.EvalTask]
    records: Sequence[record.EvalRecord]
    card: checkpoints.ModelCard
    step: int
    vocabulary: vocabularies.Vocabulary
    mesh: Mesh


def resolve(job: EvalJob) -> Parts:
    """Opens store and checkpoint, and checks that all parts fit each other.

    Raises:
        InputError: a part is missing or two do not fit.
    """
    store = user_tasks.with_module(
        store_lib.open_store(job.store), job.mixture_or_task_name, job.mixture_or_task_module
    )
    tasks, records = select_records(
        store, job.mixture_or_task_name, job.roles, job.evaluation.shots
    )
    card, step = checks.read_checkpoint(job.checkpoint_path)
    checks.check_same_model(job.model, card, job.checkpoint_path)
    folder = checks.model_dir_of(job.checkpoint_path)
    vocabulary = vocabularies.load_vocabulary(folder / store_lib.VOCABULARY_FOLDER)
    checks.check_vocabulary(job.model, vocabulary, f"checkpoint '{job.checkpoint_path}'")
    evaluator.plan(records, tasks, job.evaluation)
    decoding.check_room(job.model, job.evaluation.max_new_tokens, len(prompt_prefix(card)))
    mesh = partitioning.make_mesh(job.mesh)
    with partitioning.use_rules(job.logical_axis_rules or {}):
        partitioning.check_divides(job.model, mesh)
    return Parts(store, tasks, records, card, step, vocabulary, mesh)


def select_records(
    store: store_lib.Store, name: str | None, roles: Sequence[str], shots: int
) -> tuple[dict[str, eval_tasks.EvalTask], list[record.EvalRecord]]:
    """The store's evaluation tasks of these roles, and their records of the view.

    Raises:
        InputError: an unknown mixture or view, or nothing to evaluate.
    """
    view = store_lib.eval_view(shots)
    if view not in store.eval_views:
        raise errors.unknown("view", view, store.eval_views, f"store '{store.path}' (SHOTS)")
    chosen = [task for task in store.select(name) if task.role in roles]
    tasks = eval_tasks.from_store(chosen)
    if not tasks:
        raise InputError(
            f"store '{store.path}': '{name or store.meta['mixture']}' has no evaluation records of "
            f"the role(s) {', '.join(roles)} under the split '{store.meta['split']}'."
        )
    return tasks, list(store.eval_records(view, list(tasks)))


def prompt_prefix(card: checkpoints.ModelCard) -> tuple[int, ...]:
    """Ids that stand before every prompt of this model.

    Raises:
        InputError: a prefix other than nothing and `</s>`.
    """
    prefixes = {"": (), vocabularies.SPECIAL_PIECES[types.EOS_ID]: (types.EOS_ID,)}
    if card.prompt_prefix not in prefixes:
        raise errors.unknown("prompt prefix", card.prompt_prefix, prefixes, checkpoints.CARD_NAME)
    return prefixes[card.prompt_prefix]


def run(job: EvalJob, parts: Parts, config_text: str, command_line: str) -> int:
    """Evaluates, prints the table, and returns the exit code."""
    with partitioning.use_rules(job.logical_axis_rules or {}):
        return _run(job, parts, config_text, command_line)


def _run(job: EvalJob, parts: Parts, config_text: str, command_line: str) -> int:
    directory = pathlib.Path(job.output_dir)
    is_first = jax.process_index() == 0
    try:
        if is_first:
            directory.mkdir(parents=True, exist_ok=True)
        _, params, step = checkpoints.load_params(
            job.checkpoint_path, parts.mesh, inference_dtype=job.model.dtype
        )
        model = engine.Engine(
            job.model, params, parts.vocabulary, prompt_prefix(parts.card), parts.mesh
        )
        # A refused evaluation must leave the config.gin of the results that are there.
        evaluator.open_samples(model, job.evaluation, directory)
        if is_first:
            run_record.write_config(directory, config_text, command_line)
    except OSError as error:
        raise InputError(
            f"EVAL_OUTPUT_DIR '{directory}' cannot be written ({error.strerror}). Choose a folder "
            "that you may write to."
        ) from error
    results = evaluator.evaluate(
        model,
        parts.records,
        parts.tasks,
        job.evaluation,
        directory,
        model_name=job.checkpoint_path,
        step=step,
        suite=job.mixture_or_task_name or parts.store.meta["mixture"],
        split=parts.store.meta["split"],
    )
    if is_first:
        table.show(results)
    return 0


def describe(job: EvalJob, parts: Parts) -> str:
    """What the job would do."""
    levels = collections.Counter(parts.tasks[one.task].level for one in parts.records)
    shape = " x ".join(f"{name}={size}" for name, size in parts.mesh.shape.items())
    told = ", ".join(f"{level} {levels[level]:,}" for level in splits.LEVELS if levels[level])
    lines = {
        "checkpoint": f"{job.checkpoint_path}, step {parts.step}, "
        f"{job.model.num_params():,} parameters, computes in {job.model.dtype}",
        "vocabulary": f"{parts.vocabulary.name}, {parts.vocabulary.size:,} ids",
        "store": f"{job.store}, split {parts.store.meta['split']}",
        "records": f"{len(parts.records):,} of {len(parts.tasks):,} tasks, "
        f"{job.evaluation.shots}-shot: {told}",
        "mesh": f"{shape} over {parts.mesh.size} {jax.devices()[0].platform} device(s)",
        "writes": f"{job.output_dir} (results.json, samples.jsonl)",
    }
    return "\n".join(f"{name + ':':<12} {text}" for name, text in lines.items())
