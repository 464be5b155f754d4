"""Overlap of training with evaluation tasks: which evaluation examples share an n-gram with which.

For every (training task, evaluation task) pair the number of evaluation examples any of whose
n-grams stands in any training example of the task. The evaluation examples are indexed
(`leakage_index`); training tasks are streamed past the index by several processes, largest first.
Memory holds one block of training examples a process, whatever the number of tasks.

Two counts a pair:

1. of the *instantiated sequences* (prompt and answer as they are trained on), as the paper has it.
   Tasks of one family share a definition or a template, so their pairs overlap wholly.
2. of the *bare instances*: the gram lies in the evaluation example's own input or answer, and is
   not in more than half of the examples of the same wording. The training side is the whole text.
   An instance that is too short for a gram is compared by its whole input (`leakage_index`), one
   whose input is too short for that not at all; both are counted.

Left out on purpose: what to do about a pair. The paper's authors looked at each; so does a person.

Neighbours: `leakage_units`, `leakage_index`, `leakage_minhash`; `leakage_brute` counts again;
`main.leakage_store` gives the texts of a store, `main.leakage_content` says what counts mean.

Source: OPT-IML (arXiv 2212.12017) §2.3.
"""

import contextlib
import dataclasses
import errno
import functools
import math
import multiprocessing
import os
import pathlib
import signal
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, Protocol

import numpy as np

from optiml_jax.bench import leakage_index, leakage_units
from optiml_jax.errors import InputError

BLOCK_POSTINGS = 2**21

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Progress = Callable[[int, int, str], None]
"""(training tasks done, in all, what happens) -> None."""


@dataclasses.dataclass(frozen=True)
class EvalExample:
    """An evaluation example, see `leakage_index.Evaluated`."""

    label: str
    units: Sequence
    bare_start: int = 0
    wording: str = ""
    end: int | None = None

    @property
    def input_end(self) -> int:
        """Units before the end of the input; all of them where that is not known."""
        return len(self.units) if self.end is None else self.end


class Texts(Protocol):
    """Where examples come from; sent to other processes, so it holds names, not open files."""

    def evaluated(self, task: str) -> Iterable[leakage_index.Evaluated]:
        """Evaluation examples of a task."""
        ...

    def trained(self, task: str) -> Iterator[tuple[Sequence[str], Sequence[Sequence]]]:
        """Training examples of a task in blocks: (labels, units of each)."""
        ...


@dataclasses.dataclass(frozen=True)
class Shared:
    """A gram that a training and an evaluation example have in common."""

    gram: tuple
    train_label: str
    eval_label: str


@dataclasses.dataclass(frozen=True)
class Overlap:
    """What a training task shares with an evaluation task.

    Attributes:
        count: evaluation examples with any shared gram of n units.
        bare_count: those with one in the bare instance, or whose whole short input is shared.
        num_grams: shared (gram, evaluation example) pairs; whole inputs do not count.
        shared: one of them, of a bare instance where there is one; None where no text was asked.
    """

    train: str
    eval: str
    count: int
    bare_count: int
    num_grams: int
    shared: Shared | None = None


@dataclasses.dataclass(frozen=True)
class Counted:
    """All pairs with any overlap, by name.

    Attributes:
        num_eval: evaluation examples by task.
        num_train: training examples read.
        num_grams: distinct grams of the evaluation examples.
        num_false_hits: training grams whose 64-bit hash was another gram's; not counted.
        num_whole: evaluation examples by task whose instance is compared by its whole input.
        num_too_short: those whose instance is not compared.
    """

    overlaps: tuple[Overlap, ...]
    num_eval: Mapping[str, int]
    num_train: int
    num_grams: int
    num_false_hits: int
    num_whole: Mapping[str, int]
    num_too_short: Mapping[str, int]


def check(n: int, threshold: float, jobs: int) -> None:
    """Raises InputError where a number is out of range."""
    if n < 1:
        raise InputError(f"--n is {n}, expected 1 or more units a gram (the paper has 13).")
    if not 0 <= threshold < 1:
        raise InputError(
            f"--threshold is {threshold:g}, expected a fraction from 0 to below 1, e.g. 0.01"
            " for 1 %."
        )
    if jobs < 1:
        raise InputError(f"--jobs is {jobs}, expected 1 or more processes.")


