"""Texts that train whole, without instructions: dialogues and plain text.

`dialogue` and `replay` say how a file becomes texts; each file is one task, named by its path below
the folder. A text is its record's only reference and the input is empty, so that loss is on all of
it (`instruction_kind` "text"). Nothing is held out: such text is not evaluated.

Its data sets are the names of the folders, from the one that is read on, and of the file, each up
to the first dot: a split leaves out `dailydialog/train.jsonl` or `dailydialog.train.jsonl` where it
evaluates DailyDialog.

Rows without text are dropped, counted and reported.

Source: OPT-IML (arXiv 2212.12017) §3.1, Table 6; §4.5, §4.7.
"""

import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Iterator

from optiml_jax.bench import catalog, record, taxonomy
from optiml_jax.bench.sources import files, reading, rows
from optiml_jax.errors import InputError

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Text:
    """One text; `id` is unique within its file, `text` blank where a row has none."""

    id: str
    text: str


@dataclasses.dataclass(frozen=True)
class Format:
    """How a benchmark's files become texts.

    Attributes:
        category: of all its tasks.
        expected: the files, for messages.
        suffixes: of the files that are read; others are not looked at.
        texts: file -> its texts, in order.
    """

    category: str
    expected: str
    suffixes: tuple[str, ...]
    texts: Callable[[pathlib.Path], Iterator[Text]]


def read(
    data_dir: str | os.PathLike[str],
    benchmark: str,
    form: Format,
    skip_bad: bool = False,
    on_skip: Callable[[str], None] = _logger.warning,
) -> list[catalog.BenchTask]:
    """A task for each file in a folder and the folders below it, in the order of their names.

    Raises:
        InputError: no folder, no file, a bad file (unless `skip_bad`), or two of one name.
    """
    folder = pathlib.Path(data_dir)
    files.check_folder(folder, f"data_dir '{folder}'", f"Expected a folder with {form.expected}.")
    paths = sorted(_files(folder, form, ()))
    if not paths:
        raise InputError(f"data_dir '{folder}' has no such file. Expected {form.expected}.")
    return reading.read_each(
        paths,
        lambda path: _bench_task(path, folder, benchmark, form, on_skip),
        f"{data_dir}: every file",
        skip_bad,
        on_skip,
    )


def _files(
    folder: pathlib.Path, form: Format, above: tuple[pathlib.Path, ...]
) -> Iterator[pathlib.Path]:
    """The files of a folder and of those in it."""
    real = folder.resolve()
    if real in above:
        raise InputError(f"{folder}: a link to the folder that it lies in. Remove the link.")
    for path in files.listed(folder):
        if path.is_dir():
            yield from _files(path, form, (*above, real))
        elif path.suffix in form.suffixes:
            if not path.is_file():
                raise InputError(
                    f"{path}: no file that can be read, perhaps a link to nothing. Fetch the file,"
                    " or remove the link."
                )
            yield path


def _bench_task(
    path: pathlib.Path,
    folder: pathlib.Path,
    benchmark: str,
    form: Format,
    on_skip: Callable[[str], None],
) -> catalog.BenchTask:
    relative, above = path.relative_to(folder), folder.resolve().name
    name = relative.with_suffix("").as_posix()
    num_examples = num_dropped = 0
    ids: set[str] = set()
    for one in form.texts(path):
        if one.id in ids:
            raise InputError(f"{path}: the id '{one.id}' is there twice. Rename or remove one.")
        ids.add(one.id)
        has_text = bool(one.text.strip())
        num_examples += has_text
        num_dropped += not has_text
    if not num_examples:
        raise InputError(f"{path}: the file has no text. Correct or remove it.")
    if num_dropped:
        on_skip(f"{path}: dropped {num_dropped} of {num_dropped + num_examples} rows without text.")
    spec = catalog.TaskSpec(
        name=catalog.task_name(benchmark, name),
        original_name=name,
        benchmark=benchmark,
        category=taxonomy.canonical_category(form.category),
        instruction_kind="text",
        sources=tuple(dict.fromkeys(part.split(".")[0] for part in (above, *relative.parts))),
        metric="rouge_l",
        input_languages=(),
        output_languages=(),
        licence="Unknown",
        num_examples=num_examples,
        path=str(path),
        num_dropped=num_dropped,
    )
    digest = rows.digest([path])
    return catalog.BenchTask(spec, functools.partial(_load, path, form, digest), digest)


def _load(path: pathlib.Path, form: Format, digest: str) -> catalog.TaskContent:
    reading.check_unchanged(str(path), digest, rows.digest([path]))
    records = (
        record.Record(one.id, references=(one.text,))
        for one in form.texts(path)
        if one.text.strip()
    )
    return catalog.TaskContent("", (), tuple(records))
