"""Turns a data set's raw rows into the fields that a benchmark's templates name.

    mapping   {"premise": "premise",
               "options": {"constant": ["yes", "no"]},
               "answer": {"pick": "label", "of": {"constant": ["yes", "no"]}}}
    row       {"premise": "It rained.", "hypothesis": "It was wet.", "label": 1, "idx": 0}
    result    {"premise": "It rained.", "options": ["yes", "no"], "answer": "no"}

A mapping is data, a JSON object of new fields (`tasks/tables/tfds.tsv` has one for each data set
that needs it); nothing in it is run. What a field is made of:

    "answers.text.0"                   what lies at this path: names of fields, numbers in lists
    {"text": "{question}?"}            text with paths in braces; {{ is a brace
    {"constant": ["yes", "no"]}        this very value
    {"list": [VALUE, ...]}             a list of these
    {"object": {"text": VALUE, ...}}   an object of these
    {"pick": VALUE, "of": LIST}        the item of this number; of a list of numbers, the items
    {"concat": [VALUE, ...]}           one text of several; once for each item where one is a list
    {"join": LIST, "by": "; "}         one text of a list
    {"replace": {"_": " "}, "in": VALUE}     other words for some, in this order
    {"part": 0, "of": VALUE, "at": "_"}      what stands before, between or behind a text
    {"numbered": LIST, "first": 10}    "1. ...", a line each; of the first ones only, if it says so
    {"stripped": VALUE}, and so on     see `CHANGES`

A VALUE is any of these, a LIST one that gives a list. What is not there in a row of the right form
is null: the item -1 (no label) or one behind the end (no answer), and whatever is made of null.
Readers drop rows whose answer is null. A name that a row does not have is an error.

The forms are those that the data sets of FLAN and PromptSource need; a data set that needs more is
better made into rows of the final fields beforehand. There are no conditions, and a row cannot be
left out.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optiml_jax.errors import InputError, unknown

CHANGES: Mapping[str, Callable[[str], str]] = {
    "stripped": str.strip,
    "lowered": str.lower,
    "rounded": lambda text: f"{float(text):.0f}",
    "unpunctuated": lambda text: re.sub(r"[^\w\s]", "", text, flags=re.ASCII),
}
"""Forms with one value: a text, or each text of a list."""

_KEYS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    # Form -> the other keys that it must have, and those that it may have.
    "text": (frozenset(), frozenset()),
    "constant": (frozenset(), frozenset()),
    "list": (frozenset(), frozenset()),
    "object": (frozenset(), frozenset()),
    "concat": (frozenset(), frozenset()),
    "nonblank": (frozenset(), frozenset()),
    "numbered": (frozenset(), frozenset({"first"})),
    "pick": (frozenset({"of"}), frozenset()),
    "part": (frozenset({"of", "at"}), frozenset()),
    "join": (frozenset({"by"}), frozenset()),
    "replace": (frozenset({"in"}), frozenset()),
    **{name: (frozenset(), frozenset()) for name in CHANGES},
}
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")


@dataclasses.dataclass(frozen=True)
class Fields:
    """A mapping that has been checked.

    Attributes:
        values: by new field, as in the JSON.
    """

    values: Mapping[str, Any]

    @property
    def names(self) -> frozenset[str]:
        """The new fields."""
        return frozenset(self.values)

    @property
    def paths(self) -> frozenset[str]:
        """All paths that are looked at in a row."""
        return frozenset(path for value in self.values.values() for path in _paths(value))

    def apply(self, row: dict[str, Any], where: str) -> dict[str, Any]:
        """The new fields of a row; the row itself if the mapping is empty.

        Args:
            where: the row's place, for messages.

        Raises:
            InputError: the row lacks a field, or one is not what the form takes.
        """
        if not self.values:
            return row
        return {
            name: _Row(row, f"{where}, for '{name}'").value(value)
            for name, value in self.values.items()
        }


def parse(json_text: str, where: str) -> Fields:
    """A mapping from its JSON; "" is the empty one.

    Args:
        where: file and row of the table, for messages.

    Raises:
        InputError: not JSON, or a form that is not known.
    """
    if not json_text.strip():
        return Fields({})
    try:
        found = json.loads(json_text, object_pairs_hook=lambda pairs: _unique(pairs, where))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: the mapping is not JSON at character {error.pos}: {error.msg}. It begins"
            f" with {json_text:.40}; correct it."
        ) from error
    except RecursionError as error:
        raise InputError(f"{where}: the mapping is nested too deeply.") from error
    if not isinstance(found, dict):
        raise InputError(f"{where}: the mapping is {json_text:.40}, expected {{field: value}}.")
    for name, value in found.items():
        _check(value, f"{where}: field '{name}'")
    return Fields(found)


def _unique(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{where}: '{twice}' is there twice. Remove one.")
    return made


def _form(value: Mapping[str, Any]) -> str:
    return next((name for name in _KEYS if name in value), "")


def _check(value: Any, where: str) -> None:
    if isinstance(value, str):
        if not all(value.split(".")):
            raise InputError(f"{where}: '{value}' is no path. Write one like answers.text.0.")
        return
    if not isinstance(value, dict) or not value:
        raise InputError(
            f"{where}: {json.dumps(value):.40} is no value. Write a path, or"
            f' {{"constant": {json.dumps(value):.40}}} for this very value.'
        )
    form = _form(value)
    if not form:
        raise unknown("form", next(iter(value)), _KEYS, where)
    needed, more = _KEYS[form]
    for key in value.keys() - needed - more - {form}:
        raise unknown(f"key of '{form}'", key, needed | more, where)
    if missing := sorted(needed - value.keys()):
        raise InputError(f"{where}: '{form}' lacks {missing}. Add it.")
    for key, one in value.items():
        _CHECKS[form, key](one, f"{where}, '{form}'" + (f" {key}" if key != form else ""))


def _check_items(value: Any, where: str) -> None:
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: {json.dumps(value):.40}, expected a list of values.")
    for one in value:
        _check(one, where)


def _check_object(value: Any, where: str) -> None:
    if not isinstance(value, dict) or not value:
        raise InputError(f"{where}: {json.dumps(value):.40}, expected an object of values.")
    for name, one in value.items():
        _check(one, f"{where} '{name}'")


def _check_plain(value: Any, where: str, least: int = 0) -> None:
    if not isinstance(value, str) or len(value) < least:
        empty = " that is not empty" if least else ""
        raise InputError(f"{where}: {json.dumps(value):.40}, expected a text{empty}.")


def _check_text(value: Any, where: str) -> None:
    _check_plain(value, where)
    for match in _TOKEN.finditer(value):
        if match[1]:
            _check(match[1], where)
        elif len(match[0]) == 1:
            raise InputError(
                f"{where}: '{value[match.start() :]:.40}' has a lone brace. Put a path between two,"
                " or write {{ or }}."
            )


def _check_words(value: Any, where: str) -> None:
    good = isinstance(value, dict) and value and all(isinstance(v, str) for v in value.values())
    if not good or "" in value:
        raise InputError(f"{where}: {json.dumps(value):.40}, expected {{old text: new text}}.")


def _check_count(value: Any, where: str, least: int = 0) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{where}: {json.dumps(value):.40}, expected {least} or a higher number.")


_CHECKS: Mapping[tuple[str, str], Callable[[Any, str], None]] = {
    ("text", "text"): _check_text,
    ("constant", "constant"): lambda value, where: None,
    ("list", "list"): _check_items,
    ("object", "object"): _check_object,
    ("concat", "concat"): _check_items,
    ("numbered", "first"): lambda value, where: _check_count(value, where, least=1),
    ("part", "part"): _check_count,
    ("part", "at"): lambda value, where: _check_plain(value, where, least=1),
    ("join", "by"): _check_plain,
    ("replace", "replace"): _check_words,
    **{(form, form): _check for form in ("pick", "join", "numbered", "nonblank", *CHANGES)},
    **dict.fromkeys((("pick", "of"), ("part", "of"), ("replace", "in")), _check),
}


def _paths(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    form = _form(value)
    if form == "constant":
        return []
    if form == "text":
        return [match[1] for match in _TOKEN.finditer(value["text"]) if match[1]]
    inner: Sequence[Any] = [one for key, one in value.items() if _CHECKS[form, key] is _check]
    if form in ("list", "concat"):
        inner = value[form]
    elif form == "object":
        inner = list(value[form].values())
    return [path for one in inner for path in _paths(one)]


@dataclasses.dataclass(frozen=True)
class _Row:
    """A row while one field is made of it."""

    row: Mapping[str, Any]
    where: str

    def value(self, value: Any) -> Any:
        """What a VALUE is in this row."""
        if isinstance(value, str):
            return self.at(value)
        form = _form(value)
        if form in CHANGES:
            return self.changed(value[form], form, CHANGES[form])
        return getattr(self, f"form_{form}")(value)

    def at(self, path: str) -> Any:
        """What lies at a path; None behind the end of a list."""
        found: Any = self.row
        for step in path.split("."):
            if isinstance(found, Mapping):
                if step not in found:
                    raise unknown("field", step, map(str, found), f"{self.where}, path '{path}'")
                found = found[step]
            elif isinstance(found, list) and step.isdecimal():
                found = found[int(step)] if int(step) < len(found) else None
            elif found is not None:
                raise self.error(f"has no '{step}'", found, f"path '{path}'")
        return found

    def text(self, value: Any, form: str) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.error("is no text", value, f"'{form}'")
        return str(value)

    def items(self, value: Any, form: str) -> list[Any] | None:
        found = self.value(value)
        if found is not None and not isinstance(found, list):
            raise self.error("is no list", found, f"'{form}'")
        return found

    def error(self, problem: str, value: Any, what: str) -> InputError:
        return InputError(
            f"{self.where}, {what}: {value!r:.60} {problem}. Correct the row, or the mapping of its"
            " fields."
        )

    def changed(self, value: Any, form: str, change: Callable[[str], str]) -> Any:
        found = self.value(value)
        if isinstance(found, list):
            return [change(self.text(one, form)) for one in found]
        try:
            return None if found is None else change(self.text(found, form))
        except ValueError as error:
            raise self.error("cannot be used", found, f"'{form}'") from error

    def form_text(self, value: Mapping[str, Any]) -> str | None:
        made, end = "", 0
        for match in _TOKEN.finditer(value["text"]):
            made += value["text"][end : match.start()]
            end = match.end()
            found = self.at(match[1]) if match[1] else match[0][0]
            if found is None:
                return None
            made += self.text(found, "text")
        return made + value["text"][end:]

    def form_constant(self, value: Mapping[str, Any]) -> Any:
        return value["constant"]

    def form_list(self, value: Mapping[str, Any]) -> list[Any]:
        return [self.value(one) for one in value["list"]]

    def form_object(self, value: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.value(one) for name, one in value["object"].items()}

    def form_pick(self, value: Mapping[str, Any]) -> Any:
        number, items = self.value(value["pick"]), self.items(value["of"], "pick")
        if isinstance(number, list):
            return [self.picked(one, items) for one in number]
        return self.picked(number, items)

    def picked(self, number: Any, items: Sequence[Any] | None) -> Any:
        if number is None or items is None:
            return None
        # True and False are 1 and 0; some data sets have their labels as 1.0 and 0.0.
        if not isinstance(number, int | float) or number % 1:
            raise self.error("is no whole number", number, "'pick'")
        return items[int(number)] if 0 <= number < len(items) else None

    def form_concat(self, value: Mapping[str, Any]) -> Any:
        found = [self.value(one) for one in value["concat"]]
        if None in found:
            return None
        lengths = {len(one) for one in found if isinstance(one, list)}
        if len(lengths) > 1:
            raise self.error("are lists of different lengths", found, "'concat'")
        rows = [one if isinstance(one, list) else [one] * max(lengths, default=1) for one in found]
        made = [
            "".join(self.text(one, "concat") for one in parts) for parts in zip(*rows, strict=True)
        ]
        return made if lengths else made[0]

    def form_join(self, value: Mapping[str, Any]) -> str | None:
        items = self.items(value["join"], "join")
        return None if items is None else value["by"].join(self.text(v, "join") for v in items)

    def form_replace(self, value: Mapping[str, Any]) -> Any:
        def change(text: str) -> str:
            for old, new in value["replace"].items():
                text = text.replace(old, new)
            return text

        return self.changed(value["in"], "replace", change)

    def form_part(self, value: Mapping[str, Any]) -> Any:
        found = self.value(value["of"])
        if found is None:
            return None
        parts = self.text(found, "part").split(value["at"])
        return parts[value["part"]] if value["part"] < len(parts) else None

    def form_numbered(self, value: Mapping[str, Any]) -> str | None:
        items = self.items(value["numbered"], "numbered")
        if items is None:
            return None
        texts = [self.text(one, "numbered") for one in items[: value.get("first")]]
        return "\n".join(f"{number}. {text}" for number, text in enumerate(texts, start=1))

    def form_nonblank(self, value: Mapping[str, Any]) -> list[str] | None:
        items = self.items(value["nonblank"], "nonblank") or []
        return [one for one in items if self.text(one, "nonblank").strip()] or None