def count(
    texts: Texts,
    train: Sequence[str],
    evaluation: Sequence[str],
    n: int = 13,
    threshold: float = 0.01,
    jobs: int = 1,
    progress: Progress = lambda done, total, what: None,
) -> Counted:
    """Counts the overlap of every pair of a training and an evaluation task.

    Args:
        train: names, those with the most text first: they are handed out in this order.
        evaluation: names.
        n: units a gram.
        threshold: pairs above it come with an example of a shared gram.
        jobs: processes; 1 works in this one.

    Raises:
        InputError: no evaluation example has n units, or there is no room for the index.
    """

    def read() -> Iterator[tuple[str, Iterable[leakage_index.Evaluated]]]:
        return ((task, texts.evaluated(task)) for task in evaluation)

    with temporary_folder("optiml_leakage_", lambda: leakage_index.num_bytes(read())) as folder:
        progress(0, len(train), f"indexing {len(evaluation):,} evaluation tasks")
        leakage_index.build(folder, read(), n)
        index = leakage_index.Index(folder)
        num_eval, num_whole, num_too_short = (
            dict(zip(evaluation, np.bincount(tasks, minlength=len(evaluation)).tolist()))
            for tasks in (
                index.task_of,
                index.task_of[index.kind_of == leakage_index.WHOLE],
                index.task_of[index.kind_of == leakage_index.NOT_AT_ALL],
            )
        )
        num_grams = index.num_grams
        work = functools.partial(_count_task, str(folder), texts, threshold)
        overlaps: list[Overlap] = []
        num_train = num_false = 0
        with contextlib.closing(in_processes(work, train, jobs)) as results:
            for done, found in enumerate(results, start=1):
                overlaps += found[0]
                num_train += found[1]
                num_false += found[2]
                progress(done, len(train), "training tasks compared")
        _index.cache_clear()
    overlaps.sort(key=lambda one: (one.train, one.eval))
    return Counted(
        *(tuple(overlaps), num_eval, num_train, num_grams, num_false, num_whole, num_too_short)
    )


@contextlib.contextmanager
def temporary_folder(prefix: str, num_bytes: Callable[[], int]) -> Iterator[pathlib.Path]:
    """A folder in TMPDIR, removed at the end.

    Args:
        num_bytes: the most that is written there; asked for where there was no room.

    Raises:
        InputError: there is no room.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=prefix) as name:
            yield pathlib.Path(name)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise InputError(
            f"temporary files cannot be written to '{tempfile.gettempdir()}' ({error.strerror})."
            f" They take up to {math.ceil(num_bytes() / 1e6):,} MB. Make room, or set TMPDIR to a"
            " folder that has it."
        ) from None


def in_processes(
    work: Callable[[str], Any], names: Sequence[str], jobs: int
) -> Generator[Any, None, None]:
    """Results of `work(name)`, as they come; with one job they come in order, in this process.

    Raises:
        InputError: a process was ended from outside.
    """
    jobs = min(jobs, len(names))
    if jobs <= 1:
        yield from map(work, names)
        return
    # A fork would copy the threads' locks of open readers; a new process opens its own.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with _without_hangups():
        pool = futures.ProcessPoolExecutor(jobs, context, _begin_worker)
    with pool:
        try:
            with _without_hangups():
                waiting = [pool.submit(work, name) for name in names]
            for one in futures.as_completed(waiting):
                yield one.result()
        except futures.process.BrokenProcessPool:
            raise InputError(
                "a process that compared tasks was ended from outside, perhaps for memory. Run"
                " again with --jobs=1."
            ) from None
        except (KeyboardInterrupt, GeneratorExit):
            # What they are at may take minutes, and nobody waits for it.
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _without_hangups() -> Iterator[None]:
    """Processes begun here never see SIGHUP: when a terminal closes, the first one ends the others.

    The one that removes Python's semaphores is among them: it would be missed.
    """
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def _begin_worker() -> None:
    """Ctrl-C, too, is left to the process that began the others; should it be killed, they end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


@functools.lru_cache(maxsize=1)
def _index(folder: str) -> leakage_index.Index:
    return leakage_index.Index(pathlib.Path(folder))


