"""Which wordings of which rows train, validate and test.

A task with templates has as many versions of a row as templates that can ask it. In training all
versions of all N rows make a pool, of which N are drawn: the number of templates never changes a
task's size. Validation draws at most 250 of its pool; a test takes all versions of its rows. Tasks
that are only evaluated leave out templates that ask some of their rows and not others (COPA's for
causes alone). Tasks without templates have one version of each row.

Every draw orders the pool by a hash of (seed, task, row, template, rendering) and takes the first:
it depends on neither the order of the rows nor that of the templates, and a row more or less
changes no other row's hash. Only versions that are drawn are rendered.

Source: OPT-IML (arXiv 2212.12017) §2.4, §4.1, A.1.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

from optiml_jax.bench import catalog, record

MAX_VALIDATION_PROMPTS = 250


@dataclasses.dataclass(frozen=True)
class Version:
    """A row in one wording.

    Attributes:
        example: with its text; its id names row and template.
        row: as it is in the pool that demonstrations come from.
        template: that worded it, None where the row has its own text.
    """

    example: record.Record
    row: record.Record
    template: record.Template | None = None


def word(row: record.Record, template: record.Template | None) -> Version | None:
    """The row in a template's words; None where the template has nothing to ask of it."""
    if template is None:
        return Version(row, row)
    filled = template.fill(row)
    if filled is None:
        return None
    example = dataclasses.replace(
        row,
        id=f"{row.id}/{template.prompt_id}",
        input=filled.input,
        references=filled.references,
        options=filled.options,
        fields={},
    )
    return Version(example, row, template)


def everything(content: catalog.TaskContent, rows: Sequence[record.Record]) -> Iterator[Version]:
    """All versions, row by row, each in the templates' order."""
    for row in rows:
        for template in content.templates or (None,):
            if (version := word(row, template)) is not None:
                yield version


def with_even_templates(
    content: catalog.TaskContent, rows: Sequence[record.Record]
) -> catalog.TaskContent:
    """The content with those templates alone that ask all rows which any template asks.

    All stay where none does so (A.1 excepts `turk`, whose templates are all like this).
    """
    asked = {
        template.prompt_id: {row.id for row in rows if template.fill(row) is not None}
        for template in content.templates
    }
    every = set().union(*asked.values())
    even = tuple(one for one in content.templates if asked[one.prompt_id] == every)
    return dataclasses.replace(content, templates=even or content.templates)


def draw(
    task: str,
    content: catalog.TaskContent,
    rows: Sequence[record.Record],
    number: int,
    seed: int,
    rendering: int,
) -> list[Version]:
    """`number` versions of the pool, fewer where it holds fewer, in the rows' order."""
    if not content.templates and number >= len(rows):
        return [Version(row, row) for row in rows]
    templates = content.templates or (None,)
    pairs = [(i, j) for i in range(len(rows)) for j in range(len(templates))]
    names = [template.prompt_id if template else "" for template in templates]
    pairs.sort(
        key=lambda pair: (_key(seed, task, rows[pair[0]].id, names[pair[1]], rendering), pair)
    )
    drawn = []
    for i, j in pairs:
        if len(drawn) == number:
            break
        if (version := word(rows[i], templates[j])) is not None:
            drawn.append(((i, j), version))
    return [version for _, version in sorted(drawn, key=lambda one: one[0])]


def _key(seed: int, task: str, row: str, template: str, rendering: int) -> bytes:
    text = "\0".join((str(seed), task, row, template, str(rendering), "version"))
    return hashlib.sha256(text.encode()).digest()[:16]
