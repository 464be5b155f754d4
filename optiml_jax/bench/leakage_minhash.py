"""Near-duplicates between training and evaluation instances: MinHash finds, Jaccard decides.

An instance is the set of its word 5-grams. MinHash signatures are cut into bands; two instances
that agree in a band are candidates, and for every candidate the exact Jaccard similarity of the
two sets is computed. So what is reported is never below the threshold, and what is missed has the
probability (1 - J^rows)^bands, at most `MOST_MISSED` for a pair at the threshold itself where
`NUM_HASHES` suffices for that (from 0.25 on).

Instances of fewer than five words are left out: they would be equal by chance.

Neighbours: `leakage` runs `in_processes`, `leakage_units` hashes.

Source: A. Broder, "On the resemblance and containment of documents" (1997); bands as in Leskovec,
Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from optiml_jax.bench import leakage, leakage_units
from optiml_jax.errors import InputError

SHINGLE = 5
NUM_HASHES = 128
MOST_MISSED = 0.001

_MOST_WORDS = 2**20
"""Hashes of words that are kept, so that memory does not grow with the words of a language."""


class Instances(Protocol):
    """Where bare instances come from; sent to other processes."""

    def evaluated_instances(self, task: str) -> Iterable[tuple[str, Sequence[str]]]:
        """(label, words of the input) of a task's evaluation instances."""
        ...

    def trained_instances(self, task: str) -> Iterator[tuple[Sequence[str], Sequence[Sequence]]]:
        """Blocks of (labels, words of the input) of a task's training instances."""
        ...


@dataclasses.dataclass(frozen=True)
class NearDuplicates:
    """Evaluation instances of a task that are nearly in a training task.

    Attributes:
        count: how many.
        jaccard: similarity of the one that is named.
    """

    train: str
    eval: str
    count: int
    jaccard: float
    train_label: str
    eval_label: str


def check(jaccard: float) -> None:
    """Raises InputError where the threshold is none."""
    if not 0 < jaccard <= 1:
        raise InputError(
            f"--jaccard is {jaccard:g}, expected a similarity above 0 and up to 1, e.g. 0.8."
        )


def bands_of(jaccard: float) -> tuple[int, int]:
    """(bands, rows a band): the longest bands that miss at most `MOST_MISSED` at the threshold.

    Example:
        bands_of(0.8) is (25, 5): 0.005 % of the pairs at 0.8 are missed.
    """
    for rows in range(NUM_HASHES, 0, -1):
        bands = NUM_HASHES // rows
        if (1 - jaccard**rows) ** bands <= MOST_MISSED:
            return bands, rows
    return NUM_HASHES, 1


