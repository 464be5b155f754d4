"""gin, checked: from files and flags to built config objects. The only module that imports gin.

gin binds what it is told and ignores what nobody asks for: a misspelt macro trains the wrong model
in silence. Here statements are read with their places first, the whole configuration is checked
(unknown, undefined, unused, missing, wrong type), and only then bound and built.

    files, flags --read--> Statement list --check--> gin bindings --build--> frozen dataclasses

Neighbours: `train` and `evaluate` say what can be configured and which object is the root; `flags`
took the flags off the command line. Left out on purpose: gin's own file reader (its package reader
fails on folders named as ours) and dynamic registration (a name is either known or an error).

Rules beyond gin's:
  1. A macro defined in a file of a folder `models/` or `pods/` may stay unused, for such files
     serve every run; any other unused macro is refused.
  2. A macro that stands for a configurable (`MODEL = @OptConfig()`) is written into the places
     that name it, so that the effective config reads without gin's scopes of macros.
"""

import collections
import dataclasses
import importlib
import importlib.util  # gin 0.5.0 uses it without importing it.
import inspect
import pathlib
import tokenize
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gin
from gin import config as gin_lib
from gin import config_parser

import optiml_jax
from optiml_jax import errors
from optiml_jax.errors import InputError

MODEL_FOLDER = "models"
SHARED_FOLDERS = (MODEL_FOLDER, "pods")
"""Folders whose files serve every run; see rule 1."""
COMMANDS = {"train": "optiml train", "evaluate": "optiml eval"}
"""Root configurable -> the command that it belongs to, for files given to another command."""

