"""Which records of a task train and which evaluate, and their text under one configuration.

`prepare` writes the result to a store and `seqio_tasks` hands it to SeqIO: both call this module,
so a store and a `seqio.Task` hold the same text. All of it is a pure function of (seed, task,
example, rendering).
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optiml_jax.bench import catalog, pooling, prompts, record, splits
from optiml_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class RenderConfig:
    """Everything that decides the text of a store, beside the task files.

    Attributes:
        split: name of the split (`bench.splits`).
        seed: of every choice of wording.
        num_renderings: R, training texts per example; epoch e uses rendering e mod R.
        shots: demonstrations of each evaluation view.
        max_train_examples: random examples kept per task (OPT-IML: 100,000; FLAN 30,000).
        max_eval_examples: first examples evaluated per held-out task (Super-NI: 100).
        max_eval_prompts: prompts evaluated per validation task and per held-out part of a training
            task, drawn from all templates of those examples; a test takes all.
        prompt: wording.

    Source: OPT-IML (arXiv 2212.12017) §2.1, §2.4, §4.1.
    """

    split: str = "opt_iml"
    seed: int = 0
    num_renderings: int = 1
    shots: tuple[int, ...] = (0,)
    max_train_examples: int = 100_000
    max_eval_examples: int = 100
    max_eval_prompts: int = pooling.MAX_VALIDATION_PROMPTS
    prompt: prompts.PromptConfig = dataclasses.field(default_factory=prompts.PromptConfig)

    def __post_init__(self):
        for name in (
            "num_renderings",
            "max_train_examples",
            "max_eval_examples",
            "max_eval_prompts",
        ):
            if getattr(self, name) < 1:
                raise InputError(
                    f"RenderConfig.{name} is {getattr(self, name)}, expected 1 or more."
                )
        if self.seed < 0:
            raise InputError(f"RenderConfig.seed is {self.seed}, expected 0 or more.")
        if not self.shots or min(self.shots) < 0 or len(set(self.shots)) < len(self.shots):
            raise InputError(
                f"RenderConfig.shots is {self.shots}, expected distinct numbers of 0 or more."
            )

    def to_json(self) -> dict[str, Any]:
        """As it stands in a store's index."""
        row = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**row, "shots": list(self.shots), "prompt": self.prompt.to_json()}


def settings(row: Mapping[str, Any]) -> dict[str, Any]:
    """What all tasks of a store have in common, flat, from `RenderConfig.to_json`.

    Rows of earlier releases lack later settings, which had the default then.
    """
    prompt = prompts.PromptConfig.from_json(row["prompt"]).to_json()
    limit = row.get("max_eval_prompts", pooling.MAX_VALIDATION_PROMPTS)
    del prompt["shots"]
    return {
        "seed": row["seed"],
        "max_eval_examples": row["max_eval_examples"],
        "max_eval_prompts": limit,
        **prompt,
    }


@dataclasses.dataclass(frozen=True)
class Partition:
    """A task's records by use.

    Attributes:
        train: trained on.
        evaluation: evaluated; disjoint from the others.
        pool: may be shown as demonstrations: the training records, or, in an evaluation task,
            those beyond the evaluated ones.
        max_prompts: evaluated at most of all templates of `evaluation`; None for all.
    """

    train: tuple[record.Record, ...]
    evaluation: tuple[record.Record, ...]
    pool: tuple[record.Record, ...]
    max_prompts: int | None = None


def partition(
    task: catalog.TaskSpec,
    content: catalog.TaskContent,
    assignment: splits.Assignment,
    config: RenderConfig,
) -> Partition:
    """Divides a task's records: training and held-out instances, or evaluation only.

    A training task holds out what its release evaluates (`record.HELD_OUT`), or, where no record
    says so, `splits.heldout_ids`; an evaluation task gives its first `max_eval_examples` records,
    those that its release evaluates before others, and trains on none; an excluded task gives
    nothing; text without instructions is trained on whole.
    """
    records = content.records
    if assignment.role == "excluded":
        return Partition((), (), ())
    if task.instruction_kind == "text":
        return Partition(records, (), ())
    marked = frozenset(r.id for r in records if record.HELD_OUT in r.metadata)
    if assignment.role != "train":
        records = (
            *(r for r in records if r.id in marked),
            *(r for r in records if r.id not in marked),
        )
        first = config.max_eval_examples
        most = config.max_eval_prompts if assignment.role == "validation" else None
        return Partition((), records[:first], records[first:], most)
    if marked or task.instruction_kind == "verbatim":
        held_out = marked
    else:
        held_out = splits.heldout_ids([r.id for r in records])
    evaluation = tuple(r for r in records if r.id in held_out)
    train = tuple(r for r in records if r.id not in held_out)
    if len(train) > config.max_train_examples:
        order = sorted(
            range(len(train)), key=lambda i: _draw_key(config.seed, task.name, train[i].id)
        )
        train = tuple(train[i] for i in sorted(order[: config.max_train_examples]))
    evaluation = evaluation[: config.max_eval_examples]
    return Partition(train, evaluation, train, config.max_eval_prompts)


