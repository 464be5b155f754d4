"""What a benchmark declares about itself: a name, a reader, its caps."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

from optiml_jax.bench import catalog, splits

OnSkip = Callable[[str], None]
"""Told, in one sentence each, what `skip_bad` left out."""


@dataclasses.dataclass(frozen=True)
class ReadResult:
    """A benchmark as read from a folder, with the split lists that lie beside its tasks, if any."""

    tasks: Sequence[catalog.BenchTask]
    official: splits.OfficialLists | None = None


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: as in `benchmark__task`.
        summary: what its files are, for people.
        read: (folder, skip_bad, on_skip) -> what is in the folder; None for the folder where
            `needs_data` is False.
        max_train_examples: random examples kept per task (OPT-IML §2.1).
        default_split: the split that its tasks are prepared under when none is named.
        needs_data: False if the package itself has the tasks.
    """

    name: str
    summary: str
    read: Callable[[pathlib.Path | None, bool, OnSkip], ReadResult]
    max_train_examples: int = 100_000
    default_split: str = "opt_iml"
    needs_data: bool = True
