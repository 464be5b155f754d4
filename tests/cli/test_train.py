"""`optiml train` from files to a run, again from its own config, and how it stops."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from optiml_jax.main import cli
from optiml_jax.train import loop

from .commands import train


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_dry_run_resolves_everything_and_writes_nothing(store, tmp_path, capsys):
    assert cli.main(train(store, tmp_path / "run", "--dry_run")) == 0
    told = capsys.readouterr().out
    for line in (
        "model:       298,112 parameters, 1 layers, width 128, 4 heads, computes in float32",
        "mesh:        data=1 x fsdp=1 x model=1 over 1 cpu device(s), 1 process(es)",
        "vocabulary:  small, 264 ids",
        "batch:       8 rows of 64 tokens = 512 tokens a step, 1 microbatch(es)",
        "TRAIN_STEPS = 2",
        "OptimizerConfig.clip_norm = 1.0",
    ):
        assert line in told.splitlines(), told
    assert "1 training tasks, 22 examples" in told
    assert list(tmp_path.iterdir()) == []


def test_dry_run_notes_what_the_mixture_assumes(store, tmp_path, capsys):
    own = tmp_path / "opt_iml_max.gin"
    own.write_text("MixtureSpec.num_tasks = 1\n")
    assert cli.main(train(store, tmp_path / "run", f"--gin_file={own}", "--dry_run")) == 0
    told = capsys.readouterr()
    assert f"note: {own} is the mixture of the split 'opt_iml_max', but these tasks" in told.err
    assert "note: every subset of tasks is to hold 4 that the fully supervised eval" in told.err
    assert ", eps 4,096, alpha 1, proportions as they come; 1 tasks (seed 0)\n" in told.out


def test_a_run_file_does_not_undo_a_mixture_file(store, tmp_path, capsys):
    command = list(train(store, tmp_path / "run", "--dry_run"))
    command.insert(2, "--gin_file=mixtures/eps_128.gin")
    assert cli.main(command) == 0
    assert ", eps 128, alpha 1" in capsys.readouterr().out
    command[command.index("--gin_file=runs/finetune.gin")] = "--gin_file=runs/pretrain.gin"
    assert cli.main(command) == 2
    told = capsys.readouterr()
    assert "would undo mixtures/eps_128.gin:" in told.err
    assert "Give the mixture file behind the run file." in told.err
    assert not told.out


def test_mixture_files_that_cannot_combine_are_named(store, tmp_path, capsys):
    files = ("--gin_file=mixtures/replay_5_examples.gin", "--gin_file=mixtures/mini.gin")
    assert cli.main([*train(store, tmp_path / "run", *files, "--dry_run")]) == 2
    told = capsys.readouterr().err
    assert "mixtures/mini.gin:" in told
    assert "'dialogue'" in told or "'replay'" in told
    assert "of mixtures/replay_5_examples.gin:" in told


def test_files_of_ones_own_change_what_they_like(store, tmp_path, monkeypatch, capsys):
    """Also in a folder that is called as one of this package's; a macro may lose its last use."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine.gin").write_text(
        "MixtureSpec.eps = 64\ntrain.packing = 'first_fit'\n"
    )
    monkeypatch.chdir(tmp_path)
    files = ("--gin_file=mixtures/eps_128.gin", "--gin_file=runs/mine.gin")
    assert cli.main([*train(store, tmp_path / "run", *files, "--dry_run")]) == 0
    assert ", eps 64, alpha 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("ingredients={5: 0.05}", "ingredients names 5, expected the name of a benchmark"),
        ("proportions={5: 0.5, 'flan': 0.2}", "proportions names 5, expected the name"),
        ("rate_fn=5", "rate_fn is 5, expected a function"),
        ("rate_fn='foo'", "rate_fn is 'foo', expected a function"),
    ],
)
def test_settings_of_a_mixture_that_cannot_be(store, tmp_path, capsys, setting, message):
    flags = ("--dry_run", f"--gin.MixtureSpec.{setting}")
    assert cli.main(train(store, tmp_path / "run", *flags)) == 2
    assert message in capsys.readouterr().err


def test_rates_of_ones_own(store, tmp_path, monkeypatch, capsys):
    """The example of docs/bench.md; the run's own config holds all of it."""
    guide = (pathlib.Path(__file__).parents[2] / "docs" / "bench.md").read_text("utf-8")
    python, gin = re.findall(
        r"```(?:python|gin)\n(.*?)```", guide.partition("`power_rates.py`")[2], re.S
    )[:2]
    (tmp_path / "power_rates.py").write_text(python)
    (tmp_path / "mine.gin").write_text(gin)
    monkeypatch.syspath_prepend(tmp_path)
    run = tmp_path / "run"
    assert cli.main(train(store, run, f"--gin_file={tmp_path / 'mine.gin'}")) == 0
    assert cli.main(["train", f"--gin_file={run / 'config.gin'}", "--dry_run"]) == 0
    assert "rates by power, proportions as they come" in capsys.readouterr().out
    text = (run / "config.gin").read_text()
    assert "\nimport power_rates\n" in text
    assert "\npower.exponent = 0.3\n" in text
    assert cli.main(["inspect", str(tmp_path / "mine.gin"), f"--store={store}", "--json"]) == 0
    tasks = json.loads(capsys.readouterr().out)["tasks"]
    rates = {row["num_examples"] ** 0.3: row["example_share"] for row in tasks}
    total = sum(row["num_examples"] ** 0.3 for row in tasks)
    assert all(share == pytest.approx(rate / total) for rate, share in rates.items())
    # A function that fails is told with the task.
    (tmp_path / "bad_rates.py").write_text(python.replace("num_examples**", "1 / 0 *"))
    (tmp_path / "bad.gin").write_text("import bad_rates\nMixtureSpec.rate_fn = @bad_rates.power\n")
    flags = (f"--gin_file={tmp_path / 'bad.gin'}", "--dry_run")
    assert cli.main(train(store, tmp_path / "other", *flags)) == 2
    assert "ended with ZeroDivisionError: division by zero" in capsys.readouterr().err


