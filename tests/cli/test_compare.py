"""`optiml compare` on two evaluations that `optiml eval` wrote."""

import json
import shutil

import pytest

from optiml_jax.main import cli

from .commands import EVAL, train

SMALL = ("--gin.VOCAB_SIZE=264", "--gin.OptConfig.num_layers=1", "--gin.MAX_NEW_TOKENS=4")


def evaluate(store, run, out, *flags):
    return (
        *(*EVAL, *SMALL, f"--gin.STORE='{store}'", f"--gin.CHECKPOINT_PATH='{run}'"),
        *(f"--gin.EVAL_OUTPUT_DIR='{out}'", *flags),
    )


def alter_scores(folder, score_of):
    """Gives an evaluation other scores, as another model might have."""
    path = folder / "samples.jsonl"
    header, *rows = path.read_text().splitlines()
    rows = [json.loads(row) for row in rows]
    for row in rows:
        row["score"] = score_of(row)
    path.write_text("\n".join([header, *map(json.dumps, rows)]) + "\n")
    results = json.loads((folder / "results.json").read_text())
    by_task = {}
    for row in rows:
        by_task.setdefault(row["task"], []).append(row["score"])
    nodes = [results["overall"]]
    for level in results["levels"].values():
        nodes.append(level)
        for category in level["categories"].values():
            nodes.append(category)
            for task, leaf in category["tasks"].items():
                leaf["score"] = sum(by_task[task]) / len(by_task[task])
    (folder / "results.json").write_text(json.dumps(results))


@pytest.fixture(scope="module")
def evaluated(store, trained, tmp_path_factory):
    """Folders of: two steps of training; the same with most answers right; fewer examples."""
    folder = tmp_path_factory.mktemp("evaluated")
    assert cli.main(evaluate(store, trained, folder / "base")) == 0
    shutil.copytree(folder / "base", folder / "tuned")
    alter_scores(folder / "tuned", lambda row: 0.0 if row["id"].endswith("7") else 100.0)
    assert cli.main(evaluate(store, trained, folder / "fewer", "--gin.EVAL_EXAMPLES=2")) == 0
    return folder


def append(path, text):
    path.write_text(path.read_text() + text)


def compare(capsys, *argv):
    """Exit code, standard output and error."""
    capsys.readouterr()
    code = cli.main(("compare", *map(str, argv)))
    told = capsys.readouterr()
    return code, told.out, told.err


def test_table(evaluated, capsys):
    code, out, err = compare(capsys, evaluated / "base", evaluated / "tuned")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("before: ")
    assert lines[0].endswith("step 2, super_natural_instructions, 0-shot")
    assert lines[2].split() == ["n", "before", "after", "difference", "95", "%", "CI", "p"]
    names = [line[:20].strip() for line in lines[3:8]]
    assert names[0] == "overall"
    assert {"fully_held_out", "fully_supervised", "Textual Entailment"} <= set(names)
    assert "task001" not in out
    held_out = next(line for line in lines if line.startswith("fully_held_out"))
    assert " +" in held_out
    assert held_out.endswith("<0.001")
    assert "95 % CI: of the difference" in out


def test_tasks_have_adjusted_p_values(evaluated, capsys):
    code, out, _ = compare(capsys, evaluated / "base", evaluated / "tuned", "--tasks")
    assert code == 0
    assert out.splitlines()[2].endswith("p  p adj.")
    row = next(line for line in out.splitlines() if "super_natural_instructions__task002" in line)
    assert row.endswith("<0.001  <0.001")


def test_json(evaluated, capsys):
    code, out, _ = compare(
        capsys, evaluated / "base/results.json", evaluated / "tuned/results.json", "--json"
    )
    assert code == 0
    tree = json.loads(out)
    assert {"before", "after", "overall", "levels"} <= set(tree)
    assert tree["before"]["name"] == str(evaluated / "base")
    base = json.loads((evaluated / "base" / "results.json").read_text())
    assert tree["overall"]["before"] == pytest.approx(base["overall"]["score"])
    assert tree["overall"]["after"] > 80
    assert tree["overall"]["n"] == base["overall"]["n"]
    level = tree["levels"]["fully_held_out"]["categories"]["Textual Entailment"]
    assert list(level["tasks"]) == ["super_natural_instructions__task002_made"]


