"""Pairs in the plainest form, for ExMix and T5: `inputs` and `targets`, one file a split.

    DIR/<task>/train.tsv              "inputs TAB targets" a line, a header of these words or none
    DIR/<task>/validation.jsonl       {"inputs": "...", "targets": "..." or [...], "id": "..."}
    DIR/<task>/test.parquet           the same columns

ExMix's own files are not open: OPT-IML collected its data sets anew, and so must you; a
classification's labels are those of the table. T5's tasks are what SeqIO makes of TensorFlow
Datasets; the words that T5 puts before each input ("translate English to German:", the table's
column `prefix`) are taken off, since OPT-IML's sentence says the same.

Source: T5's tab-separated form: SeqIO's `parse_tsv`; its prefixes: Raffel et al. 2019 (arXiv
1910.10683), appendix D; OPT-IML (arXiv 2212.12017) A.1.
"""

import dataclasses
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
    tsv_lines,
)
from optiml_jax.errors import InputError

_HEADER_WORDS = {
    *("input", "inputs", "source", "text", "question", "prompt"),
    *("target", "targets", "output", "outputs", "label", "answer"),
}


def _parts(folder: pathlib.Path, name: str) -> list[Part]:
    return split_parts(folder, (".tsv", *rows.SUFFIXES))


def _pairs(task: TableTask, parts: Sequence[Part]) -> Iterator[Pair]:
    for part in parts:
        is_tsv = isinstance(part.path, pathlib.Path) and part.path.suffix == ".tsv"
        for pair in _tsv(part) if is_tsv else _objects(part):
            text = pair.input.removeprefix(task.more.get("prefix", ""))
            yield dataclasses.replace(pair, input=text.strip())


def _tsv(part: Part) -> Iterator[Pair]:
    number = 0
    for where, cells in tsv_lines(part.file):
        if number == 0 and cells == ["inputs", "targets"]:
            continue
        if number == 0 and {cell.strip().casefold() for cell in cells} <= _HEADER_WORDS:
            raise InputError(
                f"{where}: {cells} looks like a header, expected 'inputs TAB targets' or none."
                " Correct or remove the line."
            )
        if len(cells) > 2:
            raise InputError(
                f"{where}: {len(cells)} cells, expected two: inputs TAB targets. Take the other"
                " tabs out, or save the rows as JSONL."
            )
        yield Pair(part, number, where, cells[0], (cells[1],))
        number += 1


def _objects(part: Part) -> Iterator[Pair]:
    for number, (where, row) in enumerate(object_rows(part.path)):
        inputs, targets = text_field(row, "inputs", where), _targets(row, where)
        yield Pair(part, number, where, inputs, targets, id=row_id(row, where))


def _targets(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    value = row.get("targets")
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return tuple(value)
    return (text_field(row, "targets", where),)


EXMIX = Format(
    expected="{train,validation,test}.tsv, .jsonl or .parquet (inputs and targets)",
    parts=_parts,
    pairs=_pairs,
)
T5 = dataclasses.replace(EXMIX, more_columns=("prefix",))
