"""Which records of a task train and which evaluate, and their text under one configuration.

`prepare` writes the result to a store and `seqio_tasks` hands it to SeqIO: both call this module,
so a store and a `seqio.Task` hold the same text. All of it is a pure function of (seed, task,
example, rendering).
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optiml_jax.bench import catalog, demonstrations, prompts, record, splits
from optiml_jax.errors import InputError

HELD_OUT = "held_out"
"""Metadata of a record that the user's own split (`foreign_tasks`) evaluates, never trains."""


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
        prompt: wording.

    Source: OPT-IML (arXiv 2212.12017) §2.1, §2.4, §4.1.
    """

    split: str = "opt_iml"
    seed: int = 0
    num_renderings: int = 1
    shots: tuple[int, ...] = (0,)
    max_train_examples: int = 100_000
    max_eval_examples: int = 100
    prompt: prompts.PromptConfig = dataclasses.field(default_factory=prompts.PromptConfig)

    def __post_init__(self):
        for name in ("num_renderings", "max_train_examples", "max_eval_examples"):
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


@dataclasses.dataclass(frozen=True)
class Partition:
    """A task's records by use.

    Attributes:
        train: trained on.
        evaluation: evaluated; disjoint from the others.
        pool: may be shown as demonstrations: the training records, or, in an evaluation task,
            those beyond the evaluated ones.
    """

    train: tuple[record.Record, ...]
    evaluation: tuple[record.Record, ...]
    pool: tuple[record.Record, ...]


def partition(
    task: catalog.TaskSpec,
    content: catalog.TaskContent,
    assignment: splits.Assignment,
    config: RenderConfig,
) -> Partition:
    """Divides a task's records: training and held-out instances, or evaluation only.

    A training task holds out `splits.heldout_ids`, or what a user's own task marked `HELD_OUT`;
    an evaluation task gives its first `max_eval_examples` records and trains on none; an excluded
    task gives nothing; text without instructions is trained on whole.
    """
    records = content.records
    if assignment.role == "excluded":
        return Partition((), (), ())
    if task.instruction_kind == "text":
        return Partition(records, (), ())
    if assignment.role != "train":
        first = config.max_eval_examples
        return Partition((), records[:first], records[first:])
    if task.instruction_kind == "verbatim":
        held_out = frozenset(r.id for r in records if HELD_OUT in r.metadata)
    else:
        held_out = splits.heldout_ids([r.id for r in records])
    evaluation = tuple(r for r in records if r.id in held_out)
    train = tuple(r for r in records if r.id not in held_out)
    if len(train) > config.max_train_examples:
        order = sorted(
            range(len(train)), key=lambda i: _draw_key(config.seed, task.name, train[i].id)
        )
        train = tuple(train[i] for i in sorted(order[: config.max_train_examples]))
    return Partition(train, evaluation[: config.max_eval_examples], pool=train)


def train_examples(
    task: catalog.TaskSpec,
    content: catalog.TaskContent,
    parts: Partition,
    config: RenderConfig,
    rendering: int,
) -> list[record.Example]:
    """The training texts of one rendering, in the records' order."""
    return [
        prompts.render(task, content, r, config.prompt, config.seed, rendering) for r in parts.train
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
    prompt = dataclasses.replace(config.prompt, shots=shots)
    made = []
    for one in parts.evaluation:
        example = prompts.render(task, content, one, prompt, config.seed, 0, pool=parts.pool)
        shown = demonstrations.choose(
            task.name, content.demonstrations, one, 1, config.seed, 0, parts.pool
        )
        made.append(
            record.EvalRecord(
                id=example.id,
                source=example.source,
                references=example.references,
                options=example.options,
                task=task.name,
                prompt_id=example.prompt_id,
                input=one.input.strip(),
                demonstration=shown[0].output.strip() if shown else "",
            )
        )
    return made


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
        for one in parts.train:
            yield one.input
            yield " " + one.references[0]


def _draw_key(seed: int, task: str, example: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{task}\0{example}".encode()).digest()
