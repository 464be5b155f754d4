"""Stores: incremental, atomic, self-describing, and loud about damage."""

import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from optiml_jax.bench.record import EvalRecord
from optiml_jax.data import prepare, rendering, summary, tokenization, vocabularies
from optiml_jax.data import store as store_lib
from optiml_jax.errors import InputError
from tests.data.conftest import assign, make_task

MIXTURE = "super_natural_instructions"
CONFIG = prepare.PrepareConfig(num_shards=3)


def build(out, tasks, vocabulary, config=CONFIG, held_out=(), prune=False):
    return prepare.prepare_store(
        tasks, assign(tasks, held_out), out, vocabulary, config, prune=prune
    )


def shard_files(out):
    return {p.name: p.stat().st_mtime_ns for p in (out / "shards").iterdir()}


@pytest.fixture
def built(tmp_path, tasks, vocabulary):
    build(tmp_path / "store", tasks, vocabulary)
    return tmp_path / "store"


def test_stored_tokens_are_the_joint_tokenization(store_path, tasks, vocabulary):
    store = store_lib.open_store(store_path, verify=True)
    for task in tasks[1:4]:
        content = task.load()
        assignment = assign(tasks)[task.spec.name]
        parts = rendering.partition(task.spec, content, assignment, CONFIG.render)
        examples = rendering.train_examples(task.spec, content, parts, CONFIG.render, 0)
        row = store.by_name[task.spec.name]
        for number, example in enumerate(examples):
            source = example.source.rstrip(" ")
            ids = [*vocabulary.encode(f"{source} {example.target.rstrip()}"), 2]
            assert store.train_tokens(0, task.spec.name, number).tolist() == ids
            at = row.first_example + number
            assert store.lengths[0, at] == len(ids)
            assert store.loss_starts[0, at] == len(vocabulary.encode(source))


def test_evaluation_records_are_text(store_path, tasks):
    store = store_lib.open_store(store_path)
    records = list(store.eval_records("eval_0shot", [tasks[0].spec.name]))
    assert len(records) == tasks[0].spec.num_examples
    first = tasks[0].load().records[0]
    assert first.input in records[0].source
    assert records[0].references == first.references
    assert records[0].task == tasks[0].spec.name


def test_eval_records_tell_what_a_model_is_not_needed_to_copy(store_path, tasks):
    store = store_lib.open_store(store_path)
    content = tasks[0].load()
    by_id = {one.id: one for one in content.records}
    for one in store.eval_records("eval_0shot", [tasks[0].spec.name]):
        assert one.input == by_id[one.id].input
        assert one.input in one.source
        assert one.demonstration == content.demonstrations[0].output


def test_demonstrations_to_copy_are_those_of_one_shot(tmp_path, vocabulary):
    """Without positive examples the pool gives them, whatever the view's own shots."""
    one = make_task(2, 40)
    content = dataclasses.replace(one.load(), demonstrations=())
    bare = dataclasses.replace(one, load=lambda: content)
    render = rendering.RenderConfig(shots=(0, 1), max_eval_examples=20)
    held_out = assign([bare], held_out={bare.spec.name})
    trained = make_task(3, 40)
    prepare.prepare_store(
        [bare, trained],
        held_out | assign([trained]),
        tmp_path / "s",
        vocabulary,
        prepare.PrepareConfig(render),
    )
    store = store_lib.open_store(tmp_path / "s")
    none, single = (
        list(store.eval_records(f"eval_{k}shot", [bare.spec.name, trained.spec.name]))
        for k in (0, 1)
    )
    assert len({a.demonstration for a in none}) > 3
    for without, shown in zip(none, single, strict=True):
        assert without.demonstration == shown.demonstration
        assert f" {shown.demonstration}\n\n\n" in shown.source


def test_a_store_of_an_earlier_version_opens_and_renders_its_evaluation_anew(
    tmp_path, tasks, vocabulary, monkeypatch
):
    to_json = EvalRecord.to_json

    def earlier(self):
        row = to_json(self)
        del row["input"], row["demonstration"]
        return row

    with monkeypatch.context() as patch:
        patch.setattr(EvalRecord, "to_json", earlier)
        patch.setattr(prepare, "EVAL_VERSION", 1)
        build(tmp_path / "s", tasks, vocabulary)
    old = store_lib.open_store(tmp_path / "s")
    files = shard_files(tmp_path / "s")
    name = tasks[2].spec.name
    assert [one.input for one in old.eval_records("eval_0shot", [name])] == [""] * 3
    build(tmp_path / "s", tasks, vocabulary)
    new = store_lib.open_store(tmp_path / "s")
    assert all(one.input for one in new.eval_records("eval_0shot", [name]))
    changed = dict(old.by_name[name].keys.items() ^ new.by_name[name].keys.items())
    assert set(changed) == {"eval_0shot"}
    assert {n: t for n, t in shard_files(tmp_path / "s").items() if n.startswith("train")} == {
        n: t for n, t in files.items() if n.startswith("train")
    }


