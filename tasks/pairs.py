"""How the benchmarks of text pairs are read: CrossFit, ExMix, T5, UnifiedSKG."""

import pathlib

from optiml_jax.bench.sources import text_pairs

from . import tfds_tasks
from .declaration import ReadResult, Request


def read(
    benchmark: str, table: pathlib.Path, form: text_pairs.Format, request: Request
) -> ReadResult:
    """A benchmark's tasks from its folder, and from TFDS those that the folder has not."""
    folder = request.data_dir
    present = {} if folder is None else text_pairs.task_folders(folder, form)
    others = tfds_tasks.rows_of(benchmark, request, present)
    found = text_pairs.read(
        folder, benchmark, table, form, request.skip_bad, request.on_skip, others
    )
    return ReadResult(found, elsewhere=text_pairs.elsewhere(found, table, form))
