"""Dialogues, which OPT-IML's ablation adds: each file of the folder is one task.

Source: OPT-IML (arXiv 2212.12017) §4.7, A.2 (320,543 dialogues of six data sets).
"""

from optiml_jax.bench.sources import dialogue, whole_texts

from .declaration import Benchmark, ReadResult, Request


def _read(request: Request) -> ReadResult:
    return ReadResult(
        whole_texts.read(
            request.folder(), "dialogue", dialogue.FORMAT, request.skip_bad, request.on_skip
        )
    )


BENCHMARK = Benchmark(
    name="dialogue",
    summary="a folder with *.jsonl files of dialogues with 'turns' or 'messages'",
    read=_read,
)
