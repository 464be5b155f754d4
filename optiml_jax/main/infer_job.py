"""What `optiml infer` does: rows in, rows out, in parts that a killed run does not lose.

    rows (checked) -> parts of PART_BATCHES batches -> OUTPUT.partial, fsync -> OUTPUT

Parts are cut by row number alone, so a run that goes on computes the same batches as one that was
never stopped, and writes the same bytes. OUTPUT.partial.json tells whose OUTPUT.partial is; another
model, input or setting is refused. Neighbours: `infer` has the flags, `infer.engine` the model.
"""

import codecs
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import jax
from jax.experimental import multihost_utils

from optiml_jax import errors
from optiml_jax.errors import InputError
from optiml_jax.infer import engine, scoring
from optiml_jax.infer.settings import DecodingConfig
from optiml_jax.main import opened_model
from optiml_jax.model.partitioning import MeshConfig

PART_BATCHES = 4
"""Batches between two writes: sorted by length within, so few waste padding."""

STREAM = "-"
OWN_KEYS = ("text", "num_tokens", "score", "sequences", "log_probs", "choice")


@dataclasses.dataclass(frozen=True)
class InferJob:
    """One call of `optiml infer`; the attributes are its flags."""

    checkpoint: str
    input: str
    output: str
    settings: DecodingConfig
    normalization: str
    batch_size: int
    dtype: str | None
    mesh: MeshConfig

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"--batch_size is {self.batch_size}, expected 1 or more.")
        if self.normalization not in scoring.NORMALIZATIONS:
            raise errors.unknown(
                "normalization", self.normalization, scoring.NORMALIZATIONS, "--normalization"
            )


def run(job: InferJob) -> int:
    """Checks everything, then continues or ranks every row; returns the exit code."""
    check_output(job.output)
    content = read_input(job.input)
    by_line = parse_rows(content, job.input)
    rows = list(by_line.values())
    opened = opened_model.open_model(job.checkpoint, job.dtype, job.mesh, job.settings)
    check_options(opened.make_engine(), by_line, job.input)
    model = opened.load(job.batch_size)
    part = PART_BATCHES * job.batch_size
    cut = 0
    with _output(job, model, content, part) as (file, done):
        for start in range(done, len(rows), part):
            answers, truncated = answer(model, rows[start : start + part], start, job)
            cut += truncated
            if file is None:
                continue
            file.writelines(map(_json_line, answers))
            file.flush()
            if job.output != STREAM:
                os.fsync(file.fileno())
                count = min(start + part, len(rows))
                print(f"infer {count}/{len(rows)} rows", file=sys.stderr, flush=True)
    if cut and jax.process_index() == 0:
        print(f"{cut} prompts were cut on the left to fit the model.", file=sys.stderr)
    return 0


def read_input(path: str) -> bytes:
    """The bytes of a file or of standard input."""
    if path == STREAM:
        return sys.stdin.buffer.read()
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        guess = errors.near_path(path) if isinstance(error, FileNotFoundError) else ""
        raise InputError(
            f"--input '{path}' cannot be read ({error.strerror}).{guess} Give a JSONL file, or -."
        ) from None


