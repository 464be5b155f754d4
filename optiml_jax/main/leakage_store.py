"""The texts of prepared stores, as the leakage check reads them.

    training      token ids of train_0, train_1, ... decoded: source, a space, target
    evaluation    the records of one view: source, a space, first reference

Neighbours: `bench.leakage` and `bench.leakage_minhash` count; `leakage` chooses the tasks. An
object of this module is sent to worker processes, so it holds names; each process opens the stores
for itself.

What is not exact: a training text cut on the left to the store's `max_tokens` is compared as it
was stored. For near-duplicates the training side's bare input is found by the definition, which
the held-out records of the same task tell; where a task has none, or is made of templates, it is
the whole source.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from optiml_jax import errors, types
from optiml_jax.bench import leakage, leakage_index, leakage_units, prompts, record
from optiml_jax.data import store as store_lib
from optiml_jax.errors import InputError

BLOCK = 1024
"""Training examples read at a time."""


@functools.lru_cache(maxsize=2)
def _store(path: str) -> store_lib.Store:
    return store_lib.open_store(path)


@functools.lru_cache(maxsize=2)
def _vocabulary(path: str):
    return _store(path).vocabulary()


def find_view(store: store_lib.Store, asked: str | None) -> str:
    """The evaluation view to compare: the one asked for, or that with the fewest shots.

    Raises:
        InputError: the store has none, or not this one.
    """
    if not store.eval_views:
        raise InputError(
            f"store '{store.path}' has no evaluation view. Run the same `optiml prepare` again"
            " with --shots=0."
        )
    if asked is None:
        return min(store.eval_views, key=lambda name: (len(name), name))
    if asked not in store.eval_views:
        raise errors.unknown("view", asked, store.eval_views, f"store '{store.path}'")
    return asked


@dataclasses.dataclass(frozen=True)
class StoreTexts:
    """Examples of a store's training tasks and of the same, or another, store's evaluation tasks.

    Attributes:
        path: the store that trains.
        against: the store that is evaluated.
        view: evaluation view.
        unit: words or tokens.
    """

    path: str
    against: str
    view: str
    unit: str = "words"

    def evaluated(self, task: str) -> Iterator[leakage.EvalExample]:
        """Evaluation examples, see `bench.leakage.Texts`."""
        for one in _store(self.against).eval_records(self.view, [task]):
            text = f"{one.source.rstrip(' ')} {_answer(one).rstrip()}"
            start, end = _bare_start(one), _input_end(one)
            yield leakage.EvalExample(
                label=one.id,
                units=self._units(text),
                bare_start=len(self._units(one.source[:start])) if start else 0,
                wording=leakage_index.wording_of(one.prompt_id),
                end=len(self._units(one.source[:end])),
            )

    def _units(self, text: str) -> Sequence:
        if self.unit == "words":
            return leakage_units.words(text)
        return _vocabulary(self.path).encode(text)

    def trained(self, task: str) -> Iterator[tuple[list[str], list[Sequence]]]:
        """Training examples in blocks, see `bench.leakage.Texts`."""
        vocabulary = _vocabulary(self.path)
        for view, first, rows in _training_rows(self.path, task):
            labels = [f"{view} {first + number}" for number in range(len(rows))]
            if self.unit == "tokens":
                yield labels, [ids[ids >= types.NUM_SPECIAL_IDS].tolist() for ids in rows]
            else:
                texts = (vocabulary.decode(ids.tolist()) for ids in rows)
                yield labels, [leakage_units.words(text) for text in texts]

    def evaluated_instances(self, task: str) -> Iterator[tuple[str, list[str]]]:
        """Words of the evaluation inputs, see `bench.leakage_minhash.Instances`."""
        for one in _store(self.against).eval_records(self.view, [task]):
            yield one.id, leakage_units.words(one.input or one.source)

    def trained_instances(self, task: str) -> Iterator[tuple[list[str], list[Sequence]]]:
        """Words of the training inputs, see `bench.leakage_minhash.Instances`."""
        store, vocabulary = _store(self.path), _vocabulary(self.path)
        stored = store.by_name[task]
        heads = _definitions(store, stored) if stored.spec.instruction_kind == "task" else []
        for view, first, rows in _training_rows(self.path, task):
            rendering = int(view.removeprefix("train_"))
            begin = stored.first_example + first
            starts = store.loss_starts[rendering, begin : begin + len(rows)]
            labels = [f"{view} {first + number}" for number in range(len(rows))]
            texts = []
            for ids, start in zip(rows, starts.tolist(), strict=True):
                # A text that is its own target has no source.
                source = vocabulary.decode(ids[: start or len(ids)].tolist())
                texts.append(leakage_units.words(_bare_input(source, heads)))
            yield labels, texts


def _training_rows(path: str, task: str) -> Iterator[tuple[str, int, list[np.ndarray]]]:
    """(view, number of the first, token ids of each) of all renderings, block by block."""
    store = _store(path)
    for rendering in range(store.num_renderings):
        view = store_lib.train_view(rendering)
        if (place := store.by_name[task].places.get(view)) is None:
            continue
        for low in range(0, place.count, BLOCK):
            count = min(BLOCK, place.count - low)
            begin = place.first + low
            data = store.read(view, place.shard, range(begin, begin + count))
            yield view, low, [np.frombuffer(one, store.token_dtype) for one in data]


def _answer(one: record.EvalRecord) -> str:
    return one.references[0] if one.references else ""


def _bare_start(one: record.EvalRecord) -> int:
    """Where the instance begins in the source; 0 where nobody told it."""
    return max(one.source.rfind(one.input), 0) if one.input else 0


def _input_end(one: record.EvalRecord) -> int:
    """Where the instance's input ends in the source; its end where nobody told it."""
    at = one.source.rfind(one.input) if one.input else -1
    return len(one.source) if at < 0 else at + len(one.input)


def _definitions(store: store_lib.Store, stored: store_lib.StoredTask) -> list[str]:
    """What stands before the instances of a task, longest first, as its held-out records show."""
    views = [view for view in store.eval_views if view in stored.places]
    if not views:
        return []
    view = find_view(store, "eval_0shot" if "eval_0shot" in views else views[0])
    found = set()
    for one in store.eval_records(view, [stored.name]):
        head = one.source[: _bare_start(one)].strip()
        for prefix in filter(None, prompts.INPUT_PREFIXES):
            head = head.removesuffix(prefix.strip()).strip()
        for prefix in filter(None, prompts.PREFIXES):
            head = head.removeprefix(prefix).strip()
        found.add(head)
    return sorted(filter(None, found), key=len, reverse=True)


def _bare_input(source: str, heads: Sequence[str]) -> str:
    """A training source without definition, prefixes and delimiter."""
    text = source.rstrip(" ")
    for delimiter in prompts.DELIMITERS:
        text = text.removesuffix(delimiter)
    longest = max(map(len, prompts.PREFIXES))
    for head in heads:
        at = text.find(head)
        if 0 <= at <= longest:
            text = text[at + len(head) :].strip()
            for prefix in filter(None, prompts.INPUT_PREFIXES):
                text = text.removeprefix(prefix)
            break
    return text.strip()
