"""Super-NaturalInstructions built by `tfds build` from files, and run from there through SeqIO."""

import json
import shutil
import subprocess
import sys

import pytest

from optiml_jax import tasks
from optiml_jax.bench import catalog
from optiml_jax.data import prepare, rendering, tfds_rows, vocabularies
from optiml_jax.data import store as store_lib
from optiml_jax.errors import InputError

NAMES = ("task001_made_question_generation", "task002_scitail1.1_made", "task003_made_labels")


def task_file(name):
    """A task in the official schema, written for this test."""
    instances = [
        {"id": f"{name}-{n}", "input": f"Sentence {n}: é\n is it {n}?", "output": [f"yes {n % 2}"]}
        for n in range(23)
    ]
    return {
        "Contributors": ["nobody"],
        "Source": [name],
        "URL": ["-"],
        "Categories": ["Question Answering" if "001" in name else "Text Categorization"],
        "Reasoning": [],
        "Definition": [f"Answer as {name} asks."],
        "Input_language": ["English"],
        "Output_language": ["English"],
        "Instruction_language": ["English"],
        "Domains": ["made"],
        "Positive Examples": [{"input": "Sentence?", "output": "yes 0", "explanation": "It is."}],
        "Negative Examples": [],
        "Instances": instances,
        "Instance License": ["MIT"],
    }


