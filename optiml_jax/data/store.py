"""The prepared store on disk: what it holds, how it is opened, how it is written atomically.

    STORE/
      index.json             settings, task table, shards with size and sha256; the commit point
      examples-DIGEST.npz    lengths and loss starts of all training examples
      shards/VIEW-SHARD-DIGEST.array_record
      vocabulary/            the vocabulary that the ids are of

Files are named by their content, so a changed task adds new files and `index.json` is replaced
last, in one rename: a killed writer leaves the old store or the new one. A *view* is one way of
rendering every task: `train_R` for training rendering R (token ids), `eval_Kshot` for evaluation
with K demonstrations (text, as `EvalRecord`s). A task's records of a view are consecutive in one
shard, the one its name hashes to.

`prepare` decides what goes in; `packing` and `stream` decide what comes out. Left out on purpose:
any choice of tasks, rates or order, but for the rates that a user's SeqIO mixture brings
("mixtures" in index.json, optional): with them training needs neither SeqIO nor the user's module.
"""

import contextlib
import copy
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # compiled

from optiml_jax import errors
from optiml_jax.bench import catalog, record
from optiml_jax.data import vocabularies
from optiml_jax.errors import InputError

FORMAT = 1
INDEX_FILE = "index.json"
INDEX_FIELDS = (
    *("mixture", "split", "render", "num_renderings", "num_shards", "max_tokens", "token_dtype"),
    *("vocabulary", "arrays", "shards", "tasks"),
)
SHARD_FOLDER = "shards"
VOCABULARY_FOLDER = "vocabulary"

OWN_KIND = "verbatim"
"""`catalog.TaskSpec.instruction_kind` of users' own tasks, which no split places."""

HASH_ON_OPEN_BYTES = 512 * 2**20
"""Shards are hashed when first opened up to this much in all; a larger store relies on
ArrayRecord's own block hashes, which are checked when a block is read."""

_WRITER_OPTIONS = "group_size:1,uncompressed"
_READER_OPTIONS = "readahead_buffer_size:0,index_storage_option:in_memory"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a task's records of one view lie: `count` records from `first` on in `shard`."""

    shard: int
    first: int
    count: int


@dataclasses.dataclass(frozen=True)
class StoredTask:
    """One row of the store's task table.

    Attributes:
        spec: the catalog row.
        role: train, validation, test or excluded, under the store's split.
        level: level of generalization of its evaluation part ("" when excluded).
        reason: why the split put it there.
        keys: view -> digest of all that its records there depend on.
        places: view -> where its records are; a view without records of this task is absent.
        first_example: index of its first training example in the store's arrays.
        num_train: training examples of one rendering.
        num_eval: evaluation records of one view.
        num_tokens: tokens of its training examples, first rendering, `</s>` included.
        num_target_tokens: those that carry loss.
        num_truncated: training examples cut on the left to the store's `max_tokens`.
    """

    spec: catalog.TaskSpec
    role: str
    level: str
    reason: str
    keys: Mapping[str, str]
    places: Mapping[str, Place]
    first_example: int
    num_train: int
    num_eval: int
    num_tokens: int
    num_target_tokens: int
    num_truncated: int

    @property
    def name(self) -> str:
        """The SeqIO name, `benchmark__task`."""
        return self.spec.name

    def to_json(self) -> dict[str, Any]:
        """The row as it stands in index.json."""
        row = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        row["spec"] = self.spec.to_json()
        row["places"] = {v: [p.shard, p.first, p.count] for v, p in self.places.items()}
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "StoredTask":
        """The inverse of `to_json`."""
        values = dict(row)
        values["spec"] = catalog.TaskSpec.from_json(row["spec"])
        values["places"] = {v: Place(*place) for v, place in row["places"].items()}
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class ShardFile:
    """A shard as the index promises it."""

    file: str
    num_bytes: int
    sha256: str
    num_records: int


def open_store(path: str | os.PathLike[str], verify: bool = False) -> "Store":
    """Opens a store written by `optiml prepare`.

    Args:
        path: the folder.
        verify: hash every shard now, whatever its size.

    Raises:
        InputError: no store there, another format, or a file that is missing, cut or altered.
    """
    folder = pathlib.Path(path)
    index = read_index(folder)
    if index is None:
        what, guess = "has no index.json", ""
        if not folder.exists():
            what, guess = "does not exist", errors.near_path(folder)
        elif folder.is_file():
            what = "is a file, not the folder of a store"
        raise InputError(
            f"store '{folder}' {what}.{guess} Make one with"
            " `optiml prepare BENCHMARK --data_dir=DIR --out=STORE`."
        )
    store = Store(folder, index)
    store.check_files(verify)
    return store


