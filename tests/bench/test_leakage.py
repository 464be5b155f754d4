"""Counts of the leakage check against brute force, and the rules of what counts."""

import dataclasses
import random

import numpy as np
import pytest

from optiml_jax.bench import leakage, leakage_brute, leakage_index, leakage_units
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
    found = leakage_brute.count(texts, pairs, n)
    return {pair: count for pair, (count, _) in found.items() if count}


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
    assert counts_of(Texts({"t": ["a b", ""]}, {"e": ["a b", "", "x y z"]}), n=3) == {}


def test_grams_longer_than_all_examples_are_refused():
    texts = Texts({"t": ["a b c d"]}, {"e": ["a b", ""]})
    with pytest.raises(InputError, match=r"--n is 3, but the longest of the 2 .* has 2 units"):
        leakage.count(texts, ["t"], ["e"], n=3)


def short(label, words, head="definition of many words that stands before the rest", wording=""):
    """An instance with the words, and an answer."""
    units = [*head.split(), *words.split(), "output", "yes"]
    start = len(head.split())
    return leakage.EvalExample(label, units, start, wording, start + len(words.split()))


def test_an_instance_without_a_gram_is_compared_by_its_whole_input():
    inputs = ("one two three four five six", "b c d e f", "one two three four five", "a b c d", "")
    examples = [short(f"e {number}", words) for number, words in enumerate(inputs)]
    train = ["so one two three four five then", "a b c d e f no six", "b c d e", "f"]
    found = leakage.count(Texts({"t": train}, {"e": examples}), ["t"], ["e"], n=10)
    (one,) = found.overlaps
    # Six words are not there; the four that are there are too few.
    assert (one.count, one.bare_count, one.num_grams) == (0, 2, 0)
    assert " ".join(one.shared.gram) in inputs[1:3]
    assert (found.num_whole, found.num_too_short) == ({"e": 3}, {"e": 2})


def test_a_short_input_does_not_reach_over_two_examples():
    texts = Texts({"t": ["a b c", "d e", "x a b c d"]}, {"e": [short("e 0", "a b c d e")]})
    assert leakage.count(texts, ["t"], ["e"], n=9).overlaps == ()


def test_short_inputs_equal_brute_force():
    """All lengths at once, over blocks and processes' ways of counting."""
    texts = random_texts(11, num_examples=30, num_words=3, length=12)
    evaluation = {
        name: [short(f"{name} {number}", words) for number, words in enumerate(rows)]
        for name, rows in texts.evaluation.items()
    }
    found = leakage.count(
        dataclasses.replace(texts, evaluation=evaluation), sorted(texts.train), sorted(evaluation)
    )
    got = {(one.train, one.eval): one.bare_count for one in found.overlaps}
    expected = {}
    for train, rows in texts.train.items():
        known = [f" {row} " for row in rows]
        for name, inputs in texts.evaluation.items():
            own = [words for words in inputs if len(words.split()) >= leakage_index.LEAST_UNITS]
            own = [words for words in own if len(words.split()) + 2 < 13]
            count = sum(any(f" {words} " in row for row in known) for words in own)
            if count:
                expected[train, name] = count
    assert expected
    assert {pair: count for pair, count in got.items() if count} == expected


def test_a_short_input_of_most_examples_is_wording():
    same = [short(f"e {number}", "write a sentence of five words") for number in range(3)]
    other = short("e 3", "five other words that fit")
    train = ["write a sentence of five words", "five other words that fit"]
    (one,) = leakage.count(Texts({"t": train}, {"e": [*same, other]}), ["t"], ["e"], n=9).overlaps
    assert (one.bare_count, one.shared.eval_label) == (1, "e 3")


def test_equal_hashes_of_short_inputs_are_told_apart(monkeypatch):
    real = leakage_units.random_table
    monkeypatch.setattr(
        leakage_units,
        "random_table",
        lambda size, salt: np.zeros(size, np.uint64) if salt == 0 else real(size, salt),
    )
    texts = Texts({"t": ["a b c d e"]}, {"e": [short("1", "a b c d e"), short("2", "e d c b a")]})
    (one,) = leakage.count(texts, ["t"], ["e"], n=9).overlaps
    assert (one.bare_count, one.shared.eval_label) == (1, "1")


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


def test_grams_too_long_to_count_are_refused():
    texts = Texts({"t": ["a b c d"]}, {"e": ["a b", ""]})
    with pytest.raises(InputError, match="--n is 100,000,000,000,000,000,000,000, but the longest"):
        leakage.count(texts, ["t"], ["e"], n=10**23)


def with_instances(texts, seed, num_wordings=2):
    """The same texts, each with a drawn place where its instance and its answer begin."""
    draw = random.Random(seed)

    def example(label, text):
        units = leakage_units.words(text)
        start = draw.randrange(len(units) + 1) if draw.random() < 0.8 else 0
        end = draw.randrange(start, len(units) + 1)
        return leakage.EvalExample(label, units, start, f"w{draw.randrange(num_wordings)}", end)

    rows = {
        name: [example(f"{name} {number}", text) for number, text in enumerate(some)]
        for name, some in texts.evaluation.items()
    }
    return dataclasses.replace(texts, evaluation=rows)


@pytest.mark.parametrize("n", [2, 7, 13])
@pytest.mark.parametrize("seed", range(4))
def test_instances_equal_brute_force(n, seed):
    """By grams, by whole short inputs, and without what is of the wording."""
    texts = with_instances(random_texts(seed, num_examples=30, num_words=6 if n == 2 else 2), seed)
    found = leakage.count(texts, sorted(texts.train), sorted(texts.evaluation), n)
    pairs = [(train, one) for train in texts.train for one in texts.evaluation]
    counted = {(one.train, one.eval): (one.count, one.bare_count) for one in found.overlaps}
    expected = leakage_brute.count(texts, pairs, n)
    assert counted == {pair: both for pair, both in expected.items() if any(both)}
    assert any(0 < bare != count for count, bare in expected.values())


@pytest.mark.parametrize("changed", ["count", "bare_count"])
def test_verify_notices_a_wrong_count(changed):
    texts = with_instances(random_texts(8), 8)
    names = sorted(texts.train)
    found = leakage.count(texts, names, sorted(texts.evaluation), 3)
    assert leakage_brute.verify(texts, found, names, 9, 3) > 4
    assert leakage_brute.verify(texts, found, names, 10**12, 3) == 16
    first = found.overlaps[0]
    wrong = dataclasses.replace(first, **{changed: getattr(first, changed) + 1})
    spoilt = dataclasses.replace(found, overlaps=(wrong, *found.overlaps[1:]))
    with pytest.raises(RuntimeError, match="brute force"):
        leakage_brute.verify(texts, spoilt, names, 100, 3)


def test_the_index_takes_no_more_room_than_is_told(tmp_path):
    examples = with_instances(random_texts(3, num_examples=60, num_words=500, length=90), 3)
    tasks = list(examples.evaluation.items())
    leakage_index.build(tmp_path, tasks, 5)
    grams = [p for p in tmp_path.iterdir() if p.name not in ("known.pickle", "labels.json")]
    assert 0 < sum(p.stat().st_size for p in grams) < leakage_index.num_bytes(tasks)


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
