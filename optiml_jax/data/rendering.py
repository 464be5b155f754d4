"""Which records of a task train and which evaluate, and their text under one configuration.

`prepare` writes the result to a store and `seqio_tasks` hands it to SeqIO: both call this module,
so a store and a `seqio.Task` hold the same text. All of it is a pure function of (seed, task,
example, rendering).
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optiml_jax.bench import catalog, pooling, prompts, record, splits
from optiml_jax.errors import InputError

FIRST_EXAMPLES = 100
WHOLE_TESTS = ("promptsource", "flan", "crossfit", "exmix", "t5", "unifiedskg", "reasoning")
"""Benchmarks whose releases have test sets, all of which is evaluated."""


@dataclasses.dataclass(frozen=True)
class RenderConfig:
    """Everything that decides the text of a store, beside the task files.

    Attributes:
        split: name of the split (`bench.splits`), or in `tasks.register` the path of a split file.
        seed: of every choice of wording.
        num_renderings: R, training texts per example; taken in turn, the next when a
            task is through (`packing`).
        shots: demonstrations of each evaluation view.
        max_train_examples: random examples kept per task (OPT-IML: 100,000; FLAN 30,000).
        max_eval_examples: first examples evaluated per held-out task; None for the benchmark's own
            number (`eval_limit`).
        max_eval_prompts: prompts evaluated per validation task and per held-out part of a training
            task, drawn from all templates of those examples; a test takes all.
        prompt: wording.
        split_rules: text of the split file that a user gave; "" for a named split.

    Source: OPT-IML (arXiv 2212.12017) §2.1, §2.4, §4.1.
    """

    split: str = "opt_iml"
    seed: int = 0
    num_renderings: int = 1
    shots: tuple[int, ...] = (0,)
    max_train_examples: int = 100_000
    max_eval_examples: int | None = None
    max_eval_prompts: int = pooling.MAX_VALIDATION_PROMPTS
    prompt: prompts.PromptConfig = dataclasses.field(default_factory=prompts.PromptConfig)
    split_rules: str = ""

    def __post_init__(self):
        for name in (
            "num_renderings",
            "max_train_examples",
            "max_eval_examples",
            "max_eval_prompts",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"RenderConfig.{name} is {value}, expected 1 or more.")
        if self.seed < 0:
            raise InputError(f"RenderConfig.seed is {self.seed}, expected 0 or more.")
        if not self.shots or min(self.shots) < 0 or len(set(self.shots)) < len(self.shots):
            raise InputError(
                f"RenderConfig.shots is {self.shots}, expected distinct numbers of 0 or more."
            )

    def to_json(self) -> dict[str, Any]:
        """As it stands in a store's index."""
        row = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        rules = row.pop("split_rules")
        if rules:
            digest = splits.find(self.split, rules).digest
            row |= {"split_rules": rules, "split_digest": digest}
        return {**row, "shots": list(self.shots), "prompt": self.prompt.to_json()}


def eval_limit(task: catalog.TaskSpec, config: RenderConfig) -> int | None:
    """Rows of a task that are evaluated at most; None for all.

    A test takes all examples of a release (OPT-IML §4.1), but Super-NaturalInstructions evaluates
    the first 100 of a task (its official script), and so do the benchmarks that have its schema
    and users' own tasks.
    """
    if config.max_eval_examples is not None:
        return config.max_eval_examples
    return None if task.benchmark in WHOLE_TESTS else FIRST_EXAMPLES


def settings(row: Mapping[str, Any]) -> dict[str, Any]:
    """What all tasks of a store have in common, flat, from `RenderConfig.to_json`.

    Rows of earlier releases lack later settings, which had the default then.
    """
    prompt = prompts.PromptConfig.from_json(row["prompt"]).to_json()
    limit = row.get("max_eval_prompts", pooling.MAX_VALIDATION_PROMPTS)
    del prompt["shots"]
    return {
        "split_digest": row.get("split_digest", ""),
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
            those that are not evaluated. In an order that does not depend on the files'.
        max_prompts: evaluated at most of all templates of `evaluation`; None for all.
        trains: False for an evaluation task.
    """

    train: tuple[record.Record, ...]
    evaluation: tuple[record.Record, ...]
    pool: tuple[record.Record, ...]
    max_prompts: int | None = None
    trains: bool = True


def partition(
    task: catalog.TaskSpec,
    content: catalog.TaskContent,
    assignment: splits.Assignment,
    config: RenderConfig,
) -> Partition:
    """Divides a task's records: training and held-out instances, or evaluation only.

    A training task holds out what its release evaluates (`record.HELD_OUT`), or, where no record
    says so, `splits.heldout_ids`. An evaluation task gives the rows of the release's split of its
    role (test, validation), else what the release evaluates, else its first records; at most
    `eval_limit`; it trains on none. An excluded task gives nothing; text without instructions is
    trained on whole.
    """
    records = content.records
    if assignment.role == "excluded":
        return Partition((), (), ())
    if task.instruction_kind == "text":
        return Partition(records, (), ())
    limit = eval_limit(task, config)
    marked = frozenset(r.id for r in records if record.HELD_OUT in r.metadata)
    if assignment.role != "train":
        most = config.max_eval_prompts if assignment.role == "validation" else None
        same = [r for r in records if r.metadata.get(record.HELD_OUT) == assignment.role]
        own = same or [r for r in records if r.id in marked]
        if limit is None and not own:
            limit = FIRST_EXAMPLES
        evaluated = (own or records)[:limit]
        names = {r.id for r in evaluated}
        pool = _in_hash_order([r for r in records if r.id not in names])
        return Partition((), tuple(evaluated), pool, most, trains=False)
    if marked or task.instruction_kind == "verbatim":
        held_out = marked
    else:
        held_out = _heldout_by_input(records)
    evaluation = tuple(r for r in records if r.id in held_out)
    train = tuple(r for r in records if r.id not in held_out)
    if len(train) > config.max_train_examples:
        order = sorted(
            range(len(train)), key=lambda i: _draw_key(config.seed, task.name, train[i].id)
        )
        train = tuple(train[i] for i in sorted(order[: config.max_train_examples]))
    pool = _in_hash_order(train)
    return Partition(train, evaluation[:limit], pool, config.max_eval_prompts)


def _heldout_by_input(records: Sequence[record.Record]) -> frozenset[str]:
    """`splits.heldout_ids`, with records that ask the same thing on one side."""
    same: dict[str, list[str]] = {}
    for one in records:
        asked = one.input.strip() or json.dumps(one.fields, sort_keys=True, default=str)
        same.setdefault(asked, []).append(one.id)
    groups = {min(ids, key=lambda i: (splits.stable_hash(i), i)): ids for ids in same.values()}
    chosen = splits.heldout_ids(list(groups))
    return frozenset(id_ for first in chosen for id_ in groups[first])


def _in_hash_order(rows: Sequence[record.Record]) -> tuple[record.Record, ...]:
    """Demonstrations are chosen by place in the pool: the file's order must not matter."""
    return tuple(sorted(rows, key=lambda row: (splits.stable_hash(row.id), row.id)))


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
    if not parts.trains:
        content = pooling.with_even_templates(content, parts.evaluation)
    if parts.max_prompts is None:
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
