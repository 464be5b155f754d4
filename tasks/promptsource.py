"""PromptSource: Jinja templates of the public pool of prompts, over 279 data sets.

Source: Bach et al. 2022 (arXiv 2202.01279); OPT-IML (arXiv 2212.12017) Table 1 uses commit 0cc4b0c.
"""

import pathlib
from collections.abc import Mapping

from optiml_jax.bench import catalog_table
from optiml_jax.bench.sources import promptsource

from . import tfds_tasks
from .declaration import Benchmark, ReadResult, Request

TABLE = pathlib.Path(__file__).parent / "tables" / "catalog.tsv"


def data_sets(path: pathlib.Path = TABLE) -> Mapping[str, promptsource.DataSet]:
    """The catalog's rows for PromptSource, by data set."""
    return {
        row.original_name: promptsource.DataSet(
            row.category, row.metric, row.sources, row.languages, row.licence or "Unknown"
        )
        for row in catalog_table.read(path).values()
        if row.benchmark == promptsource.BENCHMARK
    }


def _read(request: Request) -> ReadResult:
    others = tfds_tasks.rows_of(
        promptsource.BENCHMARK, request, present=promptsource.row_folders(request.folder())
    )
    return ReadResult(
        promptsource.read(request.folder(), data_sets(), request.skip_bad, request.on_skip, others)
    )


BENCHMARK = Benchmark(
    name=promptsource.BENCHMARK,
    summary="a folder with PromptSource's templates/<dataset>/[<config>/]templates.yaml and"
    " rows/<dataset>/[<config>/]{train,validation,test}.{jsonl,parquet}",
    read=_read,
    tfds=True,
    needs_folder=True,
)
