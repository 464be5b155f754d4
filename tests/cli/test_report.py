"""`optiml report` from a run and its evaluations to a page, and what it refuses."""

import json
import shutil

import pytest

from optiml_jax.main import cli

from .commands import EVAL, train

SMALL = ("--gin.VOCAB_SIZE=264", "--gin.OptConfig.num_layers=1", "--gin.MAX_NEW_TOKENS=2")


@pytest.fixture(scope="session")
def evaluated(store, tmp_path_factory):
    """A run that evaluates while it trains, and its evaluations at both ends."""
    folder = tmp_path_factory.mktemp("evaluated")
    flags = (
        *("--gin.EVAL_PERIOD=1", "--gin.EVAL_EXAMPLES=2", "--gin.MAX_NEW_TOKENS=2"),
        *("--gin.train.eval_roles=('train', 'test')", "--gin.SAVE_PERIOD=1"),
    )
    assert cli.main(train(store, folder / "run", *flags)) == 0
    for step in (1, 2):
        checkpoint = folder / "run" / "checkpoints" / str(step)
        words = (
            *(*EVAL, *SMALL, f"--gin.STORE='{store}'", f"--gin.CHECKPOINT_PATH='{checkpoint}'"),
            *(f"--gin.EVAL_OUTPUT_DIR='{folder / str(step)}'", "--gin.EVAL_EXAMPLES=3"),
        )
        assert cli.main(words) == 0
    return folder


@pytest.fixture
def complain(capsys):
    def run(*argv):
        assert cli.main(argv) == 2
        message = capsys.readouterr().err
        assert message.startswith("optiml report: error: ")
        assert "Traceback" not in message
        return message

    return run


def test_two_evaluations_and_their_run(evaluated, store, capsys):
    one, two, run = (evaluated / name for name in ("1", "2", "run"))
    assert cli.main(("report", f"{one}", f"{two}", f"--run={run}", "--title=Two <steps>")) == 0
    assert "2 tasks, 6 samples" in capsys.readouterr().out
    page = (two / "report.html").read_text("utf-8")
    for words in (
        '<h1 dir="auto">Two &lt;steps&gt;</h1>',
        "Training loss",
        "super_natural_instructions__task001_made",
        "Textual Entailment",
        f"super_natural_instructions of the store {store}, the rates of",
        "100.0&#8239;%",
        "optiml train --gin_file=models/opt_tiny.gin",
        "TrainConfig.steps = %TRAIN_STEPS",
        "optiml report ",
        "jax ",
    ):
        assert words in page, words
    assert not (one / "report.html").exists()


def test_one_evaluation_to_a_chosen_file(evaluated, tmp_path):
    out = tmp_path / "pages" / "r.html"
    assert cli.main(("report", f"{evaluated / '2'}", f"--out={out}")) == 0
    assert "No run and no store were given" in out.read_text("utf-8")


def test_a_store_without_a_run(evaluated, store, tmp_path):
    flags = (f"--store={store}", f"--out={tmp_path / 'r.html'}")
    assert cli.main(("report", f"{evaluated / '2'}", *flags)) == 0
    assert f"of the store {store}, its default rates." in (tmp_path / "r.html").read_text("utf-8")


def test_a_run_whose_store_or_configuration_is_gone(evaluated, tmp_path):
    run = shutil.copytree(evaluated / "run", tmp_path / "run")
    config = run / "config.gin"
    lines = config.read_text().splitlines(keepends=True)
    moved = [line if not line.startswith("STORE =") else "STORE = 'moved'\n" for line in lines]
    assert moved != lines
    words = ("report", f"{evaluated / '2'}", f"--run={run}", f"--out={tmp_path / 'r.html'}")
    config.write_text("".join(moved))
    assert cli.main(words) == 0
    assert "store &#39;moved&#39; is not here" in (tmp_path / "r.html").read_text("utf-8")
    config.write_text("# optiml_jax 9\n\nNEW_MACRO = 1\n")
    assert cli.main(words) == 0
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "is not a configuration of this version" in page


@pytest.mark.parametrize(
    ("macro", "value", "told"),
    [
        ("STORE", "damaged", "index.json: damaged"),
        ("MIXTURE_OR_TASK_NAME", "was_there", "unknown mixture or task &#39;was_there&#39;"),
    ],
)
def test_a_run_whose_store_became_another(complain, evaluated, tmp_path, macro, value, told):
    """The scores are shown all the same; a store that is asked for has to be right."""
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "index.json").write_text('{"format"')
    run = shutil.copytree(evaluated / "run", tmp_path / "run")
    value = str(damaged) if value == "damaged" else value
    lines = (run / "config.gin").read_text().splitlines(keepends=True)
    changed = [
        one if not one.startswith(f"{macro} =") else f"{macro} = {value!r}\n" for one in lines
    ]
    assert changed != lines
    (run / "config.gin").write_text("".join(changed))
    words = ("report", f"{evaluated / '2'}", f"--run={run}", f"--out={tmp_path / 'r.html'}")
    assert cli.main(words) == 0
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "Not known: " in page
    assert told in page
    assert "index.json: damaged" in complain(*words, f"--store={damaged}")


def test_bad_input(complain, evaluated, tmp_path):
    two = f"{evaluated / '2'}"
    assert "EVAL_DIR 'none' does not exist" in complain("report", "none")
    assert "has no results.json" in complain("report", f"{tmp_path}")
    assert "the following arguments are required: EVAL_DIR" in complain("report")
    assert "3 folders were given" in complain("report", two, two, two)
    assert "MODEL_DIR 'none' does not exist" in complain("report", two, "--run=none")
    assert "'none' does not exist" in complain("report", two, "--store=none")
    assert f"'{tmp_path}' cannot be written" in complain("report", two, f"--out={tmp_path}")
    other = shutil.copytree(two, tmp_path / "other")
    results = json.loads((other / "results.json").read_text())
    (other / "results.json").write_text(json.dumps({**results, "split": "mini"}))
    assert "of different splits: 'mini' in" in complain("report", f"{other}", two)
    (other / "results.json").write_text(json.dumps({**results, "schema": 2}))
    assert "schema 2, this version reads 1" in complain("report", f"{other}")


def test_without_samples(evaluated, tmp_path):
    other = shutil.copytree(evaluated / "2", tmp_path / "other")
    (other / "samples.jsonl").unlink()
    assert cli.main(("report", f"{other}")) == 0
    assert "no samples from there" in (other / "report.html").read_text("utf-8")
