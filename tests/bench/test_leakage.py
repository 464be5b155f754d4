"""Counts of the leakage check against brute force, and the rules of what counts."""

import dataclasses
import random

import numpy as np
import pytest

from optiml_jax.bench import leakage, leakage_index, leakage_units
from optiml_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Texts:
    """Texts that are held in memory: task -> examples."""

    train: dict
    evaluation: dict
    block: int = 3

    def evaluated(self, task):
        for number, one in enumerate(self.evaluation[task]):
            example = one if isinstance(one, leakage.EvalExample) else None
            yield example or leakage.EvalExample(f"{task} {number}", leakage_units.words(one))

    def trained(self, task):
        rows = self.train[task]
        for low in range(0, len(rows), self.block):
            some = rows[low : low + self.block]
            labels = [f"{task} {low + number}" for number in range(len(some))]
            yield labels, [leakage_units.words(text) for text in some]


def random_texts(seed, num_tasks=4, num_examples=11, num_words=7, length=25):
    """Few words, so that short grams recur between and within tasks."""
    draw = random.Random(seed)

    def tasks(name):
        return {
            f"{name}{task}": [
                " ".join(f"w{draw.randrange(num_words)}" for _ in range(draw.randrange(length)))
                for _ in range(draw.randrange(1, num_examples))
            ]
            for task in range(num_tasks)
        }

    return Texts(tasks("train"), tasks("eval"))


def counts_of(texts, **settings):
    found = leakage.count(texts, sorted(texts.train), sorted(texts.evaluation), **settings)
    return {(one.train, one.eval): one.count for one in found.overlaps}


def brute(texts, n):
    pairs = [(train, one) for train in texts.train for one in texts.evaluation]
    return {pair: count for pair, count in leakage.brute_force(texts, pairs, n).items() if count}


@pytest.mark.parametrize("n", [1, 2, 4, 5, 13])
@pytest.mark.parametrize("seed", range(3))
def test_counts_equal_brute_force(n, seed):
    texts = random_texts(seed)
    assert counts_of(texts, n=n) == brute(texts, n)


def test_many_parts_and_blocks_change_nothing(monkeypatch):
    texts = random_texts(5, num_examples=40, length=60)
    expected = brute(texts, 4)
    assert expected
    monkeypatch.setattr(leakage_index, "PART_GRAMS", 50)
    monkeypatch.setattr(leakage_index, "BLOCK_EXAMPLES", 3)
    monkeypatch.setattr(leakage, "BLOCK_POSTINGS", 7)
    assert counts_of(texts, n=4) == expected


def test_processes_count_as_one_does():
    texts = random_texts(6)
    one = leakage.count(texts, sorted(texts.train), sorted(texts.evaluation), 3)
    two = leakage.count(texts, sorted(texts.train), sorted(texts.evaluation), 3, jobs=2)
    assert one == two
    assert one.overlaps


def test_equal_hashes_of_different_grams_are_told_apart(monkeypatch):
    """A salt under which all evaluation grams collide is given up; training ones are compared."""
    texts = random_texts(7)
    expected = brute(texts, 3)
    real, salts = leakage_units.random_table, []

    def table(size, salt):
        salts.append(salt)
        return np.zeros(size, np.uint64) if salt == 0 else real(size, salt)

    monkeypatch.setattr(leakage_units, "random_table", table)
    assert counts_of(texts, n=3) == expected
    assert 1 in salts


def test_a_training_gram_with_the_hash_of_another_is_not_counted(monkeypatch):
    """Grams of one multiset of words collide under a sum: units decide."""
    monkeypatch.setattr(leakage_units, "_BASE", np.uint64(1))
    texts = Texts({"t": ["a b c", "c b a"]}, {"e": ["b a c", "x y z"]})
    found = leakage.count(texts, ["t"], ["e"], n=3)
    assert found.overlaps == ()
    assert found.num_false_hits > 0


def test_a_shared_gram_is_named():
    texts = Texts(
        {"t": ["nothing at all", "He said: one two three FOUR, five!"]},
        {"e": ["six seven", "one two three four"]},
    )
    (one,) = leakage.count(texts, ["t"], ["e"], n=4).overlaps
    assert (one.count, one.num_grams) == (1, 1)
    assert one.shared == leakage.Shared(("one", "two", "three", "four"), "t 1", "e 1")


def test_texts_shorter_than_a_gram_share_nothing():
    assert counts_of(Texts({"t": ["a b", ""]}, {"e": ["a b", ""]}), n=3) == {}


def test_wording_is_apart_from_the_instance():
    definition = leakage_units.words("say whether the review that follows is good or bad")
    own = [f"instance {number} has words of its own here".split() for number in range(5)]
    examples = [
        leakage.EvalExample(f"e {number}", definition + words, len(definition))
        for number, words in enumerate(own)
    ]
    train = [" ".join(definition) + " something else", " ".join(own[3])]
    (one,) = leakage.count(Texts({"t": train}, {"e": examples}), ["t"], ["e"], n=6).overlaps
    assert (one.count, one.bare_count) == (5, 1)
    assert one.shared.gram == tuple(own[3][:6]) or one.shared.gram == tuple(own[3][1:7])


def test_words_of_a_template_are_wording():
    """Nothing tells where a template's own words end; most of its examples have them."""
    template = "premise {} which is what we suppose to be true so what follows from it"
    examples = [
        leakage.EvalExample(f"e {i}", template.format(f"number{i} is here").split(), 0, "claim")
        for i in range(4)
    ]
    other = leakage.EvalExample("e 4", template.format("four").split(), 0, "seldom")
    texts = Texts({"t": [template]}, {"e": [*examples, other]})
    (one,) = leakage.count(texts, ["t"], ["e"], n=6).overlaps
    # One example of a wording is too few to tell.
    assert (one.count, one.bare_count) == (5, 1)


@pytest.mark.parametrize(
    ("prompt_id", "wording"),
    [("GPT-3 style/-.-.4", "GPT-3 style"), ("w2.0.1.3", "w2"), ("0.1.3", ""), ("a/b/1.1.1", "a/b")],
)
def test_the_wording_of_a_prompt(prompt_id, wording):
    assert leakage_index.wording_of(prompt_id) == wording


def test_words():
    assert leakage_units.words("It's 3.5 km, 東京!") == ["its", "35", "km", "東", "京"]
    assert leakage_units.words("«Größe» ¿Qué? I’m") == ["größe", "qué", "im"]
    assert leakage_units.words(" \n") == []


def test_verify_notices_a_wrong_count():
    texts = random_texts(8)
    names = sorted(texts.train)
    found = leakage.count(texts, names, sorted(texts.evaluation), 3)
    assert leakage.verify(texts, found, names, 100, 3) > 8
    wrong = dataclasses.replace(found.overlaps[0], count=found.overlaps[0].count + 1)
    spoilt = dataclasses.replace(found, overlaps=(wrong, *found.overlaps[1:]))
    with pytest.raises(RuntimeError, match="brute force"):
        leakage.verify(texts, spoilt, names, 100, 3)


@pytest.mark.parametrize(
    ("n", "threshold", "jobs", "message"),
    [
        (0, 0.01, 1, "--n is 0, expected 1 or more"),
        (13, 1.0, 1, "--threshold is 1, expected a fraction"),
        (13, -0.1, 1, "--threshold is -0.1"),
        (13, float("nan"), 1, "--threshold is nan"),
        (13, 0.01, 0, "--jobs is 0"),
    ],
)
def test_numbers_out_of_range(n, threshold, jobs, message):
    with pytest.raises(InputError, match=message):
        leakage.check(n, threshold, jobs)
