"""T5: the seven tasks that OPT-IML keeps of it, each with a sentence of ours.

Source: Raffel et al. 2019 (arXiv 1910.10683); OPT-IML (arXiv 2212.12017) A.1.
"""

import pathlib

from optiml_jax.bench.sources import plain_pairs, text_pairs

from . import tfds_tasks
from .declaration import Benchmark, ReadResult, Request

TABLE = pathlib.Path(__file__).parent / "tables" / "t5.tsv"


def _read(request: Request) -> ReadResult:
    form = plain_pairs.T5
    folder = request.data_dir
    present = {} if folder is None else text_pairs.task_folders(folder, form)
    others = tfds_tasks.rows_of("t5", request, present)
    found = text_pairs.read(
        request.data_dir, "t5", TABLE, form, request.skip_bad, request.on_skip, others
    )
    return ReadResult(found, elsewhere=text_pairs.elsewhere(found, TABLE, form))


BENCHMARK = Benchmark(
    name="t5",
    summary="<task>/{train,validation,test}.tsv, .jsonl or .parquet with inputs and targets",
    read=_read,
    tfds=True,
)
