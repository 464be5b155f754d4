"""Where the loss begins, against the released rule written out."""

import random

import pytest

from optiml_jax.data import tokenization

PAIRS = [
    ("2 + 2 =", "4"),
    ("Question: what?\nAnswer:  ", "because\n"),
    ("Ends in a line\n", " led by a blank"),
    ("", "A whole document."),
    ("é ü", "你好"),
    ("Lines\n\n of \n\tmany\r\n kinds", "\n\nand\nmore"),
    ("A separator \x1c\n is no space", "to the \x1f\npattern"),
    ("Wide\u2003\n\u00a0\u3000\n\u0085\nspaces\u2028", "it's\n'll\n 12\n!?"),
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


def test_texts_cut_at_random_equal_texts_encoded_whole(vocabulary):
    """Any mixture of letters, digits, signs and white space, against the tokenizer itself."""
    draw = random.Random(0)
    alphabet = [*"ab1 '!.\n\n\t\r", "  ", "\u00a0", "\u0085", "\x1c", "é", "ll", " the", "\u200b"]
    texts = ["".join(draw.choices(alphabet, k=draw.randrange(1, 30))) for _ in range(4000)]
    pairs = list(zip(texts[::2], texts[1::2]))
    for (source, target), one in zip(pairs, tokenization.tokenize_examples(vocabulary, pairs)):
        stripped, end = source.rstrip(" "), target.rstrip()
        joined = vocabulary.encode(f"{stripped} {end}" if stripped else end)
        assert one.ids == [*joined, vocabulary.eos_id], (source, target)
        assert one.loss_start == min(len(vocabulary.encode(stripped)), len(joined))
