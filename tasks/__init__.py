"""OPT-IML Bench's declarations: which benchmarks there are, how each is read, one register call.

Installed as `optiml_jax.tasks`. Nothing is registered at import: `register` is called by the
commands, or by you, before SeqIO is asked for a task. Reading does not import SeqIO.

Example:
    from optiml_jax import tasks
    tasks.register("super_natural_instructions", data_dir="natural-instructions")
    seqio.get_mixture_or_task("super_natural_instructions").get_dataset(...)
"""

import os
import pathlib
from collections.abc import Mapping, Sequence

from optiml_jax import errors
from optiml_jax.bench import catalog, splits
from optiml_jax.data import mixing, rendering, vocabularies

from . import mini, super_natural_instructions
from .declaration import Benchmark, OnSkip

BENCHMARKS: Mapping[str, Benchmark] = {
    declared.name: declared for declared in (mini.BENCHMARK, super_natural_instructions.BENCHMARK)
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
    split: str | None = None,
    skip_bad: bool = False,
    on_skip: OnSkip = lambda message: None,
) -> tuple[Sequence[catalog.BenchTask], Mapping[str, splits.Assignment]]:
    """Reads a benchmark's folder and gives each task its role and level under a split.

    Args:
        data_dir: the benchmark's files; None for a benchmark that the package has itself.
        split: the benchmark's default split when None.

    Raises:
        InputError: unknown benchmark or split, no folder where one is needed, or bad files (unless
            `skip_bad`).
    """
    declared = benchmark(name)
    if data_dir is None and declared.needs_data:
        raise errors.InputError(
            f"benchmark '{name}' needs --data_dir=DIR: {declared.summary}. Without data of your"
            " own, start with the embedded benchmark: `optiml prepare mini --out=STORE`."
        )
    folder = None if data_dir is None else pathlib.Path(data_dir)
    found = declared.read(folder, skip_bad, on_skip)
    specs = [task.spec for task in found.tasks]
    assignments = splits.assign(specs, split or declared.default_split, found.official)
    return found.tasks, assignments


def register(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    vocabulary: vocabularies.Vocabulary | None = None,
    mixture: mixing.MixtureSpec | None = None,
    config: rendering.RenderConfig | None = None,
    skip_bad: bool = False,
) -> list[str]:
    """Registers a benchmark's tasks and its training mixture, called `name`, with SeqIO.

    Args:
        vocabulary: GPT-2's BPE behind OPT's special ids when None.
        mixture: rates; OPT-IML's cap of 4096 examples a task when None.
        data_dir: see `read`.
        config: wording and split; the defaults of `optiml prepare` when None.

    Returns:
        The names of the registered tasks; excluded tasks are not among them.

    Raises:
        InputError: unknown benchmark or split, or bad files.
    """
    # SeqIO brings TensorFlow, which a program that only reads tasks does not need.
    from optiml_jax.data import seqio_tasks

    config = config or rendering.RenderConfig(split=benchmark(name).default_split)
    found, assignments = read(name, data_dir, config.split, skip_bad)
    vocabulary = vocabulary or vocabularies.gpt2_vocabulary()
    names = seqio_tasks.register_tasks(found, assignments, vocabulary, config)
    seqio_tasks.register_mixture(name, found, assignments, mixture or mixing.MixtureSpec(), config)
    return names
