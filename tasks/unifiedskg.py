"""UnifiedSKG: 21 tasks on structured knowledge, each with a sentence of ours.

Source: Xie et al. 2022 (arXiv 2201.05966); OPT-IML (arXiv 2212.12017) Table 1, figures 37-43.
"""

import functools
import pathlib

from optiml_jax.bench.sources import unifiedskg

from . import pairs
from .declaration import Benchmark

TABLE = pathlib.Path(__file__).parent / "tables" / "unifiedskg.tsv"

BENCHMARK = Benchmark(
    name="unifiedskg",
    summary="a folder with <task>/{train,dev,test}.jsonl of text_in, struct_in and seq_out",
    read=functools.partial(pairs.read, "unifiedskg", TABLE, unifiedskg.FORMAT),
)
