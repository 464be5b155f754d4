"""FLAN: ten templates a task over 62 data sets (70 tasks by OPT-IML's count).

Source: Wei et al. 2021 (arXiv 2109.01652); OPT-IML (arXiv 2212.12017) §2.1 caps FLAN's tasks at
30,000 examples, as its own `NUM_TRAIN_EXAMPLES` does.
"""

import pathlib

from optiml_jax.bench.sources import flan

from . import tfds_tasks
from .declaration import Benchmark, ReadResult, Request

TABLE = pathlib.Path(__file__).parent / "tables" / "flan.tsv"


def _read(request: Request) -> ReadResult:
    table = flan.read_table(TABLE)
    others = tfds_tasks.rows_of(
        flan.BENCHMARK, request, present=flan.task_folders(request.folder())
    )
    found = flan.read(request.folder(), table, request.skip_bad, request.on_skip, others)
    return ReadResult(found)


BENCHMARK = Benchmark(
    name=flan.BENCHMARK,
    summary="a folder with FLAN's templates.json and rows/<task>/{train,validation,test}.jsonl",
    read=_read,
    max_train_examples=flan.MAX_TRAIN_EXAMPLES,
    tfds=True,
    needs_folder=True,
)