_NO_DEFAULT = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True)
class Macro:
    """`%NAME` in a value."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


@dataclasses.dataclass(frozen=True)
class Reference:
    """`@scope/Name` or `@scope/Name()` in a value."""

    scope: str
    selector: str
    evaluate: bool

    def __repr__(self) -> str:
        scope = f"{self.scope}/" if self.scope else ""
        return f"@{scope}{self.selector}{'()' if self.evaluate else ''}"


@dataclasses.dataclass(frozen=True)
class Statement:
    """One binding, with where it stands.

    Attributes:
        scope: of the configurable or macro, often "".
        selector: the configurable's registered name; "" when this defines a macro.
        name: of the parameter or macro.
        value: a literal with `Macro` and `Reference` inside.
        where: "runs/finetune.gin:12" or "--gin.BATCH_SIZE".
        in_model_file: rule 1 of this module.
    """

    scope: str
    selector: str
    name: str
    value: Any
    where: str
    in_model_file: bool

    @property
    def key(self) -> tuple[str, str, str]:
        """What a later statement with the same key replaces."""
        return self.scope, self.selector, self.name

    @property
    def shown(self) -> str:
        """The name as a user writes it."""
        scope = f"{self.scope}/" if self.scope else ""
        return scope + (f"{self.selector}.{self.name}" if self.selector else self.name)


@dataclasses.dataclass(frozen=True)
class Sources:
    """What a command line says about configuration, in the order in which it applies."""

    files: tuple[str, ...] = ()
    search_paths: tuple[str, ...] = ()
    bindings: tuple[tuple[str, str], ...] = ()  # (flag as shown, statement)


@dataclasses.dataclass(frozen=True)
class Built:
    """A built root object and the effective configuration that made it.

    Attributes:
        value: what the root configurable returned.
        text: every value in force, defaults included, as a gin file that can be given again.
    """

    value: Any
    text: str


def sources(args: Any) -> Sources:
    """`Sources` of parsed flags (see `flags.add_gin_flags`)."""
    paths = tuple(path for path in args.gin_search_paths.split(",") if path)
    bindings = [("--gin_bindings", statement) for statement in args.gin_bindings]
    bindings += [(f"--gin.{name}", f"{name} = {value}") for name, value in args.gin]
    return Sources(tuple(args.gin_file), paths, tuple(bindings))


def make_known(configurables: Mapping[str, Callable[..., Any]]) -> None:
    """Makes dataclasses and functions known to gin by these names; `read` needs them."""
    for name, configurable in configurables.items():
        _register(name, configurable)


def build(
    config: Sources,
    root: str,
    configurables: Mapping[str, Callable[..., Any]],
    unset: Mapping[str, Any] | None = None,
) -> Built:
    """Reads, checks and builds a configuration.

    Args:
        config: files and flags.
        root: the configurable that is called; its bindings reach all others.
        configurables: name in gin -> dataclass or function, the root included.
        unset: macros that may stay unset though a file requires them, and what they are then.

    Raises:
        InputError: anything a user wrote wrongly, with its place and the nearest name.
    """
    gin.clear_config()
    make_known(configurables)
    statements = [_unless_set(statement, unset or {}) for statement in read(config)]
    table = {statement.key: statement for statement in statements}
    check(statements, table, root)
    for statement in table.values():
        target = (statement.scope, statement.selector, statement.name)
        if not statement.selector:
            if _holds_reference(statement.value, table):
                continue  # rule 2
            target = (statement.shown, "gin.macro", "value")
        gin.bind_parameter(target, _to_gin(statement.value, table))
    value = _call(root)
    _note_references(_reach(table, root))
    return Built(value, gin.operative_config_str(max_line_length=100))


def _note_references(reached: "_Reached") -> None:
    """Makes bindings of functions that are given to others, and not called yet, operative too."""
    for (scope, selector), bound in gin_lib._CONFIG.items():
        if selector != "gin.macro" or scope in reached.macros:
            gin_lib._OPERATIVE_CONFIG.setdefault((scope, selector), dict(bound))


def is_imported(selector: str) -> bool:
    """Whether a configurable comes from a module that a gin file imported, not from here."""
    found = gin_lib._REGISTRY.get_match(selector)
    return found is not None and found.wrapped.__module__.split(".")[0] != "optiml_jax"


def configures(config: Sources, root: str, configurables: Mapping[str, Callable[..., Any]]) -> bool:
    """Whether any file or flag binds a parameter of `root`."""
    make_known(configurables)
    return any(statement.selector == root for statement in read(config))


def gin_folder() -> pathlib.Path:
    """The folder of the gin files that come with this package, installed or in a checkout."""
    package = pathlib.Path(optiml_jax.__file__).parent
    # Beside an installed wheel, `../gin` is the gin library: take it only with our files in it.
    for folder in (package / "gin_files", package.parent / "gin"):
        if (folder / MODEL_FOLDER).is_dir():
            return folder
    raise InputError(
        f"the gin files of optiml_jax are missing beside '{package}'. Install the package again."
    )


def gin_files() -> list[str]:
    """Names of the gin files that come with this package, as `--gin_file` takes them."""
    folder = gin_folder()
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.gin"))


def find_file(name: str, search_paths: Sequence[str] = ()) -> pathlib.Path:
    """The gin file of that name: search paths first, then working directory, then the package.

    Raises:
        InputError: no such file, or a folder.
    """
    folders = [pathlib.Path(path) for path in search_paths] + [pathlib.Path.cwd(), gin_folder()]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    searched = ", ".join(f"'{folder}'" for folder in folders)
    error = errors.unknown("gin file", name, gin_files(), where="--gin_file")
    raise InputError(f"{error} Searched: {searched}.")


def read(config: Sources) -> list[Statement]:
    """All statements in the order in which they apply; imports are carried out on the way."""
    statements: list[Statement] = []
    for name in config.files:
        statements += _read_file(name, config.search_paths, including=())
    for flag, text in config.bindings:
        try:
            parsed = list(config_parser.ConfigParser(text, _Delegate()))
        except (SyntaxError, ValueError, tokenize.TokenError) as error:
            raise _bad_flag(flag, text) from error
        for statement in parsed:
            if not isinstance(statement, config_parser.BindingStatement):
                raise InputError(f"{flag}: '{text}' is no binding. Write NAME = VALUE.")
            statements.append(_statement(statement, flag, in_model_file=False))
    return statements


def check(
    statements: Sequence[Statement], table: Mapping[tuple[str, str, str], Statement], root: str
) -> None:
    """Raises InputError at the first thing that a user has to change.

    Args:
        statements: all, also those that later ones replaced.
        table: what is in force, by `Statement.key`.
        root: name of the root configurable.
    """
    if not any(statement.selector == root for statement in statements):
        runs = [name for name in gin_files() if _configures(gin_folder() / name, root)]
        models = [name for name in gin_files() if name.startswith(MODEL_FOLDER)]
        raise InputError(
            f"nothing configures `{root}`: its required values are not set. Give a model file and"
            f" a run file, in this order: --gin_file=FILE --gin_file=FILE. Run files:"
            f" {', '.join(runs) or 'none here'}. Model files: {', '.join(models)}."
        )
    reached = _reach(table, _selector(root, "", root))
    used = sorted(reached.macros)
    _check_defined(table, reached, statements)
    for name in reached.macros:
        _check_cycle(name, table, ())
    for statement in statements:
        if statement.selector:
            _check_reached(statement, reached, root)
        elif statement.shown not in reached.macros and not statement.in_model_file:
            declared = any(s.in_model_file for s in statements if s.key == statement.key)
            if not declared:
                raise errors.unknown("macro", statement.shown, used, statement.where)
            raise InputError(
                f"{statement.where}: macro '{statement.shown}' has no effect: nothing in this "
                f"`{root}` configuration refers to it. Remove it. Used: {', '.join(used)}."
            )
    _check_required(table, reached)
    for statement in table.values():
        if statement.selector:
            _check_type(statement, table)


# --- reading -------------------------------------------------------------------------------------


class _Delegate(config_parser.ParserDelegate):
    """Keeps references and macros as what they are: nothing is looked up while parsing."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        *scopes, selector = scoped_configurable_name.split("/")
        return Reference("/".join(scopes), selector, evaluate)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)


