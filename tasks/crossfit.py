"""CrossFit: the 160 tasks of the NLP Few-shot Gym, each with a sentence of ours.

Source: Ye et al. 2021 (arXiv 2104.08835); OPT-IML (arXiv 2212.12017) Table 1: commit 56285ca.
"""

import functools
import pathlib

from optiml_jax.bench.sources import crossfit

from . import pairs
from .declaration import Benchmark

TABLE = pathlib.Path(__file__).parent / "tables" / "crossfit.tsv"

BENCHMARK = Benchmark(
    name="crossfit",
    summary="a folder like the official repository's data/ (<task>/<task>_<k>_<seed>_train.tsv)",
    read=functools.partial(pairs.read, "crossfit", TABLE, crossfit.FORMAT),
)