def shingles(texts: Iterable[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Sets of 5-gram hashes, one after another, each ascending, and where each begins."""
    parts = [[_word_hash(word) for word in text] for text in texts]
    lengths = np.array([len(part) for part in parts], np.int64)
    values = np.array([one for part in parts for one in part], np.uint64)
    owner = np.repeat(np.arange(len(parts)), lengths)
    count = max(len(values) - SHINGLE + 1, 0)
    inside = owner[:count] == owner[SHINGLE - 1 :]
    hashes, owner = leakage_units.window_hashes(values, SHINGLE)[inside], owner[:count][inside]
    order = np.lexsort((hashes, owner))
    hashes, owner = hashes[order], owner[order]
    first = np.ones(len(hashes), bool)
    first[1:] = (hashes[1:] != hashes[:-1]) | (owner[1:] != owner[:-1])
    starts = np.zeros(len(parts) + 1, np.int64)
    np.cumsum(np.bincount(owner[first], minlength=len(parts)), out=starts[1:])
    return hashes[first], starts


def signatures(hashes: np.ndarray, starts: np.ndarray, num_hashes: int) -> np.ndarray:
    """uint32 [sets, num_hashes]: smallest value of each set under each random function.

    Empty sets have the largest value everywhere.
    """
    factors = leakage_units.random_table(num_hashes, 1) | np.uint64(1)
    addends = leakage_units.random_table(num_hashes, 2)
    made = np.full((len(starts) - 1, num_hashes), 2**32 - 1, np.uint32)
    is_full = starts[1:] > starts[:-1]
    if is_full.any():
        for number in range(num_hashes):
            values = ((hashes * factors[number] + addends[number]) >> np.uint64(32)).astype("u4")
            made[is_full, number] = np.minimum.reduceat(values, starts[:-1][is_full])
    return made


def jaccard_of(one: np.ndarray, two: np.ndarray) -> float:
    """Exact similarity of two sets, each a sorted array without repeats."""
    common = len(np.intersect1d(one, two, assume_unique=True))
    return common / max(len(one) + len(two) - common, 1)


def find(
    texts: Instances,
    train: Sequence[str],
    evaluation: Sequence[str],
    jaccard: float = 0.8,
    jobs: int = 1,
    progress: leakage.Progress = lambda done, total, what: None,
) -> list[NearDuplicates]:
    """Pairs of tasks with near-duplicate instances, by name."""
    found: list[NearDuplicates] = []
    with tempfile.TemporaryDirectory(prefix="optiml_near_duplicates_") as name:
        _write(pathlib.Path(name), texts, evaluation, jaccard)
        work = functools.partial(_find_in_task, name, texts, jaccard)
        with contextlib.closing(leakage.in_processes(work, train, jobs)) as results:
            for done, some in enumerate(results, start=1):
                found += some
                progress(done, len(train), "training tasks searched for near-duplicates")
        _opened.cache_clear()
    return sorted(found, key=lambda one: (one.train, one.eval))


def _word_hash(word: str) -> int:
    if (known := _WORDS.get(word)) is None:
        if len(_WORDS) >= _MOST_WORDS:
            _WORDS.clear()
        known = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
        _WORDS[word] = known
    return known


_WORDS: dict[str, int] = {}


def _keys(made: np.ndarray, jaccard: float) -> np.ndarray:
    """uint64 [bands, sets]: one value for all rows of a band."""
    bands, rows = bands_of(jaccard)
    keys = np.zeros((bands, len(made)), np.uint64)
    for band in range(bands):
        for row in range(rows):
            value = made[:, band * rows + row].astype(np.uint64)
            keys[band] = leakage_units.mix(keys[band] ^ (value + np.uint64(row << 32)))
    return keys


def _write(folder: pathlib.Path, texts: Instances, tasks: Sequence[str], jaccard: float) -> None:
    labels: list[str] = []
    task_of: list[int] = []
    hashes, sizes, made = [np.zeros(0, np.uint64)], [], []
    bands, rows = bands_of(jaccard)
    for number, task in enumerate(tasks):
        some = list(texts.evaluated_instances(task))
        values, starts = shingles(words for _, words in some)
        labels += [label for label, _ in some]
        task_of += [number] * len(some)
        hashes.append(values)
        sizes += np.diff(starts).tolist()
        made.append(signatures(values, starts, bands * rows))
    keys = _keys(np.concatenate(made), jaccard)
    # Empty sets are near nothing.
    full = np.flatnonzero(np.array(sizes) > 0)
    order = np.argsort(keys[:, full], axis=1)
    np.save(folder / "order.npy", full[order])
    np.save(folder / "keys.npy", np.take_along_axis(keys[:, full], order, axis=1))
    np.save(folder / "hashes.npy", np.concatenate(hashes))
    np.save(folder / "starts.npy", np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    np.save(folder / "task_of.npy", np.array(task_of, np.int64))
    (folder / "names.json").write_text(json.dumps([list(tasks), labels]), "utf-8")


@functools.lru_cache(maxsize=1)
def _opened(name: str) -> tuple[dict[str, np.ndarray], list[str], list[str]]:
    folder = pathlib.Path(name)
    names = ("order", "keys", "hashes", "starts", "task_of")
    arrays = {one: np.load(folder / f"{one}.npy", mmap_mode="r") for one in names}
    tasks, labels = json.loads((folder / "names.json").read_text("utf-8"))
    return arrays, tasks, labels


def _candidates(keys: np.ndarray, arrays: dict[str, np.ndarray]) -> Iterator[tuple[int, int]]:
    """(training, evaluation) instances that agree in a band, those that agree in most first."""
    num_eval, found = len(arrays["task_of"]), [np.zeros(0, np.int64)]
    for band in range(len(keys)):
        low = np.searchsorted(arrays["keys"][band], keys[band], "left")
        counts = np.searchsorted(arrays["keys"][band], keys[band], "right") - low
        which = np.repeat(np.arange(len(counts)), counts)
        at = np.repeat(low - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        found.append(which * num_eval + arrays["order"][band][at])
    pairs, agreeing = np.unique(np.concatenate(found), return_counts=True)
    for pair in pairs[np.argsort(-agreeing, kind="stable")].tolist():
        yield divmod(pair, num_eval)


def _find_in_task(folder: str, texts: Instances, jaccard: float, task: str) -> list[NearDuplicates]:
    arrays, tasks, labels = _opened(folder)
    bands, rows = bands_of(jaccard)
    best: dict[int, tuple[float, str]] = {}
    for names, block in texts.trained_instances(task):
        values, starts = shingles(block)
        kept = np.flatnonzero(np.diff(starts))
        keys = _keys(signatures(values, starts, bands * rows)[kept], jaccard)
        for number, example in _candidates(keys, arrays):
            # Whether there is one is what counts.
            if example in best:
                continue
            own = kept[number]
            similarity = jaccard_of(
                values[starts[own] : starts[own + 1]],
                arrays["hashes"][arrays["starts"][example] : arrays["starts"][example + 1]],
            )
            if similarity >= jaccard:
                best[example] = (similarity, names[int(own)])
    by_task: dict[int, list[int]] = {}
    for example in sorted(best):
        by_task.setdefault(int(arrays["task_of"][example]), []).append(example)
    return [
        NearDuplicates(
            train=task,
            eval=tasks[number],
            count=len(examples),
            jaccard=best[examples[0]][0],
            train_label=best[examples[0]][1],
            eval_label=labels[examples[0]],
        )
        for number, examples in by_task.items()
    ]