def _count_task(
    folder: str, texts: Texts, threshold: float, task: str
) -> tuple[list[Overlap], int, int]:
    """Overlaps of one training task with any evaluation task, its size, and false hits."""
    index = _index(folder)
    grams, labels = np.zeros(0, np.int64), np.zeros(0, np.int64)
    names: list[str] = []
    num_train = num_false = 0
    for block, sequences in texts.trained(task):
        num_train += len(block)
        ids, starts = leakage_units.to_ids(sequences, index.known)
        looked_up = index.look_up(ids, starts), index.look_up_shorts(ids, starts)
        found = np.concatenate([one[0] for one in looked_up])
        at = np.concatenate([one[1] for one in looked_up])
        num_false += sum(one[2] for one in looked_up)
        fresh = ~np.isin(found, grams, assume_unique=True)
        found, at = found[fresh], at[fresh]
        # Only labels that are needed are kept.
        owners, number = np.unique(np.searchsorted(starts, at, "right") - 1, return_inverse=True)
        labels = np.concatenate([labels, number + len(names)])
        names += [block[int(owner)] for owner in owners]
        grams = np.concatenate([grams, found])
    return _overlaps(index, task, grams, labels, names, threshold), num_train, num_false


def _overlaps(
    index: leakage_index.Index,
    task: str,
    grams: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    threshold: float,
) -> list[Overlap]:
    """Counts by evaluation task, from the grams that the training task has."""
    num_tasks, num_examples = len(index.task_names), len(index.task_of)
    is_hit, is_bare_hit = np.zeros(num_examples, bool), np.zeros(num_examples, bool)
    num_grams = np.zeros(num_tasks, np.int64)
    best: dict[int, tuple[bool, int, int]] = {}
    for which, examples, is_bare in _postings(index, grams):
        is_long = grams[which] < index.num_grams
        # A whole input that is of the wording is nothing that is shared.
        kept = is_long | is_bare
        which, examples, is_bare, is_long = (a[kept] for a in (which, examples, is_bare, is_long))
        is_hit[examples[is_long]] = True
        is_bare_hit[examples[is_bare]] = True
        tasks = index.task_of[examples]
        num_grams += np.bincount(tasks[is_long], minlength=num_tasks)
        kinds, first = np.unique(tasks * 2 + ~is_bare, return_index=True)
        for kind, place in zip(kinds.tolist(), first.tolist()):
            known = best.get(kind // 2)
            if known is None or (kind % 2 == 0 and not known[0]):
                best[kind // 2] = (kind % 2 == 0, int(which[place]), int(examples[place]))
    sizes = np.bincount(index.task_of, minlength=num_tasks)
    counts = np.bincount(index.task_of[is_hit], minlength=num_tasks)
    bare_counts = np.bincount(index.task_of[is_bare_hit], minlength=num_tasks)
    made = []
    for number in np.flatnonzero(counts + bare_counts).tolist():
        shared = None
        if max(counts[number], bare_counts[number]) / sizes[number] > threshold:
            _, which, example = best[number]
            shared = Shared(
                gram=tuple(index.gram(int(grams[which]))),
                train_label=names[int(labels[which])],
                eval_label=index.labels[example],
            )
        made.append(
            Overlap(
                train=task,
                eval=index.task_names[number],
                count=int(counts[number]),
                bare_count=int(bare_counts[number]),
                num_grams=int(num_grams[number]),
                shared=shared,
            )
        )
    return made


def _postings(
    index: leakage_index.Index, grams: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(number in `grams`, example, bare?) of every posting, in blocks."""
    if not len(grams):
        return
    low = index.offsets[grams]
    counts = index.offsets[grams + 1] - low
    ends = np.cumsum(counts)
    first = 0
    while first < len(grams):
        begin = ends[first] - counts[first]
        last = max(int(np.searchsorted(ends, begin + BLOCK_POSTINGS, "right")), first + 1)
        own = slice(first, last)
        which = np.repeat(np.arange(first, last), counts[own])
        at = np.repeat(low[own] - (ends[own] - counts[own]), counts[own])
        at += np.arange(begin, ends[last - 1])
        yield which, index.examples[at], index.is_bare[at]
        first = last