def parse_rows(content: bytes, where: str) -> dict[int, dict[str, Any]]:
    """The rows of a JSONL file by their lines' numbers, which count from 1.

    Lines without text are left out, and a byte order mark at the file's start.

    Raises:
        InputError: names file, line and field of the first bad row.
    """
    lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    rows = {
        number: _parse_row(line, f"{where}, line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    }
    if not rows:
        raise InputError(f'{where}: has no rows. Write one {{"prompt": "..."}} a line.')
    return rows


def _parse_row(line: bytes, where: str) -> dict[str, Any]:
    if line.startswith(codecs.BOM_UTF8):
        raise InputError(
            f"{where}: begins with a byte order mark, which may stand at the file's start only. "
            "Remove those three bytes."
        )
    try:
        row = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: not UTF-8 at byte {error.start + 1}. Convert the file, e.g. with iconv."
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}. Write one object a line.") from None
    if not isinstance(row, dict):
        raise InputError(f"{where}: {row!r:.60}, expected an object with 'prompt'.")
    if "prompt" not in row:
        raise _missing(row, where)
    texts = {"prompt": row["prompt"]}
    if "options" in row:
        options = row["options"]
        if not isinstance(options, list) or not options:
            raise InputError(
                f"{where}: field 'options' is {options!r:.60}, expected a list of texts. Leave it "
                "out to have the prompt continued."
            )
        texts |= {f"options[{number}]": text for number, text in enumerate(options)}
    for field, text in texts.items():
        if not isinstance(text, str):
            raise InputError(f"{where}: field '{field}' is {text!r:.60}, expected a text.")
    for key, value in row.items():
        # What passes through must be written again.
        try:
            _json_line({key: value})
        except UnicodeEncodeError:
            raise InputError(
                f"{where}: field {key!r} holds half of a UTF-16 pair, no character."
            ) from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: field {key!r} cannot be written again: {error}.") from None
    for key in OWN_KEYS:
        if key in row:
            raise InputError(
                f"{where}: field '{key}' is what the output adds. Rename it in the input."
            )
    return row


def _json_line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _missing(row: dict[str, Any], where: str) -> InputError:
    guess = errors.nearest("prompt", [key for key in row if isinstance(row[key], str)])
    return InputError(
        f"{where}: field 'prompt' is missing; found {', '.join(map(repr, row)) or 'no field'}."
        + (f" Rename '{guess}'?" if guess else "")
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def check_output(path: str) -> None:
    """Raises InputError where `path` is there already, or cannot be made."""
    if path == STREAM:
        return
    output = pathlib.Path(path)
    if output.exists():
        raise InputError(f"--output '{path}' exists already. Remove it, or choose another file.")
    if not output.absolute().parent.is_dir():
        raise InputError(
            f"--output '{path}': the folder '{output.parent}' does not exist."
            f"{errors.near_path(output.parent)} Make it first."
        )


def check_options(model: engine.Engine, rows: Mapping[int, dict[str, Any]], where: str) -> None:
    """Raises InputError, with the line, where an option is empty or does not fit the model.

    Args:
        rows: by their lines' numbers.
    """
    ranked = [line for line, row in rows.items() if "options" in row]
    try:
        model.check_prompts([(rows[line]["prompt"], rows[line]["options"]) for line in ranked])
    except engine.PromptError as error:
        line = ranked[error.index]
        raise InputError(f"{where}, line {line}: field 'options': {error.problem}") from None


def answer(
    model: engine.Engine, rows: Sequence[dict[str, Any]], first: int, job: InferJob
) -> tuple[list[dict[str, Any]], int]:
    """The rows with their answers, and how many prompts were cut.

    Args:
        first: how many rows come before in the file; prompts draw by their number.
    """
    answers: list[dict[str, Any]] = [dict(row) for row in rows]
    ranked = [number for number, row in enumerate(rows) if "options" in row]
    rankings = model.rank(
        [(rows[number]["prompt"], rows[number]["options"]) for number in ranked], job.normalization
    )
    truncated = sum(ranking.truncated for ranking in rankings)
    for number, ranking in zip(ranked, rankings):
        answers[number] |= {"log_probs": list(ranking.log_probs), "choice": ranking.choice}
    # All rows have a number of their own, so that options among them move nobody's draws.
    continued = [number for number, row in enumerate(rows) if "options" not in row]
    generations = model.generate(
        [rows[number]["prompt"] for number in continued],
        settings=job.settings,
        numbers=[first + number for number in continued],
    )
    for number, generation in zip(continued, generations):
        truncated += generation.truncated
        answers[number] |= _told(generation)
        if job.settings.num_return_sequences > 1:
            beams = (generation, *generation.others)
            answers[number]["sequences"] = [_told(beam) for beam in beams]
    return answers, truncated


def _told(generation: engine.Generation) -> dict[str, Any]:
    told: dict[str, Any] = {"text": generation.text, "num_tokens": generation.num_tokens}
    return told if generation.score is None else {**told, "score": generation.score}


@contextlib.contextmanager
def _output(
    job: InferJob, model: engine.Engine, content: bytes, part: int
) -> Iterator[tuple[IO[bytes] | None, int]]:
    """The file that rows are added to (None on other processes), and how many rows it has."""
    is_first = jax.process_index() == 0
    if job.output == STREAM:
        yield (sys.stdout.buffer if is_first else None), 0
        return
    partial = pathlib.Path(f"{job.output}.partial")
    identity = pathlib.Path(f"{partial}.json")
    wanted = {
        "model": model.fingerprint,
        "input": hashlib.sha256(content).hexdigest()[:16],
        "settings": job.settings.to_json(),
        "normalization": job.normalization,
        "rows_a_part": part,
        "mesh": {name: int(size) for name, size in model.mesh.shape.items()} if model.mesh else {},
    }
    if not is_first:
        done, _ = _resume(partial, identity, wanted, part)
        multihost_utils.sync_global_devices("inference: rows counted")
        yield None, done
        return
    with _writing(job.output), _locked(partial, job.output) as file:
        # Counted under the lock: another process may just have added rows, or finished.
        done, size = _resume(partial, identity, wanted, part)
        if jax.process_count() > 1:
            # Every process must have counted the rows before this one adds to them.
            multihost_utils.sync_global_devices("inference: rows counted")
        file.truncate(size)
        if not size:
            identity.write_text(json.dumps(wanted, indent=1) + "\n")
        if done:
            print(f"{done} rows are there already, going on.", file=sys.stderr)
        try:
            yield file, done
        except BaseException:
            if not os.fstat(file.fileno()).st_size:  # No rows to keep.
                identity.unlink()
            raise
        check_output(job.output)
        os.replace(partial, job.output)
        identity.unlink()


@contextlib.contextmanager
def _locked(partial: pathlib.Path, output: str) -> Iterator[IO[bytes]]:
    """`partial`, opened to add to it, for this process alone; removed where it stays empty."""
    with partial.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"--output '{output}' is being written by another process. Wait for it, or "
                "choose another file."
            ) from None
        if not (partial.exists() and os.path.samefile(file.fileno(), partial)):
            # Renamed by the process that held it a moment ago.
            raise InputError(f"--output '{output}' exists already. Another process finished it.")
        try:
            check_output(output)
            yield file
        finally:
            if partial.exists() and not os.fstat(file.fileno()).st_size:
                partial.unlink()


def _resume(
    partial: pathlib.Path, identity: pathlib.Path, wanted: dict[str, Any], part: int
) -> tuple[int, int]:
    """How many rows of an earlier run stay, whole parts of them, and their bytes."""
    try:
        content = partial.read_bytes()
        found = json.loads(identity.read_text())
    except (FileNotFoundError, ValueError):
        return 0, 0
    if not content or not isinstance(found, dict):
        return 0, 0
    differing = [name for name in wanted if found.get(name) != wanted[name]]
    if differing:
        told = "; ".join(
            f"{name} is {found.get(name)} there, {wanted[name]} now" for name in differing
        )
        raise InputError(
            f"{partial} is of another run: {told}. Start that command again, or remove the file."
        )
    lines = content.split(b"\n")[:-1]
    done = len(lines) // part * part
    return done, sum(len(line) + 1 for line in lines[:done])


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
    """Around what writes: a full or forbidden disk becomes an InputError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(
            f"--output '{path}' cannot be written ({error.strerror}). Make room, or choose another "
            "file, and start the same command again."
        ) from error
