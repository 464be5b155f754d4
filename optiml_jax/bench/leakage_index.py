"""All n-grams of the evaluation examples, sorted by hash, in files that are mapped into memory.

    ids.bin        int32    units of all evaluation examples, one after another
    starts.bin     int64    where each example begins, and the end
    hashes.bin     uint64   hash of every distinct gram, ascending
    places.bin     int64    a position in ids.bin where the gram stands
    offsets.bin    int64    gram g is in the postings offsets[g] to offsets[g + 1]
    examples.bin   int32    posting -> example
    is_bare.bin    bool     posting -> the gram is of the instance, not of its wording
    kind_of.bin    int8     example -> how its instance is compared: BY_GRAMS, WHOLE, NOT_AT_ALL

An instance in which no gram of n units begins is too short for the count of instances. Its whole
input then stands for it, as one gram of its own length, from `LEAST_UNITS` on: WHOLE. Those grams
follow the others in places.bin and offsets.bin, by length and hash; shorts.npz has both.

The grams are divided by the upper bits of their hashes into parts of `PART_GRAMS`; one part at a
time is sorted in memory, so memory does not grow with the number of examples, and the parts one
after another are sorted as a whole. Training workers map the same files: the system keeps them
once.

A hash stands for one gram, exactly: while the index is built every gram is compared with the one
its hash stands for, unit by unit, and should two differ all is hashed anew with another salt.

Neighbours: `leakage_units` hashes, `leakage` looks up.
"""

import contextlib
import json
import pathlib
import pickle
import re
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, Protocol

import numpy as np

from optiml_jax.bench import leakage_units
from optiml_jax.errors import InputError

PART_GRAMS = 2**21
"""Grams sorted at a time: about 150 MB."""

BLOCK_EXAMPLES = 4096

MOST_SALTS = 8

WORDING_SHARE = 0.5
"""A gram in more than this share of the examples of one wording is of the wording."""

LEAST_EXAMPLES = 4
"""... where the wording has at least so many."""

LEAST_UNITS = 5
"""Shorter inputs are equal by chance: such instances are not compared."""

BY_GRAMS, WHOLE, NOT_AT_ALL = range(3)

_POSTED = ("places", "offsets", "examples", "is_bare")

_FILTER_BITS = np.uint64(2**22 - 1)

_DTYPES = {
    "ids": np.int32,
    "starts": np.int64,
    "task_of": np.int32,
    "bare_start": np.int64,
    "wording_of": np.int32,
    "hashes": np.uint64,
    "places": np.int64,
    "offsets": np.int64,
    "examples": np.int32,
    "is_bare": np.bool_,
    "kind_of": np.int8,
    "input_end": np.int64,
}


class Evaluated(Protocol):
    """An evaluation example.

    Attributes:
        label: names it to people.
        units: of the instantiated sequence.
        bare_start: number of units before the instance; 0 where that is not known.
        input_end: number of units before the end of the instance's input.
        wording: template or wording of the task that its prompt is made with.
    """

    @property
    def label(self) -> str:
        """Names it to people."""
        ...

    @property
    def units(self) -> Sequence:
        """Of the instantiated sequence."""
        ...

    @property
    def bare_start(self) -> int:
        """Units before the instance."""
        ...

    @property
    def input_end(self) -> int:
        """Units before the end of the input."""
        ...

    @property
    def wording(self) -> str:
        """What its prompt is made with."""
        ...


def wording_of(prompt_id: str) -> str:
    """The template or wording that a prompt_id names, without the drawn delimiters.

    Example:
        "GPT-3 style/-.-.4" -> "GPT-3 style"; "w2.0.1.3" -> "w2"; "0.1.3" -> ""
    """
    template, separator, _ = prompt_id.rpartition("/")
    found = re.match(r"w\d+(?=\.)", prompt_id)
    return template if separator else found.group() if found else ""


def build(folder: pathlib.Path, tasks: Iterable[tuple[str, Iterable[Evaluated]]], n: int) -> None:
    """Writes the index of all evaluation examples into an empty folder.

    Args:
        tasks: (name, examples) of every evaluation task.

    Raises:
        InputError: no example has n units.
    """
    known, sizes = _write_examples(folder, tasks)
    lengths = np.diff(_map(folder, "starts"))
    if (longest := int(lengths.max(initial=0))) < n:
        raise InputError(
            f"--n is {n:,}, but the longest of the {len(lengths):,} evaluation examples has"
            f" {longest:,} units, so none has a gram. Give a smaller --n (the paper has 13)."
        )
    for salt in range(MOST_SALTS):
        if _write_grams(folder, n, salt, len(known) + 1, sizes) and _write_shorts(
            folder, n, salt, len(known) + 1, sizes
        ):
            break
    else:
        raise RuntimeError(f"{MOST_SALTS} salts gave equal hashes of different grams: a fault.")
    (folder / "known.pickle").write_bytes(pickle.dumps(known, pickle.HIGHEST_PROTOCOL))
    (folder / "meta.json").write_text(json.dumps({"n": n, "salt": salt}), "utf-8")


