"""Pre-training text, replayed during instruction tuning: each file of the folder is one task.

Source: OPT-IML (arXiv 2212.12017) §4.5 (5 % of the mixture).
"""

from optiml_jax.bench.sources import replay, whole_texts

from .declaration import Benchmark, ReadResult, Request


def _read(request: Request) -> ReadResult:
    return ReadResult(
        whole_texts.read(
            request.folder(), "replay", replay.FORMAT, request.skip_bad, request.on_skip
        )
    )


BENCHMARK = Benchmark(
    name="replay",
    summary='a folder with *.txt files, or *.jsonl files of {"text": ...}',
    read=_read,
)
