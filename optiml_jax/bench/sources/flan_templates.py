"""FLAN's templates: (input, target) pairs with fields in braces, put over rows.

    template    ("{premise}\\nCan we infer that {hypothesis}?\\n{options_}", "{answer}")
    row         {"premise": "It rained.", "hypothesis": "It was wet", "options": ["yes", "no"], ...}
    input       It rained.
                Can we infer that It was wet?
                OPTIONS:
                - yes
                - no

A field is a name in braces and nothing else, and a doubled brace stands for one brace. Attributes,
indices, conversions and formats of Python's `str.format` are refused, not evaluated: a template is
data from elsewhere. `{options_}` and `{options_str}` are the row's list `options` as above, unless
the row has that text itself.

Inverted templates ("Write an article based on this summary") change what a task is and are left
out, as OPT-IML did by hand. The rule here:
1. The answer of a task is the set of fields that most of its targets use (the earlier one, if two
   are as many).
2. A template stays if its target has exactly these fields, and its input has at least one field
   and none of them.
3. Exceptions are data: a task may name directions, "sent1>sent2": then a template stays if, for
   one of them, its target is the second field alone and its input has the first and not the
   second. Translation needs this: both ways are translation, "Write a sentence in {lang1}" is not.
Of the 700 templates that the release of 2021 has for OPT-IML's 70 tasks, 594 stay: 8.5 a task,
which is the number that OPT-IML prints for FLAN.

Source: google-research/FLAN, flan/templates.py (`PATTERNS`), flan/preprocessors.py
(`format_options`, `rank_classification_from_options`); OPT-IML (arXiv 2212.12017) §2.4, Table 1.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from optiml_jax.bench import record
from optiml_jax.errors import InputError, unknown

OPTIONS = "options"
OPTION_BLOCKS = ("options_", "options_str")
ANSWER, ANSWERS = "answer", "answers"
OPTION_FIELDS = (ANSWER, "answer_str")
"""Fields that hold one of the options; `answer_str` is how the release of 2021 names STS-B's."""

_TOKEN = re.compile(r"\{\{|\}\}|\{(\w+)\}|[{}]")


@dataclasses.dataclass(frozen=True)
class Text:
    """A text with fields.

    Attributes:
        parts: literal text and the field that follows it, "" after the last one.
    """

    parts: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str, where: str) -> "Text":
        """Reads "{name}" as a field and "{{" as a brace.

        Raises:
            InputError: a brace that is neither.
        """
        parts: list[tuple[str, str]] = []
        literal, end = "", 0
        for match in _TOKEN.finditer(text):
            literal += text[end : match.start()]
            end = match.end()
            if match.group(1):
                parts.append((literal, match.group(1)))
                literal = ""
            elif len(match.group()) == 2:
                literal += match.group()[0]
            else:
                raise InputError(
                    f"{where}: '{text[match.start() :][:40]}' at character {match.start()} is no"
                    " field. A field is a plain name in braces, like {premise}; write {{ or }} for"
                    " a brace."
                )
        return cls((*parts, (literal + text[end:], "")))

    @property
    def fields(self) -> frozenset[str]:
        """Names of the fields."""
        return frozenset(name for _, name in self.parts if name)

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with each field's value."""
        return "".join(literal + (values[name] if name else "") for literal, name in self.parts)


@dataclasses.dataclass(frozen=True)
class Template:
    """One wording of a FLAN task (a `record.Template`).

    Attributes:
        prompt_id: "t" and its place in the task's list, counted before any is left out.
        where: file and task, for messages.
    """

    prompt_id: str
    input: Text
    target: Text
    where: str

    @property
    def fields(self) -> frozenset[str]:
        """Names of the fields of input and target."""
        return self.input.fields | self.target.fields

    def has_answer(self, row: Mapping[str, Any]) -> bool:
        """Whether every field of the target is there; null or blank ones are not."""
        values = (row.get(name) for name in self.target.fields.difference(OPTION_BLOCKS))
        return all(value is not None and str(value).strip() for value in values)

    def fill(self, one: record.Record) -> record.Filled | None:
        """The row as this template words it; None where the row has no answer.

        Where the target is `{answer}` alone, the texts of the row's `answers` are references too.
        Where it is one of `OPTION_FIELDS`, the row's `options`, if any, are the options.

        Raises:
            InputError: the row lacks a field, or one is not text or a number.
        """
        row, where = one.fields, f"{self.where}, template {self.prompt_id}, row '{one.id}'"
        values = {name: _value(row, name, where) for name in sorted(self.input.fields)}
        if not self.has_answer(row):
            return None
        answers = {name: _value(row, name, where) for name in sorted(self.target.fields)}
        references = [self.target.fill(answers).strip()]
        options = ()
        if len(answers) == 1 and self.target.fields <= set(OPTION_FIELDS):
            (name,) = answers
            options = _texts(row, OPTIONS, where)
            options = tuple(self.target.fill({name: text}).strip() for text in options)
        if self.target.fields == {ANSWER}:
            more = _texts(row, ANSWERS, where)
            references += [self.target.fill({ANSWER: text}).strip() for text in more]
        if options and references[0] not in options:
            raise InputError(
                f"{where}: the answer '{references[0]:.60}' is not among the options"
                f" {list(options)!r:.160}. Correct the row: one option must be the answer, letter"
                " by letter."
            )
        return record.Filled(self.input.fill(values), tuple(dict.fromkeys(references)), options)


