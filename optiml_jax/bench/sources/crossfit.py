"""CrossFit's files: the NLP Few-shot Gym's lines of input and outputs, divided by tabs.

    data/ag_news/ag_news_16_13_train.tsv     <task>_<k shots>_<seed>_<train, dev or test>.tsv
    DIR/ag_news/train.tsv                    or one file a split

    premise: ... [SEP] hypothesis: ...   TAB   entailment
    question: ... context: ...           TAB   an answer   TAB   another right answer

A line is read as the gym reads it: text up to the first tab is the input, each further cell a
right output, nothing is quoted. `[SEP]`, `[MASK]`, "(A)" and names of parts are ordinary text of
the input and stay; the gym's own prefix " [task name] " is added by its loader, not by its files,
and OPT-IML puts a sentence in its place.

What is made of several files of a task:
1. The five seeds draw from one training set and share one test set. Rows are pooled; of equal
   inputs in different files the first counts, and test files come first, then dev files: an input
   that any seed holds out never trains.
2. A row's id names its file and line, such as "16_13_train-0", because the gym has no ids.
3. Of a task of kind "choice", the texts behind "(A)", "(B)", ... become the row's options; a row
   whose right output is not among them is dropped.

Source: Ye et al. 2021 (arXiv 2104.08835); INK-USC/CrossFit@56285ca, tasks/fewshot_gym_dataset.py,
dataloader/fewshot_gym_singletask.py; OPT-IML (arXiv 2212.12017) Table 1, Table 2.
"""

import hashlib
import pathlib
import re
from collections.abc import Iterator, Sequence

from optiml_jax.bench.sources import files, rows
from optiml_jax.bench.sources.text_pairs import Format, Pair, Part, TableTask, tsv_lines
from optiml_jax.errors import InputError

_SEPARATOR = " [SEP] "


def _parts(folder: pathlib.Path, name: str) -> list[Part]:
    pattern = re.compile(rf"(?:{re.escape(name)}_(\d+_\d+)_)?(train|dev|validation|test)\.tsv")
    found: list[Part] = []
    for path in files.listed(folder):
        if path.suffix != ".tsv":
            continue
        match = pattern.fullmatch(path.name)
        if match is None:
            raise InputError(
                f"{path}: not the name of a split. Expected {name}_<k>_<seed>_train.tsv, _dev.tsv"
                " or _test.tsv, or train.tsv, dev.tsv, test.tsv."
            )
        draw = f"{match[1]}_" if match[1] else ""
        split = rows.ALIASES.get(match[2], match[2])
        found.append(Part(split, path, draw + split))
    prefixes = [part.prefix for part in found]
    if len(set(prefixes)) < len(prefixes):
        raise InputError(
            f"{folder}: 'dev' and 'validation' are one split. Remove one of the files."
        )
    return found


def _pairs(task: TableTask, parts: Sequence[Part]) -> Iterator[Pair]:
    seen: dict[bytes, Part] = {}
    for split in reversed(rows.SPLITS):
        for part in parts:
            if part.split != split:
                continue
            for number, (where, cells) in enumerate(tsv_lines(part.file)):
                text = cells[0].strip()
                key = hashlib.blake2b(text.encode(), digest_size=12).digest()
                # Within a file, equal inputs are rows that the release repeats.
                if seen.setdefault(key, part) is part:
                    outputs = tuple(cell.strip() for cell in cells[1:])
                    options = lettered_options(text, outputs) if task.kind == "choice" else ()
                    yield Pair(part, number, where, text, outputs, options)


def lettered_options(text: str, outputs: Sequence[str]) -> tuple[str, ...]:
    """The options that an input lists, () where it lists none or the right output is not there.

    Example:
        "Who? (A) a cat (B) a dog [SEP] passage" with the output "a dog" gives
        ("a cat", "a dog").
    """
    # The science exams of ARC number some options.
    for first in "A1":
        _, mark, rest = text.partition(f"({first})")
        while mark:
            found = _options_from(rest, first)
            if len(found) > 1 and any(output in found for output in outputs):
                return found
            # A passage before the options may have such a letter, too.
            _, mark, rest = rest.partition(f"({first})")
    return ()


def _options_from(rest: str, letter: str) -> tuple[str, ...]:
    """The options of a list, from behind its first letter up to its end or the next part."""
    options: list[str] = []
    is_last = False
    while not is_last:
        letter = chr(ord(letter) + 1)
        option, more, rest = rest.partition(f"({letter})")
        option, ends, _ = option.partition(_SEPARATOR)
        options.append(option.strip())
        is_last = bool(ends) or not more
    return tuple(dict.fromkeys(options))


FORMAT = Format(
    expected="<task>_<k>_<seed>_{train,dev,test}.tsv or {train,dev,test}.tsv",
    parts=_parts,
    pairs=_pairs,
)