def test_summary_adds_up(store_path, tasks):
    store = store_lib.open_store(store_path)
    content = summary.summarize(store)
    assert content["num_tasks"] == len(tasks)
    assert content["num_tokens"] == int(store.lengths[0].sum())
    for group in ("benchmarks", "categories", "roles"):
        for field in ("num_examples", "num_eval", "num_tokens"):
            assert sum(row[field] for row in content[group].values()) == content[field]
    assert content["levels"]["fully_held_out"]["num_eval"] == tasks[0].spec.num_examples


def test_preparing_again_touches_nothing(built, tasks, vocabulary):
    before = store_lib.read_index(built)
    result = build(built, tasks, vocabulary)
    assert (result.tasks_rendered, result.tasks_reused) == (0, len(tasks))
    assert store_lib.read_index(built) == before


def test_a_changed_task_rewrites_its_shard_only(built, tasks, vocabulary):
    before = shard_files(built)
    changed = [
        make_task(4, tasks[4].spec.num_examples, version=1) if i == 4 else t
        for i, t in enumerate(tasks)
    ]
    result = build(built, changed, vocabulary)
    assert (result.tasks_rendered, result.tasks_reused) == (1, len(tasks) - 1)
    own = store_lib.shard_of(tasks[4].spec.name, 3)
    new = set(shard_files(built)) - set(before)
    assert {name.split("-")[1] for name in new} == {f"{own:03d}"}
    fresh = built.parent / "fresh"
    build(fresh, changed, vocabulary)
    assert_same(store_lib.open_store(built), store_lib.open_store(fresh))


def test_removed_and_added_tasks(built, tasks, vocabulary):
    others = [*tasks[:-2], make_task(40, 15)]
    before = store_lib.read_index(built)
    with pytest.raises(
        InputError, match=r"holds tasks that are not .*2, first: .*task007_made.*--prune"
    ):
        build(built, others, vocabulary)
    assert store_lib.read_index(built) == before
    result = build(built, others, vocabulary, prune=True)
    assert (result.tasks_rendered, result.tasks_removed) == (1, 2)
    fresh = built.parent / "fresh"
    build(fresh, others, vocabulary)
    assert_same(store_lib.open_store(built), store_lib.open_store(fresh))


def test_a_new_view_leaves_the_training_records_alone(built, tasks, vocabulary):
    before = store_lib.open_store(built)
    files = shard_files(built)
    render = rendering.RenderConfig(shots=(0, 2))
    build(built, tasks, vocabulary, prepare.PrepareConfig(render, num_shards=3))
    after = store_lib.open_store(built)
    assert after.eval_views == ("eval_0shot", "eval_2shot")
    assert {n: t for n, t in shard_files(built).items() if "2shot" not in n} == files
    for task in before.tasks:
        assert task.keys.items() <= after.by_name[task.name].keys.items()
    record = next(after.eval_records("eval_2shot", [tasks[1].spec.name]))
    assert record.prompt_id.endswith(".2shot")


@pytest.mark.parametrize("damage", ["arrays missing", "arrays cut", "merges cut", "no vocabulary"])
def test_damage_beside_the_shards_is_found_and_mended(built, tasks, vocabulary, damage):
    arrays = next(built.glob("examples-*.npz"))
    if damage == "arrays missing":
        arrays.unlink()
    elif damage == "arrays cut":
        arrays.write_bytes(arrays.read_bytes()[:100])
    elif damage == "merges cut":
        (built / "vocabulary" / "merges.txt").write_text("#version: 0.2\n")
    else:
        shutil.rmtree(built / "vocabulary")
    with pytest.raises(InputError, match="prepare"):
        store_lib.open_store(built, verify=True)
    build(built, tasks, vocabulary)
    store = store_lib.open_store(built, verify=True)
    assert store.vocabulary().digest == vocabulary.digest
    assert store.lengths.shape[1] == sum(task.num_train for task in store.tasks)


def test_an_index_without_its_fields(built):
    (built / "index.json").write_text('{"format": 1}')
    with pytest.raises(InputError, match="field 'mixture' is missing"):
        store_lib.open_store(built)


