"""A user's own module of SeqIO tasks: found, imported once, and what it says about its tasks.

    load_modules     "my_tasks", "examples/my_tasks.py", or several with commas -> modules
    declarations     their `OPTIML` tables -> what SeqIO has no field for: category, level, metric

A module registers with `seqio.TaskRegistry.add` while it is imported, as SeqIO users do; nothing
of this package registers at import. Neighbours: `foreign_tasks` reads the registered tasks. This
file itself imports neither SeqIO nor TensorFlow.
"""

import dataclasses
import importlib
import importlib.util
import os
import pathlib
import re
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

from optiml_jax import errors
from optiml_jax.bench import catalog, splits, taxonomy
from optiml_jax.errors import InputError

TABLE = "OPTIML"
"""Name of the optional table in a user's module."""

ROLES = tuple(role for role in splits.ROLES if role != "excluded")


@dataclasses.dataclass(frozen=True)
class Declaration:
    """One entry of a module's `OPTIML` table, `{"task name": {"category": ...}}`.

    Attributes:
        category: under which the task is reported; a name of `taxonomy` or a new one.
        benchmark: under which it is grouped.
        metric: rouge_l, exact_match or accuracy (which ranks `options`).
        role: train, validation or test; None: its splits decide (`foreign_tasks`).
        version: raised by the user when its text changed in a way that SeqIO cannot show.
        options: answers to choose from, where every example has the same ones.
        language: of the answers; Rouge-L of other languages than English uses other tokens.
        eval_split: the SeqIO split that is evaluated; None: validation, or else test.
    """

    category: str = "Misc."
    benchmark: str = "user"
    metric: str = "rouge_l"
    role: str | None = None
    version: str = "1"
    options: tuple[str, ...] = ()
    language: str = "English"
    eval_split: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values, as it enters a task's digest."""
        return {**dataclasses.asdict(self), "options": list(self.options)}


def load_modules(names: str | Sequence[str]) -> tuple[types.ModuleType, ...]:
    """The modules of these names, imported once however often and in whichever way they are named.

    Args:
        names: one name, several separated by commas, or a list; each is a name that Python can
            import (the working directory is looked in too) or the path of a .py file or package.

    Raises:
        InputError: a module is not found, or raises; the message has its file and line.
    """
    parts = names.split(",") if isinstance(names, str) else names
    if not isinstance(parts, list | tuple) or not all(isinstance(p, str) for p in parts):
        raise InputError(
            f"module {names!r}: expected a name such as 'my_tasks', or a list of them."
        )
    if not parts or not all(part.strip() for part in parts):
        raise InputError(f"module {names!r}: a name is empty. Give one such as 'my_tasks'.")
    return tuple(_load(part.strip()) for part in parts)


def declarations(modules: Sequence[types.ModuleType]) -> dict[str, Declaration]:
    """The entries of all `OPTIML` tables, by task.

    Raises:
        InputError: a table, field or value that does not fit, or two entries that differ.
    """
    found: dict[str, Declaration] = {}
    for module in modules:
        table = getattr(module, TABLE, {})
        where = f"{module.__file__}: {TABLE}"
        if not isinstance(table, Mapping):
            raise InputError(f"{where} is {table!r:.60}, expected {{'task name': {{...}}}}.")
        for name, row in table.items():
            if not isinstance(name, str):
                raise InputError(f"{where} has the key {name!r:.60}, expected the name of a task.")
            declared = _declaration(row, f"{where}['{name}']")
            if found.setdefault(name, declared) != declared:
                raise InputError(f"{where}['{name}']: another module declares it differently.")
    return found


def _declaration(row: Any, where: str) -> Declaration:
    if not isinstance(row, Mapping):
        raise InputError(f"{where} is {row!r:.60}, expected {{'category': ..., 'metric': ...}}.")
    fields = [field.name for field in dataclasses.fields(Declaration)]
    values = dict(row)
    for name, value in values.items():
        if not isinstance(name, str):
            raise InputError(f"{where} has the key {name!r:.60}, expected the name of a field.")
        if name not in fields:
            raise errors.unknown("field", name, fields, where)
        if name == "options":
            if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
                raise InputError(f"{where}['options'] is {value!r:.60}, expected a list of texts.")
            values[name] = tuple(value)
        elif name in ("role", "eval_split") and value is None:
            continue
        elif name == "version" and isinstance(value, int):
            values[name] = str(value)
        elif not isinstance(value, str) or not value.strip():
            raise InputError(f"{where}['{name}'] is {value!r:.60}, expected some text.")
    declared = Declaration(**values)
    if declared.metric not in catalog.METRIC_NAMES:
        raise errors.unknown("metric", declared.metric, catalog.METRIC_NAMES, where)
    if declared.role is not None and declared.role not in ROLES:
        raise errors.unknown("role", declared.role, ROLES, where)
    if declared.benchmark != catalog.legal_name(declared.benchmark):
        raise InputError(
            f"{where}['benchmark'] is '{declared.benchmark}', expected letters, digits and"
            f" underscores: '{catalog.legal_name(declared.benchmark)}'."
        )
    return dataclasses.replace(declared, category=_category(declared.category))


