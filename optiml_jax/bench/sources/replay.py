"""Plain text, for pre-training and for its replay during instruction tuning.

    DIR/**/*.txt        one document, or several, parted by lines of nothing but <|endoftext|>
    DIR/**/*.jsonl      {"text": "..."}, one document a line

An example is never split over rows of 2,048 tokens but cut at the left: of a whole book only the
end would be left. So a long document becomes pieces of at most `MAX_BYTES` bytes, each a record: as
many whole paragraphs as go in, of a paragraph that is too long as many lines, of a line sentences,
then words. Joined in order they are the document, without blanks at the cuts. Line ends become
"\\n".

The paper leaves open how its documents (the last shard of OPT's corpus) were cut.

Source: OPT-IML (arXiv 2212.12017) §4.5; `<|endoftext|>` is GPT-2's mark between documents.
"""

import pathlib
import re
from collections.abc import Iterator

from optiml_jax.bench.sources import files, rows
from optiml_jax.bench.sources.text_pairs import text_field
from optiml_jax.bench.sources.whole_texts import Format, Text

MAX_BYTES = 6000
"""About 1,400 tokens of English: below a row's 2,048 also where words are rare."""

SEPARATOR = "<|endoftext|>"
_CUTS = (r"\n[ \t]*\n+", r"\n", r"(?<=[.!?])\s+", r"\s+")


def pieces(text: str, max_bytes: int = MAX_BYTES) -> Iterator[str]:
    """A document in pieces of at most `max_bytes` bytes of UTF-8, cut where its parts end.

    Example:
        pieces("One two.\\n\\nThree four.\\n\\nFive.", 20) gives "One two." and
        "Three four.\\n\\nFive.": whole paragraphs, as many as go in.
    """
    return (piece for piece in _cut(text.strip(), max_bytes, _CUTS) if piece.strip())


def _cut(text: str, max_bytes: int, cuts: tuple[str, ...]) -> Iterator[str]:
    if len(text.encode()) <= max_bytes:
        yield text
        return
    if not cuts:
        # A word without end: characters, of at most four bytes.
        size = max(1, max_bytes // 4)
        yield from (text[i : i + size] for i in range(0, len(text), size))
        return
    held, gap, start, size = [], "", 0, 0
    for match in [*re.finditer(cuts[0], text), None]:
        part = text[start : match.start() if match else None]
        more = len((gap + part).encode())
        if held and size + more > max_bytes:
            yield "".join(held)
            held = []
        if held:
            held.append(gap + part)
            size += more
        else:
            *whole, last = _cut(part, max_bytes, cuts[1:])
            yield from whole
            held, size = [last], len(last.encode())
        gap, start = (match[0], match.end()) if match else ("", start)
    yield "".join(held)


def _texts(path: pathlib.Path) -> Iterator[Text]:
    for number, document in enumerate(_documents(path)):
        found = list(pieces(document)) or [""]
        for i, piece in enumerate(found):
            yield Text(f"{number}-{i}" if len(found) > 1 else str(number), piece)


def _documents(path: pathlib.Path) -> Iterator[str]:
    if path.suffix == ".jsonl":
        for number, row in enumerate(rows.read(path), start=1):
            yield _line_ends(text_field(row, "text", f"{path}: row {number}"))
        return
    lines: list[str] = []
    for _, line in files.lines(path):
        if line.strip() == SEPARATOR:
            yield _line_ends("".join(lines))
            lines = []
        else:
            lines.append(line)
    # The mark may stand behind the last document, too.
    if "".join(lines).strip():
        yield _line_ends("".join(lines))


def _line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


FORMAT = Format(
    category="Pre-training Text",
    expected='*.txt files, or *.jsonl files of {"text": ...}',
    suffixes=(".txt", ".jsonl"),
    texts=_texts,
)
