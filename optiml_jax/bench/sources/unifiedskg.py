"""UnifiedSKG's records: a question or conversation, linearized knowledge, and the text to give.

    DIR/spider/train.jsonl
    {"text_in": "How many singers?", "struct_in": "| concert | singer : id , name", "seq_out":
     "select count(*) from singer"}

The constructors of UnifiedSKG make such records; each line is one of them (other fields are not
looked at, save `id`). They become one input as UnifiedSKG joins them:

    text and knowledge      TEXT ; structured knowledge: KNOWLEDGE
    knowledge alone         structured knowledge: KNOWLEDGE
    a conversation          TURN ; structured knowledge: KNOWLEDGE ; context: EARLIER TURNS

A conversation is a `text_in` with " || " behind the last turn; earlier turns follow, latest first,
divided by " | ", and stay so.

Where a choice is left:
1. Its prompts end with a field that names the output ("KG query:", "SQL query:", "answer:", "query
   description:" and "textual description:" are printed), so that no delimiter follows. The table's
   column `field` has it for every task, further ones in the same manner; it is joined by " ; " too.
2. Of rows of one id (the turns of a conversation) the second becomes `<id>#2`, and so on.
3. Where there is text and empty knowledge (SQL2Text) UnifiedSKG still writes "structured
   knowledge: "; so it is here.

Source: Xie et al. 2022 (arXiv 2201.05966); xlang-ai/UnifiedSKG@073a52b, utils/dataset.py,
seq2seq_construction/; OPT-IML (arXiv 2212.12017) figures 37-43.
"""

import collections
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optiml_jax.bench.sources import rows
from optiml_jax.bench.sources.text_pairs import (
    Format,
    Pair,
    Part,
    TableTask,
    object_rows,
    row_id,
    split_parts,
    text_field,
)

_TURN_SEPARATOR = " || "


def join(text: str, knowledge: str, field: str) -> str:
    """A record's input, up to where its output begins.

    Example:
        join("and in may ? || how many in april ?", "col : month | sales", "answer:") is "and in
        may ? ; structured knowledge: col : month | sales ; context: how many in april ? ; answer:".
    """
    last_turn, is_conversation, context = text.partition(_TURN_SEPARATOR)
    parts = [last_turn] if text else []
    parts.append(f"structured knowledge: {knowledge}")
    if is_conversation:
        parts.append(f"context: {context}")
    return " ; ".join((*parts, field))


def _parts(folder: pathlib.Path, name: str) -> list[Part]:
    return split_parts(folder, rows.SUFFIXES)


def _pairs(task: TableTask, parts: Sequence[Part]) -> Iterator[Pair]:
    for part in parts:
        num_of: collections.Counter[str] = collections.Counter()
        for number, (where, row) in enumerate(object_rows(part.path)):
            output = text_field(row, "seq_out", where)
            id_ = row_id(row, where)
            num_of[id_] += 1
            if id_ and num_of[id_] > 1:
                id_ += f"#{num_of[id_]}"
            yield Pair(part, number, where, _input(task, row, where), (output,), id=id_)


def _input(task: TableTask, row: Mapping[str, Any], where: str) -> str:
    text, knowledge = (text_field(row, name, where) for name in ("text_in", "struct_in"))
    # With neither, nothing is asked: the row is dropped like every blank input.
    if not text.strip() and not knowledge.strip():
        return ""
    return join(text, knowledge, task.more["field"])


FORMAT = Format(
    expected="{train,dev,test}.jsonl of records with text_in, struct_in and seq_out",
    parts=_parts,
    pairs=_pairs,
    more_columns=("field",),
)
