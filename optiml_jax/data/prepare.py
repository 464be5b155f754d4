"""Building a store: render every task once, tokenize it, write shards, commit.

Incremental: records whose key (source bytes, wording, vocabulary, role; one key a view) is the same
are taken over from the old store byte by byte, and a shard in which nothing changed is not written
again. Atomic: see `store`. Tasks of other benchmarks in the same store stay.

The work is sequential over shards; tokenization inside a shard uses all cores (`tokenizers`).
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np

import optiml_jax
from optiml_jax.bench import catalog, pooling, splits
from optiml_jax.data import rendering, residents, tokenization, vocabularies
from optiml_jax.data import store as store_lib
from optiml_jax.errors import InputError

CODE_VERSION = 2
"""Part of every task's key; raised when rendering or tokenization change their results (2: records
that ask the same are held out together)."""

EVAL_VERSION = 3
"""Part of the keys of evaluation views only, raised when their records change (2: `input` and
`demonstration`; 3: which demonstrations are shown), so that training records, and runs on them,
stay."""

MAX_SHARDS = 1024
"""A shard takes at least 64 KiB; more files than this help nobody."""

MAX_TOKENS = 2**24
"""Longest example that a store takes; lengths are int32."""

TEXTS_TOGETHER = 2048
"""Texts that are tokenized in one call: enough for all cores, few enough that their ids as Python
lists, ten times the size of a record, stay small beside the shard."""

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
        if not 2 <= self.max_tokens <= MAX_TOKENS:
            raise InputError(
                f"PrepareConfig.max_tokens is {self.max_tokens}, expected 2 to {MAX_TOKENS:,}."
            )
        if not 1 <= self.num_shards <= MAX_SHARDS:
            raise InputError(
                f"PrepareConfig.num_shards is {self.num_shards}, expected 1 to {MAX_SHARDS}."
            )


@dataclasses.dataclass(frozen=True)
class PrepareResult:
    """What a run of `prepare_store` did.

    Attributes:
        tasks_behind: stored tasks that were not given and lack a view of this run.
        untrained: given training tasks without a training example: their releases have rows for
            evaluation alone.
    """

    num_tasks: int
    num_examples: int
    num_tokens: int
    tasks_rendered: int
    tasks_reused: int
    tasks_removed: int
    tasks_behind: int
    untrained: tuple[str, ...]
    seconds: float


@dataclasses.dataclass
class _Rows:
    """A task's records of every view, before they have a place in a shard."""

    records: dict[str, list[bytes]]
    lengths: np.ndarray
    loss_starts: np.ndarray
    num_truncated: int
    reused: frozenset[str] = frozenset()


