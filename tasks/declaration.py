"""What a benchmark declares about itself: a name, a reader, its caps."""

import dataclasses
import fnmatch
import pathlib
from collections.abc import Callable, Mapping, Sequence

from optiml_jax.bench import catalog, splits

TABLES = pathlib.Path(__file__).parent / "tables"
CATALOG = TABLES / "catalog.tsv"
"""Every task of OPT-IML Bench (`bench.catalog_table`)."""

OnSkip = Callable[[str], None]
"""Told, in one sentence each, what `skip_bad` left out."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of a benchmark.

    Attributes:
        data_dir: its files; None for a benchmark that needs none, or whose data TFDS has.
        tfds_data_dir: TFDS's folder, for tasks without files of their own.
        tfds_download: whether TFDS may get what is missing there.
        only: patterns of the tasks that are wanted; all when empty.
        skip_bad: leave out bad tasks instead of stopping.
        on_skip: told what was left out.
    """

    data_dir: pathlib.Path | None
    tfds_data_dir: str | None = None
    tfds_download: bool = False
    only: tuple[str, ...] = ()
    skip_bad: bool = False
    on_skip: OnSkip = lambda message: None

    def folder(self) -> pathlib.Path:
        """`data_dir`, which is there."""
        assert self.data_dir is not None
        return self.data_dir

    def wants(self, *names: str) -> bool:
        """True if a task with one of these names is asked for."""
        return not self.only or any(
            fnmatch.fnmatchcase(name, pattern) for name in names for pattern in self.only
        )


@dataclasses.dataclass(frozen=True)
class ReadResult:
    """A benchmark as read from a folder.

    Attributes:
        official: track -> the split lists that lie beside its tasks.
        elsewhere: task -> reason, of those that OPT-IML has from another benchmark.
    """

    tasks: Sequence[catalog.BenchTask]
    official: Mapping[str, splits.OfficialLists] = dataclasses.field(default_factory=dict)
    elsewhere: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: as in `benchmark__task`.
        summary: what its files are, for people.
        read: what is in the folder, or in TFDS's. `only` need not be kept to: tasks that are not
            wanted are dropped behind it.
        tfds: True if TFDS may have data of it.
        needs_folder: True if TFDS's data are not enough: templates lie in the folder.
        max_train_examples: random examples kept per task (OPT-IML §2.1).
        default_split: the split that its tasks are prepared under when none is named.
        needs_data: False if the package itself has the tasks.
    """

    name: str
    summary: str
    read: Callable[[Request], ReadResult]
    max_train_examples: int = 100_000
    default_split: str = "opt_iml"
    needs_data: bool = True
    tfds: bool = False
    needs_folder: bool = False
