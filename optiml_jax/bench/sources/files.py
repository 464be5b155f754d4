"""Files and folders as the readers of benchmarks need them: bytes, text, lines, JSON.

Whatever is wrong with a file is an `InputError` that names the file, and the line where it has
lines. What the content means is the readers' business.
"""

import codecs
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from optiml_jax.errors import InputError

Path = str | os.PathLike[str]

CHECK = "Check that the file is there and its permissions."
CORRECT = "Correct the file or fetch it again."


def check_folder(folder: Path, where: str, expected: str) -> None:
    """Raises unless the folder is there.

    Args:
        where: the folder, for the message.
        expected: a sentence.
    """
    if not os.path.isdir(folder):
        problem = "is a file, not a folder" if os.path.exists(folder) else "does not exist"
        raise InputError(f"{where} {problem}. {expected}")


def listed(folder: Path) -> list[pathlib.Path]:
    """What a folder holds, by name, hidden entries left out.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be read ({error.strerror}).") from error
    # Editors and file managers leave hidden files beside the real ones.
    return [pathlib.Path(folder, name) for name in names if not name.startswith(".")]


def unreadable(path: Path, error: OSError, fix: str = CHECK) -> InputError:
    """An error for a file that cannot be opened or read."""
    return InputError(f"{path}: cannot be read ({error.strerror}). {fix}")


def read_bytes(path: Path, fix: str = CHECK) -> bytes:
    """All of a file.

    Raises:
        InputError: it cannot be read; `fix` is what to do.
    """
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error, fix) from error


def decode(data: bytes, where: str, part: str = "") -> str:
    """UTF-8 as text, without the mark that some editors put at the beginning.

    Args:
        part: " of the line" where the bytes are one line of the file.

    Raises:
        InputError: not UTF-8.
    """
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: not UTF-8 at byte {error.start} (0x{data[error.start]:02x}){part}."
            " Save the file as UTF-8."
        ) from error


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a file one by one, line ends included, each behind its place "FILE:NUMBER".

    Raises:
        InputError: the file cannot be read, or a line is not UTF-8.
    """
    try:
        with open(path, "rb") as file:
            for number, data in enumerate(file, start=1):
                where = f"{path}:{number}"
                yield where, decode(data, where, " of the line")
    except OSError as error:
        raise unreadable(path, error) from error


def read_json(path: Path, fix: str = CORRECT) -> Any:
    """The content of a file that is JSON.

    Raises:
        InputError: the file cannot be read, or see `parse_json`.
    """
    return parse_json(decode(read_bytes(path), str(path)), str(path), fix)


def parse_json(
    text: str,
    where: str,
    fix: str = CORRECT,
    is_line: bool = False,
    make_object: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """The value that a text of JSON stands for, all of it text that can be stored.

    Args:
        fix: what to do about a text that is not JSON.
        is_line: `where` has the line already.
        make_object: of an object's names and values; a dict when None.

    Raises:
        InputError: not JSON, nested too deeply, a number too long, or half of a surrogate pair.
    """
    try:
        found = json.loads(text, object_pairs_hook=make_object)
        # A file without this escape has no half pair: UTF-8 forbids them.
        if "\\ud" in text or "\\uD" in text:
            _check_characters(found, where)
    except json.JSONDecodeError as error:
        line = "" if is_line else f"line {error.lineno}, "
        raise InputError(
            f"{where}: not JSON at {line}column {error.colno}: {error.msg}. {fix}"
        ) from error
    except RecursionError as error:
        raise InputError(f"{where}: its JSON is nested too deeply. Flatten it.") from error
    except InputError:
        raise
    # All that is left: Python's limit, which keeps it from hours of work on one number.
    except ValueError as error:
        raise InputError(f"{where}: its JSON has {too_long_number()}") from error
    return found


def too_long_number() -> str:
    """What is wrong with a number that Python refuses to read, and what to do."""
    limit = sys.get_int_max_str_digits()
    return f"a whole number of more than {limit:,} digits. Shorten it, or write it as text."


def _check_characters(found: Any, where: str) -> None:
    """Half of an escaped pair is legal JSON and no text: it can be neither stored nor tokenized."""
    parts: Iterable[tuple[str, Any]] = [("it", found)]
    if isinstance(found, dict):
        parts = ((f"field {name!a}", [name, value]) for name, value in found.items())
    elif isinstance(found, list):
        parts = ((f"row {number}", value) for number, value in enumerate(found, start=1))
    for part, value in parts:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{where}: {part} holds half of a surrogate pair, which is no character"
                f" (\\u{ord(error.object[error.start]):04x}). Correct the file."
            ) from error