def prepare_store(
    tasks: Sequence[catalog.BenchTask],
    assignments: Mapping[str, splits.Assignment],
    out: str | os.PathLike[str],
    vocabulary: vocabularies.Vocabulary,
    config: PrepareConfig,
    progress: Progress = lambda done, total, what: None,
    prune: bool = False,
    mixtures: Mapping[str, Mapping[str, float]] | None = None,
) -> PrepareResult:
    """Builds or updates the store at `out`.

    Args:
        tasks: all tasks of the mixture's benchmarks; a stored task of one of these benchmarks that
            is not among them is removed under `prune`, and is an error without it. Users' own
            tasks are prepared a few at a time: stored ones stay, save under `prune`.
        assignments: role and level of each task.
        vocabulary: of the ids; an existing store must have the same.
        mixtures: name -> task -> rate of users' SeqIO mixtures over tasks of the store; stored
            ones stay.

    Raises:
        InputError: the folder cannot be written, holds something else than a store, or a store
            with other settings, or tasks cannot live together (one name twice, a user's training
            task of a held-out category); nothing is changed then.
    """
    started = time.monotonic()
    folder = pathlib.Path(out)
    _check_place(folder)
    with store_lib.writing(folder):
        old = _old_store(folder, vocabulary, config)
        keys = {t.spec.name: _keys(t, assignments[t.spec.name], vocabulary, config) for t in tasks}
        by_name = {task.spec.name: task for task in tasks}
        kept = [t for t in old.tasks if residents.is_kept(t, by_name, prune)] if old else []
        residents.check(tasks, kept)
        if old and kept:
            _check_settings(old, kept, config)
        placed = [(t.spec, assignments[t.spec.name]) for t in tasks]
        settled = residents.settle_levels(
            [
                *((spec, one.category or spec.category, one) for spec, one in placed),
                *((task.spec, task.spec.category, task) for task in kept),
            ]
        )
        names = sorted([*keys, *(task.name for task in kept)])
        views = _views(config)
        if old:
            # Of a view that another run left out there are no records to go with the key.
            held = [view for view in views if view in old.shards]
            keys |= {t.name: {v: t.keys[v] for v in held if v in t.keys} for t in kept}
        behind = [t for t in kept if t.level and not keys[t.name].keys() >= set(views)]
        if old and not prune:
            _check_removed([t.name for t in old.tasks if t.name not in keys], folder)
        others = {config.render.split, *(one.spec.benchmark for one in (*tasks, *kept))}
        stored_mixtures = residents.mixtures(mixtures or {}, old, names, others)

        shards: dict[str, list[store_lib.ShardFile]] = {view: [] for view in views}
        stored: dict[str, store_lib.StoredTask] = {}
        arrays: dict[str, _Rows] = {}
        for number in range(config.num_shards):
            own = [n for n in names if store_lib.shard_of(n, config.num_shards) == number]
            progress(number, config.num_shards, f"shard {number}: {len(own)} tasks")
            rows = _shard_rows(own, keys, by_name, assignments, old, vocabulary, config)
            places: dict[str, dict[str, store_lib.Place]] = {name: {} for name in own}
            for view in shards:
                shards[view].append(_write_view(folder, view, number, own, rows, places, old))
            for name in own:
                stored[name] = _stored_task(
                    name, keys[name], by_name, assignments, old, rows[name], places[name]
                )
                # The records are on disk; a store of millions must not stay in memory.
                arrays[name] = dataclasses.replace(rows[name], records={})
        table, lengths, loss_starts = _concatenate(names, stored, arrays)
        table = [dataclasses.replace(t, level=settled.get(t.name, t.level)) for t in table]
        _save_vocabulary(vocabulary, folder)
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
            "mixtures": stored_mixtures,
        }
        store_lib.commit(folder, index)
    reused = sum(rows.reused >= set(keys[name]) for name, rows in arrays.items())
    removed = len([t for t in old.tasks if t.name not in stored]) if old else 0
    return PrepareResult(
        num_tasks=len(table),
        num_examples=lengths.shape[1],
        num_tokens=int(lengths[0].sum()),
        tasks_rendered=len(names) - reused,
        tasks_reused=reused,
        tasks_removed=removed,
        tasks_behind=len(behind),
        untrained=tuple(
            one.name
            for one in table
            if one.name in by_name and one.role == "train" and not one.num_train
        ),
        seconds=time.monotonic() - started,
    )


def _check_place(folder: pathlib.Path) -> None:
    """Refuses a place that holds something else than a store."""
    if store_lib.read_index(folder) is not None or not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"--out '{folder}' is a file, expected a folder to write a store in.")
    ours = {store_lib.SHARD_FOLDER, store_lib.VOCABULARY_FOLDER}
    names = sorted(path.name for path in folder.iterdir())
    if foreign := [n for n in names if n not in ours and not n.startswith((".", "examples-"))]:
        raise InputError(
            f"--out '{folder}' is not empty and not a store (it has '{foreign[0]}')."
            " Give a new or empty folder."
        )


def _check_settings(
    old: store_lib.Store, kept: Sequence[store_lib.StoredTask], config: PrepareConfig
) -> None:
    """Refuses what would stand in the index as the setting of tasks that were made without it."""
    found = rendering.settings(old.meta["render"])
    wanted = rendering.settings(config.render.to_json())
    for name, value in found.items():
        if wanted[name] != value:
            raise InputError(
                f"store '{old.path}' was made with {name} {value}, this run has {wanted[name]}, and"
                f" {len(kept)} of its tasks stay as they are (first: '{kept[0].name}'). Use the"
                " same, or give a new --out."
            )