@pytest.fixture(scope="module")
def vocabulary():
    return vocabularies.train_vocabulary([json.dumps(task_file(name)) for name in NAMES], 400)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(task files, TFDS's folder with the data set built from them)."""
    pytest.importorskip("tensorflow_datasets")
    files, prepared = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("tfds")
    (files / "tasks").mkdir()
    for name in NAMES:
        (files / "tasks" / f"{name}.json").write_text(json.dumps(task_file(name)))
    lists = files / "splits" / "default"
    lists.mkdir(parents=True)
    (lists / "train_tasks.txt").write_text(f"{NAMES[1]}\n{NAMES[2]}\n")
    (lists / "test_tasks.txt").write_text(f"{NAMES[0]}\n")
    build = [sys.executable, "-m", "optiml_jax.tasks.tfds_builders", "super_natural_instructions"]
    done = subprocess.run(
        [*build, f"--manual_dir={files}", f"--data_dir={prepared}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return files, prepared


def read(folders, split="opt_iml", **more):
    return tasks.read("super_natural_instructions", None, split, tfds_data_dir=folders[1], **more)


def test_tasks_are_those_of_the_files(folders):
    found, placed = read(folders, "super_natural_instructions_official")
    by_file, wanted = tasks.read(
        "super_natural_instructions", folders[0], "super_natural_instructions_official"
    )
    assert [t.spec.original_name for t in found] == list(NAMES)
    assert placed == wanted
    for one, other in zip(found, by_file):
        assert one.load() == other.load()
        assert {**one.spec.to_json(), "path": ""} == {**other.spec.to_json(), "path": ""}


def test_a_store_has_the_same_records(folders, tmp_path, vocabulary):
    made = []
    for number, (found, placed) in enumerate(
        (read(folders), tasks.read("super_natural_instructions", folders[0]))
    ):
        config = prepare.PrepareConfig(rendering.RenderConfig(), num_shards=1)
        prepare.prepare_store(found, placed, tmp_path / str(number), vocabulary, config)
        opened = store_lib.open_store(tmp_path / str(number))
        made.append({view: [s.sha256 for s in files] for view, files in opened.shards.items()})
    assert made[0] == made[1]


def test_a_mixture_runs_from_it(folders, vocabulary):
    seqio = pytest.importorskip("seqio")
    names = tasks.register("super_natural_instructions", None, vocabulary, tfds_data_dir=folders[1])
    try:
        assert names == [catalog.task_name("super_natural_instructions", n) for n in NAMES]
        dataset = seqio.get_mixture_or_task("super_natural_instructions").get_dataset(
            {"inputs": 64, "targets": 16}, "train", shuffle=False, num_epochs=1
        )
        seen = [vocabulary.decode(row["inputs"]) for row in dataset.as_numpy_iterator()]
        for name in NAMES:
            assert any(f"Answer as {name} asks." in text for text in seen)
    finally:
        seqio.MixtureRegistry.remove("super_natural_instructions")
        for name in names:
            seqio.TaskRegistry.remove(name)


def test_tasks_may_be_chosen(folders):
    found, _ = read(folders, only=["task001*", "super_natural_instructions__task003*"])
    assert [t.spec.original_name for t in found] == [NAMES[0], NAMES[2]]
    with pytest.raises(InputError, match="Did you mean 'task003_made_labels'"):
        read(folders, only=["task003_made_label"])


def test_missing_data_names_the_command(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(InputError, match=r"python -m optiml_jax.tasks.tfds_builders glue/sst2"):
        tfds_rows.open_rows("glue/sst2", tmp_path)
    with pytest.raises(InputError, match=r"Did you mean 'glue'"):
        tfds_rows.open_rows("glu/sst2", tmp_path)
    with pytest.raises(InputError, match=r"sst3"):
        tfds_rows.open_rows("glue/sst3", tmp_path)


def build(*flags):
    return subprocess.run(
        [sys.executable, "-m", "optiml_jax.tasks.tfds_builders", *flags],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_build_that_cannot_be_is_one_message(tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "task001_x.json").write_text("{")
    for folder, message in (("bad", "task001_x.json: not JSON"), ("empty", "manual")):
        (tmp_path / folder).mkdir(exist_ok=True)
        done = build(
            "super_natural_instructions",
            f"--manual_dir={tmp_path / folder}",
            f"--data_dir={tmp_path / 'out'}",
        )
        assert done.returncode == 2, done.stderr[-3000:]
        assert "Traceback" not in done.stderr
        assert message in done.stderr


def test_what_is_not_built_and_what_is_damaged(folders, tmp_path):
    with pytest.raises(InputError, match=r"not prepared.*--manual_dir=TASK_FILES"):
        tasks.read("super_natural_instructions", None, tfds_data_dir=tmp_path)
    copy = tmp_path / "tfds"
    shutil.copytree(folders[1], copy)
    (path,) = copy.rglob("dataset_info.json")
    path.write_text("{")
    with pytest.raises(InputError, match=r"may be damaged.*--manual_dir=TASK_FILES"):
        tasks.read("super_natural_instructions", None, tfds_data_dir=copy)


def test_a_damaged_file_is_named(folders, tmp_path):
    copy = tmp_path / "tfds"
    shutil.copytree(folders[1], copy)
    (path,) = copy.rglob("*task001*.tfrecord*")
    data = bytearray(path.read_bytes())
    data[40] ^= 255
    path.write_bytes(bytes(data))
    with pytest.raises(
        InputError, match=r"split 'task001_made_question_generation': cannot be read"
    ):
        tasks.read("super_natural_instructions", None, tfds_data_dir=copy)


def test_a_benchmark_that_tfds_does_not_have(tmp_path):
    with pytest.raises(InputError, match="no data of benchmark 'crossfit'"):
        tasks.read("crossfit", tmp_path, tfds_data_dir=tmp_path)


def test_lists_that_cannot_be_used_concern_the_official_split_alone(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    files, prepared = tmp_path / "files", tmp_path / "tfds"
    (files / "splits" / "default").mkdir(parents=True)
    (files / f"{NAMES[0]}.json").write_text(json.dumps(task_file(NAMES[0])))
    done = build("super_natural_instructions", f"--manual_dir={files}", f"--data_dir={prepared}")
    assert done.returncode == 0, done.stderr[-2000:]
    found, _ = read((files, prepared))
    assert [task.spec.original_name for task in found] == [NAMES[0]]
    with pytest.raises(InputError, match=r"train_tasks\.txt"):
        read((files, prepared), "super_natural_instructions_official")
