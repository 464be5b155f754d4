"""Building a store: render every task once, tokenize it, write shards, commit.

Incremental: a task whose key (source bytes, wording, vocabulary, role) is unchanged is taken over
from the old store byte by byte, and a shard in which nothing changed is not touched. Atomic: see
`store`. Tasks of other benchmarks in the same store stay.

The work is sequential over shards; tokenization inside a shard uses all cores (`tokenizers`).
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

import optiml_jax
from optiml_jax.bench import catalog, splits
from optiml_jax.data import rendering, tokenization, vocabularies
from optiml_jax.data import store as store_lib
from optiml_jax.errors import InputError

CODE_VERSION = 1
"""Part of every task's key; raised when rendering or tokenization change their results."""

Progress = Callable[[int, int, str], None]
"""(shards done, shards in all, what happens) -> None."""


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """What a store is made with.

    Attributes:
        render: wording, split, shots, caps.
        max_tokens: longer examples are cut on the left to this (metaseq's block of 2048 + 1).
        num_shards: shards a view; fixed when a store is first made.
    """

    render: rendering.RenderConfig = dataclasses.field(default_factory=rendering.RenderConfig)
    max_tokens: int = 2049
    num_shards: int = 8

    def __post_init__(self):
        if self.max_tokens < 2 or self.num_shards < 1:
            raise InputError(
                f"PrepareConfig: max_tokens {self.max_tokens} and num_shards {self.num_shards},"
                " expected at least 2 and 1."
            )


@dataclasses.dataclass(frozen=True)
class PrepareResult:
    """What a run of `prepare_store` did."""

    num_tasks: int
    num_examples: int
    num_tokens: int
    tasks_rendered: int
    tasks_reused: int
    tasks_removed: int
    seconds: float


@dataclasses.dataclass
class _Rows:
    """A task's records of every view, before they have a place in a shard."""

    records: dict[str, list[bytes]]
    lengths: np.ndarray
    loss_starts: np.ndarray
    num_truncated: int
    reused: bool = False


def prepare_store(
    tasks: Sequence[catalog.BenchTask],
    assignments: Mapping[str, splits.Assignment],
    out: str | os.PathLike[str],
    vocabulary: vocabularies.Vocabulary,
    config: PrepareConfig,
    progress: Progress = lambda done, total, what: None,
) -> PrepareResult:
    """Builds or updates the store at `out`.

    Args:
        tasks: all tasks of the mixture's benchmarks; a stored task of one of these benchmarks that
            is not among them is removed.
        assignments: role and level of each task.
        vocabulary: of the ids; an existing store must have the same.

    Raises:
        InputError: the folder cannot be written, holds something else than a store, or a store
            with other settings; nothing is changed then.
    """
    started = time.monotonic()
    folder = pathlib.Path(out)
    old = _old_store(folder, vocabulary, config)
    with store_lib.writing(folder):
        benchmarks = {task.spec.benchmark for task in tasks}
        keys = {t.spec.name: _key(t, assignments[t.spec.name], vocabulary, config) for t in tasks}
        kept = [t for t in old.tasks if t.spec.benchmark not in benchmarks] if old else []
        names = sorted([*keys, *(task.name for task in kept)])
        keys |= {task.name: task.key for task in kept}
        by_name = {task.spec.name: task for task in tasks}

        shards: dict[str, list[store_lib.ShardFile]] = {view: [] for view in _views(config)}
        stored: dict[str, store_lib.StoredTask] = {}
        arrays: dict[str, _Rows] = {}
        for number in range(config.num_shards):
            own = [n for n in names if store_lib.shard_of(n, config.num_shards) == number]
            progress(number, config.num_shards, f"shard {number}: {len(own)} tasks")
            rows = _shard_rows(own, keys, by_name, assignments, old, vocabulary, config)
            places: dict[str, dict[str, store_lib.Place]] = {name: {} for name in own}
            for view in shards:
                shards[view].append(_write_view(folder, view, number, own, rows, places))
            for name in own:
                stored[name] = _stored_task(
                    name, keys[name], by_name, assignments, old, rows[name], places[name]
                )
                arrays[name] = rows[name]
        table, lengths, loss_starts = _concatenate(names, stored, arrays)
        vocabulary.save(folder / store_lib.VOCABULARY_FOLDER)
        index = {
            "format": store_lib.FORMAT,
            "created_by": f"optiml_jax {optiml_jax.__version__}",
            "mixture": _own_mixture(table, config.render.split),
            "split": config.render.split,
            "render": config.render.to_json(),
            "num_renderings": config.render.num_renderings,
            "num_shards": config.num_shards,
            "max_tokens": config.max_tokens,
            "token_dtype": _token_dtype(vocabulary),
            "vocabulary": {
                "name": vocabulary.name,
                "size": vocabulary.size,
                "digest": vocabulary.digest,
            },
            "arrays": store_lib.write_arrays(folder, lengths, loss_starts),
            "shards": {v: [dataclasses.asdict(s) for s in files] for v, files in shards.items()},
            "tasks": [task.to_json() for task in table],
        }
        store_lib.commit(folder, index)
    reused = sum(rows.reused for rows in arrays.values())
    removed = len([t for t in old.tasks if t.name not in stored]) if old else 0
    return PrepareResult(
        num_tasks=len(table),
        num_examples=lengths.shape[1],
        num_tokens=int(lengths[0].sum()),
        tasks_rendered=len(names) - reused,
        tasks_reused=reused,
        tasks_removed=removed,
        seconds=time.monotonic() - started,
    )


