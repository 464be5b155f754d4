"""Completion scripts, asked by the shells themselves."""

import os
import shutil
import subprocess

import pytest

from optiml_jax.main import cli, completion

ASK = """
set -u
source "$SCRIPT"
[[ $(complete -p optiml) == "complete -o default -F _optiml optiml" ]] || exit 3
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_optiml
printf '%s\\n' ${COMPREPLY[@]+"${COMPREPLY[@]}"}
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The script of each shell, written as users write it."""
    folder = tmp_path_factory.mktemp("scripts")
    words = completion.collect(cli.make_parser(), *completion.known_values())
    from optiml_jax.main import completion_scripts

    for shell in completion.SHELLS:
        (folder / shell).write_text(getattr(completion_scripts, shell)(words))
    return folder


@pytest.fixture
def ask(scripts):
    """The words that bash offers; the last argument is the word under the cursor."""

    def run(*words, cwd=None):
        done = subprocess.run(
            ["bash", "--norc", "-c", ASK, "ask", *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
            env={**os.environ, "SCRIPT": str(scripts / "bash")},
        )
        assert (done.returncode, done.stderr) == (0, "")
        return [word for word in done.stdout.splitlines() if word]

    return run


def test_commands(ask):
    assert set(ask("optiml", "")) == set(cli.COMMANDS)
    assert ask("optiml", "insp") == ["inspect"]


def test_flags_with_a_value_end_in_an_equals_sign(ask):
    assert ask("optiml", "inspect", "--le") == ["--level="]
    assert ask("optiml", "inspect", "--js") == ["--json"]
    assert ask("optiml", "train", "--gin_") == [
        "--gin_file=",
        "--gin_search_paths=",
        "--gin_bindings=",
    ]


def test_every_flag_of_every_command_is_offered(ask):
    subparsers = next(iter(cli.make_parser()._subparsers._group_actions)).choices
    assert set(subparsers) == set(cli.COMMANDS)
    for name, parser in subparsers.items():
        offered = {word.rstrip("=") for word in ask("optiml", name, "--")}
        flags = {o for o in parser._option_string_actions if o.startswith("--")} - {"--gin.NAME"}
        assert offered - {"--gin."} == flags


@pytest.mark.parametrize(
    "words",
    [
        ("--gin_file", "=", "runs/fine"),  # as bash cuts words
        ("--gin_file=runs/fine",),  # without "=" in COMP_WORDBREAKS
        ("--gin_file", "runs/fine"),  # the value after a blank
    ],
)
def test_gin_files_by_name(ask, words):
    (found,) = ask("optiml", "train", *words)
    assert found.removeprefix("--gin_file=") == "runs/finetune.gin"


def test_all_gin_files_right_after_the_equals_sign(ask, tmp_path):
    found = ask("optiml", "train", "--gin_file", "=", cwd=tmp_path)
    assert {"models/opt_125m.gin", "runs/eval.gin"} <= set(found)


def test_macros_of_the_gin_files(ask):
    assert ask("optiml", "train", "--gin.MODEL_D") == ["--gin.MODEL_DIR="]
    assert "--gin.SHOTS=" in ask("optiml", "eval", "--gin.")
    assert ask("optiml", "train", "--gin.STORE", "=", "x") == []
    assert ask("optiml", "inspect", "--gin.") == []


def test_benchmarks_and_splits(ask, tmp_path):
    assert ask("optiml", "prepare", "mi") == ["mini"]
    assert "opt_iml" in ask("optiml", "prepare", "mini", "--split", "=", "opt")
    (tmp_path / "opt_own.tsv").touch()
    words = ask("optiml", "prepare", "mini", "--split", "=", "opt_", cwd=tmp_path)
    assert {"opt_iml", "opt_own.tsv"} <= {*words}
    assert ask("optiml", "inspect", "--level=fully_h") == ["--level=fully_held_out"]
    assert ask("optiml", "completion", "z") == ["zsh"]


def test_folders(ask, tmp_path):
    (tmp_path / "my store").mkdir()
    (tmp_path / "other").mkdir()
    assert ask("optiml", "inspect", "--store", "=", "my", cwd=tmp_path) == ["my store"]
    assert ask("optiml", "inspect", "--store=o", cwd=tmp_path) == ["--store=other"]
    assert ask("optiml", "inspect", "--samples", "=", "o", cwd=tmp_path) == []


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_scripts_are_printed(shell, scripts, capsys):
    assert cli.main(["completion", shell]) == 0
    assert capsys.readouterr().out == (scripts / shell).read_text()


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_scripts_are_of_their_shell(shell, scripts):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on this machine")
    done = subprocess.run(
        [shell, "-n", scripts / shell], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_zsh_and_fish_know_every_command_and_flag(scripts):
    """Read from the text: these shells are on few machines that run tests."""
    words = completion.collect(cli.make_parser(), *completion.known_values())
    zsh, fish = (scripts / "zsh").read_text(), (scripts / "fish").read_text()
    for name, command in words.items():
        assert f"        {name})\n            _arguments" in zsh
        seen = f"complete -c optiml -n '__fish_seen_subcommand_from {name}'"
        for flag in command.flags:
            assert f"'*{flag.name}{'=' * flag.takes_value}" in zsh
            assert any(
                line.startswith(f"{seen} -l {flag.name[2:]}") for line in fish.splitlines()
            ), flag.name


def test_quotes_and_brackets_in_help_do_not_break_a_script(tmp_path):
    from optiml_jax.main import completion_scripts

    flag = completion.Flag("--odd", True, ("a", "b"), False, "it's [x]: \\ $(touch spoilt)")
    words = {"train": completion.Words("it's: [y]", (flag,), ())}
    for shell in completion.SHELLS:
        script = tmp_path / shell
        script.write_text(getattr(completion_scripts, shell)(words))
        if shutil.which(shell):
            done = subprocess.run([shell, "-n", script], capture_output=True, check=False)
            assert done.returncode == 0, done.stderr
    fish = (tmp_path / "fish").read_text()
    assert r"-d 'it\'s [x]: \\ $(touch spoilt)'" in fish
