"""Reasoning: 14 sets of questions with chains of thought.

Source: OPT-IML (arXiv 2212.12017) §4.6, A.1, Table 15; nine of the sets are those of Chung et al.
2022 (arXiv 2210.11416), whose files google-research/FLAN has in flan/v2/cot_data.
"""

import pathlib

from optiml_jax.bench.sources import reasoning

from . import tfds_tasks
from .declaration import Benchmark, ReadResult, Request

TABLE = pathlib.Path(__file__).parent / "tables" / "reasoning.tsv"


def _read(request: Request) -> ReadResult:
    table = reasoning.read_table(TABLE)
    folder = request.data_dir
    present = {} if folder is None else reasoning.set_files(folder, table, lambda error: None)
    others = tfds_tasks.rows_of(reasoning.BENCHMARK, request, present)
    found = reasoning.read(request.data_dir, table, request.skip_bad, request.on_skip, others)
    return ReadResult(found)


BENCHMARK = Benchmark(
    name=reasoning.BENCHMARK,
    summary="a folder with <set>_train.tsv as in FLAN's cot_data, or <set>.jsonl, for each set",
    read=_read,
    tfds=True,
)
