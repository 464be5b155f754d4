"""`optiml generate`: one shot, a pipe, a terminal with Ctrl-C and Ctrl-D."""

import io
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from optiml_jax.errors import InputError
from optiml_jax.main import cli, generate

from .test_interrupt import MAIN

SECONDS = 120


def command(trained, *flags):
    return ("generate", f"--checkpoint={trained}", "--max_new_tokens=4", *flags)


def test_one_prompt(trained, capsys):
    assert cli.main(command(trained, "--prompt=word1")) == 0
    once = capsys.readouterr()
    assert once.out.endswith("\n")
    assert f"{trained}, step 2, 298,112 parameters in float32; max_new_tokens 4" in once.err
    assert "compiling for prompts of up to 64 tokens" in once.err
    assert cli.main(command(trained, "--prompt=word1")) == 0
    assert capsys.readouterr().out == once.out


def test_lines_of_a_pipe(trained, capsys, monkeypatch):
    assert cli.main(command(trained, "--prompt=word1\nword2")) == 0
    joined = capsys.readouterr().out
    assert cli.main(command(trained, "--prompt=word3")) == 0
    third = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("word1\\\nword2\nword3\n"))
    assert cli.main(command(trained)) == 0
    assert capsys.readouterr().out == joined + third


def test_lines_are_joined(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\\\nb\n\nc\\\n"))
    assert list(generate._prompts(False)) == ["a\nb", "", "c"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--num_beams=2",), "unknown flag '--num_beams'"),
        (("--temperature=-1",), "'temperature' is -1.0"),
        (("--checkpoint=nowhere",), "no model.json there"),
    ],
)
def test_bad_flags(trained, flags, message, capsys):
    assert cli.main(command(trained, *flags)) == 2
    assert message in capsys.readouterr().err


def test_a_prompt_that_is_not_utf8(trained, capsys):
    assert cli.main(["generate", f"--checkpoint={trained}", "--prompt=a\udcff"]) == 2
    assert "--prompt: a prompt is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["strict", "surrogateescape"])
def test_lines_that_are_not_utf8(way, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\xff\n"), "utf-8", way))
    with pytest.raises(InputError, match="standard input: a prompt is not UTF-8"):
        next(generate._prompts(False))


def test_a_terminal(trained):
    """Ctrl-C at the prompt drops the line, Ctrl-D leaves with code 0."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *command(trained)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        close_fds=True,
    )
    os.close(theirs)
    shown = b""

    def wait_for(text, count):
        nonlocal shown
        until = time.monotonic() + SECONDS
        while shown.count(text) < count:
            assert time.monotonic() < until, shown
            if select.select([ours], [], [], 1.0)[0]:
                shown += os.read(ours, 4096)

    wait_for(b"> ", 1)
    # readline shows its prompt a moment before it waits for keys, where a signal wakes it.
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    wait_for(b"> ", 2)
    os.write(ours, b"word1\n")
    wait_for(b"> ", 3)
    os.write(ours, b"\x04")
    assert process.wait(SECONDS) == 0
    os.close(ours)
    assert b"Traceback" not in shown


def test_ctrl_c_stops_a_continuation_only(monkeypatch, capsys):
    """The next prompt is asked for; in a pipe the command ends."""

    class Session:
        def length_to_compile(self, prompt):
            return None

        def warm_up(self):
            pass

        def stream(self, prompt):
            yield f"<{prompt}"
            if prompt == "stop":
                raise KeyboardInterrupt
            yield ">"

    monkeypatch.setattr(generate, "_prompts", lambda is_terminal: iter(["stop", "go"]))
    generate._converse(Session(), True)
    assert capsys.readouterr().out == "<stop\n<go>\n"
    with pytest.raises(KeyboardInterrupt):
        generate._converse(Session(), False)