def test_the_same_evaluation_twice(evaluated, capsys):
    code, out, _ = compare(capsys, evaluated / "base", evaluated / "base", "--json")
    assert code == 0
    assert json.loads(out)["overall"]["p"] == 1


def test_only_common_examples(evaluated, capsys):
    code, out, err = compare(capsys, evaluated / "base", evaluated / "fewer")
    assert (code, out) == (2, "")
    assert "the examples differ: " in err
    assert "compare those with --common." in err
    code, out, err = compare(capsys, evaluated / "base", evaluated / "fewer", "--common")
    assert (code, err) == (0, "")
    assert "Compared: the 4 examples that both have; " in out
    assert "0 of after are left out" in out


def test_one_folder_for_two_evaluations(store, trained, evaluated, tmp_path, capsys):
    """All examples first, then fewer into the same folder: its results are of the latter."""
    shutil.copytree(evaluated / "base", tmp_path / "mixed")
    assert cli.main(evaluate(store, trained, tmp_path / "mixed", "--gin.EVAL_EXAMPLES=2")) == 0
    code, _, err = compare(capsys, evaluated / "base", tmp_path / "mixed")
    assert code == 2
    assert "are not of one evaluation" in err
    assert "run it once more into an empty folder" in err


def test_what_an_evaluation_while_training_left(store, evaluated, tmp_path, capsys):
    run = tmp_path / "run"
    flags = (
        *("--gin.EVAL_PERIOD=1", "--gin.EVAL_EXAMPLES=2", "--gin.MAX_NEW_TOKENS=4"),
        "--gin.train.eval_roles=('train', 'test')",
    )
    assert cli.main(train(store, run, *flags)) == 0
    suite = run / "eval" / "super_natural_instructions"
    code, out, err = compare(capsys, suite / "1", suite / "2")
    assert (code, err) == (0, "")
    assert "step 1" in out
    assert "step 2" in out


@pytest.mark.parametrize(
    ("prepare", "argv", "message"),
    [
        (None, ("bas", "tuned"), "'bas' does not exist. Did you mean 'base'? Give a folder that"),
        (None, ("base", "."), "'.' has no results.json. Give a folder that `optiml eval` wrote"),
        (None, ("base",), "the following arguments are required: AFTER. See `optiml compare"),
        (None, ("base", "tuned", "--task"), "unknown flag '--task'. Did you mean '--tasks'"),
        (None, ("base", "tuned", "more"), "unexpected argument 'more'"),
        (
            lambda folder: (folder / "samples.jsonl").unlink(),
            ("base", "bad"),
            "samples.jsonl does not exist. Give the samples.jsonl of an evaluation",
        ),
        (
            lambda folder: (folder / "samples.jsonl").write_text("[]\n"),
            ("base", "bad"),
            "samples.jsonl, line 1: not the header of an evaluation",
        ),
        (
            lambda folder: append(folder / "samples.jsonl", '{"key": "torn'),
            ("bad", "base"),
            "samples.jsonl, line 40: not JSON",
        ),
        (
            lambda folder: (folder / "results.json").write_text("{"),
            ("bad", "base"),
            "results.json: not JSON",
        ),
        (
            lambda folder: append(folder / "samples.jsonl", '{"key": "x"}\n'),
            ("bad", "base"),
            "samples.jsonl, line 40: field 'task' is missing",
        ),
    ],
)
def test_bad_input(evaluated, tmp_path, capsys, monkeypatch, prepare, argv, message):
    shutil.copytree(evaluated, tmp_path / "e")
    monkeypatch.chdir(tmp_path / "e")
    if prepare:
        shutil.copytree("base", "bad")
        prepare(tmp_path / "e" / "bad")
    code, out, err = compare(capsys, *argv)
    assert (code, out) == (2, "")
    assert err.startswith("optiml compare: error: ")
    assert message in err


def test_help_has_whole_commands(capsys):
    assert cli.main(("compare", "--help")) == 0
    out = capsys.readouterr().out
    assert "optiml compare out/base out/tuned --json" in out
