"""The three forms of one instance: as its benchmark states it, as it trains, as it is evaluated.

    Record       what the file says        readers -> prompts
    Example      a source and a target     prompts -> data (tokens, store)
    EvalRecord   a source and references   store -> eval

Tokens are left out on purpose: text is the last thing that `bench` knows.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from optiml_jax.errors import InputError, unknown

HELD_OUT = "held_out"
"""Key in a record's metadata: its release evaluates it (validation or test), so it never trains."""


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """A solved instance that a prompt may show."""

    input: str
    output: str
    explanation: str = ""


@dataclasses.dataclass(frozen=True)
class Record:
    """One instance as its benchmark states it.

    Attributes:
        id: unique within its task, stable over releases of the file.
        input: text of the instance, without instructions.
        references: accepted answers, the benchmark's first one first.
        options: closed set of answers for rank classification, empty for open answers.
        metadata: whatever else the benchmark says about this instance.
        fields: the row of a data set that a task's templates fill; `input` and `references` are
            empty then, and never otherwise.
    """

    id: str
    input: str = ""
    references: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Filled:
    """What a template makes of a row: the same three things that a record has without templates."""

    input: str
    references: tuple[str, ...]
    options: tuple[str, ...] = ()


class Template(Protocol):
    """One wording of a task, which rows are put into.

    Attributes:
        prompt_id: unique within its task, the same in every release of the file.
    """

    @property
    def prompt_id(self) -> str:
        """Its name."""
        ...

    def fill(self, one: Record) -> Filled | None:
        """The row as this template words it; None where it has nothing to ask of such a row."""
        ...


@dataclasses.dataclass(frozen=True)
class Example:
    """One rendered pair; joined by one space it is the training text.

    Attributes:
        source: instructions and instance, delimiter included; carries no loss.
        target: the answer that is trained on, one of `references`.
        prompt_id: the wording that was drawn, see `prompts`.
    """

    id: str
    source: str
    target: str
    references: tuple[str, ...]
    options: tuple[str, ...]
    prompt_id: str


@dataclasses.dataclass(frozen=True)
class EvalRecord:
    """One rendered instance to be answered and scored.

    Attributes:
        task: name of its task in the catalog, `benchmark__task`.
        prompt_id: the wording that was drawn, see `prompts`.
        input: the bare instance, without instructions and delimiter; "" where nobody told it.
        demonstration: the answer of the first solved example that a 1-shot prompt would show; ""
            where the task has none to show. Both are for answers that need no model.
    """

    id: str
    source: str
    references: tuple[str, ...]
    options: tuple[str, ...]
    task: str
    prompt_id: str
    input: str = ""
    demonstration: str = ""

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values that `from_json` reads."""
        return {
            "id": self.id,
            "source": self.source,
            "references": list(self.references),
            "options": list(self.options),
            "task": self.task,
            "prompt_id": self.prompt_id,
            "input": self.input,
            "demonstration": self.demonstration,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any], where: str = "evaluation record") -> "EvalRecord":
        """The inverse of `to_json`; only `id`, `source`, `references` and `task` must be there.

        Raises:
            InputError: a field is missing, unknown, or of another type.
        """
        row = {"options": [], "prompt_id": "", "input": "", "demonstration": "", **row}
        fields = [field.name for field in dataclasses.fields(cls)]
        if missing := [name for name in fields if name not in row]:
            raise InputError(f"{where}: field '{missing[0]}' is missing; it needs {fields}.")
        if extra := [name for name in row if name not in fields]:
            raise unknown("field", extra[0], fields, where)
        for name in fields:
            value, is_list = row[name], name in ("references", "options")
            good = (
                isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
                if is_list
                else isinstance(value, str)
            )
            if not good:
                expected = "a list of strings" if is_list else "a string"
                raise InputError(f"{where}: field '{name}' is {value!r:.60}, expected {expected}.")
        return cls(
            id=row["id"],
            source=row["source"],
            references=tuple(row["references"]),
            options=tuple(row["options"]),
            task=row["task"],
            prompt_id=row["prompt_id"],
            input=row["input"],
            demonstration=row["demonstration"],
        )
