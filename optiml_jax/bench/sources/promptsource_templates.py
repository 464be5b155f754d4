"""PromptSource's `templates.yaml`: reads its templates, and puts rows into them.

    dataset: super_glue
    subset: copa
    templates:
      0edd8660-...: !Template
        answer_choices: '{{choice1}} ||| {{choice2}}'
        id: 0edd8660-...
        jinja: '{{premise}} So? ||| {{ answer_choices[label] }}'
        metadata: !TemplateMetadata {original_task: true, metrics: [Accuracy], ...}
        name: exercise

YAML can make any Python object; here it makes texts, numbers, lists and the two tags above. Jinja
runs in a sandbox (`promptsource_sandbox`).

Where this differs from the library:
1. "|||" in a row never parts prompt and answer; the library protects the row's own texts, but not
   those inside its lists and dicts.
2. A text with several answers ("prompt ||| one ||| two") has them all as references, as in the
   library's later releases; T0 leaves such rows out.
3. Answer choices that do not hold the answer are no options: nothing could be ranked.
4. T0 writes "<NO LABEL>" for an empty answer; here the row is not asked.

Source: bigscience-workshop/promptsource, promptsource/templates.py (0.2.3) and seqio_tasks; T0
(arXiv 2110.08207).
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jinja2
import yaml

from optiml_jax.bench import catalog, record
from optiml_jax.bench.sources import files, promptsource_sandbox, promptsource_work
from optiml_jax.errors import InputError

SEPARATOR = "|||"
CHOICES = "answer_choices"
MAX_DEPTH = 20
REPOSITORY = "https://github.com/bigscience-workshop/promptsource"

# As long as what it stands for, and no text: Unicode keeps these for a program's own use.
_PROTECTED = "\ufdd0\ufdd1\ufdd2"

_COMPILED = 4096
"""Templates that a process keeps compiled: all of the release's."""


@dataclasses.dataclass(frozen=True)
class Template:
    """One wording of one data set.

    Attributes:
        prompt_id: its name in letters, digits and "_", unique in its file.
        id: the release's own.
        jinja: prompt and answer, parted by "|||".
        answer_choices: Jinja too; None where the answer is open.
        original_task: it asks for what the data set is made for, and not, say, for a question to a
            given answer; False where the file does not say.
        where: file and line.
        files: of the rows, by split, for messages.
    """

    prompt_id: str
    id: str
    name: str
    jinja: str
    answer_choices: str | None = None
    original_task: bool = False
    where: str = ""
    files: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)

    def check(self) -> None:
        """Reads the Jinja without running it.

        Raises:
            InputError: it is not Jinja, or has what the sandbox does not let in.
        """
        for field, source in (("jinja", self.jinja), (CHOICES, self.answer_choices)):
            try:
                if source is not None:
                    promptsource_sandbox.parse(source)
            except (promptsource_work.StoppedError, jinja2.TemplateError) as error:
                raise self._error(field, error) from error

    def fill(self, one: record.Record) -> record.Filled | None:
        """The row in this template's words; None where it has no prompt or no answer.

        Example:
            a COPA row about a cause gives None in a template that asks for effects only.

        Raises:
            InputError: the row lacks a field, or the template does what it may not.
        """
        try:
            choices = self._choices(one)
            text = self._render("jinja", self.jinja, {CHOICES: choices}, one)
        except promptsource_sandbox.UnlabelledError:
            return None
        prompt, *answers = _parts(text)
        references = tuple(answer for answer in answers if answer)
        if not prompt or not references:
            return None
        options = tuple(dict.fromkeys(choice for choice in choices or () if choice))
        return record.Filled(
            _unprotect(prompt),
            tuple(map(_unprotect, references)),
            tuple(map(_unprotect, options)) if set(references) <= set(options) else (),
        )

    def _choices(self, one: record.Record) -> list[str] | None:
        if self.answer_choices is None:
            return None
        return _parts(self._render(CHOICES, self.answer_choices, {}, one))

    def _render(self, field: str, source: str, more: Mapping[str, Any], one: record.Record) -> str:
        work = promptsource_work.Work(
            f"{self.id}\0{one.id}\0{field}",
            # The library cuts what is put into the prompt, not what the choices are made of.
            truncate=field == "jinja",
        )
        try:
            if CHOICES in one.fields:
                raise promptsource_work.StoppedError(
                    f"cannot be given the row's field '{CHOICES}', which is the name of its choices"
                )
            template = _compiled(source)
            return promptsource_sandbox.render(
                template, {**_protect(dict(one.fields)), **more}, work
            )
        except promptsource_sandbox.UnlabelledError:
            raise
        # Templates run a stranger's expressions: whatever these raise is about the template.
        except Exception as error:
            raise self._error(field, error, one) from error

    def _error(self, field: str, error: Exception, one: record.Record | None = None) -> InputError:
        what, fix = _explain(error)
        line = promptsource_sandbox.failed_line(error)
        place = f"{field}, line {line}" if line else field
        row = "" if one is None else f" on {self._row(one)}"
        return InputError(f"{self.where}: template '{self.name}' ({place}){row}: {what}. {fix}")

    def _row(self, one: record.Record) -> str:
        split, _, number = one.id.rpartition("-")
        if split in self.files and number.isdigit():
            return f"{self.files[split]}: row {int(number) + 1}"
        return f"row '{one.id}'"


