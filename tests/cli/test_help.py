"""Help of every command: whole examples that its parser takes, at once."""

import pathlib
import re
import shlex
import subprocess
import sys
import time

import pytest

from optiml_jax.main import cli, flags, gin_config

MAX_SECONDS = 0.5


def examples_of(module):
    """The example commands, lines that end in a backslash joined, redirections left out."""
    text = module.EXAMPLES.strip().replace("\\\n", " ")
    return [line.split(" > ")[0] for line in text.splitlines()]


EXAMPLES = [
    pytest.param(name, line, id=f"{name}-{number}")
    for name, module in cli.COMMANDS.items()
    for number, line in enumerate(examples_of(module))
]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_examples(name):
    lines = examples_of(cli.COMMANDS[name])
    assert lines
    for line in lines:
        assert line.startswith(f"optiml {name}"), line


@pytest.mark.parametrize(("name", "line"), EXAMPLES)
def test_examples_parse(name, line):
    words = shlex.split(line)
    assert words[:2] == ["optiml", name]
    others, bindings = flags.split_gin_flags(words[1:])
    args, extra = cli.make_parser().parse_known_args(others)
    args.parser.check_flags(extra)
    assert callable(args.run)
    assert not bindings or hasattr(args, "gin_file")
    for file in getattr(args, "gin_file", []):
        if re.match("(models|runs)/[a-z]", file) and not file.endswith("config.gin"):
            assert file in gin_config.gin_files()


def test_the_first_page_names_every_command():
    text = cli.make_parser().format_help()
    for name in cli.COMMANDS:
        assert re.search(rf"^ +{name}\s+\S", text, re.MULTILINE), name


@pytest.mark.parametrize("name", [None, *cli.COMMANDS])
def test_help_answers_at_once(name):
    """The best of three: other work on the machine is not ours."""
    argv = [sys.executable, "-m", "optiml_jax", *([name] if name else []), "--help"]
    seconds = []
    while len(seconds) < 3 and min(seconds, default=MAX_SECONDS) >= MAX_SECONDS:
        start = time.perf_counter()
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0
        assert done.stdout.startswith("usage: optiml")
        if name:
            assert "\nexamples:\n  optiml" in done.stdout
    assert min(seconds) < MAX_SECONDS, seconds


def test_modules_of_commands_are_registered():
    """A module of main/ with `register` is a command; a forgotten one would never be seen."""
    folder = pathlib.Path(cli.__file__).parent
    found = {path.stem for path in folder.glob("*.py") if "\ndef register(" in path.read_text()}
    assert found == {module.__name__.rsplit(".", 1)[1] for module in cli.COMMANDS.values()}
