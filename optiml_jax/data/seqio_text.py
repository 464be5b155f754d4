"""The text of a SeqIO task, as it is before its tokenizer: `read_rows`.

A task's source and its preprocessors run up to, not including, the first one that tokenizes. Where
`inputs` and `targets` are not text by then, the fields that SeqIO calls `*_pretokenized` are taken,
or the ids are decoded with the vocabulary of the task's own output feature.

A task with a `seqio.CacheDatasetPlaceholder` that was cached offline (`seqio_cache_tasks`: a folder
of its name with COMPLETED, info.<split>.json, stats.<split>.json and TFRecord files, in one of
SeqIO's cache folders) is read from there, and only the steps behind the placeholder run. Without a
cache all steps run, also where the placeholder asks for one: a store is an offline cache itself.

Preprocessors see `sequence_length=None`: a store cuts at its own length, on the left. What a user's
code raises comes back as one message with task and split. Neighbour: `foreign_tasks` makes records
of the rows.
"""

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from optiml_jax.errors import InputError

FEATURES = ("inputs", "targets")
OPTIONS = "options"
"""Field of an example with the answers to choose from, for the metric accuracy."""

SEED = 0
"""Of SeqIO's seeded preprocessors, so that a task gives the same text every time."""

_TOKENIZERS = (
    seqio.preprocessors.tokenize,
    seqio.preprocessors.tokenize_and_append_eos,
    seqio.preprocessors.append_eos,
    seqio.preprocessors.append_eos_after_trim,
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One example as text.

    Attributes:
        inputs: "" in a task of text alone.
        options: of the field `OPTIONS`, () without one.
    """

    inputs: str
    targets: str
    options: tuple[str, ...]


def read_rows(task: seqio.Task, split: str, where: str) -> Iterator[Row]:
    """The rows of a split as text; what SeqIO raises becomes one message."""
    try:
        dataset, pick = _text_dataset(task, split, where)
        for example in dataset.as_numpy_iterator():
            yield pick(example)
    except InputError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: a text is not UTF-8 ({error.reason}).") from error
    except Exception as error:
        raise InputError(f"{where}: SeqIO cannot read it: {told(error)}") from error


def _text_dataset(task: seqio.Task, split: str, where: str) -> tuple[Any, Callable[[Any], Row]]:
    """The dataset before tokenization, and the way from one of its examples to a row."""
    source, steps = _source(task, split, where)
    before = list(itertools.takewhile(lambda step: _function(step) not in _TOKENIZERS, steps))
    dataset, takers = _run(task, source, split, before, where)
    if missing := [name for name in FEATURES if name not in takers]:
        # A preprocessor behind the tokenizer may make them, out of ids.
        dataset, takers = _run(task, source, split, steps, where)
        if missing := [name for name in FEATURES if name not in takers]:
            raise InputError(
                f"{where}: its examples have no feature '{missing[0]}' (they have"
                f" {sorted(dataset.element_spec)}). Make 'inputs' and 'targets' in a preprocessor,"
                " e.g. with seqio.preprocessors.rekey."
            )

    # A field of this name that holds something else is the user's, not ours.
    has_options = _is_text(dataset.element_spec.get(OPTIONS), rank=1)

    def pick(example: Mapping[str, Any]) -> Row:
        options = example[OPTIONS] if has_options else ()
        return Row(
            takers["inputs"](example),
            takers["targets"](example),
            tuple(_text(option) for option in options),
        )

    return dataset, pick


def add_cache_dirs(folders: Sequence[str]) -> None:
    """Folders in which SeqIO looks for tasks that were cached offline.

    Raises:
        InputError: one does not exist.
    """
    for folder in folders:
        if "://" not in folder and not os.path.isdir(folder):
            raise InputError(
                f"cache folder '{folder}' does not exist, expected one with a folder per task, as"
                " seqio_cache_tasks writes it."
            )
    seqio.add_global_cache_dirs(list(folders))


def _source(task: seqio.Task, split: str, where: str) -> tuple[Any, list[Any]]:
    """Where the examples come from, the offline cache before all, and the steps that remain."""
    steps = list(task.preprocessors)
    places = [i for i, s in enumerate(steps) if isinstance(s, seqio.CacheDatasetPlaceholder)]
    if not places:
        return task.source, steps
    (place,) = places
    if task.cache_dir:
        info = os.path.join(task.cache_dir, f"info.{split}.json")
        if not tf.io.gfile.exists(info):
            raise InputError(
                f"{where}: its cache '{task.cache_dir}' has no split '{split}' (no {info}). Cache"
                " the task again with all its splits, or leave the folder out."
            )
        # SeqIO has no public way to the cached examples before the steps that remain.
        return task._get_cached_source(split), steps[place + 1 :]
    return task.source, steps[:place] + steps[place + 1 :]


def _run(
    task: seqio.Task, source: Any, split: str, steps: Sequence[Any], where: str
) -> tuple[Any, dict[str, Callable[[Any], str]]]:
    """The dataset after these preprocessors, and how to take each feature's text from it."""
    dataset: Any = source.get_dataset(split=split, shuffle=False)
    with seqio.map_seed_manager(SEED):
        for step in steps:
            transform: Any = seqio.utils.add_kwargs_to_transform(
                step, sequence_length=None, output_features=task.output_features
            )
            dataset = transform(dataset)
    spec = dataset.element_spec
    if not isinstance(spec, dict):
        raise InputError(f"{where}: its examples are no dicts with 'inputs' and 'targets'.")
    takers = {name: _taker(task, spec, name, where) for name in FEATURES if name in spec}
    if "inputs" not in task.output_features:
        takers["inputs"] = lambda example: ""
    return dataset, takers


def _taker(
    task: seqio.Task, spec: Mapping[str, Any], name: str, where: str
) -> Callable[[Mapping[str, Any]], str]:
    for key in (name, f"{name}_pretokenized"):
        if _is_text(spec.get(key), rank=0):
            return lambda example: _text(example[key])
    found = spec[name]
    if not isinstance(found, tf.TensorSpec):
        raise InputError(f"{where}: feature '{name}' is {found!r:.60}, expected one text.")
    if found.dtype.is_integer and found.shape.rank == 1 and name in task.output_features:
        vocabulary = task.output_features[name].vocabulary
        return functools.partial(_decoded, vocabulary=vocabulary, name=name, where=where)
    raise InputError(
        f"{where}: feature '{name}' is {found.dtype.name} of rank {found.shape.rank}, expected one"
        " text (or ids of its vocabulary)."
    )


def _is_text(spec: Any, rank: int) -> bool:
    return isinstance(spec, tf.TensorSpec) and (spec.dtype, spec.shape.rank) == (tf.string, rank)


def _decoded(example: Mapping[str, Any], vocabulary: Any, name: str, where: str) -> str:
    text = vocabulary.decode(example[name].tolist())
    if not isinstance(text, str):
        raise InputError(f"{where}: the vocabulary of '{name}' does not turn ids into text.")
    return text


def _text(value: bytes) -> str:
    return value.decode("utf-8")


def _function(step: Any) -> Any:
    while isinstance(step, functools.partial):
        step = step.func
    return step


def told(error: BaseException) -> str:
    """An exception in one line; TensorFlow's go on for pages."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]:.300}"
