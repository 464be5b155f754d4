"""Which solved instances a prompt shows, and where they stand.

`prompts` calls `choose` for the k shots of an example and `place` to put them into its text.

1. The benchmark's own positive examples come first, in the file's order, as Super-NI's released
   code takes them; only then instances of the pool, drawn per example.
2. What is being answered is never shown: neither its id nor an instance with the same input.
3. Task-level instructions: demonstrations stand between the definition and the example.
   Instance-level instructions: before the example, each one instantiated like it.

The number of shots is the caller's; `meta_icl` draws it.

Source: OPT-IML (arXiv 2212.12017) §2.4, §4.1; Super-NaturalInstructions, src/ni_collator.py.
"""

import hashlib
import math
from collections.abc import Callable, Sequence

from optiml_jax.bench import record

Word = Callable[[record.Record], record.Record | None]


def draw(seed: int, task: str, example: str, rendering: int, purpose: str, num: int) -> int:
    """A number below `num` that depends on the arguments only, on every machine and version.

    Args:
        purpose: what is drawn; different purposes are independent.
    """
    key = "\0".join((str(seed), task, example, str(rendering), purpose))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % num


def choose(
    task: str,
    positives: Sequence[record.Demonstration],
    example: record.Record,
    shots: int,
    seed: int,
    rendering: int,
    pool: Sequence[record.Record] = (),
    word: Word = lambda row: row,
    row_id: str | None = None,
) -> tuple[record.Demonstration, ...]:
    """Up to `shots` demonstrations for `example`.

    Fewer come back only where positives and pool together hold fewer that may be shown.

    Args:
        task: name of the task, part of the draw.
        pool: training instances of the task; never held-out ones (the caller sees to that).
        word: a member of the pool with its text, in the wording of `example`; None where that
            wording has nothing to ask of it.
        row_id: of `example` in the pool, its own id by default.
    """
    seen = {example.input.strip()}
    chosen: list[record.Demonstration] = []
    for positive in positives:
        if len(chosen) == shots:
            break
        if positive.input.strip() not in seen:
            seen.add(positive.input.strip())
            chosen.append(positive)
    if len(chosen) == shots or not pool:
        return tuple(chosen)
    # A walk through the pool from a drawn start with a drawn step: every member comes once, the
    # cost is that of the shots, and a pool that is too small ends the walk.
    start = draw(seed, task, example.id, rendering, "pool start", len(pool))
    step = 1 + draw(seed, task, example.id, rendering, "pool step", len(pool))
    while math.gcd(step, len(pool)) != 1:
        step += 1
    for i in range(len(pool)):
        if len(chosen) == shots:
            break
        row = pool[(start + i * step) % len(pool)]
        if row.id == (example.id if row_id is None else row_id):
            continue
        member = word(row)
        if member is not None and member.input.strip() not in seen:
            seen.add(member.input.strip())
            chosen.append(record.Demonstration(member.input, member.references[0]))
    return tuple(chosen)


def place(
    kind: str, definition: str, demonstrations: Sequence[str], example: str, separator: str
) -> str:
    """The text of a prompt from its rendered parts.

    Args:
        kind: "task" or "instance", `catalog.TaskSpec.instruction_kind`.
        definition: rendered instructions of the task, "" for none.
        demonstrations: rendered demonstrations, answers included.
        example: the rendered example without its answer.

    Example:
        place("task", "Task: add", ["1+1 A: 2"], "2+2 A:", "|") is "Task: add\\n1+1 A: 2|2+2 A:";
        of kind "instance" it is "Task: add\\n1+1 A: 2|Task: add\\n2+2 A:".
    """
    parts = [*demonstrations, example]
    if not definition:
        return separator.join(parts)
    if kind == "task":
        return definition + "\n" + separator.join(parts)
    return separator.join(definition + "\n" + part for part in parts)
