"""T5: the seven tasks that OPT-IML keeps of it, each with a sentence of ours.

Source: Raffel et al. 2019 (arXiv 1910.10683); OPT-IML (arXiv 2212.12017) A.1.
"""

import functools
import pathlib

from optiml_jax.bench.sources import plain_pairs

from . import pairs
from .declaration import Benchmark

TABLE = pathlib.Path(__file__).parent / "tables" / "t5.tsv"

BENCHMARK = Benchmark(
    name="t5",
    summary="<task>/{train,validation,test}.tsv, .jsonl or .parquet with inputs and targets",
    read=functools.partial(pairs.read, "t5", TABLE, plain_pairs.T5),
    tfds=True,
)
