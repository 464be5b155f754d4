"""`samples.jsonl`: one line per answered example, appended as answers come.

The first line is a header that names the model and what decides its answers. A file whose
evaluation was killed is taken up where it ends: a half-written last line is cut off, and what is
there is not asked again. The order of lines is that of the work, not that of the records; of two
lines with one key the later one counts (an answer that was scored anew).
"""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from optiml_jax.errors import InputError

FILE_NAME = "samples.jsonl"
SCHEMA = 1

# What must be equal for two runs to share a file; the rest of a header is for people.
_DECISIVE = ("schema", "fingerprint", "settings")

# What an evaluation that goes on reads of a sample.
_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("key", "task", "id", "prompt_id", "prediction", "metric"), str),
    **{"references": list, "score": int | float, "scores": dict, "truncated": bool},
}


class SamplesFile:
    """An append-only file of samples.

    Args:
        header: with "fingerprint" (of the model) and "settings" (what decides answers); a file of
            another header is refused.
        writable: False reads only (every process but the first).

    Attributes:
        samples: those on disk, by their "key".

    Raises:
        InputError: the file is of another evaluation, or damaged before its end.
    """

    def __init__(
        self, directory: str | os.PathLike[str], header: Mapping[str, Any], writable: bool = True
    ) -> None:
        self.path = pathlib.Path(directory) / FILE_NAME
        self.samples: dict[str, dict[str, Any]] = {}
        self._header = {"schema": SCHEMA, **header}
        self._writable = writable
        self._has_header = False
        if self.path.exists():
            self._read()

    def append(self, samples: Iterable[dict[str, Any]]) -> None:
        """Adds samples, on disk when this returns."""
        samples = list(samples)
        if not samples:
            return
        lines = [] if self._has_header else [self._header]
        lines += samples
        if self._writable:
            with writing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
                    file.flush()
                    os.fsync(file.fileno())
        self._has_header = True
        self.samples.update({sample["key"]: sample for sample in samples})

    def _read(self) -> None:
        content = _read_bytes(self.path)
        whole = content.rfind(b"\n") + 1
        if whole < len(content) and self._writable:
            # The evaluation was killed while it wrote this line.
            os.truncate(self.path, whole)
        lines = _decode(content[:whole], self.path).split("\n")[:-1]
        for number, line in enumerate(lines, start=1):
            row = self._parse(line, number)
            if number == 1:
                self._check_header(row)
                self._has_header = True
            else:
                self.samples[row["key"]] = row

    def _parse(self, line: str, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        fields = _FIELDS if number > 1 else {}
        if not isinstance(row, dict) or not all(
            isinstance(row.get(name), kind) for name, kind in fields.items()
        ):
            raise InputError(
                f"{self.path}, line {number}: not a sample of an evaluation: {line[:60]!r}. Remove"
                " the line to have its example answered again, or choose another output folder."
            )
        return row

    def _check_header(self, found: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps(self._header))
        differing = [name for name in _DECISIVE if found.get(name) != wanted[name]]
        if differing:
            told = "; ".join(
                f"{name} is {found.get(name)!r} there, {wanted[name]!r} now" for name in differing
            )
            raise InputError(
                f"{self.path} holds samples of another evaluation: {told}. Choose another output"
                " folder, or delete the file to start anew."
            )


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Around what writes `path`: a full or forbidden disk becomes an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written: {error.strerror}. Make room, or choose another output"
            " folder, and start the same command again."
        ) from error


def check_fields(sample: Mapping[str, Any], kinds: Mapping[str, type], where: str) -> None:
    """Checks what a reader of samples needs of one: texts, lists of texts, numbers.

    Raises:
        InputError: names the field.
    """
    for field, kind in kinds.items():
        value = sample.get(field)
        fits = isinstance(value, int | float if kind is float else kind)
        if kind is list:
            fits = fits and all(isinstance(text, str) for text in sample[field])
        if kind is float:
            fits = fits and not isinstance(value, bool) and math.isfinite(sample[field])
        if not fits:
            shown = f"{value!r:.60}" if field in sample else "missing"
            raise InputError(f"{where}: field '{field}' is {shown}. Evaluate again.")


def read_samples(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The header and the samples of a file, in the order of its lines, each key once.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist. Give the {FILE_NAME} of an evaluation.")
    header: dict[str, Any] = {}
    samples: dict[Any, dict[str, Any]] = {}
    for number, line in enumerate(_decode(_read_bytes(path), path).split("\n"), start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: not JSON: {error}.") from error
        if not header:
            if not isinstance(row, dict) or "fingerprint" not in row:
                raise InputError(f"{path}, line 1: not the header of an evaluation.")
            header = row
        elif not isinstance(row, dict) or not isinstance(row.get("key", ""), str):
            raise InputError(
                f"{path}, line {number}: not a sample of an evaluation: {line[:60]!r}."
            )
        else:
            samples[row.get("key", number)] = row
    if not header:
        raise InputError(f"{path}, line 1: not the header of an evaluation.")
    return header, list(samples.values())


def _read_bytes(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from error


def _decode(content: bytes, path: pathlib.Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}: not UTF-8 in line {line}. Remove the line to have its example answered again,"
            " or choose another output folder."
        ) from error