def test_a_run_that_would_not_go_on_says_why(store, tmp_path, capsys):
    run = tmp_path / "run"
    assert cli.main(train(store, run)) == 0
    capsys.readouterr()
    flags = ("--gin.PACKING='first_fit'", "--gin.TRAIN_STEPS=3")
    assert cli.main(train(store, run, *flags)) == 2
    assert (
        f"MODEL_DIR '{run}': the checkpoint was trained on other batches than this run would give:"
        " other packing (greedy in the checkpoint, first_fit here)."
    ) in capsys.readouterr().err


def test_run_holds_what_the_design_promises(trained):
    names = {path.name for path in trained.iterdir()}
    assert names >= {"config.gin", "model.json", "vocabulary", "checkpoints", "metrics.jsonl"}
    assert [row["step"] for row in metrics(trained)] == [1, 2]
    head = (trained / "config.gin").read_text().splitlines()[:3]
    assert head[0].startswith("# optiml_jax ")
    assert head[1].startswith("# commit ")
    assert head[2].startswith("# command optiml train --gin_file=models/opt_tiny.gin")


def test_config_of_a_run_repeats_it_and_goes_on(store, tmp_path):
    """The effective config alone gives the same losses; with more steps the run goes on."""
    first, second = tmp_path / "first", tmp_path / "second"
    assert cli.main(train(store, first)) == 0
    again = ("train", f"--gin_file={first / 'config.gin'}")
    assert cli.main([*again, f"--gin.MODEL_DIR='{second}'"]) == 0
    assert [row["loss"] for row in metrics(first)] == [row["loss"] for row in metrics(second)]
    assert cli.main([*again, "--gin.TRAIN_STEPS=3"]) == 0
    assert [row["step"] for row in metrics(first)] == [1, 2, 3]
    assert "\nTRAIN_STEPS = 2\n" in (first / "config-1.gin").read_text()
    assert "\nTRAIN_STEPS = 3\n" in (first / "config.gin").read_text()


def test_fine_tuning_starts_from_a_checkpoint(store, trained, tmp_path):
    """Same data, same dropout: the loss of the first step differs by the parameters alone."""
    run = tmp_path / "run"
    assert cli.main(train(store, run, f"--gin.INITIAL_CHECKPOINT_PATH='{trained}'")) == 0
    first = metrics(run)[0]
    assert first["loss"] < 0.9 * metrics(trained)[0]["loss"]
    assert (first["step"], first["learning_rate"]) == (1, 0.0)


@pytest.mark.parametrize(
    ("stopped", "code"),
    [(loop.Interrupted, 130), (loop.Preempted, 75), (loop.Diverged, 3)],
)
def test_exit_codes(store, tmp_path, monkeypatch, capsys, stopped, code):
    def stop(*args, **kwargs):
        raise stopped("stopped here; start again", 1)

    monkeypatch.setattr(loop, "train", stop)
    assert cli.main(train(store, tmp_path / "run")) == code
    assert "optiml train: stopped here; start again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["train"], 141),
        (["train", "--dry_run"], 141),
        (["inspect", "--store=s"], 0),
    ],
)
def test_only_what_shows_is_done_when_its_reader_leaves(monkeypatch, command, code):
    def leave(*args, **options):
        raise BrokenPipeError

    monkeypatch.setattr("optiml_jax.main.gin_config.build", leave)
    monkeypatch.setattr("optiml_jax.data.store.open_store", leave)
    assert cli.main(command) == code


@pytest.mark.parametrize(("command", "code"), [("--help", 0), ("trian", 2)])
def test_a_pipe_without_a_reader_keeps_the_exit_code(command, code):
    """Not 120, which Python gives when it cannot flush."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as pipe:
        argv = [sys.executable, "-m", "optiml_jax", command]
        done = subprocess.run(argv, stdout=pipe, stderr=pipe, check=False)
    assert done.returncode == code


@pytest.mark.slow
def test_training_survives_a_dead_standard_error(store, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    argv = [sys.executable, "-m", "optiml_jax", *train(store, tmp_path / "run")]
    with open(writer, "wb") as pipe:
        done = subprocess.run(argv, stdout=pipe, stderr=pipe, check=False)
    assert done.returncode == 0
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1, 2]


def test_ctrl_c_before_the_loop_says_how_to_go_on(monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("optiml_jax.main.gin_config.build", interrupt)
    assert cli.main(["train"]) == 130
    assert "Start the same command again" in capsys.readouterr().err


@pytest.mark.slow
def test_preempted_process_leaves_a_checkpoint(store, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "optiml_jax"]
    command += train(store, run, "--gin.LOG_PERIOD=1")
    command = [word.replace("TRAIN_STEPS=2", "TRAIN_STEPS=100000") for word in command]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if "step 2" in " ".join(line.split()):
                process.send_signal(signal.SIGTERM)
                break
        told.append(process.stderr.read())
    assert process.returncode == 75, "".join(told)
    assert "Start the same command again" in "".join(told)
    assert [path for path in (run / "checkpoints").iterdir() if path.name.isdigit()]
