"""More of what users do wrong, command by command: slips of the hand, each tried by hand first.

As in test_bad_input.py: one message, exit code 2, nothing written, no traceback. Here every case
also starts in an empty folder, which must be empty afterwards.
"""

import json
import shutil
import subprocess
import sys

import pytest

from optiml_jax.main import cli

from .commands import EVAL, FINETUNE, prepare, task_file, train

TASK = "super_natural_instructions__task001_made"
HELD_OUT = "super_natural_instructions__task002_made"


@pytest.fixture
def complain(capsys, tmp_path, monkeypatch):
    """Runs a command line in an empty folder; it must be refused with one message."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def run(*argv):
        code = cli.main(argv)
        captured = capsys.readouterr()
        assert code == 2, captured.err
        assert "Traceback" not in captured.err
        assert captured.err.count("error: ") == 1, captured.err
        assert list(here.iterdir()) == []
        return captured.err

    return run


# --- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("LEARNING_RATE='1e-3'", "learning_rate is '1e-3' (str), expected float."),
        ("LEARNING_RATE=-0.1", "'learning_rate' is -0.1, which is out of range: expected 0 or mor"),
        ("WARMUP_STEPS=-1", "'warmup_steps' is -1, which is out of range: expected 0 or more."),
        ("TRAIN_STEPS=0", "'total_steps' is 0, which is out of range: expected 1 or more."),
        ("OptimizerConfig.b1=2.0", "'b1' is 2.0, which is out of range: expected 0 or more and le"),
        ("BATCH_SIZE=8.0", "TrainConfig.batch_size is 8.0 (float), expected int."),
        ("NUM_MICROBATCHES=0", "'num_microbatches' is 0, expected a whole number of at least 1."),
        ("DROPOUT_RATE=1.5", "'dropout_rate' is 1.5, expected 0 <= rate < 1."),
        ("OptConfig.dtype='bfloat'", "unknown dtype 'bfloat'. Did you mean 'bfloat16'?"),
        ("MixtureSpec.eps='none'", "MixtureSpec.eps is 'none' (str), expected int or None."),
        ("MixtureSpec.proportions='mini=0.9'", "is 'mini=0.9', expected {'BENCHMARK': share}"),
        ("MixtureSpec.proportions={'mini': 90}", "sum to 90, expected at most 1. Give shares"),
        ("TASK_FEATURE_LENGTHS={'target': 64}", "is {'target': 64}, expected {'targets': T}"),
        ("STORE='stores", "is not a Python literal. A string needs quotes inside the shell's"),
        ("STORE=", "--gin.STORE has no value. Write --gin.STORE=VALUE."),
        ("STORE=''", "STORE is '', expected the name of a folder."),
        ("MODEL_DIR=' '", "MODEL_DIR is ' ', expected the name of a folder."),
        ("train.eval_roles=3", "ROLES is 3, expected a list such as ['train', 'validation', 'te"),
        ("train.eval_roles=['valid']", "unknown role 'valid'. Did you mean 'validation'?"),
        ("LOGICAL_AXIS_RULES='model'", "LOGICAL_AXIS_RULES is 'model', expected {logical axis: m"),
        ("LOGICAL_AXIS_RULES={3: 'model'}", "LOGICAL_AXIS_RULES is {3: 'model'}, expected {logic"),
        ("LOGICAL_AXIS_RULES={'head': 'model'}", "logical axis 'head'. Did you mean 'heads'?"),
    ],
)
def test_values_of_a_run(complain, store, flag, message):
    assert message in complain(*train(store, "run", f"--gin.{flag}"))


def test_packing_misspelt(complain, store):
    message = complain(*train(store, "run", "--gin.PACKING='first-fit'"))
    assert "unknown packing 'first-fit'. Did you mean 'first_fit'?" in message


def test_loss_on_misspelt(complain, store):
    message = complain(*train(store, "run", "--gin.train.loss_on='target'"))
    assert "unknown loss_on 'target'. Did you mean 'targets'?" in message


def test_a_benchmark_that_the_mixture_does_not_have(complain, store):
    proportions = "--gin.MixtureSpec.proportions={'super_natural_instruction': 0.5}"
    message = complain(*train(store, "run", proportions))
    assert "Did you mean 'super_natural_instructions'?" in message


def test_a_store_that_is_misspelt(complain, store):
    message = complain(*train(store.with_name("stor"), "run"))
    assert f"stor' does not exist. Did you mean '{store}'?" in message


def test_a_file_of_a_store(complain, store):
    message = complain(*train(store / "index.json", "run"))
    assert "index.json' is a file, not the folder of a store." in message


def test_a_store_of_a_later_format(complain, store, tmp_path):
    later = shutil.copytree(store, tmp_path / "later")
    index = json.loads((later / "index.json").read_text())
    (later / "index.json").write_text(json.dumps({**index, "format": 2}))
    assert "store format 2, this version reads 1" in complain(*train(later, "run"))


def test_a_store_with_rows_of_another_version(complain, store, tmp_path):
    other = shutil.copytree(store, tmp_path / "other")
    index = json.loads((other / "index.json").read_text())
    index["tasks"][0]["colour"] = "red"
    (other / "index.json").write_text(json.dumps(index))
    message = complain("inspect", f"--store={other}")
    assert "damaged, or written by another version" in message
    assert "colour" in message


def test_the_run_file_is_forgotten(complain):
    message = complain(*FINETUNE[:2], "--gin.STORE='s'", "--gin.MODEL_DIR='m'")
    assert "nothing configures `train`" in message
    assert "Run files: runs/finetune.gin, runs/pretrain.gin." in message


def test_the_run_file_of_another_command():
    """In a process of its own: gin keeps what other tests registered."""
    argv = [sys.executable, "-m", "optiml_jax", *FINETUNE[:2], "--gin_file=runs/eval.gin"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown configurable 'evaluate'." in done.stderr
    assert "`evaluate` belongs to `optiml eval`." in done.stderr


def test_a_dash_for_an_underscore(complain, store):
    message = complain(*train(store, "run", "--dry-run"))
    assert "unknown flag '--dry-run'. Did you mean '--dry_run'?" in message


def test_a_first_checkpoint_that_was_never_saved(complain, store, trained):
    path = trained / "checkpoints" / "9"
    message = complain(*train(store, "run", f"--gin.INITIAL_CHECKPOINT_PATH='{path}'"))
    assert "no finished checkpoint of step 9; there are 2." in message


# --- evaluation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("EVAL_METHOD='by_taks'", "unknown method 'by_taks'. Did you mean 'by_task'?"),
        ("SHOTS='5'", "EvalConfig.shots is '5' (str), expected int."),
        ("SHOTS=-1", "EvalConfig.shots is -1, expected a whole number of at least 0."),
        ("MAX_NEW_TOKENS=0", "max_new_tokens is 0, expected a whole number of at least 1."),
        ("ROLES=['excluded']", "unknown role 'excluded'. Known: test, train, validation."),
        ("CHECKPOINT_PATH=''", "CHECKPOINT_PATH is '', expected the name of a folder."),
        ("MIXTURE_OR_TASK_NAME=['a']", "mixture_or_task_name is ['a'] (list), expected str or No"),
    ],
)
def test_values_of_an_evaluation(complain, store, trained, flag, message):
    argv = (*EVAL, f"--gin.STORE='{store}'", f"--gin.CHECKPOINT_PATH='{trained}'")
    size = ("--gin.VOCAB_SIZE=264", "--gin.OptConfig.num_layers=1")
    assert message in complain(*argv, *size, "--gin.EVAL_OUTPUT_DIR='out'", f"--gin.{flag}")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("checkpoints", "checkpoints: no model.json there, so this is not a model directory."),
        ("config.gin", "config.gin: no model.json there, so this is not a model directory."),
        ("../rn", "Did you mean"),
    ],
)
def test_a_checkpoint_path_beside_the_run(complain, store, trained, path, message):
    argv = (*EVAL, f"--gin.STORE='{store}'", f"--gin.CHECKPOINT_PATH='{trained / path}'")
    size = ("--gin.VOCAB_SIZE=264", "--gin.OptConfig.num_layers=1")
    assert message in complain(*argv, *size, "--gin.EVAL_OUTPUT_DIR='out'")


# --- stores --------------------------------------------------------------------------------------


@pytest.fixture
def task_dir(tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "task001_again.json").write_text(json.dumps(task_file()))
    return folder


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--shots=0,0", "shots is (0, 0), expected distinct numbers of 0 or more."),
        ("--shots=-1", "shots is (-1,), expected distinct numbers of 0 or more."),
        ("--shots=", "--shots is '', expected numbers such as 0 or 0,5."),
        ("--renderings=0", "num_renderings is 0, expected 1 or more."),
        ("--max_tokens=1", "PrepareConfig.max_tokens is 1, expected 2 to 16,777,216."),
        ("--num_shards=0", "PrepareConfig.num_shards is 0, expected 1 to 1024."),
        ("--seed=-1", "seed is -1, expected 0 or more."),
        ("--vocab_size=1001", "vocabulary size 1001: expected a multiple of 8 from 264 to 50272."),
        ("--vocabulary=smal", "vocabulary folder 'smal' does not exist. Did you mean 'small'?"),
        ("--max_token=5", "unknown flag '--max_token'. Did you mean '--max_tokens'?"),
    ],
)
def test_settings_of_a_store(complain, task_dir, flag, message):
    assert message in complain(*prepare(task_dir, "store"), flag)


@pytest.mark.parametrize(("flag", "name"), [("--ot=store", "--ot"), ("-out=store", "-out")])
def test_a_misspelt_flag_is_told_before_the_one_that_is_missing(complain, flag, name):
    message = complain("prepare", "mini", flag)
    assert f"unknown flag '{name}'. Did you mean '--out'?" in message


def test_a_benchmark_without_its_files(complain):
    message = complain("prepare", "super_natural_instructions", "--out=store")
    assert "needs --data_dir=DIR" in message
    assert "`optiml prepare mini --out=STORE`" in message


def test_out_below_a_file(complain, task_dir, tmp_path):
    (tmp_path / "file").write_text("here")
    message = complain(*prepare(task_dir, tmp_path / "file" / "store"))
    assert "cannot be written" in message


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--max_tokens=77", "was made with max_tokens 2049, this run has 77."),
        ("--split=mini", "was made with split opt_iml, this run has mini."),
        ("--num_shards=3", "was made with num_shards 8, this run has 3."),
    ],
)
def test_a_store_keeps_its_settings(complain, store, task_dir, tmp_path, flag, message):
    own = shutil.copytree(store, tmp_path / "own")
    before = (own / "index.json").read_text()
    argv = prepare(task_dir, own)[:-2]  # with the vocabulary that it has
    assert message in complain(*argv, flag)
    assert (own / "index.json").read_text() == before


# --- inspection ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--level=fuly", "unknown level 'fuly'. Did you mean 'fully_held_out'?"),
        ("--category=Question", "unknown category 'Question'. Did you mean 'Question Answering'?"),
        ("--role=excludd", "unknown role 'excludd'. Did you mean 'excluded'?"),
        ("--benchmark=mini", "unknown benchmark 'mini'. Known: super_natural_instructions."),
        ("--role=train --level=fully_held_out", "none of its 2 tasks has level 'fully_held_out'"),
        ("--samples=0", "--samples is 0, expected 1 or more."),
        ("--samples=two", "argument --samples: invalid int value: 'two'"),
        ("--samples=1 --task=task002", f"unknown task 'task002'. Did you mean '{HELD_OUT}'?"),
        (f"--samples=1 --task={HELD_OUT} --view=train_0", "no records in the view 'train_0'"),
        ("--samples=1 --view=eval_5shot", "unknown view 'eval_5shot'. Did you mean 'eval_0shot'?"),
        (f"--task={TASK}", "--task has no effect without --samples. Add --samples."),
        ("--samples=1 --mixture", "--mixture and --samples are two views."),
        ("--samples=1 --tasks", "--tasks has no effect with --samples."),
        ("--mixture=flan", "unknown mixture or task 'flan'."),
        (f"--mixture={HELD_OUT}", f"'{HELD_OUT}' has no training examples"),
        ("--mixture --role=test", "trained tasks: none of its 1 tasks has role 'test'"),
        ("--mixture --eps=all", "--eps is 'all', expected a whole number of examples"),
        ("--mixture --eps=0", "MixtureSpec.eps is 0"),
        ("--mixture --alpha=-1", "MixtureSpec.alpha is -1.0, expected 0 or more."),
        ("--mixture --proportions=mini:1", "--proportions: 'mini:1' is not NAME=SHARE."),
        ("--mixture --proportions=a=1,a=0", "--proportions names 'a' twice."),
        ("--mixture --proportions=flan=0.5", "benchmark 'flan' has no training task in this store"),
        ("--mixture --rows=0", "--rows (steps x batch size) is 0, expected 1 to 1,000,000,000"),
        ("--feature_length=64", "--feature_length has no effect without --mixture."),
        ("--mixture --batch_size=64", "--batch_size has no effect without --steps."),
        ("--mixture --steps=0", "--steps is 0, expected 1 or more."),
        ("--mixture --steps=1 --batch_size=0", "--batch_size is 0, expected 1 or more."),
        ("--mixture --steps=1 --rows=9", "--rows and --steps both say how far training goes."),
        ("--steps=9", "--steps has no effect without --mixture. Add --mixture."),
        ("opt_iml --samples=1", "'opt_iml' asks for shares, --samples for another view."),
        ("opt_iml --split=opt_iml", "--split has no effect with --store: a store has one split"),
        ("opt_iml", "benchmarks crossfit, exmix, flan, promptsource, t5, unifiedskg have no train"),
        ("tasks_16", "num_tasks is 16, but the mixture has 1 tasks to choose from."),
        ("replay_5_rows", "benchmark 'replay' has no training task in this store"),
        ("super_natural_instruction", "Did you mean 'super_natural_instructions'?"),
        ("eps_128 --mixture=flan", "unknown mixture or task 'flan'."),
        ("--eps=100", "--eps has no effect without --mixture. Add --mixture."),
        ("--split=mini", "--split has no effect with --store: a store has one split"),
        ("--catalog", "--store has no effect with --catalog. Leave it out."),
        ("--catgory=x", "unknown flag '--catgory'. Did you mean '--category'?"),
    ],
)
def test_inspect(complain, store, flags, message):
    assert message in complain("inspect", f"--store={store}", *flags.split())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--catalog=minni", "unknown benchmark 'minni'. Did you mean 'mini'?"),
        ("--catalog --split=opt_im", "unknown split 'opt_im'. Did you mean 'opt_iml'?"),
        ("--catalog --level=fully_heldout", "Did you mean 'fully_held_out'?"),
        ("--catalog=super_natural_instructions", "needs --data_dir=DIR"),
        ("mini", "mixtures/mini.gin: benchmark 'mini' is not in the catalog of OPT-IML Bench."),
        ("opt_im", "unknown mixture 'opt_im'. Did you mean 'opt_iml'?"),
        ("mixtures/opt_im.gin", "Did you mean 'mixtures/opt_iml.gin'?"),
        ("runs/finetune.gin", "reads files that bind MixtureSpec and functions"),
        ("models/opt_tiny.gin", "reads files that bind MixtureSpec and functions"),
        ("opt_iml --steps=5", "--steps needs the examples of a store"),
        ("opt_iml --eps=5", "--eps needs the examples of a store"),
        ("opt_iml --mixture=flan", "--mixture needs the examples of a store"),
        ("opt_iml --verify", "--verify needs the examples of a store"),
        ("opt_iml --catalog", "'opt_iml' asks for shares, --catalog for another view."),
        ("opt_iml --split=opt_im", "unknown split 'opt_im'. Did you mean 'opt_iml'?"),
        ("opt_iml --data_dir=x", "--data_dir has no effect without --catalog."),
        ("opt_iml --benchmark=flam", "unknown benchmark 'flam'. Did you mean 'flan'?"),
    ],
)
def test_inspect_without_a_store(complain, flags, message):
    assert message in complain("inspect", *flags.split())


def test_a_shard_that_vanished(complain, store, tmp_path):
    own = shutil.copytree(store, tmp_path / "own")
    place = next(iter(sorted((own / "shards").glob("train_0-*"))))
    place.unlink()
    message = complain("inspect", f"--store={own}", "--samples=1")
    assert f"shard '{place.name}' is damaged: it is missing" in message


# --- the others ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("completion bsh", "unknown shell 'bsh'. Did you mean 'bash'? Known: bash, fish, zsh."),
        ("completion", "the following arguments are required: SHELL."),
        ("doctor --stor=s", "unknown flag '--stor'. Did you mean '--store'?"),
        ("doctor --gin.A=1", "optiml doctor reads no gin configuration, got --gin.A."),
        ("compair", "unknown command 'compair'. Did you mean 'compare'?"),
        ("report", "the following arguments are required: EVAL_DIR."),
        ("prepare mini --out=", "--out is '', expected the name of a file or folder."),
        ("demo --out=", "--out is '', expected the name of a file or folder."),
        ("doctor --quick --store=", "--store is '', expected the name of a file or folder."),
        ("report out --out=", "--out is '', expected the name of a file or folder."),
        ("report out", "EVAL_DIR 'out' does not exist."),
        ("compare out", "the following arguments are required: AFTER."),
        ("compare out other", "'out' does not exist."),
    ],
)
def test_other_commands(complain, argv, message):
    assert message in complain(*argv.split())


def test_a_run_is_no_evaluation(complain, trained):
    for argv in (("compare", trained, trained), ("report", trained)):
        assert "has no results.json" in complain(*map(str, argv))


def test_results_of_a_later_schema(complain, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    head = {"schema": 2, "model": "m", "step": 1, "suite": "s", "shots": 0}
    (folder / "results.json").write_text(json.dumps(head))
    for argv in (("compare", folder, folder), ("report", folder)):
        assert "results.json: schema 2, this version reads 1." in complain(*map(str, argv))


def test_results_that_were_cut(complain, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "results.json").write_text('{"schema": 1, "ov')
    for argv in (("compare", folder, folder), ("report", folder)):
        assert "results.json: not JSON: " in complain(*map(str, argv))
