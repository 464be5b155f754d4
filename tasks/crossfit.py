"""CrossFit: the 160 tasks of the NLP Few-shot Gym, each with a sentence of ours.

Source: Ye et al. 2021 (arXiv 2104.08835); OPT-IML (arXiv 2212.12017) Table 1: commit 56285ca.
"""

import pathlib

from optiml_jax.bench.sources import crossfit, text_pairs

from .declaration import Benchmark, ReadResult, Request

TABLE = pathlib.Path(__file__).parent / "tables" / "crossfit.tsv"


def _read(request: Request) -> ReadResult:
    found = text_pairs.read(
        request.folder(), "crossfit", TABLE, crossfit.FORMAT, request.skip_bad, request.on_skip
    )
    return ReadResult(found, elsewhere=text_pairs.elsewhere(found, TABLE, crossfit.FORMAT))


BENCHMARK = Benchmark(
    name="crossfit",
    summary="a folder like the official repository's data/ (<task>/<task>_<k>_<seed>_train.tsv)",
    read=_read,
)