def num_bytes(tasks: Iterable[tuple[str, Iterable[Evaluated]]]) -> int:
    """The most that `build` writes for these tasks, but for the dictionary of units.

    4 bytes a unit and 29 for the gram that begins there with its posting; 70 an example, which may
    be a whole input, and its label.
    """
    return sum(
        33 * len(one.units) + 70 + len(one.label.encode())
        for _, examples in tasks
        for one in examples
    )


class Index:
    """The index in a folder, read only.

    Attributes:
        known: unit -> id.
        table: id -> random number that hashes are made of.
    """

    def __init__(self, folder: pathlib.Path):
        meta = json.loads((folder / "meta.json").read_text("utf-8"))
        self.n: int = meta["n"]
        self.known: dict[Any, int] = pickle.loads((folder / "known.pickle").read_bytes())
        self.table = leakage_units.random_table(len(self.known) + 1, meta["salt"])
        self.labels: list[str] = json.loads((folder / "labels.json").read_text("utf-8"))
        self.task_names: list[str] = json.loads((folder / "tasks.json").read_text("utf-8"))
        self.ids, self.starts, self.task_of, self.kind_of = (
            _map(folder, k) for k in ("ids", "starts", "task_of", "kind_of")
        )
        self.hashes, self.places, self.offsets, self.examples, self.is_bare = (
            _map(folder, name) for name in ("hashes", "places", "offsets", "examples", "is_bare")
        )
        with np.load(folder / "shorts.npz") as shorts:
            self._short_hashes, self._short_lengths = shorts["hashes"], shorts["lengths"]
        self._lengths = np.unique(self._short_lengths).tolist()
        self._may_be_short = np.zeros(int(_FILTER_BITS) + 1 if self._lengths else 0, bool)
        self._may_be_short[self._short_hashes & _FILTER_BITS] = True

    @property
    def num_grams(self) -> int:
        """Distinct ones of n units; a gram of a greater number is a whole input."""
        return len(self.hashes)

    def look_up(self, ids: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Grams of some sequences that evaluation examples have too.

        Args:
            ids: of the sequences, one after another, by `known`.
            starts: where each begins, and the end.

        Returns:
            Numbers of the grams, each once, and for each a position in `ids`; and the number of
            grams whose hash was found but whose units are others, which are left out.
        """
        at = leakage_units.whole_windows(ids, starts, self.n)
        if not len(at) or not self.num_grams:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), 0
        hashes = leakage_units.window_hashes(self.table[ids], self.n)[at]
        hashes, first = np.unique(hashes, return_index=True)
        grams = np.minimum(np.searchsorted(self.hashes, hashes), self.num_grams - 1)
        found = self.hashes[grams] == hashes
        grams, at = grams[found], at[first[found]]
        window = np.arange(self.n)
        same = np.ones(len(grams), bool)
        for low in range(0, len(grams), 2**16):
            part = slice(low, low + 2**16)
            ours = ids[at[part, None] + window]
            theirs = self.ids[self.places[grams[part]][:, None] + window]
            same[part] = (ours == theirs).all(axis=1)
        return grams[same], at[same], int((~same).sum())

    def look_up_shorts(
        self, ids: np.ndarray, starts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Whole short inputs that stand in some sequences; as `look_up`."""
        grams, places, false = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
        ends = np.repeat(starts[1:], np.diff(starts))
        for length, hashes in leakage_units.windows_of(self.table[ids], self._lengths):
            at = np.flatnonzero(self._may_be_short[hashes & _FILTER_BITS])
            at = at[ends[at] - at >= length]
            low, high = np.searchsorted(self._short_lengths, [length, length + 1])
            number = low + np.searchsorted(self._short_hashes[low:high], hashes[at])
            number = np.minimum(number, high - 1)
            is_found = self._short_hashes[number] == hashes[at]
            number, first = np.unique(number[is_found], return_index=True)
            at = at[is_found][first]
            window = np.arange(length)
            theirs = self.ids[self.places[self.num_grams + number][:, None] + window]
            same = (ids[at[:, None] + window] == theirs).all(axis=1)
            grams.append(self.num_grams + number[same])
            places.append(at[same])
            false += int((~same).sum())
        return np.concatenate(grams), np.concatenate(places), false

    def gram(self, number: int) -> list:
        """The units of a gram."""
        place, short = int(self.places[number]), number - self.num_grams
        length = self.n if short < 0 else int(self._short_lengths[short])
        return [self._units[i] for i in self.ids[place : place + length]]

    @property
    def _units(self) -> list:
        if not hasattr(self, "_by_id"):
            self._by_id = [None, *self.known]
        return self._by_id


def _map(folder: pathlib.Path, name: str) -> np.ndarray:
    path = folder / f"{name}.bin"
    if not path.stat().st_size:
        return np.zeros(0, _DTYPES[name])
    return np.memmap(path, _DTYPES[name], "r")


def _append(file: BinaryIO, name: str, values: Any) -> None:
    file.write(np.ascontiguousarray(values, _DTYPES[name]).tobytes())


def _write_examples(
    folder: pathlib.Path, tasks: Iterable[tuple[str, Iterable[Evaluated]]]
) -> tuple[dict[Any, int], np.ndarray]:
    """Ids of all units, and what is known of each example; returns unit -> id and wording sizes."""
    known: dict[Any, int] = {}
    wordings: dict[tuple[str, str], int] = {}
    sizes: list[int] = []
    names: list[str] = []
    labels: list[str] = []
    starts, task_of, bare_start, input_end, wording = [0], [], [], [], []
    with (folder / "ids.bin").open("wb") as file:
        for number, (name, examples) in enumerate(tasks):
            names.append(name)
            for one in examples:
                ids = [known.setdefault(unit, len(known) + 1) for unit in one.units]
                _append(file, "ids", ids)
                bare_start.append(starts[-1] + one.bare_start)
                input_end.append(starts[-1] + one.input_end)
                starts.append(starts[-1] + len(ids))
                key = wordings.setdefault((name, one.wording), len(wordings))
                sizes += [0] * (len(wordings) - len(sizes))
                sizes[key] += 1
                wording.append(key)
                task_of.append(number)
                labels.append(one.label)
    arrays = {"starts": starts, "task_of": task_of, "bare_start": bare_start}
    arrays |= {"input_end": input_end, "wording_of": wording}
    for key, values in arrays.items():
        (folder / f"{key}.bin").write_bytes(np.asarray(values, _DTYPES[key]).tobytes())
    for key, values in (("labels", labels), ("tasks", names)):
        (folder / f"{key}.json").write_text(json.dumps(values, ensure_ascii=False), "utf-8")
    return known, np.asarray(sizes, np.int64)


def _write_grams(folder: pathlib.Path, n: int, salt: int, num_ids: int, sizes: np.ndarray) -> bool:
    """Hashes, places and postings; False where one hash would stand for two grams."""
    ids, starts = _map(folder, "ids"), _map(folder, "starts")
    bits = 0
    while len(ids) >> bits > PART_GRAMS:
        bits += 1
    table = leakage_units.random_table(num_ids, salt)
    parts = [folder / f"part-{number}" for number in range(2**bits)]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in parts]
        for low in range(0, len(starts) - 1, BLOCK_EXAMPLES):
            own = starts[low : low + BLOCK_EXAMPLES + 1]
            block = ids[own[0] : own[-1]]
            at = leakage_units.whole_windows(block, own - own[0], n)
            if not len(at):
                continue
            hashes = leakage_units.window_hashes(table[block], n)[at]
            rows = np.stack([hashes, (at + own[0]).astype(np.uint64)], axis=1)
            part_of = _upper(hashes, bits)
            for number in np.unique(part_of):
                files[number].write(rows[part_of == number].tobytes())
    wording_of, bare_start = _map(folder, "wording_of"), _map(folder, "bare_start")
    names = ("hashes", "places", "offsets", "examples", "is_bare")
    with contextlib.ExitStack() as stack:
        outs = {name: stack.enter_context((folder / f"{name}.bin").open("wb")) for name in names}
        _append(outs["offsets"], "offsets", [0])
        total = 0
        for path in parts:
            rows = np.fromfile(path, np.uint64).reshape(-1, 2)
            path.unlink()
            made = _sorted_part(rows, n, ids, starts, bare_start, wording_of, sizes)
            if made is None:
                return False
            made["offsets"] = made["offsets"] + total
            total += len(made["examples"])
            for name in names:
                _append(outs[name], name, made[name])
    return True


