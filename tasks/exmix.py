"""ExMix: the 14 tasks (10 data sets) that OPT-IML collected anew, each with a sentence of ours.

Source: Aribandi et al. 2021 (arXiv 2111.10952); OPT-IML (arXiv 2212.12017) A.1.
"""

import functools
import pathlib

from optiml_jax.bench.sources import plain_pairs

from . import pairs
from .declaration import Benchmark

TABLE = pathlib.Path(__file__).parent / "tables" / "exmix.tsv"

BENCHMARK = Benchmark(
    name="exmix",
    summary="<task>/{train,validation,test}.tsv, .jsonl or .parquet with inputs and targets",
    read=functools.partial(pairs.read, "exmix", TABLE, plain_pairs.EXMIX),
    tfds=True,
)
