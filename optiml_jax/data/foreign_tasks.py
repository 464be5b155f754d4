"""SeqIO tasks that users wrote -> tasks of ours, ready for a store. The inverse of `seqio_tasks`.

    SeqIO name --resolve--> tasks with flattened rates --read--> BenchTask, Assignment --> prepare

Only the text of a task is taken (`seqio_text`); our joint tokenization does the rest, so that a
user's examples and OPT-IML's are tokens of one kind. A task's pipeline runs once; what it gave is
kept in memory and hashed, so an unchanged task is taken over from a store and a changed one is
rendered again.

1. No delimiter or instruction is put around `inputs` and `targets` ("verbatim"). The joint
   tokenization puts one blank between them.
2. A task with a `train` split trains; its `validation` or else `test` split is evaluated, or, if it
   has none, one input in ten (`splits.heldout_ids`). A task without one is evaluated only.
3. A task whose `output_features` are `targets` alone, as language models have, trains on all of
   its text and is never evaluated.

Neighbours: `user_modules` imports the user's module, `residents` settles levels with the store. Not
loaded by training on a prepared store.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence

import seqio
import tensorflow as tf

from optiml_jax import errors
from optiml_jax.bench import catalog, record, splits
from optiml_jax.data import seqio_text
from optiml_jax.data.user_modules import Declaration
from optiml_jax.errors import InputError

TRAIN_SPLIT = "train"
EVAL_SPLITS = ("validation", "test")

MAX_EXAMPLES = 1_000_000
"""Read of a split at most: texts are kept in memory, and some SeqIO sources never end."""


@dataclasses.dataclass(frozen=True)
class Resolved:
    """What a SeqIO name stands for.

    Attributes:
        tasks: its tasks by name; a task alone stands for itself.
        rates: task -> share of the examples, flattened over nested mixtures; they sum to 1.
        is_mixture: False for a task.
    """

    name: str
    tasks: Mapping[str, seqio.Task]
    rates: Mapping[str, float]
    is_mixture: bool


@dataclasses.dataclass(frozen=True)
class ForeignTask:
    """A user's task as the store takes it; the level is settled with the store (`levels`)."""

    task: catalog.BenchTask
    assignment: splits.Assignment
    notes: Sequence[str] = ()


def hide_accelerators() -> None:
    """Keeps TensorFlow, which has no work there, from taking all memory of an accelerator."""
    # Too late where a program has used TensorFlow before; then it is that program's choice.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")


def registered_names() -> frozenset[str]:
    """All names of tasks and mixtures that SeqIO knows now."""
    return frozenset((*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()))


def resolve(name: str, where: str = "") -> Resolved:
    """The tasks and flattened rates of a registered SeqIO task or mixture.

    Raises:
        InputError: nothing of this name is registered, a mixture holds itself, or a rate cannot be
            computed.
    """
    if name not in registered_names():
        raise errors.unknown("SeqIO task or mixture", name, registered_names(), where)
    found = seqio.get_mixture_or_task(name)
    if isinstance(found, seqio.Task):
        return Resolved(name, {name: found}, {name: 1.0}, is_mixture=False)
    _check_cycle(found, ())
    rates = {task.name: _rate(found, task) for task in found.tasks}
    total = sum(rates.values())
    if total <= 0:
        raise InputError(f"mixture '{name}': the rates of all its {len(rates)} tasks are 0.")
    return Resolved(
        name,
        {task.name: task for task in found.tasks},
        {task: rate / total for task, rate in sorted(rates.items())},
        is_mixture=True,
    )