def _old_store(
    folder: pathlib.Path, vocabulary: vocabularies.Vocabulary, config: PrepareConfig
) -> store_lib.Store | None:
    """The store to update, or None; refuses what an update would destroy or mix up."""
    index = store_lib.read_index(folder)
    if index is None:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--out '{folder}' is a file, expected a folder to write a store in.")
        foreign = [p.name for p in folder.iterdir()] if folder.exists() else []
        ours = {store_lib.SHARD_FOLDER, store_lib.VOCABULARY_FOLDER, ".lock"}
        if foreign := [
            n for n in foreign if n not in ours and not n.startswith((".", "examples-"))
        ]:
            raise InputError(
                f"--out '{folder}' is not empty and not a store (it has '{foreign[0]}')."
                " Give a new or empty folder."
            )
        return None
    expected = {
        "vocabulary": (index["vocabulary"]["digest"], vocabulary.digest),
        "num_shards": (index["num_shards"], config.num_shards),
        "max_tokens": (index["max_tokens"], config.max_tokens),
        "num_renderings": (index["num_renderings"], config.render.num_renderings),
        "split": (index["split"], config.render.split),
    }
    for name, (found, wanted) in expected.items():
        if found != wanted:
            raise InputError(
                f"store '{folder}' was made with {name} {str(found)[:16]}, this run has"
                f" {str(wanted)[:16]}. Use the same, or give a new --out."
            )
    return store_lib.Store(folder, index)


def _token_dtype(vocabulary: vocabularies.Vocabulary) -> str:
    return "<u2" if vocabulary.size <= 2**16 else "<u4"


def _views(config: PrepareConfig) -> list[str]:
    train = [store_lib.train_view(r) for r in range(config.render.num_renderings)]
    return train + [store_lib.eval_view(k) for k in config.render.shots]


