"""OPT-IML Bench's declarations: which benchmarks there are, how each is read, one register call.

Installed as `optiml_jax.tasks`. Nothing is registered at import: `register` is called by the
commands, or by you, before SeqIO is asked for a task. Reading does not import SeqIO.

Example:
    from optiml_jax import tasks
    tasks.register("super_natural_instructions", data_dir="natural-instructions")
    seqio.get_mixture_or_task("super_natural_instructions").get_dataset(...)
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

from optiml_jax import errors
from optiml_jax.bench import catalog, catalog_table, splits
from optiml_jax.data import mixing, rendering, vocabularies

from . import (
    crossfit,
    dialogue,
    exmix,
    flan,
    mini,
    promptsource,
    reasoning,
    replay,
    super_natural_instructions,
    t5,
    unifiedskg,
)
from .declaration import CATALOG, Benchmark, OnSkip, Request

BENCHMARKS: Mapping[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (
        mini,
        super_natural_instructions,
        promptsource,
        crossfit,
        flan,
        exmix,
        t5,
        unifiedskg,
        reasoning,
        dialogue,
        replay,
    )
}
"""Every benchmark that can be read, by the name that commands and results use."""


def benchmark(name: str) -> Benchmark:
    """The declaration of a benchmark.

    Raises:
        InputError: no benchmark of this name.
    """
    if name not in BENCHMARKS:
        raise errors.unknown("benchmark", name, BENCHMARKS)
    return BENCHMARKS[name]


def read(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    split: str | splits.Split | None = None,
    skip_bad: bool = False,
    on_skip: OnSkip = lambda message: None,
    only: Sequence[str] = (),
    tfds_data_dir: str | os.PathLike[str] | None = None,
    tfds_download: bool = False,
) -> tuple[Sequence[catalog.BenchTask], Mapping[str, splits.Assignment]]:
    """Reads a benchmark's folder and gives each task its role and level under a split.

    Args:
        data_dir: the benchmark's files; None for a benchmark that the package has itself, or
            whose data TFDS has.
        split: a name, a split file or the split itself; the benchmark's default when None.
        only: shell patterns of task names, with the benchmark's name in front or without; all
            tasks when empty. Roles are those that the tasks have among all.
        tfds_data_dir: TensorFlow Datasets' folder, for tasks that have no files.
        tfds_download: let TFDS get what is not there.

    Raises:
        InputError: unknown benchmark or split, no folder where one is needed, bad files (unless
            `skip_bad`), or a pattern that no task matches.
    """
    declared = benchmark(name)
    if tfds_data_dir is not None and not declared.tfds:
        able = ", ".join(sorted(one.name for one in BENCHMARKS.values() if one.tfds))
        raise errors.InputError(
            f"--tfds_data_dir: TensorFlow Datasets has no data of benchmark '{name}', only of"
            f" {able}. Leave it out."
        )
    by_tfds = declared.tfds and not declared.needs_folder and tfds_data_dir is not None
    if data_dir is None and declared.needs_data and not by_tfds:
        raise errors.InputError(
            f"benchmark '{name}' needs --data_dir=DIR: {declared.summary}. Without data of your"
            " own, start with the embedded benchmark: `optiml prepare mini --out=STORE`."
        )
    request = Request(
        data_dir=None if data_dir is None else pathlib.Path(data_dir),
        tfds_data_dir=None if tfds_data_dir is None else os.fspath(tfds_data_dir),
        tfds_download=tfds_download,
        only=tuple(only),
        skip_bad=skip_bad,
        on_skip=on_skip,
    )
    placing = splits.find(split) if isinstance(split, str) else split
    if placing is None:
        placing = splits.find(declared.default_split)
    if placing.rules and placing.name in BENCHMARKS:
        raise errors.InputError(
            f"split file '{placing.where}' has the name of the benchmark '{placing.name}', and a"
            " store's mixtures would have two meanings. Rename the file."
        )
    found = declared.read(request)
    specs = [task.spec for task in found.tasks]
    # What a split evaluates leaves training in every benchmark, read here or not.
    rows = catalog_table.read(CATALOG).values()
    known = [row.to_spec() for row in rows]
    official = found.official.get(placing.track)
    if placing.track and all(spec.instruction_kind == "text" for spec in specs):
        # No lists lie beside text.
        official = catalog_table.official_lists(rows, placing.track)
    assignments = splits.assign(specs, placing, official, found.elsewhere, known)
    kept = [t for t in found.tasks if request.wants(t.spec.name, t.spec.original_name)]
    if not kept:
        names = [spec.original_name for spec in specs]
        raise errors.unknown("task", ", ".join(only), names, f"benchmark '{name}', --tasks")
    return kept, {task.spec.name: assignments[task.spec.name] for task in kept}


def register(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    vocabulary: vocabularies.Vocabulary | None = None,
    mixture: mixing.MixtureSpec | None = None,
    config: rendering.RenderConfig | None = None,
    skip_bad: bool = False,
    only: Sequence[str] = (),
    tfds_data_dir: str | os.PathLike[str] | None = None,
    tfds_download: bool = False,
) -> list[str]:
    """Registers a benchmark's tasks and its training mixture, called `name`, with SeqIO.

    Args:
        vocabulary: GPT-2's BPE behind OPT's special ids when None.
        mixture: rates; OPT-IML's cap of 4096 examples a task when None.
        data_dir, skip_bad, only, tfds_data_dir, tfds_download: see `read`.
        config: wording and split; the defaults of `optiml prepare` when None.

    Returns:
        The names of the registered tasks; excluded tasks are not among them.

    Raises:
        InputError: unknown benchmark or split, or bad files.
    """
    # SeqIO brings TensorFlow, which a program that only reads tasks does not need.
    from optiml_jax.data import seqio_tasks

    config = config or rendering.RenderConfig(split=benchmark(name).default_split)
    split = splits.find(config.split, config.split_rules)
    config = dataclasses.replace(config, split=split.name, split_rules=split.rules)
    found, assignments = read(
        name,
        data_dir,
        split,
        skip_bad,
        only=only,
        tfds_data_dir=tfds_data_dir,
        tfds_download=tfds_download,
    )
    vocabulary = vocabulary or vocabularies.gpt2_vocabulary()
    names = seqio_tasks.register_tasks(found, assignments, vocabulary, config)
    seqio_tasks.register_mixture(name, found, assignments, mixture or mixing.MixtureSpec(), config)
    return names
