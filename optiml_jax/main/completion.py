"""`optiml completion`: a script that completes commands, flags and names in a shell.

Neighbours: `completion_scripts` writes the three scripts from the `Words` collected here. The
script is static: it is made from the parsers of this version, so a TAB costs no Python start.
"""

import argparse
import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from optiml_jax import errors
from optiml_jax.main import flags

EXAMPLES = """
optiml completion bash > ~/.local/share/bash-completion/completions/optiml
optiml completion zsh > ~/.zfunc/_optiml
optiml completion fish > ~/.config/fish/completions/optiml.fish
"""

SHELLS = ("bash", "zsh", "fish")
PATHS = ("DIR", "STORE", "MODEL_DIR", "EVAL_DIR", "FILE")
"""Metavars of flags whose values are files or folders."""


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag of a command.

    Attributes:
        name: with its dashes.
        takes_value: whether `=VALUE` follows.
        values: names that are offered as values.
        is_path: whether files are offered as well.
        summary: its help, one line.
    """

    name: str
    takes_value: bool
    values: tuple[str, ...]
    is_path: bool
    summary: str


@dataclasses.dataclass(frozen=True)
class Words:
    """What can be completed after a command: its flags, and its positional arguments' values."""

    summary: str
    flags: tuple[Flag, ...]
    values: tuple[str, ...]


def register(subparsers: Any) -> None:
    """Adds the command's flags."""
    parser = flags.add_command(
        subparsers,
        "completion",
        run,
        summary="print a script that completes commands, flags and names in a shell",
        description=(
            "Prints a completion script for bash, zsh or fish: commands, flags, gin files, gin"
            ' macros, benchmarks, splits. To try it: eval "$(optiml completion bash)". After an'
            " update, print it again."
        ),
        examples=EXAMPLES,
    )
    parser.add_argument("shell", metavar="SHELL", help=", ".join(SHELLS))


def run(args: argparse.Namespace) -> int:
    """Prints the script of one shell."""
    from optiml_jax.main import cli, completion_scripts

    if args.shell not in SHELLS:
        raise errors.unknown("shell", args.shell, SHELLS)
    words = collect(cli.make_parser(), *known_values())
    print(getattr(completion_scripts, args.shell)(words), end="")
    return 0


def known_values() -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Names by flag or positional argument, and the macros of `--gin.NAME`."""
    # setup.py maps the folder tasks/ to this name, which pyright does not know.
    from optiml_jax import tasks  # pyright: ignore[reportAttributeAccessIssue]
    from optiml_jax.bench import splits
    from optiml_jax.main import gin_config

    benchmarks = tuple(sorted(tasks.BENCHMARKS))
    gin_files = tuple(gin_config.gin_files())
    mixtures = tuple(pathlib.Path(n).stem for n in gin_files if n.startswith("mixtures/"))
    names = {
        "gin_file": gin_files,
        "mixture_file": mixtures,
        "benchmark": benchmarks,
        "catalog": benchmarks,
        "split": splits.split_names(),
        "level": splits.LEVELS,
        "role": splits.ROLES,
        "vocabulary": ("gpt2", "small"),
        "shell": SHELLS,
    }
    texts = (path.read_text("utf-8") for path in gin_config.gin_folder().rglob("*.gin"))
    macros = {name for text in texts for name in re.findall(r"^([A-Z][A-Z_0-9]*) *=", text, re.M)}
    return names, tuple(sorted(macros))


def collect(
    parser: argparse.ArgumentParser, names: Mapping[str, Sequence[str]], macros: Sequence[str]
) -> dict[str, Words]:
    """What can be completed, by command; read from the parsers, so nothing is listed twice."""
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    summaries = {action.dest: action.help or "" for action in commands._choices_actions}
    return {
        name: _words(command, summaries.get(name, ""), names, macros)
        for name, command in commands.choices.items()
    }


def _words(
    command: argparse.ArgumentParser,
    summary: str,
    names: Mapping[str, Sequence[str]],
    macros: Sequence[str],
) -> Words:
    found: list[Flag] = []
    values: list[str] = []
    for action in command._actions:
        known = tuple(names.get(action.dest, action.choices or ()))
        if not action.option_strings:
            values += known
            continue
        option = action.option_strings[-1]
        if option == f"{flags.GIN_PREFIX}NAME":
            found += [Flag(f"{flags.GIN_PREFIX}{macro}", True, (), False, "") for macro in macros]
            continue
        takes_value = action.nargs != 0
        metavar = str(action.metavar or "")
        is_path = takes_value and any(word in PATHS for word in re.split(r"\W", metavar))
        is_path = is_path or action.dest == "gin_file"
        options = [word for word in action.option_strings if word.startswith("--")]
        found += [
            Flag(word, takes_value, known, is_path, _one_line(action.help)) for word in options
        ]
    return Words(summary, tuple(found), tuple(values))


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