def _write_shorts(folder: pathlib.Path, n: int, salt: int, num_ids: int, sizes: np.ndarray) -> bool:
    """Appends the inputs of instances without a gram; False where hashes of two are equal."""
    ids, starts, bare_start, input_end, wording_of = (
        _map(folder, key) for key in ("ids", "starts", "bare_start", "input_end", "wording_of")
    )
    is_short = starts[1:] - bare_start < n
    is_whole = is_short & (input_end - bare_start >= LEAST_UNITS)
    kind_of = np.where(is_short, np.where(is_whole, WHOLE, NOT_AT_ALL), BY_GRAMS)
    (folder / "kind_of.bin").write_bytes(kind_of.astype(_DTYPES["kind_of"]).tobytes())
    examples_of: dict[tuple, list[int]] = {}
    for example in np.flatnonzero(is_whole).tolist():
        gram = tuple(ids[bare_start[example] : input_end[example]].tolist())
        examples_of.setdefault(gram, []).append(example)
    table = leakage_units.random_table(num_ids, salt)
    rows = []
    for gram in examples_of:
        own = int(leakage_units.window_hashes(table[list(gram)], len(gram))[0])
        rows.append((len(gram), own, gram))
    rows.sort()
    if len({row[:2] for row in rows}) < len(rows):
        return False
    offset = (folder / "examples.bin").stat().st_size // np.dtype(_DTYPES["examples"]).itemsize
    with contextlib.ExitStack() as stack:
        outs = {key: stack.enter_context((folder / f"{key}.bin").open("ab")) for key in _POSTED}
        for _, _, gram in rows:
            examples = examples_of[gram]
            offset += len(examples)
            _, which, counts = np.unique(
                wording_of[examples], return_inverse=True, return_counts=True
            )
            many = sizes[wording_of[examples]]
            is_wording = (counts[which] > WORDING_SHARE * many) & (many >= LEAST_EXAMPLES)
            _append(outs["places"], "places", [bare_start[examples[0]]])
            _append(outs["offsets"], "offsets", [offset])
            _append(outs["examples"], "examples", examples)
            _append(outs["is_bare"], "is_bare", ~is_wording)
    np.savez(
        folder / "shorts.npz",
        hashes=np.array([row[1] for row in rows], np.uint64),
        lengths=np.array([row[0] for row in rows], np.int64),
    )
    return True


