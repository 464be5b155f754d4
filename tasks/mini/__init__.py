"""The mini benchmark: small, generated, made for first contact and for tests.

213 tasks of 38 categories over a world of a few hundred words, drawn from a seed and written
as task files in Super-NaturalInstructions' schema; plain text and dialogues beside them. See
docs/mini_benchmark.md. `python -m optiml_jax.tasks.mini DIR` writes the files; without a folder,
`optiml prepare mini` writes them to a temporary one and reads them from there.
"""

import atexit
import dataclasses
import functools
import pathlib
import shutil
import tempfile

from optiml_jax.bench import catalog
from optiml_jax.bench.sources import super_natural_instructions as reader

from ..declaration import Benchmark, ReadResult, Request
from . import files

BENCHMARKS = {"tasks": "mini", "replay": "replay", "dialogue": "dialogue"}
"""Folder -> benchmark of its tasks."""


def _read(request: Request) -> ReadResult:
    root = _generated() if request.data_dir is None else request.data_dir
    tasks = []
    for folder, benchmark in BENCHMARKS.items():
        tasks += reader.read(root / folder, request.skip_bad, request.on_skip, benchmark)
    if request.data_dir is None:
        # A store names no folder that is gone when it is written.
        tasks = [_below(task, root) for task in tasks]
    return ReadResult(tasks)


def _below(task: catalog.BenchTask, root: pathlib.Path) -> catalog.BenchTask:
    path = pathlib.Path(task.spec.path).relative_to(root).as_posix()
    return dataclasses.replace(task, spec=dataclasses.replace(task.spec, path=path))


@functools.cache
def _generated() -> pathlib.Path:
    """A folder with the task files that lives as long as this process."""
    folder = tempfile.mkdtemp(prefix="optiml_mini_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    files.write(folder)
    return pathlib.Path(folder)


BENCHMARK = Benchmark(
    name="mini",
    summary="embedded; or a folder written by `python -m optiml_jax.tasks.mini DIR`",
    read=_read,
    default_split="mini",
    needs_data=False,
)
