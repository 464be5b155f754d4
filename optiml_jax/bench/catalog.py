"""What is known about a task without reading its instances, and how to read them.

Readers (`sources/`) yield `BenchTask`s; `splits` gives each `TaskSpec` its role and level; `data`
stores the spec beside the task's tokens. Role and level are left out of the spec on purpose: they
belong to a task under a split, not to the task.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from optiml_jax.bench import record
from optiml_jax.errors import InputError, unknown

METRIC_NAMES = ("rouge_l", "exact_match", "accuracy")
INSTRUCTION_KINDS = ("task", "instance", "text", "verbatim")
_TUPLES = ("sources", "input_languages", "output_languages")
_COUNTS = ("num_examples", "num_dropped")


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """One row of the catalog.

    Attributes:
        name: `benchmark__task`, legal for SeqIO (`task_name`).
        original_name: the benchmark's own name of the task.
        category: as `taxonomy.canonical_category` spells it.
        instruction_kind: "task" (one definition for all instances), "instance" (a template that is
            filled per instance), "text" (no instruction: dialogue and pre-training text, with
            loss on all of it and nothing to evaluate) or "verbatim" (a user's own text, which is
            complete: nothing is put around it).
        sources: data sets that the instances come from, as the benchmark names them.
        metric: a key of `metrics.METRICS`.
        licence: of the instances, as the benchmark states it.
        num_examples: instances that can be used.
        path: file it was read from, "" if there is none.
        num_dropped: instances of the file that cannot be used (each reader says which).
    """

    name: str
    original_name: str
    benchmark: str
    category: str
    instruction_kind: str
    sources: tuple[str, ...]
    metric: str
    input_languages: tuple[str, ...]
    output_languages: tuple[str, ...]
    licence: str
    num_examples: int
    path: str
    num_dropped: int = 0

    def __post_init__(self):
        if self.metric not in METRIC_NAMES:
            raise unknown("metric", self.metric, METRIC_NAMES, f"task '{self.name}'")
        if self.instruction_kind not in INSTRUCTION_KINDS:
            raise unknown(
                "instruction_kind", self.instruction_kind, INSTRUCTION_KINDS, f"task '{self.name}'"
            )
        if self.name != legal_name(self.name):
            raise InputError(
                f"task name '{self.name}' holds a character that SeqIO refuses;"
                " make it with catalog.task_name(benchmark, original_name)."
            )

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values that `from_json` reads."""
        row = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in row.items()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any], where: str = "catalog row") -> "TaskSpec":
        """The inverse of `to_json`; `num_dropped` may be absent.

        Raises:
            InputError: a field is missing, unknown, or of another type.
        """
        values = {"num_dropped": 0, **row}
        fields = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in fields:
                raise unknown("field", name, fields, where)
        for name in fields:
            if name not in values:
                raise InputError(f"{where}: field '{name}' is missing; it needs {fields}.")
            values[name] = _checked(name, values[name], where)
        return cls(**values)


def _checked(name: str, value: Any, where: str) -> Any:
    if name in _TUPLES:
        if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
            return tuple(value)
        raise InputError(f"{where}: field '{name}' is {value!r:.60}, expected a list of strings.")
    kind = int if name in _COUNTS else str
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{where}: field '{name}' is {value!r:.60}, expected {kind.__name__}.")
    return value


@dataclasses.dataclass(frozen=True)
class TaskContent:
    """All text of a task.

    Attributes:
        definition: the task's instructions; "" where the template is already in the records.
        demonstrations: solved instances that the benchmark wrote for prompts.
        records: usable instances, in the file's order.
        wordings: the same instructions in other words; prompts draw among all.
        templates: what the records' fields are put into; none where the records have text.
    """

    definition: str
    demonstrations: tuple[record.Demonstration, ...]
    records: tuple[record.Record, ...]
    wordings: tuple[str, ...] = ()
    templates: tuple[record.Template, ...] = ()


@dataclasses.dataclass(frozen=True)
class BenchTask:
    """What a reader yields: a row of the catalog and the way to its text.

    Attributes:
        load: reads the text anew at every call, so that memory stays flat over many tasks.
        digest: sha256 of the source's bytes, hexadecimal.
    """

    spec: TaskSpec
    load: Callable[[], TaskContent]
    digest: str


def legal_name(name: str) -> str:
    """`name` with `_` for every character that SeqIO does not allow in a task's name."""
    return re.sub(r"[^\w\d.:_#]", "_", name)


def task_name(benchmark: str, original: str) -> str:
    """The name of a task everywhere in this package: `benchmark__task`.

    Example:
        task_name("flan", "anli (r1)") is "flan__anli__r1_".

    Source: SeqIO's `_VALID_TASK_NAME_REGEX`; metaseq names task files `<benchmark>__<...>.jsonl`.
    """
    return f"{legal_name(benchmark)}__{legal_name(original)}"


class Catalog(Mapping[str, TaskSpec]):
    """Tasks by name, in the order given.

    Raises:
        InputError: two tasks have one name, or a task that is asked for does not exist.
    """

    def __init__(self, specs: Iterable[TaskSpec]):
        self._specs: dict[str, TaskSpec] = {}
        for spec in specs:
            if (other := self._specs.get(spec.name)) is not None:
                raise InputError(
                    f"two tasks are named '{spec.name}': '{other.path or other.original_name}' and"
                    f" '{spec.path or spec.original_name}'. Rename or remove one."
                )
            self._specs[spec.name] = spec

    def __getitem__(self, name: str) -> TaskSpec:
        return self._specs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def find(self, name: str, where: str = "") -> TaskSpec:
        """The task of this name; an unknown one is an InputError that offers the nearest."""
        if name not in self._specs:
            raise unknown("task", name, self._specs, where)
        return self._specs[name]

    def to_json(self) -> list[dict[str, Any]]:
        """Rows that `from_json` reads."""
        return [spec.to_json() for spec in self._specs.values()]

    @classmethod
    def from_json(cls, rows: Iterable[Mapping[str, Any]], where: str = "catalog") -> "Catalog":
        """The inverse of `to_json`."""
        return cls(TaskSpec.from_json(row, f"{where}, row {i}") for i, row in enumerate(rows))
