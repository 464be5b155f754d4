"""Tokenizer files of a Hugging Face or metaseq folder, and our `Vocabulary`, both ways.

Two forms are read: `vocab.json` with `merges.txt` (under the names of either), and the single
`tokenizer.json` that newer transformers write. Where both are there they must agree. What our
vocabulary cannot do (another algorithm, a normalizer, added pieces) is refused: ids would differ.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import tokenizers
import tokenizers.decoders
import tokenizers.models
import tokenizers.pre_tokenizers
import tokenizers.processors

from optiml_jax import types
from optiml_jax.data import vocabularies
from optiml_jax.data.vocabularies import SPECIAL_PIECES, Vocabulary
from optiml_jax.errors import InputError

FAST = "tokenizer.json"
CONFIG = "tokenizer_config.json"
ADDED = "added_tokens.json"
# What tells OPT's released vocabulary: 50,265 pieces, and its ids of a text (transformers' own test
# of OPT's tokenizer, tests/models/gpt2/test_tokenization_gpt2.py, `OPTTokenizationTest`).
OPT_NUM_PIECES = 50265
OPT_TEXT, OPT_IDS = "A photo of a cat", [250, 1345, 9, 10, 4758]
EOS, PAD = SPECIAL_PIECES[types.EOS_ID], SPECIAL_PIECES[types.PAD_ID]


def read_vocabulary(folder: pathlib.Path) -> Vocabulary:
    """The vocabulary of a model's folder.

    Raises:
        InputError: no tokenizer there, a broken one, or one that is not OPT's kind.
    """
    pair = [name for name in vocabularies.VOCAB_NAMES if (folder / name).is_file()]
    fast = (folder / FAST).is_file()
    if not pair and not fast:
        raise InputError(
            f"{folder}: no tokenizer there (vocab.json and merges.txt, or {FAST}). Give the folder "
            "that holds the model's tokenizer with --vocabulary=DIR."
        )
    if read_json(folder / CONFIG).get("add_prefix_space"):
        raise InputError(
            f"{folder / CONFIG}: add_prefix_space is true, OPT's tokenizer adds none. Give another "
            "folder with --vocabulary=DIR."
        )
    vocabulary = vocabularies.load_vocabulary(folder) if pair else _read_fast(folder / FAST)
    if pair and fast and _read_fast(folder / FAST).digest != vocabulary.digest:
        raise InputError(
            f"{folder}: {FAST} and vocab.json hold different vocabularies. Remove the one that the "
            "model was not trained with."
        )
    pieces = read_json(folder / pair[0]) if pair else read_json(folder / FAST)["model"]["vocab"]
    for piece, number in read_json(folder / ADDED).items():
        _check_added(folder / ADDED, piece, number, pieces)
    return vocabulary


def told_name(vocabulary: Vocabulary, folder: pathlib.Path) -> str:
    """What to call the vocabulary of a folder.

    Files whose ids begin with OPT's special ones are named "opt", whoever made them. Only OPT's
    released vocabulary is told by that name, others by their file.
    """
    if vocabulary.name != "opt":
        return vocabulary.name
    if vocabulary.num_pieces == OPT_NUM_PIECES and vocabulary.encode(OPT_TEXT) == OPT_IDS:
        return "opt"
    names = [name for name in (*vocabularies.VOCAB_NAMES, FAST) if (folder / name).is_file()]
    return f"{names[0] if names else 'vocabulary'} of {folder}"


def read_prompt_prefix(folder: pathlib.Path) -> str:
    """What the tokenizer puts before every text: `</s>`, or nothing.

    Released OPT models want `</s>`, which is the answer where no file tells.
    """
    told = read_json(folder / CONFIG).get("add_bos_token")
    if told is None and (folder / FAST).is_file():
        processor = read_json(folder / FAST).get("post_processor") or {}
        told = EOS in json.dumps(processor.get("single", []))
    return "" if told is False else EOS


def write_tokenizer(folder: pathlib.Path, vocabulary: Vocabulary, prompt_prefix: str) -> None:
    """Writes the files from which `AutoTokenizer` gives our ids, after the model's prefix."""
    vocabulary.save(folder)
    (folder / vocabularies.SETTINGS_FILE).unlink()
    names = (str(folder / one[0]) for one in (vocabularies.VOCAB_NAMES, vocabularies.MERGES_NAMES))
    fast = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(*names))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = tokenizers.decoders.ByteLevel()
    fast.add_special_tokens([PAD, EOS])
    if prompt_prefix:
        fast.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{EOS} $A",
            pair=f"{EOS} $A {EOS}:1 $B:1",
            special_tokens=[(EOS, types.EOS_ID)],
        )
    fast.save(str(folder / FAST))
    special = {"bos_token": EOS, "eos_token": EOS, "unk_token": EOS, "pad_token": PAD}
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_bos_token": bool(prompt_prefix),
        "add_prefix_space": False,
        "errors": "replace",
        **special,
    }
    write_json(folder / CONFIG, settings)
    write_json(folder / "special_tokens_map.json", special)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no such file.

    Raises:
        InputError: broken, or not an object.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}). Fetch the file again.") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(content).__name__}.")
    return content


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Writes an object as people read it."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _read_fast(path: pathlib.Path) -> Vocabulary:
    content = read_json(path)
    try:
        model, before = content["model"], content["pre_tokenizer"]
        known = (
            model["type"] == "BPE"
            and not content.get("normalizer")
            and before["type"] == "ByteLevel"
            and not before["add_prefix_space"]
            and before.get("use_regex", True)
        )
        merges = [one.split(" ") if isinstance(one, str) else one for one in model["merges"]]
        pieces = dict(model["vocab"])
        added = [(one["content"], one["id"]) for one in content.get("added_tokens") or ()]
        pairs = [(left, right) for left, right in merges]
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{path}: is damaged ({error!r}). Fetch the file again.") from None
    if not known:
        raise InputError(
            f"{path}: not OPT's tokenizer (byte-level BPE without normalizer or leading space). "
            "Give the folder of another one with --vocabulary=DIR."
        )
    for piece, number in added:
        _check_added(path, piece, number, pieces)
    return Vocabulary("opt", pieces, pairs)


def _check_added(path, piece, number, pieces):
    if pieces.get(piece) != number:
        raise InputError(
            f"{path}: adds the piece '{piece}' with id {number}, which the vocabulary itself does "
            "not have. Pieces added to OPT's tokenizer are not supported: their ids would be lost."
        )
