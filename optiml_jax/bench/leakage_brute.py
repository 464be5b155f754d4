"""The counts of `leakage` again, with Python sets of tuples: slow and plain, for some pairs.

It shares no code with what it checks but the constants. Near-duplicates are not counted again.

Neighbours: `leakage` counts, `main.leakage` has --verify.
"""

import collections
import itertools
import random
from collections.abc import Iterator, Sequence

from optiml_jax.bench import leakage, leakage_index


def count(
    texts: leakage.Texts, pairs: Sequence[tuple[str, str]], n: int
) -> dict[tuple[str, str], tuple[int, int]]:
    """(`Overlap.count`, `Overlap.bare_count`) of some pairs."""
    evaluated = {name: _grams_of(texts, name, n) for name in sorted({pair[1] for pair in pairs})}
    found = {}
    for train in sorted({pair[0] for pair in pairs}):
        names = sorted({pair[1] for pair in pairs if pair[0] == train})
        lengths = {len(gram) for name in names for _, own in evaluated[name] for gram in own}
        seen = {
            gram
            for _, sequences in texts.trained(train)
            for units in sequences
            for length in lengths | {n}
            for gram in _runs(units, length)
        }
        for name in names:
            found[train, name] = (
                sum(not seen.isdisjoint(grams) for grams, _ in evaluated[name]),
                sum(not seen.isdisjoint(own) for _, own in evaluated[name]),
            )
    return found


def verify(
    texts: leakage.Texts,
    counted: leakage.Counted,
    train: Sequence[str],
    num_pairs: int,
    n: int,
    seed: int = 0,
) -> int:
    """Counts some pairs again: half of them with overlap, half drawn from all.

    Returns:
        The number of pairs that were compared.

    Raises:
        RuntimeError: a count differs, which is a fault of this package.
    """
    draw = random.Random(seed)
    counts = {(one.train, one.eval): (one.count, one.bare_count) for one in counted.overlaps}
    names = sorted(counted.num_eval)
    if num_pairs >= len(train) * len(names):
        chosen = sorted(itertools.product(train, names))
    else:
        hits = draw.sample(sorted(counts), min(len(counts), (num_pairs + 1) // 2))
        others = [(draw.choice(train), draw.choice(names)) for _ in range(num_pairs - len(hits))]
        chosen = sorted({*hits, *others})
    for pair, expected in count(texts, chosen, n).items():
        if (found := counts.get(pair, (0, 0))) != expected:
            raise RuntimeError(
                f"{pair}: counted {found} sequences and instances, brute force {expected}"
            )
    return len(chosen)


def _grams_of(texts: leakage.Texts, task: str, n: int) -> list[tuple[set[tuple], set[tuple]]]:
    """(grams of the sequence, grams of the instance or its whole input) of a task's examples."""
    examples = list(texts.evaluated(task))
    grams = [set(_runs(one.units, n)) for one in examples]
    owns, wholes = [], []
    for one in examples:
        instance = one.units[one.bare_start :]
        given = tuple(one.units[one.bare_start : one.input_end])
        is_whole = len(instance) < n and len(given) >= leakage_index.LEAST_UNITS
        owns.append(set(_runs(instance, n)))
        wholes.append({given} if is_whole else set())
    sizes = collections.Counter(one.wording for one in examples)
    made = []
    own_counts, whole_counts = (
        collections.Counter(
            (one.wording, gram) for one, some in zip(examples, rows, strict=True) for gram in some
        )
        for rows in (grams, wholes)
    )
    for one, some, own, whole in zip(examples, grams, owns, wholes, strict=True):
        most = leakage_index.WORDING_SHARE * sizes[one.wording]
        if sizes[one.wording] < leakage_index.LEAST_EXAMPLES:
            most = sizes[one.wording]
        own = {gram for gram in own if own_counts[one.wording, gram] <= most}
        whole = {gram for gram in whole if whole_counts[one.wording, gram] <= most}
        made.append((some, own | whole))
    return made


def _runs(units: Sequence, length: int) -> Iterator[tuple]:
    return (tuple(units[at : at + length]) for at in range(len(units) - length + 1))
