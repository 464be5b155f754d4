"""PromptSource: Jinja templates of the public pool of prompts, over 279 data sets.

Source: Bach et al. 2022 (arXiv 2202.01279); OPT-IML (arXiv 2212.12017) Table 1 uses commit 0cc4b0c.
"""

import pathlib
from collections.abc import Mapping

from optiml_jax.bench import catalog_table
from optiml_jax.bench.sources import promptsource, tables

from . import tfds_tasks
from .declaration import CATALOG, TABLES, Benchmark, ReadResult, Request

INVERTED = TABLES / "promptsource_inverted.tsv"
"""Templates that turn a task around where the release marks none as the original task."""
INVERTED_COLUMNS = ("task", "template", "reason")


def data_sets(path: pathlib.Path = CATALOG) -> Mapping[str, promptsource.DataSet]:
    """The catalog's rows for PromptSource, by data set, with the templates that leave."""
    inverted: dict[str, tuple[str, ...]] = {}
    for _, row in tables.read_rows(INVERTED, INVERTED_COLUMNS):
        inverted[row["task"]] = (*inverted.get(row["task"], ()), row["template"])
    return {
        row.original_name: promptsource.DataSet(
            *(row.category, row.metric, row.sources, row.languages, row.licence or "Unknown"),
            inverted=inverted.get(row.original_name, ()),
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