def _read_file(
    name: str, search_paths: Sequence[str], including: tuple[pathlib.Path, ...]
) -> Iterator[Statement]:
    path = find_file(name, search_paths).resolve()
    if path in including:
        raise InputError(f"{including[-1]}: include '{name}' leads back to a file being read.")
    # The package's own files define macros that a later binding may leave without a use.
    in_model_file = path.parent.name in SHARED_FOLDERS or gin_folder() in path.parents
    try:
        text = path.read_text("utf-8")
        parser = config_parser.ConfigParser(text, _Delegate())
        for statement in parser:
            where = f"{name}:{statement.location.line_num}"
            if isinstance(statement, config_parser.BindingStatement):
                yield _statement(statement, where, in_model_file)
            elif isinstance(statement, config_parser.IncludeStatement):
                yield from _read_file(statement.filename, search_paths, (*including, path))
            elif isinstance(statement, config_parser.ImportStatement):
                _import(statement, where)
            elif isinstance(statement, config_parser.BlockDeclaration):
                _selector(statement.selector, where, statement.selector)
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not a text file ({error}).") from error
    except tokenize.TokenError as error:
        raise InputError(f"{name}: not gin: {error.args[0]}.") from error
    except SyntaxError as error:
        line = (error.text or "").strip()
        target, is_binding, value = (part.strip() for part in line.partition("="))
        message = f"{error.msg}: '{line}'."
        if "Failed to parse token" in error.msg and is_binding:
            message = f"{target} is {value}, expected a Python literal (no calls, no bare names)."
        raise InputError(
            f"{name}:{error.lineno}: not gin: {message} Strings need quotes."
        ) from error


