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

from . import super_natural_instructions
from .declaration import Benchmark, OnSkip

BENCHMARKS: Mapping[str, Benchmark] = {
    declared.name: declared for declared in (super_natural_instructions.BENCHMARK,)
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
    data_dir: str | os.PathLike[str],
    split: str = "opt_iml",
    skip_bad: bool = False,
    on_skip: OnSkip = lambda message: None,
) -> tuple[Sequence[catalog.BenchTask], Mapping[str, splits.Assignment]]:
    """Reads a benchmark's folder and gives each task its role and level under a split.

    Raises:
        InputError: unknown benchmark or split, or bad files (unless `skip_bad`).
    """
    found = benchmark(name).read(pathlib.Path(data_dir), skip_bad, on_skip)
    assignments = splits.assign([task.spec for task in found.tasks], split, found.official)
    return found.tasks, assignments


def register(
    name: str,
    data_dir: str | os.PathLike[str],
    vocabulary: vocabularies.Vocabulary | None = None,
    mixture: mixing.MixtureSpec | None = None,
    config: rendering.RenderConfig | None = None,
    skip_bad: bool = False,
) -> list[str]:
    """Registers a benchmark's tasks and its training mixture, called `name`, with SeqIO.

    Args:
        vocabulary: GPT-2's BPE behind OPT's special ids when None.
        mixture: rates; OPT-IML's cap of 4096 examples a task when None.
        config: wording and split; the defaults of `optiml prepare` when None.

    Returns:
        The names of the registered tasks; excluded tasks are not among them.

    Raises:
        InputError: unknown benchmark or split, or bad files.
    """
    # SeqIO brings TensorFlow, which a program that only reads tasks does not need.
    from optiml_jax.data import seqio_tasks

    config = config or rendering.RenderConfig()
    found, assignments = read(name, data_dir, config.split, skip_bad)
    vocabulary = vocabulary or vocabularies.gpt2_vocabulary()
    names = seqio_tasks.register_tasks(found, assignments, vocabulary, config)
    seqio_tasks.register_mixture(name, found, assignments, mixture or mixing.MixtureSpec(), config)
    return names
