"""Runs a Jinja template on a row, within limits: what a stranger's template may and may not do.

A template is a program, and templates are shared as files. Three fences:

1. When it is read, only the statements, filters and tests that templates of prompts use are let in
   (`promptsource_fences`): no macros, imports or blocks.
2. While it runs, an attribute is a key of a dict or one of `METHODS`, and a function one of
   `GLOBALS`; nothing else is reached.
3. Everything it does costs work, and writes at most `MAX_OUTPUT` characters (`promptsource_work`).

What PromptSource adds to Jinja is here too: its three filters, `zip`, and the cut of long texts.
Text and white space are otherwise as Jinja's defaults make them, which the library uses.

Where this differs from the library:
1. A field or key that is not there is an error where it is used, instead of empty text.
   `if field`, `is defined` and `default` may ask for it.
2. `choice` and `random` are functions of the row and the template.
3. A label of -1 or None ends the rendering (`UnlabelledError`); the library chooses the last answer
   or none. Other numbers that no choice has give empty text in both.
4. What is inserted is cut to `TRUNCATED` characters as a whole. The library edits the template's
   text, and so cuts the last operand of an expression alone.

Source: bigscience-workshop/promptsource, promptsource/templates.py (0.2.3).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import filters, nodes, runtime, sandbox, utils

from optiml_jax.bench.sources import promptsource_fences
from optiml_jax.bench.sources.promptsource_fences import CHOSEN, FILTERS, LOOPED, TESTS, WEIGHED
from optiml_jax.bench.sources.promptsource_work import (
    CALL_COST,
    MAX_WIDTH,
    StoppedError,
    Work,
    check_bits,
)

FILENAME = "<template>"
MAX_SOURCE = 50_000
MAX_OUTPUT = 2_000_000
STEP_COST = 100

TRUNCATED = 2048
"""Characters of an inserted text that the library keeps by default (`Template.apply`)."""

_METHODS = {
    str: "capitalize count endswith find index isdigit islower isupper join lower lstrip"
    " removeprefix removesuffix replace rfind rstrip split splitlines startswith strip title upper",
    list: "append copy count extend index insert pop remove reverse",
    tuple: "count index",
    dict: "copy get items keys pop setdefault update values",
    runtime.LoopContext: "cycle depth depth0 first index index0 last length nextitem previtem"
    " revindex revindex0",
}
METHODS: Mapping[type, frozenset[str]] = {
    kind: frozenset(names.split()) for kind, names in _METHODS.items()
}
QUICK = frozenset(("append", "extend", "setdefault", "update"))
"""Methods that neither look at all of their object nor give it back."""

_WORK = " work"
"""Where a running template keeps its `Work`: a name that no template can spell."""


class MissingError(jinja2.UndefinedError):
    """A template uses a field that the row lacks; says which, to follow "the template "."""


class UnlabelledError(Exception):
    """A template asks for the answer of a row that has none."""


class _Absent(jinja2.Undefined):
    """What is not there.

    As in the library, an item beyond a list's end and any item of None are empty text: data sets
    have unanswered questions. Unlike the library, a field that the row lacks is an error where it
    is used; `if field`, `is defined` and `default` may still ask for it.
    """

    __slots__ = ()

    def _is_empty(self) -> bool:
        if self._undefined_obj is None:
            return True
        beyond = isinstance(self._undefined_obj, list | tuple | str | range)
        return beyond and isinstance(self._undefined_name, int)

    @property
    def _undefined_message(self) -> str:
        name = self._undefined_name
        if self._undefined_obj is utils.missing:
            return f"uses the field '{name}', which the row lacks"
        if isinstance(self._undefined_obj, dict):
            keys = ", ".join(map(str, self._undefined_obj)) or "no key"
            return f"uses the key {name!r} of a value that has {keys:.200}"
        return f"uses {name!r} of a {type(self._undefined_obj).__name__}, which has no such thing"

    def _fail_with_undefined_error(self, *args: Any, **kwargs: Any) -> Any:
        raise MissingError(self._undefined_message)

    def __str__(self) -> str:
        return "" if self._is_empty() else self._fail_with_undefined_error()

    def __len__(self) -> int:
        return 0 if self._is_empty() else self._fail_with_undefined_error()

    def __iter__(self) -> Iterator[Any]:
        return iter(()) if self._is_empty() else self._fail_with_undefined_error()

    def __eq__(self, other: object) -> bool:
        if self._is_empty():
            return isinstance(other, _Absent)
        return self._fail_with_undefined_error()

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return id(type(self)) if self._is_empty() else self._fail_with_undefined_error()

    # The base class binds its own failure to each of these names.
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _fail_with_undefined_error
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = _fail_with_undefined_error
    __mod__ = __rmod__ = __pow__ = __rpow__ = __pos__ = __neg__ = _fail_with_undefined_error
    __call__ = __getitem__ = __lt__ = __le__ = __gt__ = __ge__ = _fail_with_undefined_error
    __int__ = __float__ = __complex__ = _fail_with_undefined_error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._fail_with_undefined_error()


def _work(context: runtime.Context) -> Work:
    return context.parent[_WORK]


class _Environment(sandbox.ImmutableSandboxedEnvironment):
    """Attributes, operators and calls, each behind its fence."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, utils.Namespace) and not attribute.startswith("_"):
            try:
                return getattr(obj, attribute)
            except AttributeError:
                return self.undefined(obj=obj, name=attribute)
        for kind, allowed in METHODS.items():
            if isinstance(obj, kind) and attribute in allowed:
                return getattr(obj, attribute)
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        if isinstance(obj, jinja2.Undefined) and not attribute.startswith("_"):
            return getattr(obj, attribute)
        if attribute.startswith("_") or hasattr(type(obj), attribute):
            raise StoppedError(f"reaches for '{attribute}' of a {type(obj).__name__}")
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, utils.Namespace | runtime.LoopContext):
            return self.getattr(obj, str(argument))
        if isinstance(obj, jinja2.Undefined):
            return obj[argument]
        if isinstance(argument, jinja2.Undefined):
            # Says which field is missing, where one is.
            argument = str(argument)
        if isinstance(obj, str | list | tuple | dict | range):
            try:
                return obj[argument]
            except (TypeError, LookupError):
                pass
        return self.undefined(obj=obj, name=argument)

    def call_binop(self, context: runtime.Context, operator: str, left: Any, right: Any) -> Any:
        work = _work(context)
        if operator == "**":
            work.ask_power(left, right)
        elif operator == "*":
            work.ask_product(left, right)
        elif operator == "%" and isinstance(left, str):
            work.ask_format(left, right)
        result = super().call_binop(context, operator, left, right)
        work.weigh(result)
        return result

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        # Jinja hands these to every call inside a loop or block, for macros.
        kwargs = {k: v for k, v in kwargs.items() if k not in ("_loop_vars", "_block_vars")}
        work = _work(context)
        if isinstance(obj, jinja2.Undefined):
            return obj()
        owner = getattr(obj, "__self__", None)
        name = getattr(obj, "__name__", "")
        if not any(obj is allowed for allowed in GLOBALS.values()):
            if not any(isinstance(owner, kind) and name in METHODS[kind] for kind in METHODS):
                raise StoppedError(f"calls a {type(obj).__name__}")
            if name not in QUICK:
                work.weigh(owner)
        work.spend(CALL_COST)
        work.weigh(args)
        work.weigh(kwargs)
        if isinstance(owner, str) and name == "replace":
            work.ask_replace(owner, *args[:2])
        elif isinstance(owner, str) and name == "join":
            args = (work.ask_join(args[0], owner),) if args else args
        result = obj(*args, **kwargs)
        if name not in QUICK:
            work.weigh(result)
        return result


