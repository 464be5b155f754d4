"""Super-NaturalInstructions: task files in the official schema, with the official split lists.

Source: Wang et al. 2022 (arXiv 2204.07705); OPT-IML (arXiv 2212.12017) Table 1 uses version 2.6.
"""

from optiml_jax.bench.sources import super_natural_instructions

from .declaration import Benchmark, ReadResult


def _read(data_dir, skip_bad, on_skip) -> ReadResult:
    return ReadResult(
        tasks=super_natural_instructions.read(data_dir, skip_bad, on_skip),
        official=super_natural_instructions.read_official_lists(data_dir),
    )


BENCHMARK = Benchmark(
    name="super_natural_instructions",
    summary="a folder like the official repository's (tasks/*.json, splits/), or just task files",
    read=_read,
)
