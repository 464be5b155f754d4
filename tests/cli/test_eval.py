"""`optiml eval` from a run to results at the levels, and evaluation while training."""

import json

from optiml_jax.main import cli

from .commands import EVAL, train

SMALL = ("--gin.VOCAB_SIZE=264", "--gin.OptConfig.num_layers=1", "--gin.MAX_NEW_TOKENS=4")


def evaluate(store, run, out, *flags):
    return (
        *(*EVAL, *SMALL, f"--gin.STORE='{store}'", f"--gin.CHECKPOINT_PATH='{run}'"),
        *(f"--gin.EVAL_OUTPUT_DIR='{out}'", *flags),
    )


def test_results_of_a_run(store, trained, tmp_path, capsys):
    assert cli.main(evaluate(store, trained, tmp_path / "out")) == 0
    table = capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["step"] == 2
    assert results["split"] == "opt_iml"
    assert results["suite"] == "super_natural_instructions"
    # Of the two tasks one is trained on and one is of a held-out category.
    assert set(results["levels"]) == {"fully_held_out", "fully_supervised"}
    assert list(results["levels"]["fully_held_out"]["categories"]) == ["Textual Entailment"]
    for level in results["levels"]:
        assert level in table
    lines = (tmp_path / "out" / "samples.jsonl").read_text().splitlines()
    assert len(lines) == 1 + results["overall"]["n"]
    config = (tmp_path / "out" / "config.gin").read_text()
    assert "# command optiml eval " in config
    assert f"CHECKPOINT_PATH = '{trained}'" in config


def test_a_refused_evaluation_leaves_the_configuration(store, trained, tmp_path, capsys):
    """config.gin stays that of the results beside it."""
    out = tmp_path / "out"
    few = ("--gin.EVAL_EXAMPLES=2", "--gin.ROLES=('test',)")
    assert cli.main(evaluate(store, trained, out, *few)) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert cli.main(evaluate(store, trained, out, *few, "--gin.MAX_NEW_TOKENS=2")) == 2
    assert "holds samples of another evaluation" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_step_and_a_role_can_be_chosen(store, trained, tmp_path):
    flags = ("--gin.ROLES=('test',)", "--gin.EVAL_EXAMPLES=3")
    step = trained / "checkpoints" / "2"
    assert cli.main(evaluate(store, step, tmp_path / "out", *flags)) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["step"] == 2
    assert set(results["levels"]) == {"fully_held_out"}
    assert results["overall"]["n"] == 3


def test_dry_run_writes_nothing(store, trained, tmp_path, capsys):
    assert cli.main(evaluate(store, trained, tmp_path / "out", "--dry_run")) == 0
    told = capsys.readouterr().out
    assert f"checkpoint:  {trained}, step 2, 298,112 parameters" in told
    assert "EvalConfig.max_new_tokens = %MAX_NEW_TOKENS" in told
    assert list(tmp_path.iterdir()) == []


def test_scores_while_training(store, tmp_path):
    run = tmp_path / "run"
    flags = (
        *("--gin.EVAL_PERIOD=1", "--gin.EVAL_EXAMPLES=2", "--gin.MAX_NEW_TOKENS=2"),
        "--gin.train.eval_roles=('train', 'test')",
    )
    assert cli.main(train(store, run, *flags)) == 0
    suite = run / "eval" / "super_natural_instructions"
    assert sorted(path.name for path in suite.iterdir()) == ["1", "2"]
    results = json.loads((suite / "2" / "results.json").read_text())
    assert results["step"] == 2
    assert results["overall"]["n"] == 4
