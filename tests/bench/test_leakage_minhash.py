"""Near-duplicates: MinHash against exact Jaccard, bands, and the pairs that are found."""

import dataclasses
import random

import numpy as np
import pytest

from optiml_jax.bench import leakage_minhash
from optiml_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Instances:
    """Words of instances by task."""

    train: dict
    evaluation: dict

    def evaluated_instances(self, task):
        return [(f"{task} {i}", words) for i, words in enumerate(self.evaluation[task])]

    def trained_instances(self, task):
        rows = self.train[task]
        for low in range(0, len(rows), 4):
            some = rows[low : low + 4]
            yield [f"{task} {low + i}" for i in range(len(some))], some


def near_copies(draw, num, most_changes, length=60):
    """Pairs of texts, the second with some words of the first replaced."""
    for _ in range(num):
        words = [f"w{draw.randrange(10**6)}" for _ in range(length)]
        changed = list(words)
        for at in draw.sample(range(length), draw.randrange(most_changes + 1)):
            changed[at] = "changed"
        yield words, changed


def exact(one, two):
    grams = [{tuple(w[i : i + 5]) for i in range(len(w) - 4)} for w in (one, two)]
    union = grams[0] | grams[1]
    return len(grams[0] & grams[1]) / len(union) if union else 0.0


def test_jaccard_of_shingles_is_exact():
    pairs = list(near_copies(random.Random(0), 40, 6))
    for one, two in pairs:
        values, starts = leakage_minhash.shingles([one, two])
        found = leakage_minhash.jaccard_of(values[: starts[1]], values[starts[1] :])
        assert found == pytest.approx(exact(one, two), abs=1e-12)


def test_signatures_estimate_jaccard():
    pairs = list(near_copies(random.Random(1), 60, 5))
    values, starts = leakage_minhash.shingles([words for pair in pairs for words in pair])
    made = leakage_minhash.signatures(values, starts, 128)
    estimated = np.array([(made[2 * i] == made[2 * i + 1]).mean() for i in range(len(pairs))])
    true = np.array([exact(*pair) for pair in pairs])
    # One estimate has a standard deviation of at most 0.044 with 128 hashes.
    assert np.abs(estimated - true).max() < 0.18
    assert abs((estimated - true).mean()) < 0.03


@pytest.mark.parametrize("jaccard", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_miss_few_at_the_threshold(jaccard):
    bands, rows = leakage_minhash.bands_of(jaccard)
    assert bands * rows <= leakage_minhash.NUM_HASHES
    assert (1 - jaccard**rows) ** bands <= leakage_minhash.MOST_MISSED


@pytest.mark.parametrize("jaccard", [0.5, 0.8])
@pytest.mark.parametrize("jobs", [1, 2])
def test_pairs_found_are_those_of_exact_jaccard(jaccard, jobs):
    draw = random.Random(2)
    train, evaluation = {"t0": [], "t1": [], "t2": [["alone"] * 3]}, {"e0": [], "e1": []}
    for number, (one, two) in enumerate(near_copies(draw, 80, 5)):
        train[f"t{number % 2}"].append(one)
        evaluation[f"e{number // 2 % 2}"].append(two)
    evaluation["e1"] += [["alone"] * 3, []]
    expected = {}
    for t, rows in train.items():
        for e, others in evaluation.items():
            near = sum(any(exact(row, other) >= jaccard for row in rows) for other in others)
            if near:
                expected[t, e] = near
    found = leakage_minhash.find(
        Instances(train, evaluation), sorted(train), sorted(evaluation), jaccard, jobs
    )
    assert {(one.train, one.eval): one.count for one in found} == expected
    for one in found:
        (task, number), (other, example) = one.train_label.split(), one.eval_label.split()
        words = train[task][int(number)], evaluation[other][int(example)]
        assert one.jaccard == pytest.approx(exact(*words))
        assert one.jaccard >= jaccard


def test_nothing_to_compare():
    empty = Instances({"t": [["a"]]}, {"e": [[], ["a", "b"]]})
    assert leakage_minhash.find(empty, ["t"], ["e"]) == []


@pytest.mark.parametrize("jaccard", [0.0, -1.0, 1.01, float("nan")])
def test_a_similarity_out_of_range(jaccard):
    with pytest.raises(InputError, match="--jaccard is"):
        leakage_minhash.check(jaccard)