def _upper(hashes: np.ndarray, bits: int) -> np.ndarray:
    return (hashes >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(len(hashes), int)


def _sorted_part(
    rows: np.ndarray,
    n: int,
    ids: np.ndarray,
    starts: np.ndarray,
    bare_start: np.ndarray,
    wording_of: np.ndarray,
    sizes: np.ndarray,
) -> dict[str, np.ndarray] | None:
    """Grams of one part with their postings, or None where a hash stands for two grams."""
    order = np.lexsort((rows[:, 1], rows[:, 0]))
    hashes, at = rows[order, 0], rows[order, 1].astype(np.int64)
    is_new = np.ones(len(hashes), bool)
    is_new[1:] = hashes[1:] != hashes[:-1]
    gram = np.cumsum(is_new) - 1
    places = at[is_new]
    again = np.flatnonzero(~is_new)
    window = np.arange(n)
    for low in range(0, len(again), 2**16):
        some = again[low : low + 2**16]
        if (ids[at[some][:, None] + window] != ids[places[gram[some]][:, None] + window]).any():
            return None
    example = np.searchsorted(starts, at, "right") - 1
    # Positions ascend within a gram, so one example's stand together.
    is_posting = is_new.copy()
    is_posting[1:] |= example[1:] != example[:-1]
    first = np.flatnonzero(is_posting)
    bare = at >= bare_start[example] if len(example) else np.zeros(0, bool)
    bare = np.logical_or.reduceat(bare, first) if len(first) else bare
    gram, example = gram[first], example[first]
    wording = wording_of[example].astype(np.int64)
    _, which, counts = np.unique(
        gram * (len(sizes) or 1) + wording, return_inverse=True, return_counts=True
    )
    many = sizes[wording]
    bare &= ~((counts[which] > WORDING_SHARE * many) & (many >= LEAST_EXAMPLES))
    return {
        "hashes": hashes[is_new],
        "places": places,
        "offsets": np.cumsum(np.bincount(gram, minlength=len(places))),
        "examples": example,
        "is_bare": bare,
    }
