"""UnifiedSKG: 21 tasks on structured knowledge, each with a sentence of ours.

Source: Xie et al. 2022 (arXiv 2201.05966); OPT-IML (arXiv 2212.12017) Table 1, figures 37-43.
"""

import pathlib

from optiml_jax.bench.sources import text_pairs, unifiedskg

from .declaration import Benchmark, ReadResult, Request

TABLE = pathlib.Path(__file__).parent / "tables" / "unifiedskg.tsv"


def _read(request: Request) -> ReadResult:
    found = text_pairs.read(
        request.folder(), "unifiedskg", TABLE, unifiedskg.FORMAT, request.skip_bad, request.on_skip
    )
    return ReadResult(found, elsewhere=text_pairs.elsewhere(found, TABLE, unifiedskg.FORMAT))


BENCHMARK = Benchmark(
    name="unifiedskg",
    summary="a folder with <task>/{train,dev,test}.jsonl of text_in, struct_in and seq_out",
    read=_read,
)