def read(task: seqio.Task, declared: Declaration, skip_bad: bool = False) -> ForeignTask:
    """A user's task with all its text.

    Args:
        skip_bad: leave out examples without an answer instead of refusing the task.

    Raises:
        InputError: the task lacks `inputs` or `targets`, fails, has no examples, or its
            declaration does not fit.
    """
    role, split, held_out_split = _plan(task, declared)
    asks = "inputs" in task.output_features
    if not asks:
        held_out_split = None
        if role != "train":
            raise InputError(
                f"task '{task.name}' has no 'inputs' among its output_features: there is nothing to"
                f" ask, and without a split '{TRAIN_SPLIT}' nothing to train on."
            )
    dropped = [0]
    rows = _read_split(task, split, declared, skip_bad, dropped)
    evaluated = (
        _read_split(task, held_out_split, declared, skip_bad, dropped) if held_out_split else []
    )
    notes = []
    if dropped[0]:
        notes.append(f"task '{task.name}': {dropped[0]} examples without an answer are left out.")
    if shared := len({r.inputs for r in evaluated} & {r.inputs for r in rows}):
        notes.append(
            f"task '{task.name}': {shared} inputs of its split '{held_out_split}' are also in"
            f" '{split}'; a score on them is partly memory."
        )
    content = catalog.TaskContent("", (), _records(role, rows, evaluated))
    spec = catalog.TaskSpec(
        name=task.name,
        original_name=task.name,
        benchmark=declared.benchmark,
        category=declared.category,
        instruction_kind="verbatim",
        sources=(task.name,),
        metric=declared.metric,
        input_languages=(declared.language,),
        output_languages=(declared.language,),
        licence="",
        num_examples=len(content.records),
        path="",
        num_dropped=dropped[0],
    )
    return ForeignTask(
        catalog.BenchTask(spec, lambda: content, _digest(task, declared, content)),
        _assignment(role, asks, split, held_out_split, declared.category),
        notes,
    )


def _assignment(
    role: str, asks: bool, split: str, held_out_split: str | None, category: str
) -> splits.Assignment:
    if role != "train":
        reason = f"your SeqIO task; its '{split}' split is evaluated"
        return splits.Assignment(role, "fully_held_out", reason, category)
    if not asks:
        return splits.Assignment(role, "", "your SeqIO task of text alone: trains whole", category)
    evaluated = f"'{held_out_split}' split is" if held_out_split else "held-out instances are"
    reason = f"your SeqIO task with a train split; its {evaluated} evaluated"
    return splits.Assignment(role, "fully_supervised", reason, category)


def _check_cycle(mixture: seqio.Mixture, path: tuple[str, ...]) -> None:
    """SeqIO itself follows a mixture that was changed to hold itself until Python gives up."""
    if mixture.name in path:
        raise InputError(
            f"mixture '{path[0]}' leads back to '{mixture.name}':"
            f" {' -> '.join((*path, mixture.name))}. Take one of them out of the other."
        )
    for inner in getattr(mixture, "_sub_mixtures", ()):
        _check_cycle(inner, (*path, mixture.name))


def _rate(mixture: seqio.Mixture, task: seqio.Task) -> float:
    where = f"mixture '{mixture.name}': the rate of '{task.name}'"
    try:
        rate = float(mixture.get_rate(task))
    except ZeroDivisionError as error:
        # SeqIO's own division, or one in a function of the user's.
        raise InputError(
            f"{where} cannot be computed: {seqio_text.told(error)}. Are the rates of a mixture"
            " inside it all 0?"
        ) from error
    except Exception as error:
        raise InputError(
            f"{where} cannot be computed: {seqio_text.told(error)}. A rate that counts examples"
            " needs a source with `num_input_examples`; a number always works."
        ) from error
    if not math.isfinite(rate) or rate < 0:
        raise InputError(f"{where} is {rate}, expected a finite number of 0 or more.")
    return rate


