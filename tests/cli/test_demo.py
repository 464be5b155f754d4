"""`optiml demo`: every stage for real, with as few steps as there can be."""

import json
import shlex

import pytest

from optiml_jax.eval import aggregation, evaluator
from optiml_jax.main import cli, demo
from optiml_jax.train import checkpoints

TINY = demo.Size(3, 3, 1, 1, 1)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(demo, "FULL", TINY)


def test_from_nothing_to_a_report_with_an_interruption(tiny, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "demo"
    command = ["demo", f"--out={folder}"]

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluator, "evaluate", interrupted)
        assert cli.main(command) == cli.EXIT_INTERRUPTED
    told = capsys.readouterr()
    assert "[3/7] evaluate it before tuning" in told.out
    assert "[4/7]" not in told.out
    assert "start the same command again" in told.err
    assert f"optiml demo --out={folder}" in told.err
    assert checkpoints.saved_steps(folder / "base") == [3]
    trained = (folder / "base" / "metrics.jsonl").stat().st_mtime_ns

    assert cli.main(command) == 0
    out = capsys.readouterr().out
    # What was done is kept.
    assert (folder / "base" / "metrics.jsonl").stat().st_mtime_ns == trained
    for number in range(1, 8):
        assert f"[{number}/7]" in out
    for path in ("before", "after"):
        results = aggregation.read_results(folder / path)
        assert set(results["levels"]) == {
            "fully_held_out",
            "partially_supervised",
            "fully_supervised",
        }
        assert results["split"] == "mini"
    table = out[out.index("Done in") :].splitlines()
    (level,) = [line for line in table if line.startswith("fully_supervised")]
    after = aggregation.read_results(folder / "after")["levels"]["fully_supervised"]
    assert f"{after['score']:.1f} [{after['ci'][0]:.1f}, {after['ci'][1]:.1f}]" in level
    assert str(folder / "report.html") in out
    assert "Try next:" in out
    page = (folder / "report.html").read_text("utf-8")
    assert "mini__extract_drink" in page
    curve = folder / "tuned" / "eval" / "mini" / "3" / "results.json"
    assert json.loads(curve.read_text())["step"] == 3


def test_the_printed_commands_are_what_runs():
    for stage in demo.stages(demo.pathlib.Path("a folder/with 'quotes'"), demo.FULL):
        text = demo.shown(stage.command)
        assert all(len(line) <= 96 or "=" in line for line in text.splitlines())
        words = shlex.split(text.replace("\\\n", " "))
        assert words == ["optiml", *stage.command]


def test_level_table():
    before = {"overall": {"score": 10.0, "ci": [8.0, 12.0]}, "levels": {}}
    after = {
        "overall": {"score": 60.0, "ci": [58.0, 62.0]},
        "levels": {"fully_held_out": {"score": 5.0, "ci": None}},
    }

    def best(node):
        return ("majority", {"score": 30.0, "ci": None}) if node["score"] == 60.0 else None

    heading, overall, level = demo.level_table(before, after, best)
    for column in ("before tuning", "best baseline", "after tuning"):
        assert column in heading
    assert overall.split() == [
        "overall",
        "10.0",
        "[8.0,",
        "12.0]",
        "30.0",
        "majority",
        "60.0",
        "[58.0,",
        "62.0]",
    ]
    assert level.split() == ["fully_held_out", "-", "-", "5.0"]
    assert overall.index("60.0") == level.index("5.0") == heading.index("after tuning")


@pytest.mark.parametrize("what", ["foreign", "file", "other size"])
def test_a_folder_that_is_no_demo_is_refused(tmp_path, capsys, what):
    folder = tmp_path / "out"
    if what == "file":
        folder.write_text("x")
    else:
        folder.mkdir()
        name = "thesis.tex" if what == "foreign" else "demo.json"
        (folder / name).write_text('{"pretrain_steps": 7}')
    assert cli.main(["demo", f"--out={folder}"]) == 2
    message = capsys.readouterr().err
    expected = {
        "foreign": "holds 'thesis.tex', which is not of a demo",
        "file": "is a file, expected a folder",
        "other size": "holds a demo of another size",
    }
    assert expected[what] in message
    assert "[1/7]" not in message