def test_a_kill_while_the_vocabulary_is_written(tmp_path, tasks, vocabulary, monkeypatch):
    def die(self, directory):
        pathlib.Path(directory).mkdir()
        (pathlib.Path(directory) / "vocab.json").write_text("{")
        raise KeyboardInterrupt

    out = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(vocabularies.Vocabulary, "save", die)
        with pytest.raises(KeyboardInterrupt):
            build(out, tasks, vocabulary)
    build(out, tasks, vocabulary)
    # A good vocabulary is never written over.
    monkeypatch.setattr(vocabularies.Vocabulary, "save", die)
    build(out, [*tasks, make_task(50, 10)], vocabulary)
    store_lib.open_store(out, verify=True)


def test_a_full_disk_is_one_message(tmp_path, tasks, vocabulary, monkeypatch):
    def full(path, options):
        raise RuntimeError("RESOURCE_EXHAUSTED: No space left on device")

    monkeypatch.setattr(store_lib.array_record_module, "ArrayRecordWriter", full)
    with pytest.raises(InputError, match="cannot be written: RESOURCE_EXHAUSTED"):
        build(tmp_path / "store", tasks, vocabulary)


def test_too_many_shards():
    with pytest.raises(InputError, match="num_shards is 99999, expected 1 to 1024"):
        prepare.PrepareConfig(num_shards=99999)


def test_a_second_benchmark_joins_the_store(built, tasks, vocabulary):
    others = [make_task(i, 12, benchmark="flan") for i in range(3)]
    prepare.prepare_store(others, assign(others), built, vocabulary, CONFIG)
    store = store_lib.open_store(built)
    assert {t.spec.benchmark for t in store.tasks} == {MIXTURE, "flan"}
    assert len(store.select("flan")) == 3
    assert store.meta["mixture"] == "opt_iml"
    assert len(store.select(None)) == len(tasks) + 3
    name = tasks[2].spec.name
    assert store.train_tokens(0, name, 0).tolist() is not None
    assert store.by_name[name].num_train == store.by_name[name].places["train_0"].count


def assert_same(one, two):
    assert one.tasks == two.tasks
    np.testing.assert_array_equal(one.lengths, two.lengths)
    for view in one.shards:
        for task in one.tasks:
            if place := task.places.get(view):
                numbers = range(place.first, place.first + place.count)
                assert one.read(view, place.shard, numbers) == two.read(view, place.shard, numbers)


def test_a_killed_prepare_leaves_the_old_store(built, tasks, vocabulary, monkeypatch):
    before = store_lib.read_index(built)

    def die(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare.store_lib, "write_arrays", die)
    changed = [*tasks, *(make_task(9 + i, 10) for i in range(4))]
    with pytest.raises(KeyboardInterrupt):
        build(built, changed, vocabulary)
    monkeypatch.undo()
    assert store_lib.read_index(built) == before
    store_lib.open_store(built, verify=True)
    build(built, changed, vocabulary)
    named = {s.file for shards in store_lib.open_store(built).shards.values() for s in shards}
    assert {p.name for p in (built / "shards").iterdir()} == named


def flip(path, at=-30):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["truncated", "missing", "flipped"])
def test_a_damaged_shard_names_itself_and_prepare_mends_it(built, tasks, vocabulary, damage):
    store = store_lib.open_store(built)
    name = max((s for s in store.shards["train_0"]), key=lambda s: s.num_bytes).file
    path = built / "shards" / name
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "missing":
        path.unlink()
    else:
        flip(path)
    with pytest.raises(InputError, match=name):
        store_lib.open_store(built, verify=True)
    number = [s.file for s in store.shards["train_0"]].index(name)
    with pytest.raises(InputError, match=name):
        store_lib.open_store(built).read("train_0", number, [0])
    build(built, tasks, vocabulary)
    store_lib.open_store(built, verify=True)


def test_a_flipped_byte_is_named_on_reading_where_opening_does_not_hash(built, monkeypatch):
    monkeypatch.setattr(store_lib, "HASH_ON_OPEN_BYTES", 0)
    store = store_lib.open_store(built)
    shard = store.shards["train_0"][1]
    (record,) = store.read("train_0", 1, [3])
    store = store_lib.open_store(built)
    data = bytearray((built / "shards" / shard.file).read_bytes())
    data[data.index(record) + 2] ^= 0xFF
    (built / "shards" / shard.file).write_bytes(data)
    with pytest.raises(InputError, match=shard.file):
        store.read("train_0", 1, range(shard.num_records))


