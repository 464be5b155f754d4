"""Where the loss begins, against the released rule written out."""

import pytest

from optiml_jax.data import tokenization

PAIRS = [
    ("2 + 2 =", "4"),
    ("Question: what?\nAnswer:  ", "because\n"),
    ("Ends in a line\n", " led by a blank"),
    ("", "A whole document."),
    ("é ü", "你好"),
]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_joint_tokenization(vocabulary, source, target):
    (one,) = tokenization.tokenize_examples(vocabulary, [(source, target)])
    stripped = source.rstrip(" ")
    text = stripped + " " + target.rstrip() if stripped else target.rstrip()
    assert one.ids == [*vocabulary.encode(text), 2]
    assert one.loss_start == len(vocabulary.encode(stripped))
    assert vocabulary.decode(one.ids[one.loss_start :]).strip() == target.strip()


def test_many_pairs_equal_one_by_one(vocabulary):
    together = tokenization.tokenize_examples(vocabulary, PAIRS)
    assert together == [tokenization.tokenize_examples(vocabulary, [pair])[0] for pair in PAIRS]