def read_index(folder: pathlib.Path) -> dict[str, Any] | None:
    """The parsed index.json of a store, or None where there is none.

    Raises:
        InputError: it is damaged or of another format.
    """
    try:
        text = (folder / INDEX_FILE).read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{folder / INDEX_FILE}: cannot be read: {error.strerror}.") from error
    try:
        index = json.loads(text)
    except ValueError as error:
        raise InputError(
            f"{folder / INDEX_FILE}: damaged ({error}). Run `optiml prepare` again into this"
            " folder after removing it."
        ) from error
    if isinstance(index, dict) and index.get("format") == FORMAT:
        if missing := [name for name in INDEX_FIELDS if name not in index]:
            raise InputError(
                f"{folder / INDEX_FILE}: damaged: field '{missing[0]}' is missing. Remove the"
                " folder and run `optiml prepare` again."
            )
    else:
        found = index.get("format") if isinstance(index, dict) else type(index).__name__
        raise InputError(
            f"{folder / INDEX_FILE}: store format {found!r}, this version reads {FORMAT}."
            " Prepare the store again."
        )
    return index


class Store:
    """A prepared store, read only. Use `open_store`.

    Attributes:
        path: the folder.
        meta: all of index.json but tasks and shards: mixture, split, seed, prompt, max_tokens, ...
        tasks: the task table, in the order of the example arrays.
        mixtures: name -> task -> rate of users' SeqIO mixtures; their rates replace a
            `MixtureSpec`'s cap and alpha.
    """

    def __init__(self, path: pathlib.Path, index: Mapping[str, Any]):
        self.mixtures: Mapping[str, Mapping[str, float]] = index.get("mixtures", {})
        self.path = path
        self.meta = {k: v for k, v in index.items() if k not in ("tasks", "shards")}
        try:
            self.tasks = tuple(StoredTask.from_json(row) for row in index["tasks"])
            self.shards: dict[str, list[ShardFile]] = {
                view: [ShardFile(**shard) for shard in shards]
                for view, shards in index["shards"].items()
            }
        except (TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{path / INDEX_FILE}: damaged, or written by another version: {error}. Prepare"
                " the store again into a new folder."
            ) from error
        self._readers: dict[tuple[str, int], array_record_module.ArrayRecordReader] = {}
        total = sum(shard.num_bytes for shards in self.shards.values() for shard in shards)
        self._hash_on_open = total <= HASH_ON_OPEN_BYTES

    @functools.cached_property
    def by_name(self) -> dict[str, StoredTask]:
        """Tasks by SeqIO name."""
        return {task.name: task for task in self.tasks}

    @property
    def num_renderings(self) -> int:
        """Training renderings of every task."""
        return self.meta["num_renderings"]

    @property
    def eval_views(self) -> tuple[str, ...]:
        """Names of the evaluation views, e.g. ("eval_0shot", "eval_5shot")."""
        return tuple(sorted(view for view in self.shards if view.startswith("eval_")))

    @functools.cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = self.meta["arrays"]
        path = self.path / arrays["file"]
        try:
            digest = file_sha256(path)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read ({error.strerror}). Run the same `optiml prepare` again."
            ) from error
        if digest != arrays["sha256"]:
            raise InputError(
                f"{path}: altered since it was prepared. Run the same `optiml prepare` again: it"
                " is written anew."
            )
        with np.load(path) as archive:
            return {name: archive[name] for name in archive.files}

    @property
    def lengths(self) -> np.ndarray:
        """int32 [num_renderings, num_examples]: tokens of each training example."""
        return self._arrays["lengths"]

    @property
    def loss_starts(self) -> np.ndarray:
        """int32 [num_renderings, num_examples]: first token of each example that carries loss."""
        return self._arrays["loss_starts"]

    def find_examples(
        self, renderings: np.ndarray, numbers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(shard, record) of training examples, int64, elementwise.

        Computed from the task table, so that it costs nothing to keep for millions of examples.

        Args:
            renderings: training rendering of each.
            numbers: index of each on the example axis of `lengths`.
        """
        first_examples, shards, first_records = self._train_places
        task = np.searchsorted(first_examples, numbers, side="right") - 1
        record_number = first_records[renderings, task] + numbers - first_examples[task]
        return shards[renderings, task], record_number

    @functools.cached_property
    def _train_places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First example [trained], shard and first record [num_renderings, trained] of tasks."""
        trained = [task for task in self.tasks if task.num_train]
        views = [train_view(rendering) for rendering in range(self.num_renderings)]
        places = [[task.places[view] for task in trained] for view in views]
        return (
            np.array([task.first_example for task in trained], np.int64),
            np.array([[place.shard for place in row] for row in places], np.int64),
            np.array([[place.first for place in row] for row in places], np.int64),
        )

    def vocabulary(self) -> vocabularies.Vocabulary:
        """The vocabulary that the store's ids are of.

        Raises:
            InputError: its files are missing or damaged.
        """
        name = self.meta["vocabulary"]["name"]
        try:
            vocabulary = vocabularies.load_vocabulary(self.path / VOCABULARY_FOLDER)
        except InputError as error:
            raise InputError(
                f"store '{self.path}': its vocabulary is damaged: {error} To write it anew, run"
                f" `optiml prepare` with --vocabulary ('{name}' was used)."
            ) from error
        if vocabulary.digest != self.meta["vocabulary"]["digest"]:
            raise InputError(
                f"store '{self.path}': its vocabulary folder holds another vocabulary than its ids"
                f" are of. Run `optiml prepare` with --vocabulary ('{name}' was used)."
            )
        return vocabulary

    def select(self, name: str | None) -> tuple[StoredTask, ...]:
        """Tasks that a mixture or task name stands for; None is the store's own mixture, all.

        The split's name stands for the tasks that it places, without users' own.

        Raises:
            InputError: no task, benchmark or mixture of this name is in the store.
        """
        if name is not None and (rates := self.mixtures.get(name)) is not None:
            return tuple(task for task in self.tasks if task.name in rates)
        if name is None or name == self.meta["mixture"]:
            return self.tasks
        if name == self.meta["split"]:
            return tuple(t for t in self.tasks if t.spec.instruction_kind != OWN_KIND)
        if name in self.by_name:
            return (self.by_name[name],)
        if chosen := tuple(task for task in self.tasks if task.spec.benchmark == name):
            return chosen
        raise errors.unknown("mixture or task", name, self.names, f"store '{self.path}'")

    @property
    def names(self) -> frozenset[str]:
        """All that `select` takes: mixtures, the split, benchmarks and tasks."""
        benchmarks = {task.spec.benchmark for task in self.tasks}
        own = (self.meta["mixture"], self.meta["split"])
        return frozenset({*own, *self.mixtures, *benchmarks, *self.by_name})

    def with_mixture(self, name: str, rates: Mapping[str, float]) -> "Store":
        """The same store with another mixture, or other rates of one; nothing is written.

        Raises:
            InputError: a task of it is not in the store.
        """
        for task in rates:
            self._task(task)
        changed = copy.copy(self)
        changed.mixtures = {**self.mixtures, name: dict(rates)}
        return changed

    def read(self, view: str, shard: int, numbers: Sequence[int]) -> list[bytes]:
        """Raw records of one shard, in the order asked for.

        Raises:
            InputError: the shard is missing, cut or altered; it is named.
        """
        reader = self._reader(view, shard)
        try:
            return reader.read(list(numbers))
        except (RuntimeError, ValueError, IndexError) as error:
            raise self._damaged(self.shards[view][shard], str(error)) from error

    def eval_records(
        self, view: str, tasks: Sequence[str] | None = None
    ) -> Iterator[record.EvalRecord]:
        """Evaluation records of a view, task by task in the table's order.

        Args:
            view: e.g. "eval_0shot".
            tasks: SeqIO names; None for all that have an evaluation part.

        Raises:
            InputError: unknown view or task, or a damaged shard.
        """
        if view not in self.eval_views:
            raise errors.unknown("view", view, self.eval_views, f"store '{self.path}'")
        chosen = self.tasks if tasks is None else [self._task(name) for name in tasks]
        for task in chosen:
            if place := task.places.get(view):
                numbers = range(place.first, place.first + place.count)
                for data in self.read(view, place.shard, numbers):
                    yield record.EvalRecord.from_json(json.loads(data))

    def train_tokens(self, rendering: int, task: str, number: int) -> np.ndarray:
        """Token ids of one training example, int32; for looking at single examples."""
        place = self._task(task).places[train_view(rendering)]
        (data,) = self.read(train_view(rendering), place.shard, [place.first + number])
        return np.frombuffer(data, self.token_dtype).astype(np.int32)

    @property
    def token_dtype(self) -> np.dtype:
        """How token ids lie in training records, little-endian."""
        return np.dtype(self.meta["token_dtype"])

    def check_files(self, verify: bool) -> None:
        """Every promised file is there with its promised size (and hash, with `verify`)."""
        if not (self.path / self.meta["arrays"]["file"]).is_file() or verify:
            _ = self._arrays
        if verify:
            self.vocabulary()
        for view, shards in self.shards.items():
            for number, shard in enumerate(shards):
                path = self.path / SHARD_FOLDER / shard.file
                try:
                    size = path.stat().st_size
                except FileNotFoundError:
                    raise self._damaged(shard, "it is missing") from None
                if size != shard.num_bytes:
                    raise self._damaged(shard, f"it has {size} bytes, not {shard.num_bytes}")
                if verify:
                    self._reader(view, number)
                    check_hash(path, shard.sha256)

    def _reader(self, view: str, shard: int) -> array_record_module.ArrayRecordReader:
        if (view, shard) not in self._readers:
            promised = self.shards[view][shard]
            path = self.path / SHARD_FOLDER / promised.file
            if not path.exists():
                raise self._damaged(promised, "it is missing")
            if self._hash_on_open:
                check_hash(path, promised.sha256)
            try:
                reader = array_record_module.ArrayRecordReader(str(path), _READER_OPTIONS)
            except (RuntimeError, ValueError) as error:
                raise self._damaged(promised, str(error)) from error
            self._readers[view, shard] = reader
        return self._readers[view, shard]

    def _task(self, name: str) -> StoredTask:
        if name not in self.by_name:
            raise errors.unknown("task", name, self.by_name, f"store '{self.path}'")
        return self.by_name[name]

    def _damaged(self, shard: ShardFile, what: str) -> InputError:
        return InputError(
            f"store '{self.path}': shard '{shard.file}' is damaged: {what}. Delete that file and"
            " run the same `optiml prepare` again: it rewrites only what is missing."
        )


def train_view(rendering: int) -> str:
    """The view of training rendering `rendering`."""
    return f"train_{rendering}"


def eval_view(shots: int) -> str:
    """The evaluation view with `shots` demonstrations."""
    return f"eval_{shots}shot"


def shard_of(task: str, num_shards: int) -> int:
    """The shard a task lives in; the same on every machine."""
    return int.from_bytes(hashlib.sha256(task.encode()).digest()[:8], "little") % num_shards


def file_sha256(path: pathlib.Path) -> str:
    """Sha256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_hash(path: pathlib.Path, sha256: str) -> None:
    """Raises InputError where the file's hash is not the promised one."""
    if file_sha256(path) != sha256:
        raise InputError(
            f"store '{path.parent.parent}': shard '{path.name}' was altered since it was prepared"
            " (its sha256 differs). Delete that file and run the same `optiml prepare` again: it"
            " rewrites only what is missing."
        )


def write_shard(
    folder: pathlib.Path, view: str, number: int, records: Sequence[bytes]
) -> ShardFile:
    """Writes one shard under a name made of its content."""
    sha = hashlib.sha256()
    for data in records:
        sha.update(len(data).to_bytes(8, "little"))
        sha.update(data)
    name = f"{view}-{number:03d}-{sha.hexdigest()[:16]}.array_record"
    path = folder / SHARD_FOLDER / name
    temporary = path.with_name(f".{name}.{os.getpid()}")
    try:
        writer = array_record_module.ArrayRecordWriter(str(temporary), _WRITER_OPTIONS)
        for data in records:
            writer.write(data)
        writer.close()
        temporary.replace(path)
    except (RuntimeError, OSError, ValueError) as error:
        temporary.unlink(missing_ok=True)
        raise InputError(
            f"{path}: cannot be written: {error}. Make room, or give another --out; the store is"
            " as it was before."
        ) from error
    return ShardFile(name, path.stat().st_size, file_sha256(path), len(records))


def write_arrays(
    folder: pathlib.Path, lengths: np.ndarray, loss_starts: np.ndarray
) -> dict[str, str]:
    """Writes the example arrays; returns their entry in index.json."""
    temporary = folder / f".examples-{os.getpid()}.npz"
    with temporary.open("wb") as file:
        np.savez(file, lengths=lengths, loss_starts=loss_starts)
    digest = file_sha256(temporary)
    name = f"examples-{digest[:16]}.npz"
    temporary.replace(folder / name)
    return {"file": name, "sha256": digest}


def commit(folder: pathlib.Path, index: Mapping[str, Any]) -> None:
    """Makes `index` the store's index in one rename, then removes files it does not name."""
    temporary = folder / f".{INDEX_FILE}.{os.getpid()}"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(index, file, ensure_ascii=False, separators=(",", ":"))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / INDEX_FILE)
    named = {shard["file"] for shards in index["shards"].values() for shard in shards}
    for path in (folder / SHARD_FOLDER).iterdir():
        if path.name not in named:
            path.unlink()
    for path in folder.glob("*examples-*.npz*"):
        if path.name != index["arrays"]["file"]:
            path.unlink()
    # What killed writers left.
    for path in folder.glob(f".{VOCABULARY_FOLDER}.*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(f".{INDEX_FILE}.*"):
        path.unlink()


@contextlib.contextmanager
def writing(folder: pathlib.Path) -> Iterator[None]:
    """Holds the store's lock, so that two writers never meet; creates the folders.

    Raises:
        InputError: the folder cannot be written, or another process writes it now.
    """
    try:
        (folder / SHARD_FOLDER).mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(
            f"store '{folder}' cannot be written: {error.strerror}. Give another --out."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"store '{folder}' is being written by another `optiml prepare`. Wait for it, or"
                " give another --out."
            ) from None
        yield
