"""Near-duplicates between training and evaluation instances: MinHash finds, Jaccard decides.

An instance is the set of its word 5-grams. MinHash signatures are cut into bands; two instances
that agree in a band are candidates, and for every candidate the exact Jaccard similarity of the
two sets is computed. So what is reported is never below the threshold, and what is missed has the
probability (1 - J^rows)^bands, at most `MOST_MISSED` for a pair at the threshold itself. Below
`LEAST_JACCARD` the hashes do not suffice for that: such thresholds are refused.

Instances of fewer than five words are left out: they would be equal by chance. Equal sets are
compared once, whatever number of examples has them, and candidates come a part at a time: memory
holds the signatures of the evaluation side and `MOST_CANDIDATES`.

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
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from optiml_jax.bench import leakage, leakage_units
from optiml_jax.errors import InputError

SHINGLE = 5
NUM_HASHES = 128
MOST_MISSED = 0.001

LEAST_JACCARD = 0.053
"""1 - MOST_MISSED^(1 / NUM_HASHES), rounded up: bands of one row miss more below it."""

MOST_CANDIDATES = 2**20
"""Agreements in a band that are held at a time; those of one training instance always are."""

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
    """Raises InputError where the threshold is none, or too low for the hashes."""
    if not LEAST_JACCARD <= jaccard <= 1:
        raise InputError(
            f"--jaccard is {jaccard:g}, expected a similarity from {LEAST_JACCARD:g} to 1, e.g."
            f" 0.8: below {LEAST_JACCARD:g} more than {100 * MOST_MISSED:g} % of the pairs would be"
            " missed."
        )


def bands_of(jaccard: float) -> tuple[int, int]:
    """(bands, rows a band): the longest bands that miss at most `MOST_MISSED` at the threshold.

    Bands of one row do from `LEAST_JACCARD` on.

    Example:
        bands_of(0.8) is (25, 5): 0.005 % of the pairs at 0.8 are missed.
    """
    for rows in range(NUM_HASHES, 1, -1):
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
    """Pairs of tasks with near-duplicate instances, by name.

    Raises:
        InputError: there is no room for the signatures.
    """
    found: list[NearDuplicates] = []

    def num_bytes() -> int:
        instances = (one for task in evaluation for one in texts.evaluated_instances(task))
        own = 16 * bands_of(jaccard)[0] + 24
        return sum(own + 8 * len(words) + len(label.encode()) for label, words in instances)

    with leakage.temporary_folder("optiml_near_duplicates_", num_bytes) as folder:
        _write(folder, texts, evaluation, jaccard)
        work = functools.partial(_find_in_task, str(folder), texts, jaccard)
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


def _distinct(values: np.ndarray, starts: np.ndarray) -> dict[bytes, list[int]]:
    """Digest of a set -> the numbers of those equal to it; empty ones are near nothing."""
    numbers: dict[bytes, list[int]] = {}
    for number in np.flatnonzero(np.diff(starts)).tolist():
        own = values[starts[number] : starts[number + 1]]
        numbers.setdefault(hashlib.blake2b(own.tobytes(), digest_size=16).digest(), []).append(
            number
        )
    return numbers


def _write(folder: pathlib.Path, texts: Instances, tasks: Sequence[str], jaccard: float) -> None:
    labels: list[str] = []
    task_of: list[int] = []
    set_of: list[int] = []
    known: dict[bytes, int] = {}
    hashes, sizes, made = [np.zeros(0, np.uint64)], [], []
    bands, rows = bands_of(jaccard)
    for number, task in enumerate(tasks):
        some = list(texts.evaluated_instances(task))
        values, starts = shingles(words for _, words in some)
        labels += [label for label, _ in some]
        task_of += [number] * len(some)
        own = np.full(len(some), -1)
        fresh = []
        for digest, equal in _distinct(values, starts).items():
            if digest not in known:
                fresh.append(equal[0])
            own[equal] = known.setdefault(digest, len(known))
        set_of += own.tolist()
        parts = [values[starts[one] : starts[one + 1]] for one in fresh]
        hashes += parts
        sizes += map(len, parts)
        made.append(signatures(values, starts, bands * rows)[fresh])
    keys = _keys(np.concatenate(made), jaccard)
    order = np.argsort(keys, axis=1)
    arrays = {
        "order": order,
        "keys": np.take_along_axis(keys, order, axis=1),
        "hashes": np.concatenate(hashes),
        "starts": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        "task_of": np.array(task_of, np.int64),
        "set_of": np.array(set_of, np.int64),
    }
    for name, array in arrays.items():
        # Where there is no room the error of `np.save` has no number to know it by.
        with (folder / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, np.lib.format.header_data_from_array_1_0(array)
            )
            file.write(np.ascontiguousarray(array).data)
    (folder / "names.json").write_text(json.dumps([list(tasks), labels]), "utf-8")


@functools.lru_cache(maxsize=1)
def _opened(name: str) -> tuple[dict[str, np.ndarray], list[str], list[str]]:
    folder = pathlib.Path(name)
    names = ("order", "keys", "hashes", "starts", "task_of", "set_of")
    arrays = {one: np.load(folder / f"{one}.npy", mmap_mode="r") for one in names}
    tasks, labels = json.loads((folder / "names.json").read_text("utf-8"))
    return arrays, tasks, labels


def _candidates(
    keys: np.ndarray, arrays: dict[str, np.ndarray], is_found: np.ndarray
) -> Iterator[tuple[int, int]]:
    """(training, evaluation) sets that agree in a band.

    Those of one part that agree in most bands come first.

    Args:
        is_found: evaluation sets that are not asked for any more; may change between parts.
    """
    num_sets, (bands, num_train) = len(is_found), keys.shape
    low, high = np.zeros((bands, num_train), np.int64), np.zeros((bands, num_train), np.int64)
    for band in range(bands):
        low[band] = np.searchsorted(arrays["keys"][band], keys[band], "left")
        high[band] = np.searchsorted(arrays["keys"][band], keys[band], "right")
    counts = high - low
    ends = np.cumsum(counts.sum(axis=0))
    first = 0
    while first < num_train:
        before = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, before + MOST_CANDIDATES, "right")), first + 1)
        found = [np.zeros(0, np.int64)]
        for band in range(bands):
            own = counts[band, first:last]
            which = np.repeat(np.arange(first, last), own)
            at = np.repeat(low[band, first:last] - (np.cumsum(own) - own), own)
            examples = arrays["order"][band][at + np.arange(len(at))]
            is_open = ~is_found[examples]
            found.append(which[is_open] * num_sets + examples[is_open])
        pairs, agreeing = np.unique(np.concatenate(found), return_counts=True)
        for pair in pairs[np.argsort(-agreeing, kind="stable")].tolist():
            yield divmod(pair, num_sets)
        first = last


def _find_in_task(folder: str, texts: Instances, jaccard: float, task: str) -> list[NearDuplicates]:
    arrays, tasks, labels = _opened(folder)
    bands, rows = bands_of(jaccard)
    is_found = np.zeros(len(arrays["starts"]) - 1, bool)
    best: dict[int, tuple[float, str]] = {}
    for names, block in texts.trained_instances(task):
        values, starts = shingles(block)
        kept = [equal[0] for equal in _distinct(values, starts).values()]
        keys = _keys(signatures(values, starts, bands * rows)[kept], jaccard)
        for number, other in _candidates(keys, arrays, is_found):
            # Whether there is one is what counts.
            if is_found[other]:
                continue
            own = kept[number]
            similarity = jaccard_of(
                values[starts[own] : starts[own + 1]],
                arrays["hashes"][arrays["starts"][other] : arrays["starts"][other + 1]],
            )
            if similarity >= jaccard:
                is_found[other] = True
                best[other] = (similarity, names[own])
    return _by_task(task, best, arrays, tasks, labels)


def _by_task(
    train: str,
    best: dict[int, tuple[float, str]],
    arrays: dict[str, np.ndarray],
    tasks: Sequence[str],
    labels: Sequence[str],
) -> list[NearDuplicates]:
    """Examples of the sets that were found, by evaluation task; the first of each is named."""
    by_task: dict[int, list[int]] = {}
    for example in np.flatnonzero(np.isin(arrays["set_of"], list(best))).tolist():
        by_task.setdefault(int(arrays["task_of"][example]), []).append(example)
    made = []
    for number, examples in by_task.items():
        similarity, label = best[int(arrays["set_of"][examples[0]])]
        made.append(
            NearDuplicates(
                train=train,
                eval=tasks[number],
                count=len(examples),
                jaccard=similarity,
                train_label=label,
                eval_label=labels[examples[0]],
            )
        )
    return made