def parse(pairs: Any, where: str) -> tuple[Template, ...]:
    """The templates of a task from its list of (input, target) pairs.

    Raises:
        InputError: not such a list, or a text that `Text.parse` refuses.
    """
    if not isinstance(pairs, list) or not pairs:
        raise InputError(f"{where}: {pairs!r:.60}, expected a list of [input, target] pairs.")
    made = []
    for number, pair in enumerate(pairs):
        at = f"{where}, template {number}"
        good = isinstance(pair, list) and len(pair) == 2 and all(isinstance(p, str) for p in pair)
        if not good:
            raise InputError(f"{at}: {pair!r:.80}, expected two texts: [input, target].")
        input_ = Text.parse(pair[0], f"{at}, input")
        target = Text.parse(pair[1], f"{at}, target")
        if not target.fields:
            raise InputError(f"{at}: the target {pair[1]!r:.60} has no field. Name the answer's.")
        made.append(Template(f"t{number}", input_, target, where))
    return tuple(made)


def answer_fields(templates: Sequence[Template]) -> frozenset[str]:
    """The fields that most targets have."""
    return Counter(template.target.fields for template in templates).most_common(1)[0][0]


def upright(
    templates: Sequence[Template], directions: Sequence[tuple[str, str]] = ()
) -> tuple[Template, ...]:
    """The templates that are not inverted, by the rule above.

    Args:
        directions: (field of the input, field of the target) pairs; the rule's exceptions.

    Example:
        Of ("{text} Summarize.", "{summary}"), ("{text} What is it in short?", "{summary}") and
        ("Write an article on {summary}", "{text}") the first two stay.
    """
    answer = answer_fields(templates)

    def stays(one: Template) -> bool:
        if directions:
            return any(
                one.target.fields == {target}
                and given in one.input.fields
                and target not in one.input.fields
                for given, target in directions
            )
        return (
            one.target.fields == answer and bool(one.input.fields) and not answer & one.input.fields
        )

    return tuple(one for one in templates if stays(one))


def is_usable(
    templates: Sequence[Template], row: Mapping[str, Any], is_ranked: bool, where: str
) -> bool:
    """Whether some template has an answer in the row.

    Args:
        is_ranked: answers are scored on the row's options, whether prompts show them or not.
        where: file and row.

    Raises:
        InputError: the row lacks a field that a template names, `Template.fill` would refuse it, or
            there is nothing to rank: fewer than two options, or two of the same text.
    """
    needs_options = is_ranked
    for template in templates:
        for name in sorted(template.fields - row.keys()):
            if name not in OPTION_BLOCKS:
                raise InputError(
                    f"{where}: field '{name}' is missing, which template {template.prompt_id} of"
                    f" {template.where} names; the row has {sorted(row)!r:.160}. Add the field, or"
                    " give it the template's name."
                )
            needs_options = True
    if needs_options and row.get(OPTIONS) is None:
        raise InputError(
            f"{where}: field '{OPTIONS}' is missing. Prompts show it or answers are scored on it:"
            " add the list of all answers that are possible for this row."
        )
    for name in frozenset().union(*(template.input.fields for template in templates)):
        _value(row, name, where)
    for template in templates:
        if template.has_answer(row):
            if is_ranked:
                _check_ranked(_texts(row, OPTIONS, where), where)
            template = dataclasses.replace(template, where=f"{where}: {template.where}")
            return template.fill(record.Record(where, fields=row)) is not None
    return False


def _check_ranked(options: Sequence[str], where: str) -> None:
    # Releases hold rows that name an option twice; their answer can be ranked all the same.
    if len({option.strip() for option in options}) < 2:
        raise InputError(
            f"{where}: field '{OPTIONS}' is {list(options)!r:.160}, expected two or more different"
            " texts: the answer is the one that a model finds most likely. Correct the row."
        )


def _value(row: Mapping[str, Any], name: str, where: str) -> str:
    if name in OPTION_BLOCKS and name not in row:
        return "OPTIONS:\n- " + "\n- ".join(_texts(row, OPTIONS, where))
    if name not in row:
        raise unknown("field", name, row, where)
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value != value:
        raise InputError(
            f"{where}: field '{name}' is {value!r:.60}, expected text or a number. Write it as the"
            " text that is to stand in the prompt."
        )
    return str(value)


def _texts(row: Mapping[str, Any], name: str, where: str) -> list[str]:
    """A field that is a list of texts; [] where it is not there or null."""
    value = row.get(name)
    if value is None:
        return []
    good = isinstance(value, list) and value and all(isinstance(v, str) for v in value)
    if not good or not all(v.strip() for v in value):
        raise InputError(
            f"{where}: field '{name}' is {value!r:.60}, expected a list of texts, none blank."
        )
    return value