def _range(*args: int) -> range:
    return range(*args)


def _zip(*args: Any) -> list[Any]:
    return list(zip(*args, strict=False))


GLOBALS: Mapping[str, Callable[..., Any]] = {
    "range": _range,
    "zip": _zip,
    "namespace": utils.Namespace,
    "dict": dict,
}


def _most_frequent(items: Any) -> list[Any] | None:
    """The items that occur most often, in the order of their first occurrence."""
    items = list(items)
    if not items:
        return None
    counts: dict[Any, int] = {}
    for one in items:
        counts[one] = counts.get(one, 0) + 1
    most = max(counts.values())
    return [one for one, count in counts.items() if count == most]


def _highlight(text: str) -> str:
    """The library's own mark for its web page."""
    return f"<span style='color: #F08080'>{text}</span>"


@jinja2.pass_context
def _choice(context: runtime.Context, items: Any) -> Any:
    items = list(items)
    if not items:
        raise StoppedError("draws from an empty list")
    return items[_work(context).draw(len(items))]


def _ask_filter(work: Work, name: str, value: Any, args: Any, kwargs: Any) -> None:
    if name == "format":
        work.ask_format(str(value), kwargs or args)
    elif name == "replace":
        work.ask_replace(value, *args[:2], **{k: kwargs[k] for k in ("old", "new") if k in kwargs})
    elif name == "join":
        separator = str(kwargs.get("d", args[0] if args else ""))
        work.spend(_length(value) * len(separator))
    elif name == "round":
        precision = kwargs.get("precision", args[0] if args else 0)
        if isinstance(precision, int) and abs(precision) > MAX_WIDTH:
            raise StoppedError(f"rounds to more than {MAX_WIDTH} digits")
    elif name == "truncate":
        work.weigh(str(kwargs.get("end", args[2] if len(args) > 2 else "")))
    elif name == "sum":
        start = kwargs.get("start", args[1] if len(args) > 1 else 0)
        if not isinstance(start, int | float):
            raise StoppedError("sums what are no numbers")
    elif name in ("select", "reject", "selectattr", "rejectattr"):
        # Each item is put beside the same arguments.
        work.spend(_length(value) * (work.weigh(args) + CALL_COST))