def train_examples(
    task: catalog.TaskSpec,
    content: catalog.TaskContent,
    parts: Partition,
    config: RenderConfig,
    rendering: int,
) -> list[record.Example]:
    """The training texts of one rendering, as many as training records, in their order."""
    versions = pooling.draw(
        task.name, content, parts.train, len(parts.train), config.seed, rendering
    )
    return [
        prompts.render_training(
            task, content, version, config.prompt, config.seed, rendering, parts.pool
        )
        for version in versions
    ]


def eval_records(
    task: catalog.TaskSpec,
    content: catalog.TaskContent,
    parts: Partition,
    config: RenderConfig,
    shots: int,
) -> list[record.EvalRecord]:
    """The evaluation texts with `shots` demonstrations, in the records' order.

    The demonstration of an `EvalRecord` is that of the 1-shot prompt whatever `shots` is, so that
    views of different shots have the same baselines.
    """
    made = []
    for version, example in _eval_examples(task, content, parts, config, shots):
        shown = prompts.shown_demonstrations(task, content, version, 1, config.seed, 0, parts.pool)
        made.append(
            record.EvalRecord(
                id=example.id,
                source=example.source,
                references=example.references,
                options=example.options,
                task=task.name,
                prompt_id=example.prompt_id,
                input=version.example.input.strip(),
                demonstration=shown[0].output.strip() if shown else "",
            )
        )
    return made


def eval_examples(
    task: catalog.TaskSpec,
    content: catalog.TaskContent,
    parts: Partition,
    config: RenderConfig,
) -> list[record.Example]:
    """The zero-shot prompts of `eval_records`, with a target each."""
    return [example for _, example in _eval_examples(task, content, parts, config, 0)]


def _eval_examples(
    task: catalog.TaskSpec,
    content: catalog.TaskContent,
    parts: Partition,
    config: RenderConfig,
    shots: int,
) -> Iterator[tuple[pooling.Version, record.Example]]:
    prompt = dataclasses.replace(config.prompt, shots=shots)
    for version in _evaluated(task, content, parts, config):
        yield (
            version,
            prompts.render(task, content, version, prompt, config.seed, 0, pool=parts.pool),
        )


def _evaluated(
    task: catalog.TaskSpec,
    content: catalog.TaskContent,
    parts: Partition,
    config: RenderConfig,
) -> list[pooling.Version]:
    if not parts.train:
        content = pooling.with_even_templates(content, parts.evaluation)
    if parts.max_prompts is None or not content.templates:
        return list(pooling.everything(content, parts.evaluation))
    return pooling.draw(
        task.name, content, parts.evaluation, parts.max_prompts, config.seed, rendering=0
    )


def corpus_texts(
    tasks: Sequence[catalog.BenchTask],
    assignments: Mapping[str, splits.Assignment],
    config: RenderConfig,
) -> Iterator[str]:
    """Training text to learn a small vocabulary from: each definition once, inputs and outputs."""
    for task in tasks:
        content = task.load()
        parts = partition(task.spec, content, assignments[task.spec.name], config)
        if not parts.train:
            continue
        yield from (content.definition, *content.wordings)
        # One wording of each row is enough to learn pieces from.
        number = len(parts.train)
        for version in pooling.draw(
            task.spec.name, content, parts.train, number, config.seed, rendering=0
        ):
            yield version.example.input
            yield " " + version.example.references[0]


def _draw_key(seed: int, task: str, example: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{task}\0{example}".encode()).digest()
