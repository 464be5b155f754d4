"""Near-duplicates: MinHash against exact Jaccard, bands, and the pairs that are found."""

import dataclasses
import random
import tracemalloc

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


@pytest.mark.parametrize("jaccard", [leakage_minhash.LEAST_JACCARD, 0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_miss_few_at_the_threshold(jaccard):
    bands, rows = leakage_minhash.bands_of(jaccard)
    assert bands * rows <= leakage_minhash.NUM_HASHES
    assert (1 - jaccard**rows) ** bands <= leakage_minhash.MOST_MISSED


def test_a_threshold_below_the_least_would_miss_more():
    lower = leakage_minhash.LEAST_JACCARD - 0.001
    assert (1 - lower) ** leakage_minhash.NUM_HASHES > leakage_minhash.MOST_MISSED
    with pytest.raises(InputError, match=r"--jaccard is 0.052, expected a similarity from 0.053"):
        leakage_minhash.check(lower)
    leakage_minhash.check(leakage_minhash.LEAST_JACCARD)


@dataclasses.dataclass(frozen=True)
class OneBlock(Instances):
    """All training instances at once, as a store reads a thousand."""

    def trained_instances(self, task):
        rows = self.train[task]
        yield [f"{task} {i}" for i in range(len(rows))], rows


@pytest.mark.parametrize("is_equal", [True, False])
def test_many_like_instances_take_little_memory(is_equal):
    """Each of 1,024 is a candidate of each of 1,000 in every band, equal or nearly so."""
    base = [f"w{i}" for i in range(60)]
    train, evaluation = (
        [base if is_equal else [*base, f"{side}{i}"] for i in range(number)]
        for side, number in (("t", 1024), ("e", 1000))
    )
    tracemalloc.start()
    (one,) = leakage_minhash.find(OneBlock({"t": train}, {"e": evaluation}), ["t"], ["e"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (one.count, one.jaccard == 1.0) == (1000, is_equal)
    assert peak < 120e6


def test_equal_instances_of_several_tasks_are_all_counted():
    words = [f"w{i}" for i in range(20)]
    texts = Instances({"t": [words, words]}, {"d": [words], "e": [["a"], words, [], words]})
    found = leakage_minhash.find(texts, ["t"], ["d", "e"])
    assert [(one.eval, one.count, one.eval_label) for one in found] == [
        ("d", 1, "d 0"),
        ("e", 2, "e 1"),
    ]


@pytest.mark.parametrize("most", [1, leakage_minhash.MOST_CANDIDATES])
@pytest.mark.parametrize("jaccard", [0.5, 0.8])
@pytest.mark.parametrize("jobs", [1, 2])
def test_pairs_found_are_those_of_exact_jaccard(jaccard, jobs, most, monkeypatch):
    monkeypatch.setattr(leakage_minhash, "MOST_CANDIDATES", most)
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
