"""Joint tokenization of source and target, and where the loss begins.

One rule for training, SeqIO tasks and scoring: `BPE(source.rstrip(" ") + " " + target.rstrip())`
and a final `</s>`; the first `len(BPE(source))` tokens carry no loss, the rest and `</s>` do. An
empty source (replay, dialogue) has loss on all of its text.

Source: metaseq branch opt_instruct, `_tokenize_src_tgt_json`.
"""

import dataclasses
from collections.abc import Sequence

from optiml_jax.data import vocabularies


@dataclasses.dataclass(frozen=True)
class TokenizedExample:
    """Token ids with `</s>`, and the index of the first one that carries loss."""

    ids: list[int]
    loss_start: int


def tokenize_examples(
    vocabulary: vocabularies.Vocabulary, pairs: Sequence[tuple[str, str]]
) -> list[TokenizedExample]:
    """Tokenizes (source, target) pairs jointly; nothing is cut.

    Example:
        ("2 + 2 =", "4") gives the ids of "2 + 2 = 4" and `</s>`, with the loss on " 4" and `</s>`.
    """
    sources = [source.rstrip(" ") for source, _ in pairs]
    joined = [
        f"{source} {target.rstrip()}" if source else target.rstrip()
        for source, (_, target) in zip(sources, pairs)
    ]
    encoded = vocabulary.encode_batch(sources + joined)
    source_ids, joined_ids = encoded[: len(pairs)], encoded[len(pairs) :]
    return [
        TokenizedExample([*ids, vocabulary.eos_id], min(len(source), len(ids)))
        for source, ids in zip(source_ids, joined_ids)
    ]