def _explain(error: Exception) -> tuple[str, str]:
    """What went wrong, and what to do."""
    if isinstance(error, promptsource_sandbox.MissingError):
        fix = "Add it to the row (null if it has none), or put `{% if ... is defined %}` around it."
        return f"the template {error.message}", fix
    if isinstance(error, promptsource_work.StoppedError):
        return f"the template {error}", "Correct the template, or remove it from the file."
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"not Jinja: {error.message}", "Correct the template, or remove it from the file."
    if isinstance(error, RecursionError):
        return "the row or the template is nested too deeply", "Flatten it, or remove it."
    text = f"{type(error).__name__}: {error}"
    return f"the template raises {text:.200}", "Correct the template or the row."


@functools.lru_cache(maxsize=_COMPILED)
def _compiled(source: str) -> jinja2.Template:
    return promptsource_sandbox.compile_tree(promptsource_sandbox.parse(source), None)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(SEPARATOR)]


def _protect(value: Any) -> Any:
    """A copy in which no text holds the separator, and which a template may change."""
    if isinstance(value, str):
        return value.replace(SEPARATOR, _PROTECTED) if SEPARATOR in value else value
    if isinstance(value, dict):
        return {_protect(key): _protect(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_protect(one) for one in value]
    return value


def _unprotect(text: str) -> str:
    return text.replace(_PROTECTED, SEPARATOR)


def read(path: str | os.PathLike[str], data_set: str = "") -> list[Template]:
    """All templates of a `templates.yaml`, in the file's order, their Jinja not yet looked at.

    Args:
        data_set: "dataset" or "dataset/subset" that the file must be about, if given.

    Raises:
        InputError: the file cannot be read, is not such YAML, or has an id or name twice.
    """
    path = pathlib.Path(path)
    content = _load(path)
    if not isinstance(content, dict) or not isinstance(content.get("templates"), dict):
        raise InputError(
            f"{path}: holds {_shown(content)}, expected `dataset: NAME` and `templates:` with one"
            f" !Template each, as in {REPOSITORY}."
        )
    names = [content.get(key) for key in ("dataset", "subset") if content.get(key) is not None]
    found = "/".join(map(str, names))
    if data_set and found != data_set:
        raise InputError(
            f"{path}: is about '{found}' (its dataset and subset), but lies under '{data_set}'."
            " Move or correct it."
        )
    if not content["templates"]:
        raise InputError(f"{path}: 'templates' is empty. Fetch the file from {REPOSITORY}.")
    made: dict[str, Template] = {}
    ids: dict[str, str] = {}
    for key, value in content["templates"].items():
        if not isinstance(value, _Tagged) or value.tag != "!Template":
            raise InputError(
                f"{path}: templates['{key}'] is {_shown(value)}, expected a !Template."
            )
        one = _template(value.fields, f"{path}:{value.line}")
        for known, name in ((ids, one.id), (made, one.prompt_id)):
            if name in known:
                raise InputError(
                    f"{path}:{value.line}: template '{one.name}' has the name or id of another one"
                    f" ('{name}'; letters, digits and '_' count). Rename or remove one."
                )
        ids[one.id] = one.name
        made[one.prompt_id] = one
    return list(made.values())


def _template(fields: Mapping[str, Any], where: str) -> Template:
    def value(holder: Mapping[str, Any], field: str, kind: Any, expected: str) -> Any:
        if not isinstance(one := holder.get(field), kind):
            raise InputError(f"{where}: field '{field}' is {_shown(one)}, expected {expected}.")
        return one

    metadata = value(fields, "metadata", _Tagged | None, "!TemplateMetadata")
    told = metadata.fields if metadata is not None else {}
    name = value(fields, "name", str, "a text")
    if not name.strip():
        raise InputError(f"{where}: field 'name' is blank. Give the template a name of its own.")
    jinja = value(fields, "jinja", str, "a text")
    if SEPARATOR not in jinja:
        raise InputError(
            f"{where}: template '{name}': field 'jinja' has no '{SEPARATOR}', which parts the"
            " prompt from the answer. Add it, or remove the template."
        )
    return Template(
        prompt_id=catalog.legal_name(name),
        id=value(fields, "id", str, "a text"),
        name=name,
        jinja=jinja,
        answer_choices=value(fields, CHOICES, str | None, "a text or null"),
        original_task=bool(value(told, "original_task", bool | None, "true or false")),
        where=where,
    )


def _shown(value: Any) -> str:
    """A value for a message. Lists that hold each other may be far too long to be written out."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    if value is None or isinstance(value, str | int | float):
        return f"{value!r:.60}"
    return value.tag if isinstance(value, _Tagged) else f"a {type(value).__name__}"


@dataclasses.dataclass(frozen=True)
class _Tagged:
    """A mapping under one of the two tags, and its line."""

    tag: str
    fields: Mapping[str, Any]
    line: int


_SafeLoader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The parser in C where PyYAML has it: ten times as fast."""


class _Loader(_SafeLoader):
    """Plain values and `_Tagged`; a key that is there twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.MarkedYAMLError(None, None, "a key that is no text", key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(
                    None, None, f"the key '{key}' is there twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _tagged(loader: _Loader, node: yaml.Node) -> _Tagged:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.MarkedYAMLError(
            None, None, f"{node.tag} is not followed by fields", node.start_mark
        )
    fields = loader.construct_mapping(node, deep=True)
    return _Tagged(node.tag, fields, node.start_mark.line + 1)


def _refuse(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    raise yaml.MarkedYAMLError(
        None,
        None,
        f"the tag '{node.tag}' makes an object that is not let in; known are !Template and"
        " !TemplateMetadata",
        node.start_mark,
    )


_Loader.add_constructor("!Template", _tagged)
_Loader.add_constructor("!TemplateMetadata", _tagged)
_Loader.add_multi_constructor("", _refuse)


def _load(path: pathlib.Path) -> Any:
    data = files.read_bytes(
        path, f"PromptSource's templates are at {REPOSITORY}, promptsource/templates."
    )
    text = files.decode(data, str(path))
    try:
        _check_shape(text)
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        what = error.problem or error.context or "broken"
        raise InputError(
            f"{where}: not YAML that can be read: {what}. Correct the file."
        ) from error
    # A date or number that YAML knows and Python does not is a ValueError.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        text = " ".join(str(error).split())
        if "set_int_max_str_digits" in text:
            raise InputError(f"{path}: its YAML has {files.too_long_number()}") from error
        raise InputError(
            f"{path}: not YAML that can be read: {text:.200}. Correct the file."
        ) from error


def _check_shape(text: str) -> None:
    """Refuses what the parser in C would crash on."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise yaml.MarkedYAMLError(
                    None, None, f"nested deeper than {MAX_DEPTH} levels", event.start_mark
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