def _category(name: str) -> str:
    """The known spelling of a category; a new one stays as it is, outer blanks aside."""
    try:
        return taxonomy.canonical_category(name)
    except InputError:
        return name.strip()


def _load(name: str) -> types.ModuleType:
    if name.endswith(".py") or "/" in name or os.sep in name:
        return _load_file(_file_of(name), name)
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name):
        raise _not_found(name)
    # A console script does not look in the working directory; installed modules stay first.
    if (here := os.getcwd()) not in sys.path and "" not in sys.path:
        sys.path.append(here)
        importlib.invalidate_caches()
    try:
        found = importlib.util.find_spec(name)
        origin = found.origin if found else None
        # Given as a path before, it has another name there; a second import would register twice.
        loaded = _loaded(pathlib.Path(origin).resolve()) if origin else None
        return loaded or importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise _not_found(name) from error
        raise _failed(name, error) from error
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def _file_of(name: str) -> pathlib.Path:
    # Unlike Path.expanduser it leaves the name of an unknown user as it is.
    path = pathlib.Path(os.path.expanduser(name))
    if path.is_dir():
        path = path / "__init__.py"
    elif not path.suffix:
        path = path.with_suffix(".py")
    if not path.is_file():
        known = [str(other) for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        guess = errors.nearest(str(path), known)
        raise InputError(
            f"module file '{path}' does not exist."
            + (f" Did you mean '{guess}'?" if guess else "")
            + " Give the path of a .py file, or of a folder with an __init__.py."
        )
    return path.resolve()


def _loaded(path: pathlib.Path) -> types.ModuleType | None:
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        # Resolved: a link to a folder is another way to name what lies there.
        if (
            isinstance(file, str)
            and file.endswith(path.name)
            and pathlib.Path(file).resolve() == path
        ):
            return module
    return None


def _load_file(path: pathlib.Path, name: str) -> types.ModuleType:
    if (loaded := _loaded(path)) is not None:
        return loaded
    is_package = path.name == "__init__.py"
    stem = path.parent.name if is_package else path.stem
    folder = path.parent.parent if is_package else path.parent
    # The plain name lets `import my_tasks` elsewhere find the same module; a taken one is left. A
    # name with a dot would be looked for inside a package.
    taken = stem in sys.modules
    if not taken and "." not in stem and (other := importlib.util.find_spec(stem)) is not None:
        taken = other.origin is None or pathlib.Path(other.origin).resolve() != path
    spec = importlib.util.spec_from_file_location(
        f"optiml_user_{stem}" if taken else stem,
        path,
        submodule_search_locations=[str(path.parent)] if is_package else None,
    )
    if spec is None or spec.loader is None:
        raise InputError(f"module file '{path}' is no Python file. Give the path of a .py file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise _failed(name, error) from error
    return module


def _not_found(name: str) -> InputError:
    here = pathlib.Path.cwd()
    known = [path.stem for path in here.glob("*.py")]
    known += [path.parent.name for path in here.glob("*/__init__.py")]
    guess = errors.nearest(name, known)
    return InputError(
        f"module '{name}' was found neither in the working directory '{here}' nor among the"
        " installed modules."
        + (f" Did you mean '{guess}'?" if guess else "")
        + " Give a name that Python can import, or a path such as examples/my_tasks.py."
    )


def _failed(name: str, error: BaseException) -> InputError:
    where = _line_of(error)
    return InputError(
        f"module '{name}' cannot be imported: {where + ': ' if where else ''}"
        f"{type(error).__name__}: {error}"
    )


def _line_of(error: BaseException) -> str:
    """file:line of the last line of the user's own code that was running, "" if none was."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    place = ""
    step = error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        package = str(step.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in ("optiml_jax", "importlib") and not file.startswith("<"):
            inside = "site-packages" in file or file.startswith(os.path.dirname(os.__file__))
            place = place if inside else f"{file}:{step.tb_lineno}"
        step = step.tb_next
    return place