def _length(value: Any) -> int:
    return len(value) if hasattr(type(value), "__len__") else 0


def _fenced(name: str) -> Callable[..., Any]:
    @jinja2.pass_context
    def apply(context: runtime.Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        work = _work(context)
        work.spend(CALL_COST)
        for part in (value, args, kwargs):
            work.weigh(part)
        _ask_filter(work, name, value, args, kwargs)
        result = _PLAIN.call_filter(name, value, args, kwargs, context=context)
        if isinstance(result, Iterator):
            result = list(result)
        if isinstance(result, int):
            check_bits(result.bit_length())
        work.weigh(result)
        return result

    return apply


@jinja2.pass_context
def _weighed(context: runtime.Context, value: Any) -> Any:
    _work(context).weigh(value)
    return value


@jinja2.pass_context
def _looped(context: runtime.Context, value: Any, cost: int) -> Any:
    if isinstance(value, range):
        # A range beyond the machine's integers has no length.
        _work(context).weigh(value)
    # A copy: a list that its own loop appends to would never end.
    items = list(value) if isinstance(value, list) or not _length(value) else value
    _work(context).spend((STEP_COST + cost) * len(items))
    return items


@jinja2.pass_context
def _chosen(context: runtime.Context, choices: Any, index: Any) -> Any:
    """An answer by the row's label; none, or one below 0, means that the row is unlabelled."""
    if index is None or (isinstance(index, int) and index < 0):
        raise UnlabelledError
    return context.environment.getitem(choices, index)


@jinja2.pass_context
def _inserted(context: runtime.Context, value: Any) -> str:
    """The text of a value where it is put into the prompt."""
    work = _work(context)
    if type(value) is not str:
        # As text, a function is its place in memory: another one in each process.
        if callable(value) and not isinstance(value, jinja2.Undefined):
            raise StoppedError(f"puts in a {type(value).__name__}, which is no text")
        work.weigh(value)
        value = str(value)
    if work.truncate and len(value) > TRUNCATED:
        return filters.do_truncate(_PLAIN, value, TRUNCATED)
    return value


def _make_plain() -> _Environment:
    plain = _Environment(undefined=_Absent)
    own = {
        "choice": _choice,
        "random": _choice,
        "most_frequent": _most_frequent,
        "highlight": _highlight,
    }
    plain.filters = {name: (plain.filters | own)[name] for name in FILTERS}
    plain.tests = {name: plain.tests[name] for name in TESTS}
    plain.globals = dict(GLOBALS)
    return plain


def _make_fenced() -> _Environment:
    fenced = _Environment(undefined=_Absent, finalize=_inserted)
    fences = {LOOPED: _looped, WEIGHED: _weighed, CHOSEN: _chosen}
    fenced.filters = {name: _fenced(name) for name in FILTERS} | fences
    fenced.tests = _PLAIN.tests
    fenced.globals = _PLAIN.globals
    return fenced


_PLAIN = _make_plain()
_FENCED = _make_fenced()


def parse(source: str) -> nodes.Template:
    """The syntax tree of a template, fences included.

    Raises:
        StoppedError: a statement, filter, test or attribute that is not let in, or too long a text.
        jinja2.TemplateError: not Jinja.
    """
    if len(source) > MAX_SOURCE:
        raise StoppedError(f"has {len(source):,} characters, more than {MAX_SOURCE:,}")
    try:
        tree = _FENCED.parse(source)
        promptsource_fences.put(tree)
    except RecursionError as error:
        raise StoppedError("is nested too deeply") from error
    return tree


def compile_tree(tree: nodes.Template, name: str | None = None) -> jinja2.Template:
    """A parsed template, ready for `render`.

    Raises:
        StoppedError: nested too deeply.
    """
    try:
        code = _FENCED.compile(tree, name, FILENAME)
        return jinja2.Template.from_code(_FENCED, code, dict(_FENCED.globals))
    except (RecursionError, MemoryError, SyntaxError) as error:
        raise StoppedError("is nested too deeply") from error


def render(template: jinja2.Template, fields: Mapping[str, Any], work: Work) -> str:
    """The text of a template on a row's fields.

    Raises:
        UnlabelledError: the row has no answer.
        StoppedError, jinja2.TemplateError: or whatever the template's own expressions raise.
    """
    parts: list[str] = []
    total = 0
    for part in template.generate({**fields, _WORK: work}):
        total += len(part)
        if total > MAX_OUTPUT:
            raise StoppedError(f"writes more than {MAX_OUTPUT:,} characters")
        work.spend(len(part))
        parts.append(part)
    return "".join(parts)


def failed_line(error: BaseException) -> int | None:
    """The template's line at which it stopped, None where nothing is known."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return error.lineno
    line = error.line if isinstance(error, StoppedError) else None
    trace = error.__traceback__
    while trace is not None:
        # Jinja rewrites the trace of what it runs to the lines of the template.
        if trace.tb_frame.f_code.co_filename == FILENAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
