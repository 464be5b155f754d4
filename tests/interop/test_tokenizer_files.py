"""What a vocabulary is called when it is told of."""

import pytest

from optiml_jax.data import vocabularies
from optiml_jax.data.vocabularies import Vocabulary
from optiml_jax.interop import tokenizer_files

from . import models

PHOTO = {"A": 250, "Ġphoto": 1345, "Ġof": 9, "Ġa": 10, "Ġcat": 4758}
"""Ids of OPT's release, from transformers' own test of its tokenizer."""


def released(folder):
    """As many pieces as OPT's, five of them at their places there."""
    gpt2 = vocabularies.gpt2_vocabulary()
    gpt2.save(folder)
    rest = list(tokenizer_files.read_json(folder / "vocab.json"))[4:]
    rest += [f"madeupword{number:04}" for number in range(4)]
    places = {number: piece for piece, number in PHOTO.items()}
    left = iter(piece for piece in rest if piece not in PHOTO)
    pieces = {piece: number for number, piece in enumerate(vocabularies.SPECIAL_PIECES)}
    for number in range(4, 4 + len(rest)):
        pieces[places[number] if number in places else next(left)] = number
    merges = [tuple(line.split()) for line in (folder / "merges.txt").read_text().split("\n")[1:-1]]
    return Vocabulary("opt", pieces, merges)


def test_only_the_released_one_is_called_opt(tmp_path):
    opt = released(tmp_path / "gpt2")
    assert opt.num_pieces == 50265
    assert tokenizer_files.told_name(opt, tmp_path) == "opt"
    gpt2 = vocabularies.load_vocabulary(tmp_path / "gpt2")
    assert tokenizer_files.told_name(gpt2, tmp_path / "gpt2") == "gpt2"


@pytest.mark.parametrize("kept", ["vocab.json", "gpt2-vocab.json", "tokenizer.json"])
def test_others_are_called_by_their_file(kept, tmp_path):
    tokenizer_files.write_tokenizer(tmp_path, models.vocabulary(), "")
    if kept == "tokenizer.json":
        (tmp_path / "vocab.json").unlink()
        (tmp_path / "merges.txt").unlink()
    else:
        (tmp_path / "vocab.json").rename(tmp_path / kept)
    vocabulary = tokenizer_files.read_vocabulary(tmp_path)
    assert vocabulary.digest == models.vocabulary().digest
    assert tokenizer_files.told_name(vocabulary, tmp_path) == f"{kept} of {tmp_path}"