def _key(
    task: catalog.BenchTask,
    assignment: splits.Assignment,
    vocabulary: vocabularies.Vocabulary,
    config: PrepareConfig,
) -> str:
    parts = [
        CODE_VERSION,
        task.digest,
        # The same files elsewhere are the same task.
        {name: value for name, value in task.spec.to_json().items() if name != "path"},
        dataclasses.asdict(assignment),
        vocabulary.digest,
        config.render.to_json(),
        config.render.prompt.digest(),
        config.max_tokens,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _shard_rows(
    names: Sequence[str],
    keys: Mapping[str, str],
    by_name: Mapping[str, catalog.BenchTask],
    assignments: Mapping[str, splits.Assignment],
    old: store_lib.Store | None,
    vocabulary: vocabularies.Vocabulary,
    config: PrepareConfig,
) -> dict[str, _Rows]:
    """Records of every task of a shard, taken over where the key is unchanged."""
    rows: dict[str, _Rows] = {}
    texts: dict[str, tuple[list[list[tuple[str, str]]], dict[str, list[bytes]]]] = {}
    for name in names:
        before = old.by_name.get(name) if old else None
        if old and before and before.key == keys[name]:
            taken = _take_over(old, before)
            if taken is not None:
                rows[name] = taken
                continue
        task = by_name.get(name)
        if task is None:
            raise InputError(
                f"store '{old.path if old else ''}': records of '{name}' are damaged and its"
                " benchmark is not part of this run. Prepare that benchmark again first."
            )
        texts[name] = _render(task, assignments[name], config)
    # One call for the whole shard keeps all cores of the tokenizer busy.
    pairs = [pair for per_rendering, _ in texts.values() for p in per_rendering for pair in p]
    tokenized = iter(tokenization.tokenize_examples(vocabulary, pairs))
    for name, (per_rendering, eval_views) in texts.items():
        examples = [[next(tokenized) for _ in p] for p in per_rendering]
        rows[name] = _encode(examples, eval_views, config.max_tokens, _token_dtype(vocabulary))
    return rows


def _render(
    task: catalog.BenchTask, assignment: splits.Assignment, config: PrepareConfig
) -> tuple[list[list[tuple[str, str]]], dict[str, list[bytes]]]:
    content = task.load()
    parts = rendering.partition(task.spec, content, assignment, config.render)
    pairs = [
        [
            (example.source, example.target)
            for example in rendering.train_examples(task.spec, content, parts, config.render, r)
        ]
        for r in range(config.render.num_renderings)
    ]
    views = {}
    for shots in config.render.shots:
        records = rendering.eval_records(task.spec, content, parts, config.render, shots)
        views[store_lib.eval_view(shots)] = [
            json.dumps(r.to_json(), ensure_ascii=False).encode() for r in records
        ]
    return pairs, views


def _encode(
    examples: list[list[tokenization.TokenizedExample]],
    eval_views: dict[str, list[bytes]],
    max_tokens: int,
    dtype: str,
) -> _Rows:
    records = dict(eval_views)
    for number, rendering_examples in enumerate(examples):
        records[store_lib.train_view(number)] = [
            np.asarray(e.ids[-max_tokens:], dtype).tobytes() for e in rendering_examples
        ]
    full = np.array([[len(e.ids) for e in r] for r in examples], np.int32)
    starts = np.array([[e.loss_start for e in r] for r in examples], np.int32)
    lengths = np.minimum(full, max_tokens)
    return _Rows(
        records,
        lengths=lengths,
        loss_starts=np.maximum(starts - (full - lengths), 0).astype(np.int32),
        num_truncated=int((full[0] > max_tokens).sum()) if len(full) else 0,
    )


def _take_over(old: store_lib.Store, task: store_lib.StoredTask) -> _Rows | None:
    """A stored task's records as they are, or None where a shard is damaged."""
    try:
        records = {
            view: old.read(view, place.shard, range(place.first, place.first + place.count))
            for view, place in task.places.items()
        }
    except InputError:
        return None
    own = slice(task.first_example, task.first_example + task.num_train)
    return _Rows(
        records, old.lengths[:, own], old.loss_starts[:, own], task.num_truncated, reused=True
    )


def _write_view(
    folder: pathlib.Path,
    view: str,
    number: int,
    names: Sequence[str],
    rows: Mapping[str, _Rows],
    places: Mapping[str, dict[str, store_lib.Place]],
) -> store_lib.ShardFile:
    records: list[bytes] = []
    for name in names:
        own = rows[name].records.get(view, [])
        if own:
            places[name][view] = store_lib.Place(number, len(records), len(own))
            records.extend(own)
    return store_lib.write_shard(folder, view, number, records)


def _stored_task(
    name: str,
    key: str,
    by_name: Mapping[str, catalog.BenchTask],
    assignments: Mapping[str, splits.Assignment],
    old: store_lib.Store | None,
    rows: _Rows,
    places: dict[str, store_lib.Place],
) -> store_lib.StoredTask:
    num_train = rows.lengths.shape[1]
    if name not in by_name:
        assert old is not None
        return dataclasses.replace(old.by_name[name], places=places)
    assignment = assignments[name]
    return store_lib.StoredTask(
        spec=dataclasses.replace(
            by_name[name].spec, category=assignment.category or by_name[name].spec.category
        ),
        role=assignment.role,
        level=assignment.level,
        reason=assignment.reason,
        key=key,
        places=places,
        first_example=0,
        num_train=num_train,
        num_eval=max((p.count for v, p in places.items() if v.startswith("eval_")), default=0),
        num_tokens=int(rows.lengths[0].sum()),
        num_target_tokens=int((rows.lengths[0] - np.maximum(rows.loss_starts[0], 1)).sum()),
        num_truncated=rows.num_truncated,
    )


def _own_mixture(table: Sequence[store_lib.StoredTask], split: str) -> str:
    """What a run trains on that names no mixture: the one benchmark, or the split's mixture."""
    benchmarks = {task.spec.benchmark for task in table}
    return benchmarks.pop() if len(benchmarks) == 1 else split


def _concatenate(
    names: Sequence[str],
    stored: Mapping[str, store_lib.StoredTask],
    rows: Mapping[str, _Rows],
) -> tuple[list[store_lib.StoredTask], np.ndarray, np.ndarray]:
    """The task table in order of name, with its arrays laid one after another."""
    table, first = [], 0
    for name in names:
        table.append(dataclasses.replace(stored[name], first_example=first))
        first += stored[name].num_train
    if not names:
        raise InputError("prepare: there is no task to prepare.")
    lengths = np.concatenate([rows[name].lengths for name in names], axis=1)
    loss_starts = np.concatenate([rows[name].loss_starts for name in names], axis=1)
    return table, lengths, loss_starts
