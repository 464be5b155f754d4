"""What overlap between texts is counted in: words, runs of units, hashes of runs.

    "The cat's 3 hats!" -> the cats 3 hats -> ids -> one 64-bit hash for every run of n

Neighbours: `leakage_index` keeps the runs of evaluation examples, `leakage` looks up those of
training examples, `leakage_minhash` compares sets of runs. Units may be any hashable values, so
token ids go the same way as words.

A word is what GPT-3's check of its training data counts: lower-cased, punctuation deleted, cut at
white space. One addition: a character of a script that is written without spaces (Chinese,
Japanese, Thai, Lao, Khmer, Burmese) is a word of its own, or a whole sentence would be one.

Source: OPT-IML (arXiv 2212.12017) §2.3 counts 13-grams and does not say of what; GPT-3
(arXiv 2005.14165) appendix C.
"""

import string
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

UNITS = ("words", "tokens")

_UNSPACED = ("CJK UNIFIED", "CJK COMPAT", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")

# Odd constants of SplitMix64 (Steele, Lea, Flood 2014), whose steps mix all 64 bits.
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_BASE = np.uint64(0xD6E8FEB86659FD93)


class _Characters(dict):
    """Character -> what stands for it, worked out when it is first met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        made = character
        if character in string.punctuation or unicodedata.category(character).startswith("P"):
            made = ""
        elif unicodedata.name(character, "").startswith(_UNSPACED):
            made = f" {character} "
        self[code] = made
        return made


_CHARACTERS = _Characters()


def words(text: str) -> list[str]:
    """The words of a text.

    Example:
        words("It's 3.5 km, 東京!") is ["its", "35", "km", "東", "京"]
    """
    return text.translate(_CHARACTERS).lower().split()


def mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer: uint64 in, uint64 out, one to one."""
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))


def random_table(size: int, salt: int) -> np.ndarray:
    """uint64 [size]: a fixed random number for every id."""
    return mix((np.arange(size, dtype=np.uint64) + np.uint64(salt << 40)) * _GAMMA + _GAMMA)


def to_ids(sequences: Iterable[Sequence], known: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """Ids of sequences of units, one after another, and where each begins.

    Args:
        known: unit -> id from 1 on; other units are 0.

    Returns:
        int32 [total] and int64 [number of sequences + 1].
    """
    get = known.get
    parts = [[get(unit, 0) for unit in units] for units in sequences]
    starts = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=starts[1:])
    ids = np.fromiter((one for part in parts for one in part), np.int32, int(starts[-1]))
    return ids, starts


def window_hashes(values: np.ndarray, n: int) -> np.ndarray:
    """uint64 hash of the n values from every position on.

    A polynomial modulo 2^64 over random values, then mixed so that every bit counts.

    Args:
        values: uint64, one a unit, random (`random_table`).
    """
    for _, hashes in windows_of(values, [n]):
        return hashes
    return np.zeros(0, np.uint64)


def windows_of(values: np.ndarray, lengths: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """(length, `window_hashes` of that length), ascending, those that fit; one pass for all.

    Args:
        lengths: of windows, 1 or more, without repeats.
    """
    wanted = sorted(length for length in lengths if length <= len(values))
    if not wanted:
        return
    hashes = np.zeros(len(values), np.uint64)
    for length in range(1, wanted[-1] + 1):
        count = len(values) - length + 1
        hashes = hashes[:count]
        hashes *= _BASE
        hashes += values[length - 1 :]
        if length in wanted:
            yield length, mix(hashes)


def whole_windows(ids: np.ndarray, starts: np.ndarray, n: int) -> np.ndarray:
    """Positions from which n known ids stand in one and the same sequence, int64."""
    count = len(ids) - n + 1
    if count <= 0:
        return np.zeros(0, np.int64)
    ends = np.repeat(starts[1:], np.diff(starts))
    unknown = np.concatenate([[0], np.cumsum(ids == 0)])
    inside = ends[:count] - np.arange(count) >= n
    return np.flatnonzero(inside & (unknown[n:] == unknown[: len(unknown) - n]))
