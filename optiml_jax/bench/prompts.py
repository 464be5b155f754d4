"""How a record becomes the text that a model reads: `render`.

Super-NI's surface forms as OPT-IML's figures show them:

    Instructions: <definition>      <- or "Task: ", or the bare definition
    Input: <instance>               <- or the bare instance
    Output:                         <- one of eight delimiters, unless the text ends with ":"

Every choice is a pure function of (seed, task, example id, rendering): a store can be rebuilt
text by text, and rendering r of an example differs from rendering r + 1 only by its draws.
Templates of other benchmarks (PromptSource, FLAN) arrive as instance-level records whose template
is filled already: nothing is put before them, the delimiter rule and demonstrations are the same.
A user's own SeqIO text ("verbatim") is complete: nothing is put around it.

Where the paper leaves a choice:
1. The prefixes vary in the paper's figures 7-64 without a stated rule: each is drawn uniformly.
2. Its footnote 5 prints the eighth delimiter as "\\output:", surely for "\\noutput:".
3. Demonstrations share the drawn form and delimiter of their example; their answers follow after
   one blank, because source and target are joined by one blank.
4. Of several references, Super-NI's released code trains on one drawn at random for every batch.
   Here rendering r trains on number (h + r) mod n with h drawn per example: R renderings
   go through the references without repetition.
5. A task's wordings are drawn uniformly, per example and rendering.

Source: OPT-IML (arXiv 2212.12017) §2.4, footnote 5, figures 7-64; Super-NaturalInstructions,
src/ni_collator.py (`random.choice` over the outputs).
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from optiml_jax.bench import catalog, demonstrations, record
from optiml_jax.errors import InputError, unknown

CODE_VERSION = 1
"""Raised with every change of the text that `render` gives for the same arguments."""

DELIMITERS = (
    "\nAnswer:",
    " Answer:",
    "\nA:",
    " A:",
    "\nOutput:",
    " Output:",
    "\nanswer:",
    # Printed as "\output:" in footnote 5.
    "\noutput:",
)

PREFIXES = ("Instructions: ", "Task: ", "")
INPUT_PREFIXES = ("Input: ", "")
SEPARATOR = "\n\n\n"


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """The wording of prompts.

    Attributes:
        shots: demonstrations shown before every example.
        separator: between demonstrations, and between the last one and the example.
        prefixes: drawn before the definition of a task-level task.
        input_prefixes: drawn before the instance of a task-level task.
        delimiters: drawn between instructions and answer.

    Raises:
        InputError: a negative number of shots, an empty list, or an item that is not text.

    Source: OPT-IML §2.4; three newlines as separator: §4.7 (Meta-ICL).
    """

    shots: int = 0
    separator: str = SEPARATOR
    prefixes: tuple[str, ...] = PREFIXES
    input_prefixes: tuple[str, ...] = INPUT_PREFIXES
    delimiters: tuple[str, ...] = DELIMITERS

    def __post_init__(self):
        if isinstance(self.shots, bool) or not isinstance(self.shots, int) or self.shots < 0:
            raise InputError(f"PromptConfig.shots is {self.shots!r}, expected 0 or more.")
        if not isinstance(self.separator, str) or not self.separator:
            raise InputError(f"PromptConfig.separator is {self.separator!r}, expected some text.")
        for name in ("prefixes", "input_prefixes", "delimiters"):
            value = getattr(self, name)
            if isinstance(value, str) or not value or not all(isinstance(v, str) for v in value):
                raise InputError(
                    f"PromptConfig.{name} is {value!r}, expected a list of one or more texts."
                )
            # gin and JSON give lists; a frozen configuration holds tuples.
            object.__setattr__(self, name, tuple(value))

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values that `from_json` reads."""
        row = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in row.items()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any], where: str = "prompt config") -> "PromptConfig":
        """The inverse of `to_json`; an absent field has its default.

        Raises:
            InputError: an unknown field, or a value that does not fit.
        """
        fields = [field.name for field in dataclasses.fields(cls)]
        for name in row:
            if name not in fields:
                raise unknown("field", name, fields, where)
        return cls(**row)

    def digest(self) -> str:
        """Hexadecimal sha256 of the wording and of `CODE_VERSION`: part of a store's keys."""
        row = {**self.to_json(), "code_version": CODE_VERSION}
        return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class _Form:
    """What was drawn for one example; `*_name` is the index in the configuration, or "-"."""

    prefix: str
    prefix_name: str
    input_prefix: str
    input_prefix_name: str
    delimiter: str
    delimiter_name: str
    verbatim: bool

    def instance(self, text: str) -> str:
        """An instance as it stands in the prompt, up to where its answer begins."""
        if self.verbatim:
            return text
        return self.input_prefix + text.strip() + ("" if _asks(text) else self.delimiter)


