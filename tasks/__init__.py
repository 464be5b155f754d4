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
from collections.abc import Callable, Mapping, Sequence

from optiml_jax import errors
from optiml_jax.bench import catalog, splits
from optiml_jax.data import mixing, rendering, vocabularies

from . import super_natural_instructions
from .declaration import Benchmark, OnSkip, ReadResult

BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark for benchmark in (super_natural_instructions.BENCHMARK,)
}
"""Every benchmark that can be read, by the name that commands and results use."""
