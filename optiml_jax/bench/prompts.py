"""How a record becomes the text that a model reads: `render`.

Super-NI's surface forms as OPT-IML's figures show them:

    Instructions: <definition>      <- or "Task: ", or the bare definition
    Input: <instance>               <- or the bare instance
    Output:                         <- one of eight delimiters, unless the text ends with ":"

Every choice is a pure function of (seed, task, example id, rendering): a store can be rebuilt
text by text, and rendering r of an example differs from rendering r + 1 only by its draws.
Rows of other benchmarks (PromptSource, FLAN) arrive in the words of one of their templates
(`pooling`): nothing is put before them, the delimiter rule and demonstrations are the same.
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

from optiml_jax.bench import catalog, demonstrations, pooling, record
from optiml_jax.bench.meta_icl import MetaIclConfig, draw_shots
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
        separators: where given, one is drawn for every example in the place of `separator`
            (OPT-IML footnote 11 suggests it against over-fitting to one).
        meta_icl: how training examples show demonstrations; None: they show none.
        prefixes: drawn before the definition of a task-level task.
        input_prefixes: drawn before the instance of a task-level task.
        delimiters: drawn between instructions and answer.

    Raises:
        InputError: a negative number of shots, an empty list, or an item that is not text.

    Source: OPT-IML §2.4; three newlines as separator: §4.7 (Meta-ICL).
    """

    shots: int = 0
    separator: str = SEPARATOR
    separators: tuple[str, ...] = ()
    meta_icl: MetaIclConfig | None = None
    prefixes: tuple[str, ...] = PREFIXES
    input_prefixes: tuple[str, ...] = INPUT_PREFIXES
    delimiters: tuple[str, ...] = DELIMITERS

    def __post_init__(self):
        if isinstance(self.shots, bool) or not isinstance(self.shots, int) or self.shots < 0:
            raise InputError(f"PromptConfig.shots is {self.shots!r}, expected 0 or more.")
        if not isinstance(self.separator, str) or not self.separator:
            raise InputError(f"PromptConfig.separator is {self.separator!r}, expected some text.")
        for name in ("separators", "prefixes", "input_prefixes", "delimiters"):
            value = getattr(self, name)
            if name == "separators" and value in ((), []):
                object.__setattr__(self, name, ())
                continue
            if isinstance(value, str) or not value or not all(isinstance(v, str) for v in value):
                raise InputError(
                    f"PromptConfig.{name} is {value!r}, expected a list of one or more texts."
                )
            # gin and JSON give lists; a frozen configuration holds tuples.
            object.__setattr__(self, name, tuple(value))
        if "" in self.separators:
            raise InputError(f"PromptConfig.separators is {self.separators!r}: one is empty.")
        if not isinstance(self.meta_icl, MetaIclConfig | None):
            raise InputError(
                f"PromptConfig.meta_icl is {self.meta_icl!r}, expected a MetaIclConfig or None."
            )

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values that `from_json` reads."""
        row = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.meta_icl is not None:
            row["meta_icl"] = dataclasses.asdict(self.meta_icl)
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
        if row.get("meta_icl") is not None:
            row = {**row, "meta_icl": MetaIclConfig(**row["meta_icl"])}
        return cls(**row)

    def digest(self) -> str:
        """Hexadecimal sha256 of the wording and of `CODE_VERSION`: part of a store's keys."""
        row = self.to_json()
        # Stores from before these options keep their texts.
        later = {name for name in ("separators", "meta_icl") if not row[name]}
        row = {name: value for name, value in row.items() if name not in later}
        row["code_version"] = CODE_VERSION
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
    version: pooling.Version | record.Record,
    config: PromptConfig,
    seed: int,
    rendering: int,
    pool: Sequence[record.Record] = (),
) -> record.Example:
    """One record as source and target, with `config.shots` demonstrations.

    Args:
        version: what is rendered: a record with text of its own, or a row in a template's words.
        rendering: which of the R texts of this example.
        pool: records that demonstrations may come from when the task's own positive examples are
            fewer than `config.shots`; never held-out ones.

    `prompt_id` names the draw: "<prefix>.<input prefix>.<delimiter>" as indices into the
    configuration's lists ("-" where nothing was drawn), and ".<n>shot" with the number of
    demonstrations that are in the text, if any. That number is below `config.shots` only where
    the task has fewer to show. Where a task has several wordings, "w<number>." stands first; where
    it has templates, the template's name and "/".
    A text without instructions is its own target, with an empty source and the prompt_id "text".

    Example:
        definition "Add.", input "1 + 1", reference "2" may give the source
        "Task: Add.\\nInput: 1 + 1\\nOutput:" with the target "2" and the prompt_id "1.0.4".

    Source: OPT-IML §2.4.
    """
    version = pooling.Version(version, version) if isinstance(version, record.Record) else version
    shown = shown_demonstrations(spec, content, version, config.shots, seed, rendering, pool)
    return _render(spec, content, version, config, seed, rendering, shown, suffix_loss=False)


