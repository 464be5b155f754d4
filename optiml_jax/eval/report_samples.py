"""Which samples of a task a report shows, and how much of their text.

Samples are ordered by score and taken at even distances, the lowest and the highest among them; so
a reader sees what a score is made of, not its best examples. Ties are broken by a digest, not by
the order of a file. A page has a budget: with more tasks each shows fewer and shorter samples.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

FIELDS: Mapping[str, type] = {
    **dict.fromkeys(("task", "id", "prompt_id", "source", "prediction"), str),
    **{"references": list, "options": list, "score": float},
}
"""What a line of samples.jsonl must hold to be shown."""

MAX_BYTES = 1_900_000
"""Budget of all samples in a page, as JSON: a page of 160 tasks stays below 3 MB."""

# (samples a task, characters a text) from generous to sparse: the first that fits is taken, else
# the last.
_SIZES = (
    (8, 2400),
    (8, 1600),
    (8, 1000),
    (6, 800),
    (4, 800),
    (3, 600),
    (2, 500),
    (1, 400),
    (1, 200),
)


def choose(
    evaluations: Sequence[Sequence[Mapping[str, Any]] | None], max_bytes: int = MAX_BYTES
) -> dict[str, dict[str, Any]]:
    """The samples shown of each task, those of one prompt side by side.

    Args:
        evaluations: lines of samples.jsonl of one or two evaluations; None where there are none.

    Returns:
        task -> {"total", "rows": [{"id", "prompt_id", "rank", "source", "references", "options",
        "answers": [{"text", "score", ...} or None for each evaluation]}]}

    Example:
        30 samples, 8 a task -> ranks 1, 5, 9, 13, 18, 22, 26, 30 by score of the last evaluation
    """
    tasks: dict[str, dict[tuple[str, str], list[Mapping[str, Any] | None]]] = {}
    for position, samples in enumerate(evaluations):
        for sample in samples or ():
            own = tasks.setdefault(sample["task"], {})
            pair = own.setdefault((sample["id"], sample["prompt_id"]), [None] * len(evaluations))
            pair[position] = sample
    ordered = {name: sorted(tasks[name].values(), key=_order) for name in sorted(tasks)}
    chosen: dict[str, dict[str, Any]] = {}
    for count, length in _SIZES:
        chosen = {name: _task(pairs, count, length) for name, pairs in ordered.items()}
        if len(json.dumps(chosen, ensure_ascii=False).encode()) <= max_bytes:
            break
    return chosen


def ranks(total: int, count: int) -> list[int]:
    """`count` positions of 0 to total - 1 at even distances, both ends among them.

    Example:
        ranks(30, 4) -> [0, 10, 19, 29]
    """
    if total <= count:
        return list(range(total))
    if count == 1:
        return [total // 2]
    return [round(i * (total - 1) / (count - 1)) for i in range(count)]


def shorten(text: str, length: int) -> str:
    """The text, or its beginning and end with a line between that says what is left out."""
    if len(text) <= length * 1.1:
        return text
    head = length // 3
    left_out = len(text) - length
    return f"{text[:head]}\n[… {left_out:,} characters left out …]\n{text[head + left_out :]}"


def _order(pair: Sequence[Mapping[str, Any] | None]) -> tuple[Any, ...]:
    """By score of the last evaluation, then of the first, then by a digest."""
    last = next(sample for sample in reversed(pair) if sample)
    first = pair[0]["score"] if pair[0] else -1.0
    name = f"{last['task']}\0{last['id']}\0{last['prompt_id']}"
    return last["score"], first, hashlib.sha256(name.encode()).hexdigest()


def _task(
    pairs: Sequence[Sequence[Mapping[str, Any] | None]], count: int, length: int
) -> dict[str, Any]:
    rows = [
        {"rank": position + 1, **_row(pairs[position], length)}
        for position in ranks(len(pairs), count)
    ]
    return {"total": len(pairs), "rows": rows}


def _row(pair: Sequence[Mapping[str, Any] | None], length: int) -> dict[str, Any]:
    one = next(sample for sample in reversed(pair) if sample)
    return {
        "id": one["id"],
        "prompt_id": one["prompt_id"],
        "source": shorten(one["source"], length),
        "references": [shorten(text, length // 3) for text in one["references"][:4]],
        "more_references": max(0, len(one["references"]) - 4),
        "options": [shorten(text, length // 6) for text in one["options"][:12]],
        "more_options": max(0, len(one["options"]) - 12),
        "answers": [
            {
                "text": shorten(sample["prediction"], length // 3),
                "score": round(sample["score"], 2),
                "method": sample.get("method", ""),
                "truncated": bool(sample.get("truncated")),
            }
            if sample
            else None
            for sample in pair
        ],
    }