def _plan(task: seqio.Task, declared: Declaration) -> tuple[str, str, str | None]:
    """(role, split that is read, split that is evaluated beside it)."""
    where = f"task '{task.name}'"
    names = list(task.splits)
    if declared.eval_split is not None and declared.eval_split not in names:
        raise errors.unknown("split", declared.eval_split, names, f"{where}, OPTIML 'eval_split'")
    evaluated = declared.eval_split or next((s for s in EVAL_SPLITS if s in names), None)
    trains = TRAIN_SPLIT in names
    if declared.role == "train" and not trains:
        raise InputError(
            f"{where}: OPTIML gives it the role 'train', but its splits are {names}. A task trains"
            f" on its split '{TRAIN_SPLIT}'."
        )
    if trains and declared.role in (None, "train"):
        return "train", TRAIN_SPLIT, evaluated if evaluated != TRAIN_SPLIT else None
    split = evaluated or (TRAIN_SPLIT if trains else None)
    if split is None:
        raise InputError(
            f"{where}: its splits are {names}; expected '{TRAIN_SPLIT}', 'validation' or 'test'."
            " Name the one to evaluate in OPTIML: {'" + task.name + "': {'eval_split': ...}}."
        )
    return declared.role or ("validation" if split == "validation" else "test"), split, None


def _read_split(
    task: seqio.Task, split: str, declared: Declaration, skip_bad: bool, dropped: list[int]
) -> list[seqio_text.Row]:
    rows: list[seqio_text.Row] = []
    where = f"task '{task.name}', split '{split}'"
    for number, row in enumerate(seqio_text.read_rows(task, split, where)):
        at = f"{where}, example {number}"
        if number == MAX_EXAMPLES:
            raise InputError(
                f"{where} has more than {MAX_EXAMPLES:,} examples. Register it with fewer: a"
                " source that ends, `dataset.take(n)`, or a TFDS split such as 'train[:100000]'."
            )
        if not row.targets.strip():
            dropped[0] += 1
            if skip_bad:
                continue
            raise InputError(
                f"{at}: 'targets' is empty. Filter such examples in a preprocessor, or leave them"
                " out with --skip_bad."
            )
        options = row.options or declared.options
        if declared.metric == "accuracy" and row.targets not in options:
            what = f"not among the options {list(options)}" if options else "without options"
            raise InputError(
                f"{at}: the answer {row.targets!r:.60} is {what}. The metric accuracy needs a"
                f" field '{seqio_text.OPTIONS}' in every example, or OPTIML's 'options', with the"
                " answer among them."
            )
        if declared.metric == "accuracy" and not all(option.strip() for option in options):
            raise InputError(f"{at}: an option has no text: {list(options)}. Correct the options.")
        rows.append(dataclasses.replace(row, options=options))
    if not rows:
        raise InputError(f"{where} has no examples. Check its source and its filters.")
    return rows


def _records(
    role: str, rows: Sequence[seqio_text.Row], evaluated: Sequence[seqio_text.Row]
) -> tuple[record.Record, ...]:
    """Records named by their content, so that an example keeps its name when others come or go."""
    held_out: Collection[str] = ()
    if role == "train" and not evaluated:
        # Chosen by input: what is evaluated must not be trained on under another answer.
        held_out = splits.heldout_ids([row.inputs for row in rows])
    seen: dict[str, int] = {}
    records = []
    for row, is_evaluated in (
        *((row, row.inputs in held_out) for row in rows),
        *((row, True) for row in evaluated),
    ):
        name = hashlib.sha256(f"{row.inputs}\0{row.targets}".encode()).hexdigest()[:16]
        seen[name] = seen.get(name, 0) + 1
        records.append(
            record.Record(
                id=name if seen[name] == 1 else f"{name}-{seen[name]}",
                input=row.inputs,
                references=(row.targets,),
                options=row.options,
                metadata={record.HELD_OUT: "yes"} if is_evaluated and role == "train" else {},
            )
        )
    return tuple(records)


def _digest(task: seqio.Task, declared: Declaration, content: catalog.TaskContent) -> str:
    """Hash of all that the task's records depend on: its name, splits, declaration and text."""
    total = hashlib.sha256()
    head = [task.name, sorted(task.splits), declared.to_json()]
    for part in (head, *(dataclasses.astuple(one) for one in content.records)):
        total.update(json.dumps(part, sort_keys=True, default=dict).encode() + b"\n")
    return total.hexdigest()