def render_training(
    spec: catalog.TaskSpec,
    content: catalog.TaskContent,
    version: pooling.Version,
    config: PromptConfig,
    seed: int,
    rendering: int,
    pool: Sequence[record.Record],
) -> record.Example:
    """One training example: as `render`, without demonstrations or as `config.meta_icl` has it.

    Meta-ICL's demonstrations are other training instances, never the benchmark's own examples.
    With the suffix loss the source ends before the first demonstration's answer, and all that
    follows is the target.

    Source: OPT-IML §4.7.
    """
    icl, shots = config.meta_icl, 0
    if icl is not None and spec.instruction_kind not in ("text", "verbatim"):
        shots = draw_shots(icl, seed, spec.name, version.example.id, rendering)
    shown = shown_demonstrations(
        spec, dataclasses.replace(content, demonstrations=()), version, shots, seed, rendering, pool
    )
    suffix_loss = icl is not None and icl.suffix_loss
    return _render(spec, content, version, config, seed, rendering, shown, suffix_loss=suffix_loss)


def shown_demonstrations(
    spec: catalog.TaskSpec,
    content: catalog.TaskContent,
    version: pooling.Version,
    shots: int,
    seed: int,
    rendering: int,
    pool: Sequence[record.Record],
) -> tuple[record.Demonstration, ...]:
    """The demonstrations of a prompt, rows of the pool in the wording of the example."""

    def word(row: record.Record) -> record.Record | None:
        worded = pooling.word(row, version.template)
        return None if worded is None else worded.example

    return demonstrations.choose(
        spec.name,
        content.demonstrations,
        version.example,
        shots,
        seed,
        rendering,
        pool,
        word,
        version.row.id,
    )


def _render(
    spec: catalog.TaskSpec,
    content: catalog.TaskContent,
    version: pooling.Version,
    config: PromptConfig,
    seed: int,
    rendering: int,
    shown: Sequence[record.Demonstration],
    *,
    suffix_loss: bool,
) -> record.Example:
    example = version.example
    form = _draw_form(spec, config, seed, example.id, rendering)
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
    definition = form.prefix + wordings[wording] if wordings else ""
    asked = [form.instance(d.input).rstrip(" ") for d in shown]
    solved = [f"{ask} {d.output.strip()}" for ask, d in zip(asked, shown, strict=True)]
    separator = config.separator
    if config.separators:
        drawn = demonstrations.draw(
            seed, spec.name, example.id, rendering, "separator", len(config.separators)
        )
        separator = config.separators[drawn]
    source = demonstrations.place(
        spec.instruction_kind, definition, solved, form.instance(example.input), separator
    )
    if suffix_loss and shown:
        # Up to the first demonstration's answer the text is that of the demonstration alone.
        head = demonstrations.place(spec.instruction_kind, definition, [], asked[0], separator)
        source, target = head, f"{source[len(head) + 1 :].rstrip(' ')} {target}"
    delimiter_name = "-" if form.verbatim or _asks(example.input) else form.delimiter_name
    prompt_id = f"{form.prefix_name}.{form.input_prefix_name}.{delimiter_name}"
    if len(wordings) > 1:
        prompt_id = f"w{wording}.{prompt_id}"
    if version.template is not None:
        prompt_id = f"{version.template.prompt_id}/{prompt_id}"
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
