"""Dialogues: each is one text, its turns on lines.

    DIR/**/*.jsonl      one dialogue a line, as one of
        {"turns": ["Hello there", "Hi!"]}
        {"messages": [{"role": "user", "content": "Hello there"}, ...]}
        {"dialogue": "Hello there\\nHi!"}
    DIR/**/*.json       a list of such objects

    ->  Hello there
        Hi!

What is made of them:
1. A turn is a text or an object with one in `content`, `text`, `utterance` or `value`. Roles and
   names of speakers that are fields of their own are not written: OPT-IML shows none.
2. Line ends within a turn become blanks, so that a line is a turn; blank turns are left out.
3. `dialogue_id` or `id` is the record's id; else the row's number is.

Source: OPT-IML (arXiv 2212.12017) §4.7, A.2, Table 6: turns are parted by one newline, and the
whole dialogue is the target.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from optiml_jax.bench.sources import rows
from optiml_jax.bench.sources.whole_texts import Format, Text
from optiml_jax.errors import InputError

LISTS = ("turns", "messages", "conversation", "conversations", "dialog", "dialogue")
"""Fields that may hold the turns."""
TURN_TEXTS = ("content", "text", "utterance", "value")
IDS = ("dialogue_id", "id")


def _texts(path: pathlib.Path) -> Iterator[Text]:
    found = rows.read(path) if path.suffix == ".jsonl" else rows.read_list(path)
    for number, row in enumerate(found):
        where = f"{path}: row {number + 1}"
        own = next((row[name] for name in IDS if row.get(name) is not None), f"row-{number}")
        if isinstance(own, bool) or not isinstance(own, str | int) or not str(own).strip():
            raise InputError(f"{where}: its id is {own!r:.60}, expected a text.")
        yield Text(str(own), "\n".join(_turns(row, where)))


def _turns(row: Mapping[str, Any], where: str) -> Iterator[str]:
    name = next((name for name in LISTS if name in row), None)
    if name is None:
        found = ", ".join(sorted(row)[:8]) or "no field at all"
        raise InputError(
            f"{where}: no turns (it has: {found}). Put them into a list named 'turns'."
        )
    turns = row[name]
    if isinstance(turns, str):
        turns = turns.splitlines()
    if not isinstance(turns, list):
        raise InputError(f"{where}: field '{name}' is {turns!r:.60}, expected a list of turns.")
    for i, turn in enumerate(turns):
        text = _text(turn)
        if not isinstance(text, str):
            raise InputError(
                f"{where}: field '{name}[{i}]' is {turn!r:.60}, expected a text or an object with"
                f" one in {' or '.join(TURN_TEXTS)}."
            )
        if lines := [line.strip() for line in text.splitlines() if line.strip()]:
            yield " ".join(lines)


def _text(turn: Any) -> Any:
    if not isinstance(turn, dict):
        return turn
    return next((turn[name] for name in TURN_TEXTS if name in turn), None)


FORMAT = Format(
    category="Dialogue",
    expected="*.jsonl (or *.json) files of dialogues with 'turns' or 'messages'",
    suffixes=(".jsonl", ".json"),
    texts=_texts,
)
