"""ExMix: the 14 tasks (10 data sets) that OPT-IML collected anew, each with a sentence of ours.

Source: Aribandi et al. 2021 (arXiv 2111.10952); OPT-IML (arXiv 2212.12017) A.1.
"""

import pathlib

from optiml_jax.bench.sources import plain_pairs, text_pairs

from . import tfds_tasks
from .declaration import Benchmark, ReadResult, Request

TABLE = pathlib.Path(__file__).parent / "tables" / "exmix.tsv"


def _read(request: Request) -> ReadResult:
    form = plain_pairs.EXMIX
    folder = request.data_dir
    present = {} if folder is None else text_pairs.task_folders(folder, form)
    others = tfds_tasks.rows_of("exmix", request, present)
    found = text_pairs.read(
        request.data_dir, "exmix", TABLE, form, request.skip_bad, request.on_skip, others
    )
    return ReadResult(found, elsewhere=text_pairs.elsewhere(found, TABLE, form))


BENCHMARK = Benchmark(
    name="exmix",
    summary="<task>/{train,validation,test}.tsv, .jsonl or .parquet with inputs and targets",
    read=_read,
    tfds=True,
)