def _statement(
    parsed: config_parser.BindingStatement, where: str, in_model_file: bool
) -> Statement:
    if not parsed.arg_name:
        name = f"{parsed.scope}/{parsed.selector}" if parsed.scope else parsed.selector
        return Statement("", "", name, parsed.value, where, in_model_file)
    selector = _selector(parsed.selector, where, parsed.selector)
    parameters = _parameters(selector)
    if parsed.arg_name not in parameters:
        raise errors.unknown(f"parameter of {selector}", parsed.arg_name, parameters, where)
    return Statement(parsed.scope, selector, parsed.arg_name, parsed.value, where, in_model_file)


def _unless_set(statement: Statement, unset: Mapping[str, Any]) -> Statement:
    if statement.selector or statement.name not in unset or not _is_required(statement.value):
        return statement
    return dataclasses.replace(statement, value=unset[statement.name])


def _import(statement: config_parser.ImportStatement, where: str) -> None:
    if statement.module.startswith("__gin__"):
        raise InputError(
            f"{where}: '{statement.module}' is not supported: every configurable is registered "
            f"already, by name. Remove the line. Known: {', '.join(_names())}."
        )
    try:
        importlib.import_module(statement.module)
    except ImportError as error:
        raise InputError(
            f"{where}: import {statement.module}: {error}. Install it, or put its folder on "
            "PYTHONPATH."
        ) from error
    gin_lib._IMPORTS.add(statement)  # The effective config needs it to be given again.


def _bad_flag(flag: str, statement: str) -> InputError:
    name, _, value = statement.partition(" = ")
    if flag == "--gin_bindings":
        return InputError(f"{flag}: '{statement}' is not a gin statement. Write NAME = VALUE.")
    if not value:
        return InputError(f"{flag} has no value. Write {flag}=VALUE.")
    return InputError(
        f"{flag}: {value} is not a Python literal. A string needs quotes inside the shell's: "
        f"--gin.{name}=\"'{value}'\"."
    )


# --- the registry --------------------------------------------------------------------------------


def _register(name: str, configurable: Callable[..., Any]) -> None:
    registry = gin_lib._REGISTRY
    full = f"{configurable.__module__}.{name}"
    if full not in registry:
        gin.external_configurable(configurable, name=name, module=configurable.__module__)


def _names() -> list[str]:
    """Every registered name in its shortest form, gin's own aside."""
    registry = gin_lib._REGISTRY
    return sorted(
        registry.minimal_selector(full) for full in registry._selector_map if full[:4] != "gin."
    )


def _selector(name: str, where: str, shown: str) -> str:
    """The shortest unambiguous form of a configurable's name."""
    registry = gin_lib._REGISTRY
    matches = registry.matching_selectors(name)
    if not matches:
        error = errors.unknown("configurable", shown, _names(), where)
        other = f" `{name}` belongs to `{COMMANDS[name]}`." if name in COMMANDS else ""
        raise InputError(f"{error}{other}")
    if len(matches) > 1:
        raise InputError(f"{where}: '{shown}' is ambiguous: {', '.join(sorted(matches))}.")
    return registry.minimal_selector(matches[0])


