"""What users do wrong, and what they are told: one message, exit code 2, nothing written.

Every case runs `cli.main` in this process; a traceback would fail the test as an exception.
"""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable

import pytest

from optiml_jax.main import cli
from optiml_jax.train import checkpoints

from .commands import EVAL, FINETUNE, prepare, task_file, train


@pytest.fixture
def complain(capsys):
    """Runs a command line that must be refused, and returns its one message."""

    def run(*argv):
        code = cli.main(argv)
        captured = capsys.readouterr()
        assert code == 2, captured.err
        assert "Traceback" not in captured.err
        assert captured.err.count("error: ") == 1, captured.err
        return captured.err

    return run


# --- command line --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "optiml: error: unknown command 'trian'. Did you mean 'train'?"),
        (["train", "--gin_fil=a.gin"], "unknown flag '--gin_fil'. Did you mean '--gin_file'?"),
        (["train", "stray"], "optiml train: error: unexpected argument 'stray'."),
        (["prepare"], "the following arguments are required: NAME, --out."),
        (["inspect", "--gin.A=1"], "optiml inspect reads no gin configuration, got --gin.A."),
        (["inspect"], "give --store=STORE, a folder made by `optiml prepare`."),
        (["prepare", "x", "--data_dir=d", "--out=o", "--seed=one"], "invalid int value: 'one'"),
    ],
)
def test_command_line(complain, argv, message):
    assert message in complain(*argv)


def test_without_a_command_the_help_is_shown(capsys):
    assert cli.main([]) == 2
    assert "optiml prepare" in capsys.readouterr().err