def render(
    spec: catalog.TaskSpec,
    content: catalog.TaskContent,
    example: record.Record,
    config: PromptConfig,
    seed: int,
    rendering: int,
    pool: Sequence[record.Record] = (),
) -> record.Example:
    """One record as source and target.

    Args:
        example: the record to render.
        rendering: which of the R texts of this example.
        pool: records that demonstrations may come from when the task's own positive examples are
            fewer than `config.shots`; never held-out ones.

    `prompt_id` names the draw: "<prefix>.<input prefix>.<delimiter>" as indices into the
    configuration's lists ("-" where nothing was drawn), and ".<n>shot" with the number of
    demonstrations that are in the text, if any. That number is below `config.shots` only where
    the task has fewer to show. Where a task has several wordings, "w<number>." stands first.
    A text without instructions is its own target, with an empty source and the prompt_id "text".

    Example:
        definition "Add.", input "1 + 1", reference "2" may give the source
        "Task: Add.\\nInput: 1 + 1\\nOutput:" with the target "2" and the prompt_id "1.0.4".

    Source: OPT-IML §2.4.
    """
    form = _draw_form(spec, config, seed, example.id, rendering)
    shown = demonstrations.choose(
        spec.name, content.demonstrations, example, config.shots, seed, rendering, pool
    )
    num_references = len(example.references)
    first = demonstrations.draw(seed, spec.name, example.id, 0, "reference", num_references)
    target = example.references[(first + rendering) % num_references]
    target = target if form.verbatim else target.strip()
    if spec.instruction_kind == "text":
        return record.Example(example.id, "", target, example.references, example.options, "text")
    wordings = [w.strip() for w in (content.definition, *content.wordings) if w.strip()]
    wording = demonstrations.draw(
        seed, spec.name, example.id, rendering, "wording", max(1, len(wordings))
    )
    source = demonstrations.place(
        spec.instruction_kind,
        form.prefix + wordings[wording] if wordings else "",
        [f"{form.instance(d.input).rstrip(' ')} {d.output.strip()}" for d in shown],
        form.instance(example.input),
        config.separator,
    )
    delimiter_name = "-" if form.verbatim or _asks(example.input) else form.delimiter_name
    prompt_id = f"{form.prefix_name}.{form.input_prefix_name}.{delimiter_name}"
    if len(wordings) > 1:
        prompt_id = f"w{wording}.{prompt_id}"
    return record.Example(
        id=example.id,
        source=source,
        target=target,
        references=example.references,
        options=example.options,
        prompt_id=prompt_id + (f".{len(shown)}shot" if shown else ""),
    )


def _draw_form(
    spec: catalog.TaskSpec, config: PromptConfig, seed: int, example_id: str, rendering: int
) -> _Form:
    def pick(purpose: str, choices: Sequence[str]) -> tuple[str, str]:
        i = demonstrations.draw(seed, spec.name, example_id, rendering, purpose, len(choices))
        return choices[i], str(i)

    # A filled template is complete: only task-level instructions have a form to draw.
    task_level = spec.instruction_kind == "task"
    return _Form(
        *(pick("prefix", config.prefixes) if task_level else ("", "-")),
        *(pick("input prefix", config.input_prefixes) if task_level else ("", "-")),
        *pick("delimiter", config.delimiters),
        verbatim=spec.instruction_kind == "verbatim",
    )


def _asks(text: str) -> bool:
    """True where the text ends with its own colon, so that no delimiter is put after it."""
    return text.rstrip().endswith(":")