def test_altered_arrays_and_index(built):
    arrays = next(built.glob("examples-*.npz"))
    flip(arrays)
    with pytest.raises(InputError, match=r"examples-.*altered"):
        _ = store_lib.open_store(built).lengths
    text = (built / "index.json").read_text()
    (built / "index.json").write_text(text[:-20])
    with pytest.raises(InputError, match=r"index\.json: damaged"):
        store_lib.open_store(built)
    index = json.loads(text)
    (built / "index.json").write_text(json.dumps({**index, "format": 99}))
    with pytest.raises(InputError, match="store format 99"):
        store_lib.open_store(built)


def test_no_store_there(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        store_lib.open_store(tmp_path / "none")
    with pytest.raises(InputError, match=r"has no index\.json"):
        store_lib.open_store(tmp_path)


def test_other_settings_are_refused_and_nothing_changes(built, tasks, vocabulary):
    before = store_lib.read_index(built)
    other = vocabularies.train_vocabulary(["something else entirely"], 280)
    with pytest.raises(InputError, match="made with vocabulary"):
        build(built, tasks, other)
    with pytest.raises(InputError, match="made with max_tokens 2049"):
        build(built, tasks, vocabulary, prepare.PrepareConfig(num_shards=3, max_tokens=100))
    assert store_lib.read_index(built) == before


def test_places_that_are_no_store(tmp_path, tasks, vocabulary):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        build(tmp_path / "file", tasks, vocabulary)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"it has 'thesis\.tex'"):
        build(tmp_path / "full", tasks, vocabulary)
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.tex"]


def test_an_unwritable_folder(tmp_path, tasks, vocabulary):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        build(tmp_path / "file" / "store", tasks, vocabulary)


def test_two_writers_never_meet(built, tasks, vocabulary):
    with store_lib.writing(built), pytest.raises(InputError, match="being written by another"):
        build(built, tasks, vocabulary)


def test_renderings_and_long_examples(tmp_path, tasks, vocabulary):
    render = rendering.RenderConfig(num_renderings=2)
    config = prepare.PrepareConfig(render, max_tokens=30, num_shards=2)
    result = build(tmp_path, tasks[:3], vocabulary, config)
    store = store_lib.open_store(tmp_path)
    assert store.lengths.shape == (2, result.num_examples)
    assert store.lengths.max() <= 30
    name = tasks[1].spec.name
    one = tokenization.tokenize_examples(
        vocabulary, [pair_of(tasks[1], render, rendering_number=1)]
    )[0]
    assert store.train_tokens(1, name, 0).tolist() == one.ids[-30:]
    assert store.by_name[name].num_truncated > 0


def pair_of(task, render, rendering_number):
    content = task.load()
    parts = rendering.partition(task.spec, content, assign([task])[task.spec.name], render)
    first = rendering.train_examples(task.spec, content, parts, render, rendering_number)[0]
    return first.source, first.target


def test_store_opens_from_another_directory(built, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    relative = pathlib.Path(os.path.relpath(built))
    assert store_lib.open_store(relative).tasks


def test_views_that_went_come_back(tmp_path, vocabulary):
    """A view that another benchmark's run left out has its records again when it is asked for."""
    mine, other = [make_task(n, 20, "mine") for n in range(3)], [make_task(5, 20, "other")]
    held_out = {mine[0].spec.name}
    shots = prepare.PrepareConfig(render=rendering.RenderConfig(shots=(1,)), num_shards=3)
    out = tmp_path / "store"
    build(out, mine, vocabulary, held_out=held_out)
    before = list(store_lib.open_store(out).eval_records("eval_0shot"))
    result = build(out, other, vocabulary, shots)
    assert result.tasks_behind == 3
    store = store_lib.open_store(out, verify=True)
    assert [t.num_eval for t in store.tasks if t.spec.benchmark == "mine"] == [0, 0, 0]
    assert build(out, other, vocabulary, shots).tasks_behind == 3
    result = build(out, mine, vocabulary, held_out=held_out)
    assert (result.tasks_rendered, result.tasks_behind) == (3, 1)
    store = store_lib.open_store(out, verify=True)
    names = [task.spec.name for task in mine]
    assert list(store.eval_records("eval_0shot", names)) == before


@pytest.mark.parametrize("value", [1, 2**24 + 1, 10**20])
def test_a_length_that_no_store_takes(value):
    with pytest.raises(InputError, match=r"max_tokens is \d+, expected 2 to 16,777,216"):
        prepare.PrepareConfig(max_tokens=value)