# --- gin -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            [*FINETUNE, "--gin.STORE='s'"],
            "1 required value not set: --gin.MODEL_DIR=VALUE (asked for in runs/finetune.gin:",
        ),
        (
            [*FINETUNE],
            "2 required values not set: --gin.MODEL_DIR=VALUE (asked for in runs/finetune.gin:",
        ),
        (
            [FINETUNE[0], FINETUNE[2], "--gin.STORE='s'", "--gin.MODEL_DIR='m'"],
            "is not defined: it comes with the model. Put a model file first",
        ),
        (
            [*FINETUNE, "--gin.STORE='s'", "--gin.MODEL_DIR='m'", "--gin.BATCH_SIZ=4"],
            "--gin.BATCH_SIZ: unknown macro 'BATCH_SIZ'. Did you mean 'BATCH_SIZE'?",
        ),
        (
            [*FINETUNE, "--gin.STORE='s'", "--gin.MODEL_DIR='m'", "--gin.PRETRAIN_STEPS=4"],
            "--gin.PRETRAIN_STEPS: macro 'PRETRAIN_STEPS' has no effect",
        ),
        (
            ["train", "--gin_file=models/opt_2_6b.gin"],
            "unknown gin file 'models/opt_2_6b.gin'. Did you mean 'models/opt_",
        ),
        (
            [*FINETUNE, "--gin.OptCfg.d_model=4"],
            "--gin.OptCfg.d_model: unknown configurable 'OptCfg'. Did you mean 'OptConfig'?",
        ),
        (
            [*FINETUNE, "--gin.OptConfig.dmodel=4"],
            "unknown parameter of OptConfig 'dmodel'. Did you mean 'd_model'?",
        ),
        (
            [*FINETUNE, "--gin.STORE=stores/ni"],
            "--gin.STORE: stores/ni is not a Python literal. A string needs quotes",
        ),
        (
            [*FINETUNE, "--gin.STORE='s'", "--gin.MODEL_DIR='m'", "--gin.TRAIN_STEPS='9'"],
            "--gin.TRAIN_STEPS: OptimizerConfig.total_steps is '9' (str), expected int.",
        ),
        (
            [*FINETUNE, "--gin.STORE='s'", "--gin.MODEL_DIR='m'", "--gin.OptConfig.num_heads=5"],
            "d_model 128 does not divide into 5 heads",
        ),
        (
            [*FINETUNE, "--gin.STORE='s'", "--gin.MODEL_DIR='m'", "--gin.TRAIN_STEPS=9"],
            "warmup_steps 30 is more than total_steps 9",
        ),
        (
            [
                *(*FINETUNE, "--gin.STORE='s'", "--gin.MODEL_DIR='m'"),
                "--gin.TASK_FEATURE_LENGTHS={'inputs': 512, 'targets': 512}",
            ],
            "TASK_FEATURE_LENGTHS is {'inputs': 512, 'targets': 512}, expected {'targets': T}",
        ),
        (
            [
                *(*FINETUNE, "--gin.STORE='s'", "--gin.MODEL_DIR='m'"),
                "--gin.TASK_FEATURE_LENGTHS={'targets': 4096}",
            ],
            "rows of 4096 tokens do not fit the model, whose max_positions is 512",
        ),
        (
            [
                *(*FINETUNE, "--gin.STORE='s'", "--gin.MODEL_DIR='m'"),
                "--gin.TASK_FEATURE_LENGTHS=64",
            ],
            "TASK_FEATURE_LENGTHS is 64, expected {'targets': T}",
        ),
        (
            [
                *(*FINETUNE, "--gin.STORE='s'", "--gin.MODEL_DIR='m'"),
                *("--dry_run", "--gin.TrainConfig.keep=0"),
            ],
            "'keep' is 0, expected a whole number of at least 1, or None",
        ),
    ],
)
def test_gin(complain, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    assert message in complain(*argv)
    assert list(tmp_path.iterdir()) == []


def test_runs_are_refused_without_a_configuration(complain):
    assert "nothing configures `train`" in complain("train")


# --- task files ----------------------------------------------------------------------------------


@pytest.fixture
def task_dir(tmp_path):
    """Two small tasks, one of which the `opt_iml` split holds out whole."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    held_out = task_file(Categories=["Textual Entailment"], Source=["other"])
    for row in held_out["Instances"]:
        row["id"] = row["id"].replace("task001", "task002")
    (folder / "task001_again.json").write_text(json.dumps(task_file()))
    (folder / "task002_entails.json").write_text(json.dumps(held_out))
    return folder


@dataclasses.dataclass(frozen=True)
class Spoilt:
    """A data folder with one thing wrong, and what is said about it."""

    id: str
    spoil: Callable[[pathlib.Path], object]
    message: tuple[str, ...]
    flags: tuple[str, ...] = ()


def rewrite(**changes):
    return lambda folder: (folder / "task001_again.json").write_text(
        json.dumps(task_file(**changes))
    )


def without(field):
    content = task_file()
    del content[field]
    return lambda folder: (folder / "task001_again.json").write_text(json.dumps(content))


SPOILT = [
    Spoilt("missing folder", shutil.rmtree, ("tasks'",)),
    Spoilt(
        "no task files",
        lambda folder: [path.unlink() for path in folder.iterdir()],
        ("tasks",),
    ),
    Spoilt(
        "empty file",
        lambda folder: (folder / "task001_again.json").write_text(""),
        ("task001_again.json",),
    ),
    Spoilt(
        "not JSON",
        lambda folder: (folder / "task001_again.json").write_text('{"Definition": ['),
        ("task001_again.json",),
    ),
    Spoilt("field missing", without("Instances"), ("task001_again.json", "Instances")),
    Spoilt("no instances", rewrite(Instances=[]), ("task001_again.json", "Instances")),
    Spoilt(
        "output of the wrong type",
        rewrite(Instances=[{"id": "a", "input": "x", "output": 3}]),
        ("task001_again.json", "output"),
    ),
    Spoilt(
        "unknown category",
        rewrite(Categories=["Qestion Answering"]),
        ("task001_again.json", "Qestion Answering", "Question Answering"),
    ),
    Spoilt("unknown split", lambda folder: None, ("opt_iml",), ("--split=opt_imll",)),
    Spoilt("bad shots", lambda folder: None, ("--shots is 'two'",), ("--shots=two",)),
    Spoilt("vocabulary folder", lambda folder: None, ("nowhere",), ("--vocabulary=nowhere",)),
]


@pytest.mark.parametrize("case", SPOILT, ids=lambda case: case.id)
def test_prepare(complain, task_dir, tmp_path, case):
    case.spoil(task_dir)
    message = complain(*prepare(task_dir, tmp_path / "store", *case.flags))
    for part in case.message:
        assert part in message
    assert not (tmp_path / "store" / "index.json").exists()


def test_skip_bad_goes_on_with_the_rest(task_dir, tmp_path, capsys):
    (task_dir / "task001_again.json").write_text("{")
    (task_dir / "task003_more.json").write_text(json.dumps(task_file()))
    assert cli.main(prepare(task_dir, tmp_path / "store", "--skip_bad")) == 0
    captured = capsys.readouterr()
    assert "skipped: " in captured.err
    assert "task001_again.json" in captured.err
    assert (tmp_path / "store" / "index.json").exists()


def test_unknown_benchmark(complain, task_dir, tmp_path):
    message = complain("prepare", "super_natural", f"--data_dir={task_dir}", f"--out={tmp_path}/s")
    assert (
        "unknown benchmark 'super_natural'. Did you mean 'super_natural_instructions'?" in message
    )


# --- stores, models, meshes ----------------------------------------------------------------------


@pytest.fixture
def own_store(store, tmp_path):
    """A store that a test may spoil."""
    return shutil.copytree(store, tmp_path / "store")


def test_no_store(complain, tmp_path):
    message = complain(*train(tmp_path / "nothing", tmp_path / "run"))
    assert "nothing' does not exist. Make one with `optiml prepare" in message
    assert "nothing' does not exist" in complain("inspect", f"--store={tmp_path / 'nothing'}")


def test_folder_that_is_no_store(complain, tmp_path):
    assert "has no index.json" in complain(*train(tmp_path, tmp_path / "run"))


def test_damaged_index(complain, own_store, tmp_path):
    (own_store / "index.json").write_text("{")
    assert "index.json: damaged" in complain("inspect", f"--store={own_store}")


def test_cut_shard(complain, own_store, tmp_path):
    shard = max((own_store / "shards").iterdir(), key=lambda path: path.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:-1])
    message = complain(*train(own_store, tmp_path / "run"))
    assert f"shard '{shard.name}' is damaged" in message
    assert not (tmp_path / "run").exists()


def test_altered_shard(complain, own_store):
    shard = max((own_store / "shards").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    assert shard.name in complain("inspect", f"--store={own_store}", "--verify")


def test_unknown_mixture(complain, store, tmp_path):
    message = complain(
        *train(store, tmp_path / "run", "--gin.MIXTURE_OR_TASK_NAME='super_natural_instruction'")
    )
    assert "unknown mixture or task 'super_natural_instruction'." in message
    assert "Did you mean 'super_natural_instructions'?" in message


def test_task_without_training_examples(complain, store, tmp_path):
    name = "super_natural_instructions__task002_made"
    message = complain(*train(store, tmp_path / "run", f"--gin.MIXTURE_OR_TASK_NAME='{name}'"))
    assert f"'{name}' has no training examples" in message


def test_vocabulary_of_another_size(complain, store, tmp_path):
    message = complain(*train(store, tmp_path / "run", "--gin.VOCAB_SIZE=50272"))
    assert "has 264 ids, the model has vocab_size 50272. Set --gin.VOCAB_SIZE=264" in message
    assert not (tmp_path / "run").exists()


def test_mesh_that_does_not_fit_the_devices(complain, store, tmp_path):
    message = complain(*train(store, tmp_path / "run", "--gin.MESH_MODEL=7", "--gin.MESH_DATA=1"))
    assert "model=7 does not fit" in message
    assert "device(s)" in message
    assert not (tmp_path / "run").exists()


def test_batch_that_does_not_divide(complain, store, tmp_path):
    message = complain(
        *train(store, tmp_path / "run", "--gin.BATCH_SIZE=6", "--gin.NUM_MICROBATCHES=4")
    )
    assert "does not divide" in message


def test_model_dir_that_is_a_file(complain, store, tmp_path):
    (tmp_path / "run").write_text("here")
    message = complain(*train(store, tmp_path / "run"))
    assert "MODEL_DIR cannot be written" in message
    assert (tmp_path / "run").read_text() == "here"


def test_initial_checkpoint_that_is_none(complain, store, tmp_path):
    message = complain(
        *train(store, tmp_path / "run", f"--gin.INITIAL_CHECKPOINT_PATH='{tmp_path}'")
    )
    assert "no model.json there, so this is not a model directory" in message
    assert not (tmp_path / "run").exists()


def test_model_dir_of_another_model(complain, store, trained):
    before = (trained / "config.gin").read_text()
    message = complain(*train(store, trained, "--gin.OptConfig.d_model=64"))
    assert "holds another model: d_model is 128 there and 64 here" in message
    assert (trained / "config.gin").read_text() == before


def test_model_dir_of_another_seed(complain, store, trained):
    before = (trained / "config.gin").read_text()
    message = complain(*train(store, trained, "--gin.RANDOM_SEED=5"))
    assert "was saved with seed 1234, this run asks for 5" in message
    assert "Set --gin.RANDOM_SEED=1234, or another MODEL_DIR." in message
    assert (trained / "config.gin").read_text() == before
    assert not (trained / "config-1.gin").exists()


def test_model_dir_in_use(complain, store, trained):
    before = (trained / "config.gin").read_text()
    with checkpoints.writing(trained):
        message = complain(*train(store, trained, "--gin.TRAIN_STEPS=5"))
    assert "is being trained by another process. Wait for it" in message
    assert (trained / "config.gin").read_text() == before


def test_model_dir_with_a_damaged_checkpoint(complain, store, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "99").mkdir()
    message = complain(*train(store, tmp_path / "run"))
    assert "checkpoints/99: this checkpoint is damaged" in message
    assert "Delete that folder" in message


def test_initial_checkpoint_of_another_model(complain, store, trained, tmp_path):
    message = complain(
        *train(
            *(store, tmp_path / "run", "--gin.OptConfig.num_heads=2"),
            f"--gin.INITIAL_CHECKPOINT_PATH='{trained}'",
        )
    )
    assert "holds another model: num_heads is 4 there, 2 configured" in message
    assert not (tmp_path / "run").exists()


# --- evaluation ----------------------------------------------------------------------------------


def evaluate(store, run, out, *flags):
    return (
        *(*EVAL, f"--gin.STORE='{store}'", f"--gin.CHECKPOINT_PATH='{run}'"),
        *(f"--gin.EVAL_OUTPUT_DIR='{out}'", "--gin.VOCAB_SIZE=264"),
        *("--gin.OptConfig.num_layers=1", "--gin.MAX_NEW_TOKENS=4", *flags),
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--gin.SHOTS=5",), "unknown view 'eval_5shot'. Did you mean 'eval_0shot'?"),
        (("--gin.ROLES=('tests',)",), "ROLES: unknown role 'tests'. Did you mean 'test'?"),
        (("--gin.ROLES='test'",), "ROLES is 'test', expected a list such as ['train',"),
        (("--gin.ROLES=('validation',)",), "has no evaluation records of the role(s) validation"),
        (("--gin.EVAL_METHOD='guess'",), "unknown method 'guess'."),
        (("--gin.EvalConfig.normalization='len'",), "EvalConfig: unknown normalization 'len'."),
        (("--gin.EVAL_EXAMPLES=0",), "EvalConfig.max_examples_per_task is 0"),
        (("--gin.MIXTURE_OR_TASK_NAME='flan'",), "unknown mixture or task 'flan'."),
        (("--gin.OptConfig.d_model=64",), "holds another model: d_model is 128 there, 64"),
        (("--gin.MESH_FSDP=3", "--gin.MESH_DATA=1"), "fsdp=3"),
        (("--gin.MAX_NEW_TOKENS=600",), "max_new_tokens is 600"),
    ],
)
def test_eval(complain, store, trained, tmp_path, flags, message):
    assert message in complain(*evaluate(store, trained, tmp_path / "out", *flags))
    assert not (tmp_path / "out").exists()


def test_eval_of_a_folder_without_a_model(complain, store, tmp_path):
    message = complain(*evaluate(store, tmp_path, tmp_path / "out"))
    assert "no model.json there, so this is not a model directory" in message


def test_eval_of_a_step_that_is_not_there(complain, store, trained, tmp_path):
    message = complain(*evaluate(store, trained / "checkpoints" / "7", tmp_path / "out"))
    assert "no finished checkpoint of step 7; there are 2." in message


def test_eval_of_a_damaged_checkpoint(complain, store, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    for path in (run / "checkpoints" / "2").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:100])
    message = complain(*evaluate(store, run, tmp_path / "out"))
    assert "this checkpoint cannot be read" in message


def test_eval_output_dir_that_is_a_file(complain, store, trained, tmp_path):
    (tmp_path / "out").write_text("here")
    message = complain(*evaluate(store, trained, tmp_path / "out"))
    assert "EVAL_OUTPUT_DIR" in message
    assert "cannot be written" in message
    assert (tmp_path / "out").read_text() == "here"
