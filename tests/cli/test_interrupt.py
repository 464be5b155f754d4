"""Ctrl-C in a real process: exit code 130, one message on how to go on, no traceback.

A store whose index is a named pipe keeps a command waiting at a known place: it opens the pipe, and
the test's end of it opens at that moment.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest

from optiml_jax.main import cli

from .commands import EVAL, prepare, task_file, train

SECONDS = 120


# A suite that a shell runs in the background starts with SIGINT ignored; children inherit it.
MAIN = """\
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("optiml_jax", run_name="__main__")
"""


def start(*argv):
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@pytest.fixture
def waiting_store(tmp_path):
    """A folder that keeps whoever opens it as a store."""
    folder = tmp_path / "store"
    folder.mkdir()
    os.mkfifo(folder / "index.json")
    return folder


def commands(store, tmp_path):
    evaluate = (
        *(*EVAL, f"--gin.STORE='{store}'", f"--gin.CHECKPOINT_PATH='{tmp_path}'"),
        f"--gin.EVAL_OUTPUT_DIR='{tmp_path / 'out'}'",
    )
    return {
        "prepare": ("prepare", "mini", f"--out={store}"),
        "train": train(store, tmp_path / "run"),
        "eval": evaluate,
        "inspect": ("inspect", f"--store={store}", "--mixture"),
        "doctor": ("doctor", "--quick", f"--store={store}"),
    }


@pytest.mark.parametrize("name", ["prepare", "train", "eval", "inspect", "doctor"])
def test_ctrl_c_says_how_to_go_on(name, waiting_store, tmp_path):
    process = start(*commands(waiting_store, tmp_path)[name])
    # Opens only when the command has opened its end; nothing is written, so it waits.
    with open(waiting_store / "index.json", "wb"):
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    stopped = next(iter(cli.make_parser()._subparsers._group_actions)).choices[name]
    assert told.strip() == f"optiml {name}: stopped. {stopped.get_default('stopped')}"
    assert not (tmp_path / "run").exists()


def test_a_stopped_prepare_leaves_no_store_and_goes_on(tmp_path):
    """Stopped after the tasks were read; started again it makes the store."""
    for number in range(8):
        instances = [
            {"id": f"task{number}-{i}", "input": f"word{i} " * 20, "output": [f"word{i}"]}
            for i in range(1500)
        ]
        content = task_file(Instances=instances, Source=[f"source{number}"])
        path = tmp_path / "tasks" / f"task{number:03d}_made.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    argv = prepare(tmp_path / "tasks", tmp_path / "store")
    process = start(*argv)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("read "):
            break
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert "optiml prepare: stopped. The store is as it was before; start the same" in told
    assert not (tmp_path / "store" / "index.json").exists()
    assert cli.main(argv) == 0
    assert (tmp_path / "store" / "index.json").exists()


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_an_answer_to_ctrl_c(name, monkeypatch, capsys):
    """Wherever it is stopped: exit code 130 and what the command says of going on."""

    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.COMMANDS[name], "run", interrupt)
    example = cli.COMMANDS[name].EXAMPLES.strip().replace("\\\n", " ").splitlines()[0]
    assert cli.main(shlex.split(example.split(" > ")[0])[1:]) == 130
    told = capsys.readouterr().err
    assert told.startswith(f"\noptiml {name}: stopped. ")
    assert re.search("again|[Nn]othing", told), told
