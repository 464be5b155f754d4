"""Joint tokenization of source and target, and where the loss begins.

One rule for training, SeqIO tasks and scoring: `BPE(source.rstrip(" ") + " " + target.rstrip())`
and a final `</s>`; the first `len(BPE(source))` tokens carry no loss, the rest and `</s>` do. An
empty source (replay, dialogue) has loss on all of its text.

Texts of one task share their definition and demonstrations. GPT-2's pre-tokenizer never joins a
character that is not white space with white space behind it, so a text may be cut there and its
pieces encoded alone, every different piece once: the ids are the same, and most are never computed.

Source: metaseq branch opt_instruct, `_tokenize_src_tgt_json`; the pre-tokenizer's pattern: Radford
et al. 2019, released `encoder.py`.
"""

import dataclasses
import itertools
import re
from collections.abc import Sequence

from optiml_jax.data import vocabularies

# Python counts four control characters as space that the pre-tokenizer does not; cuts behind none.
_CUT = re.compile(r"(?<=\S)(?=\n)")


@dataclasses.dataclass(frozen=True)
class TokenizedExample:
    """Token ids with `</s>`, and the index of the first one that carries loss."""

    ids: list[int]
    loss_start: int


def tokenize_examples(
    vocabulary: vocabularies.Vocabulary, pairs: Sequence[tuple[str, str]]
) -> list[TokenizedExample]:
    """Tokenizes (source, target) pairs jointly; nothing is cut off.

    Example:
        ("2 + 2 =", "4") gives the ids of "2 + 2 = 4" and `</s>`, with the loss on " 4" and `</s>`.
    """
    cut = [_cut_pair(source.rstrip(" "), target.rstrip()) for source, target in pairs]
    pieces = list(dict.fromkeys(itertools.chain.from_iterable(itertools.chain(*cut))))
    ids = dict(zip(pieces, vocabulary.encode_batch(pieces)))
    eos = [vocabulary.eos_id]
    tokenized = []
    for source, joined in cut:
        whole = list(itertools.chain(*[ids[piece] for piece in joined], eos))
        length = sum(len(ids[piece]) for piece in source)
        tokenized.append(TokenizedExample(whole, min(length, len(whole) - 1)))
    return tokenized


def _cut_pair(source: str, target: str) -> tuple[list[str], list[str]]:
    """Pieces of the source alone and of both together."""
    if not source:
        return [], _CUT.split(target)
    pieces = _CUT.split(source)
    if source[-1].isspace():
        return pieces, _CUT.split(f"{source} {target}")
    return pieces, pieces + _CUT.split(f" {target}")