def _parameters(selector: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(_wrapped(selector)).parameters


def _wrapped(selector: str) -> Callable[..., Any]:
    """What was registered under a known name."""
    configurable = gin_lib._REGISTRY.get_match(selector)
    assert configurable is not None, selector
    return configurable.wrapped


# --- the checks ----------------------------------------------------------------------------------


@dataclasses.dataclass
class _Reached:
    """What the root's bindings lead to, directly or through macros."""

    configurables: set[str] = dataclasses.field(default_factory=set)
    called: set[str] = dataclasses.field(default_factory=set)  # by gin, not handed over as `@name`
    scopes: set[str] = dataclasses.field(default_factory=set)
    macros: dict[str, str] = dataclasses.field(default_factory=dict)  # name -> first place


def _leaves(value: Any) -> Iterator[Macro | Reference]:
    if isinstance(value, Macro | Reference):
        yield value
    elif isinstance(value, Mapping):
        for item in (*value.keys(), *value.values()):
            yield from _leaves(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _leaves(item)


def _reach(table: Mapping[tuple[str, str, str], Statement], root: str) -> _Reached:
    reached = _Reached({root}, {root})
    by_selector = collections.defaultdict(list)
    for statement in table.values():
        by_selector[statement.selector or statement.shown].append(statement)
    waiting = list(by_selector[root])
    while waiting:
        statement = waiting.pop()
        for leaf in _leaves(statement.value):
            if isinstance(leaf, Macro):
                if leaf.name not in reached.macros and not _is_constant(leaf.name):
                    reached.macros[leaf.name] = statement.where
                    waiting += [s for s in by_selector[leaf.name] if not s.selector]
                continue
            selector = _selector(leaf.selector, statement.where, leaf.selector)
            reached.scopes.update(leaf.scope.split("/"))
            if leaf.evaluate:
                reached.called.add(selector)
            if selector not in reached.configurables:
                reached.configurables.add(selector)
                waiting += by_selector[selector]
    return reached


def _is_constant(name: str) -> bool:
    return bool(gin_lib._CONSTANTS.matching_selectors(name))


def _check_defined(
    table: Mapping[tuple[str, str, str], Statement],
    reached: _Reached,
    statements: Sequence[Statement],
) -> None:
    defined = {statement.shown for statement in table.values() if not statement.selector}
    for name, where in sorted(reached.macros.items()):
        if name in defined:
            continue
        if _defined_in_models(name):
            raise InputError(
                f"{where}: macro '{name}' is not defined: it comes with the model. Put a model "
                "file first, e.g. --gin_file=models/opt_125m.gin (others: "
                f"{', '.join(file for file in gin_files() if file.startswith(MODEL_FOLDER))})."
            )
        guess = errors.nearest(name, defined - set(reached.macros))
        flags = [s for s in statements if s.shown == guess] if guess else []
        raise InputError(
            f"{where}: macro '{name}' is not defined. Set it with --gin.{name}=VALUE."
            + (f" Did you mean it by '{guess}' ({flags[-1].where})?" if flags else "")
        )


def _configures(path: pathlib.Path, root: str) -> bool:
    return any(line.startswith(f"{root}.") for line in path.read_text("utf-8").splitlines())


def _defined_in_models(name: str) -> bool:
    folder = gin_folder() / MODEL_FOLDER
    return any(
        line.partition("=")[0].strip() == name
        for path in folder.glob("*.gin")
        for line in path.read_text("utf-8").splitlines()
    )


def _check_cycle(
    name: str, table: Mapping[tuple[str, str, str], Statement], path: tuple[str, ...]
) -> None:
    if name in path:
        where = table["", "", name].where
        raise InputError(f"{where}: macro '{name}' refers to itself: {' -> '.join((*path, name))}.")
    definition = table.get(("", "", name))
    for leaf in _leaves(definition.value if definition else ()):
        if isinstance(leaf, Macro):
            _check_cycle(leaf.name, table, (*path, name))


def _check_reached(statement: Statement, reached: _Reached, root: str) -> None:
    if statement.selector not in reached.configurables:
        raise InputError(
            f"{statement.where}: '{statement.shown}' has no effect: `{root}` never builds "
            f"{statement.selector} in this configuration. Remove it. Built here: "
            f"{', '.join(sorted(reached.configurables))}."
        )
    for scope in statement.scope.split("/"):
        if scope and scope not in reached.scopes:
            known = sorted(reached.scopes - {""})
            raise errors.unknown("scope", scope, known, statement.where)


def _check_required(table: Mapping[tuple[str, str, str], Statement], reached: _Reached) -> None:
    missing = [
        f"--gin.{statement.name}=VALUE (asked for in {statement.where})"
        for statement in table.values()
        if not statement.selector
        and statement.name in reached.macros
        and _is_required(statement.value)
    ]
    bound = {(s.selector, s.name): s for s in table.values() if s.selector}
    for selector in sorted(reached.called):
        for name, parameter in _parameters(selector).items():
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            statement = bound.get((selector, name))
            unset = statement is None and parameter.default is _NO_DEFAULT
            if unset or (statement is not None and _is_required(statement.value)):
                missing.append(f"--gin.{selector}.{name}=VALUE")
    if missing:
        raise InputError(
            f"{len(missing)} required value{'s' if len(missing) > 1 else ''} not set: "
            f"{'; '.join(missing)}. Strings need quotes inside the shell's: \"'text'\"."
        )


def _is_required(value: Any) -> bool:
    return isinstance(value, Macro) and _is_constant(value.name) and "REQUIRED" in value.name


def _check_type(statement: Statement, table: Mapping[tuple[str, str, str], Statement]) -> None:
    """Compares a value with a plain annotation (int, float, bool, str, None, and unions)."""
    configurable = _wrapped(statement.selector)
    hints = typing.get_type_hints(
        configurable.__init__ if inspect.isclass(configurable) else configurable
    )
    expected = _plain_types(hints.get(statement.name))
    value, where = statement.value, statement.where
    while isinstance(value, Macro) and ("", "", value.name) in table:
        definition = table["", "", value.name]
        value, where = definition.value, definition.where
    if expected is None or any(True for _ in _leaves(value)):
        return
    fits = type(value) in expected or (type(value) is int and float in expected)
    if not fits:
        names = " or ".join("None" if t is types.NoneType else t.__name__ for t in expected)
        raise InputError(
            f"{where}: {statement.shown} is {value!r} ({type(value).__name__}), expected {names}."
        )


def _plain_types(hint: Any) -> tuple[type, ...] | None:
    """The types a plain annotation allows, None where it is not plain."""
    plain = (int, float, bool, str, types.NoneType)
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(members) if all(member in plain for member in members) else None


# --- binding and building ------------------------------------------------------------------------


def _holds_reference(value: Any, table: Mapping[tuple[str, str, str], Statement]) -> bool:
    for leaf in _leaves(value):
        if isinstance(leaf, Reference):
            return True
        definition = table.get(("", "", leaf.name))
        if definition is not None and _holds_reference(definition.value, table):
            return True
    return False


def _to_gin(value: Any, table: Mapping[tuple[str, str, str], Statement]) -> Any:
    """Replaces `Macro` and `Reference` by gin's own."""
    if isinstance(value, Reference):
        scoped = f"{value.scope}/{value.selector}" if value.scope else value.selector
        return gin_lib.ConfigurableReference(scoped, value.evaluate)
    if isinstance(value, Macro):
        if _holds_reference(value, table):
            return _to_gin(table["", "", value.name].value, table)
        return gin_lib.ParserDelegate().macro(value.name)
    if isinstance(value, Mapping):
        return {_to_gin(k, table): _to_gin(v, table) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to_gin(item, table) for item in value)
    return value


def _call(root: str) -> Any:
    """Calls the root; a config that refuses its values is the user's error, not a fault here."""
    try:
        return gin.get_configurable(root)()
    except (ValueError, TypeError) as error:
        # gin appends its own account of calls to the message.
        message, _, calls = str(error).partition("\n  In call to configurable '")
        name = calls.partition("'")[0]
        if isinstance(error, InputError):
            raise InputError(message) from error
        raise InputError(f"{name}: {message.splitlines()[0]}") from error


def same(old: str, new: str) -> bool:
    """Whether two effective configs bind the same, their comments aside."""

    def lines(text: str) -> list[str]:
        return [line for line in text.splitlines() if line and not line.startswith("#")]

    return lines(old) == lines(new)