def _check_removed(names: Sequence[str], folder: pathlib.Path) -> None:
    if names:
        raise InputError(
            f"store '{folder}' holds tasks that are not among the given ones ({len(names)}, first:"
            f" '{names[0]}'). Give --prune to remove them, or the folder that has them all."
        )


def _save_vocabulary(vocabulary: vocabularies.Vocabulary, folder: pathlib.Path) -> None:
    """Puts the vocabulary beside the store in one rename; a good one is left alone."""
    target = folder / store_lib.VOCABULARY_FOLDER
    try:
        if vocabularies.load_vocabulary(target).digest == vocabulary.digest:
            return
    except InputError:
        pass
    temporary = folder / f".{store_lib.VOCABULARY_FOLDER}.{os.getpid()}"
    vocabulary.save(temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def _old_store(
    folder: pathlib.Path, vocabulary: vocabularies.Vocabulary, config: PrepareConfig
) -> store_lib.Store | None:
    """The store to update, or None; refuses what an update would mix up."""
    index = store_lib.read_index(folder)
    if index is None:
        return None
    expected = {
        "vocabulary": (index["vocabulary"]["digest"], vocabulary.digest),
        "num_shards": (index["num_shards"], config.num_shards),
        "max_tokens": (index["max_tokens"], config.max_tokens),
        "num_renderings": (index["num_renderings"], config.render.num_renderings),
    }
    old = store_lib.Store(folder, index)
    # No split places users' own tasks.
    if any(task.spec.instruction_kind != residents.KIND for task in old.tasks):
        expected["split"] = (index["split"], config.render.split)
    for name, (found, wanted) in expected.items():
        if found != wanted:
            raise InputError(
                f"store '{folder}' was made with {name} {str(found)[:16]}, this run has"
                f" {str(wanted)[:16]}. Use the same, or give a new --out."
            )
    return old


def _token_dtype(vocabulary: vocabularies.Vocabulary) -> str:
    return "<u2" if vocabulary.size <= 2**16 else "<u4"


def _views(config: PrepareConfig) -> list[str]:
    train = [store_lib.train_view(r) for r in range(config.render.num_renderings)]
    return train + [store_lib.eval_view(k) for k in config.render.shots]


def _keys(
    task: catalog.BenchTask,
    assignment: splits.Assignment,
    vocabulary: vocabularies.Vocabulary,
    config: PrepareConfig,
) -> dict[str, str]:
    """View -> key of a task's records: what they depend on, and nothing else.

    So a new evaluation view leaves the training records, and runs on them, alone.
    """
    render = config.render
    shared = [
        CODE_VERSION,
        task.digest,
        # The same files elsewhere are the same task.
        {name: value for name, value in task.spec.to_json().items() if name != "path"},
        dataclasses.asdict(assignment),
        render.seed,
        render.max_train_examples,
        render.prompt.digest(),
    ]
    # Stores from before this setting had its default.
    is_default = render.max_eval_prompts == pooling.MAX_VALIDATION_PROMPTS
    drawn = [] if is_default else [render.max_eval_prompts]
    training = _digest([*shared, vocabulary.digest, render.num_renderings, config.max_tokens])
    keys = {store_lib.train_view(r): training for r in range(render.num_renderings)}
    for shots in render.shots:
        keys[store_lib.eval_view(shots)] = _digest(
            [*shared, shots, rendering.eval_limit(task.spec, render), EVAL_VERSION, *drawn]
        )
    return keys


def _digest(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _shard_rows(
    names: Sequence[str],
    keys: Mapping[str, Mapping[str, str]],
    by_name: Mapping[str, catalog.BenchTask],
    assignments: Mapping[str, splits.Assignment],
    old: store_lib.Store | None,
    vocabulary: vocabularies.Vocabulary,
    config: PrepareConfig,
) -> dict[str, _Rows]:
    """Records of every task of a shard, taken over view by view where the key is unchanged."""
    rows: dict[str, _Rows] = {}
    texts: dict[str, list[list[tuple[str, str]]]] = {}
    num_texts = 0

    def tokenize() -> None:
        # Small tasks share a call, so that all cores of the tokenizer are busy.
        pairs = [pair for per_rendering in texts.values() for p in per_rendering for pair in p]
        tokenized = _tokenized(vocabulary, pairs, config.max_tokens)
        for name, per_rendering in texts.items():
            examples = [[next(tokenized) for _ in p] for p in per_rendering]
            _encode(rows[name], examples, config.max_tokens)
        texts.clear()

    for name in names:
        rows[name] = _take_over(old, name, keys[name]) if old else _no_rows(config)
        missing = keys[name].keys() - rows[name].reused
        if not missing:
            continue
        task = by_name.get(name)
        if task is None:
            raise InputError(
                f"store '{old.path if old else ''}': records of '{name}' are damaged, and its"
                " benchmark is not part of this run. Prepare that benchmark first."
            )
        content = task.load()
        parts = rendering.partition(task.spec, content, assignments[name], config.render)
        rows[name].records |= _eval_views(task.spec, content, parts, config, missing)
        if store_lib.train_view(0) in missing:
            texts[name] = _training_pairs(task.spec, content, parts, config)
            num_texts += sum(len(p) for p in texts[name])
            if num_texts >= TEXTS_TOGETHER:
                tokenize()
                num_texts = 0
    tokenize()
    return rows


def _tokenized(
    vocabulary: vocabularies.Vocabulary, pairs: Sequence[tuple[str, str]], max_tokens: int
) -> Iterator[tuple[bytes, int, int]]:
    """(record cut on the left to `max_tokens`, tokens before the cut, loss start before it)."""
    dtype = _token_dtype(vocabulary)
    for start in range(0, len(pairs), TEXTS_TOGETHER):
        some = pairs[start : start + TEXTS_TOGETHER]
        for example in tokenization.tokenize_examples(vocabulary, some):
            data = np.asarray(example.ids[-max_tokens:], dtype).tobytes()
            yield data, len(example.ids), example.loss_start


def _no_rows(config: PrepareConfig) -> _Rows:
    empty = np.zeros((config.render.num_renderings, 0), np.int32)
    return _Rows({}, empty, empty, 0)


def _training_pairs(
    spec: catalog.TaskSpec,
    content: catalog.TaskContent,
    parts: rendering.Partition,
    config: PrepareConfig,
) -> list[list[tuple[str, str]]]:
    return [
        [
            (example.source, example.target)
            for example in rendering.train_examples(spec, content, parts, config.render, r)
        ]
        for r in range(config.render.num_renderings)
    ]


def _eval_views(
    spec: catalog.TaskSpec,
    content: catalog.TaskContent,
    parts: rendering.Partition,
    config: PrepareConfig,
    missing: Set[str],
) -> dict[str, list[bytes]]:
    views = {}
    for shots in config.render.shots:
        if store_lib.eval_view(shots) in missing:
            records = rendering.eval_records(spec, content, parts, config.render, shots)
            views[store_lib.eval_view(shots)] = [
                json.dumps(r.to_json(), ensure_ascii=False).encode() for r in records
            ]
    return views


def _encode(rows: _Rows, examples: list[list[tuple[bytes, int, int]]], max_tokens: int) -> None:
    """Adds training records of every rendering, as `_tokenized` gives them, with their lengths."""
    for number, rendering_examples in enumerate(examples):
        rows.records[store_lib.train_view(number)] = [data for data, _, _ in rendering_examples]
    full = np.array([[length for _, length, _ in r] for r in examples], np.int32)
    starts = np.array([[start for _, _, start in r] for r in examples], np.int32)
    rows.lengths = np.minimum(full, max_tokens)
    rows.loss_starts = np.maximum(starts - (full - rows.lengths), 0).astype(np.int32)
    rows.num_truncated = int((full[0] > max_tokens).sum())


def _take_over(old: store_lib.Store, name: str, keys: Mapping[str, str]) -> _Rows:
    """A stored task's records of the views whose key is the same and whose shards are whole."""
    empty = np.zeros((old.num_renderings, 0), np.int32)
    rows = _Rows({}, empty, empty, 0)
    task = old.by_name.get(name)
    if task is None:
        return rows
    same = [v for v, key in keys.items() if task.keys.get(v) == key and v in old.shards]
    trains = [view for view in same if view.startswith("train_")]
    for views in (trains, *([view] for view in same if view not in trains)):
        try:
            records = {
                view: old.read(view, p.shard, range(p.first, p.first + p.count))
                for view in views
                if (p := task.places.get(view))
            }
            if views is trains and trains:
                own = slice(task.first_example, task.first_example + task.num_train)
                rows.lengths, rows.loss_starts = old.lengths[:, own], old.loss_starts[:, own]
                rows.num_truncated = task.num_truncated
        except InputError:
            # The shard or the arrays are damaged: rendered anew.
            continue
        rows.records |= records
        rows.reused |= frozenset(views)
    return rows


def _write_view(
    folder: pathlib.Path,
    view: str,
    number: int,
    names: Sequence[str],
    rows: Mapping[str, _Rows],
    places: Mapping[str, dict[str, store_lib.Place]],
    old: store_lib.Store | None,
) -> store_lib.ShardFile:
    records: list[bytes] = []
    for name in names:
        own = rows[name].records.get(view, [])
        if own:
            places[name][view] = store_lib.Place(number, len(records), len(own))
            records.extend(own)
    before = old.shards[view][number] if old and view in old.shards else None
    if before and all(view in rows[name].reused for name in names):
        same = {name: task.places.get(view) for name, task in old.by_name.items()} if old else {}
        if (
            len(records) == before.num_records
            and records
            and all(same[name] == places[name].get(view) for name in names)
        ):
            return before
    return store_lib.write_shard(folder, view, number, records)


def _stored_task(
    name: str,
    keys: Mapping[str, str],
    by_name: Mapping[str, catalog.BenchTask],
    assignments: Mapping[str, splits.Assignment],
    old: store_lib.Store | None,
    rows: _Rows,
    places: dict[str, store_lib.Place],
) -> store_lib.StoredTask:
    num_train = rows.lengths.shape[1]
    if name not in by_name:
        assert old is not None
        return dataclasses.replace(
            old.by_name[name], keys=keys, places=places, num_eval=_num_eval(places)
        )
    assignment = assignments[name]
    return store_lib.StoredTask(
        spec=dataclasses.replace(
            by_name[name].spec, category=assignment.category or by_name[name].spec.category
        ),
        role=assignment.role,
        level=assignment.level,
        reason=assignment.reason,
        keys=keys,
        places=places,
        first_example=0,
        num_train=num_train,
        num_eval=_num_eval(places),
        num_tokens=int(rows.lengths[0].sum()),
        num_target_tokens=int((rows.lengths[0] - np.maximum(rows.loss_starts[0], 1)).sum()),
        num_truncated=rows.num_truncated,
    )


def _num_eval(places: Mapping[str, store_lib.Place]) -> int:
    return max((p.count for v, p in places.items() if v.startswith("eval_")), default=0)


def _own_mixture(table: Sequence[store_lib.StoredTask], split: str) -> str:
    """Name of all tasks: the one benchmark, or the split's mixture and users' own tasks.

    Example:
        "mini+user" in a store of the mini benchmark and a user's tasks.
    """
    benchmarks = {task.spec.benchmark for task in table}
    own = {t.spec.benchmark for t in table if t.spec.instruction_kind == residents.KIND}
    return benchmarks.pop() if len(benchmarks) == 1 else "+".join([split, *sorted(own)])


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
