"""Flags that commands share, in T5X's spelling, and the parser that says what was meant.

Neighbours: `cli` dispatches, every command module registers itself with `add_command`,
`gin_config` reads what `split_gin_flags` took out. Nothing here imports gin or JAX: `--help` has to
answer at once.
"""

import argparse
import itertools
import re
import shlex
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from optiml_jax import errors
from optiml_jax.errors import InputError

GIN_PREFIX = "--gin."
STOPPED = "Nothing is half-written: start the same command again."


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises `InputError`, and takes no abbreviated flags."""

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def parse_known_args(self, args=None, namespace=None):  # pyright: ignore[reportIncompatibleMethodOverride]  # overloads
        """Parses; a misspelt flag of a command is told before anything that is missing."""
        if self._subparsers is None:
            for word in itertools.takewhile(lambda word: word != "--", args or ()):
                name = word.partition("=")[0]
                if re.match(r"--?[A-Za-z]", word) and name not in self._option_string_actions:
                    self.check_flags([word])
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print, with the way to the help."""
        raise InputError(f"{message}. See `{self.prog} --help`.")

    def check_flags(self, extra: Sequence[str]) -> None:
        """Refuses the arguments that argparse did not know, naming the nearest flag."""
        if not extra:
            return
        flags = [option for option in self._option_string_actions if option.startswith("--")]
        if extra[0].startswith("-"):
            raise errors.unknown("flag", extra[0].split("=")[0], flags)
        raise InputError(f"unexpected argument '{extra[0]}'. See `{self.prog} --help`.")


def add_command(
    subparsers: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    description: str,
    examples: str,
    stopped: str = STOPPED,
) -> Parser:
    """Adds the parser of one command and returns it, ready for the command's own flags.

    Args:
        run: takes the parsed flags and returns the exit code.
        summary: the line in `optiml --help`.
        examples: whole commands, one a line, shown below the flags.
        stopped: what Ctrl-C answers, namely how to go on.
    """
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=textwrap.fill(description, 80),
        epilog="examples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines()),
    )
    parser.set_defaults(run=run, parser=parser, stopped=stopped, gin=[])
    return parser


def add_gin_flags(parser: argparse.ArgumentParser) -> None:
    """Adds T5X's configuration flags to a command that is configured by gin."""
    group = parser.add_argument_group("configuration (gin, as in T5X)")
    group.add_argument(
        "--gin_file",
        action="append",
        default=[],
        metavar="FILE",
        help="a gin file, given by path or by its name in the installed gin folder; repeat it: "
        "model first, run second, later files win",
    )
    group.add_argument(
        "--gin_search_paths",
        default="",
        metavar="DIR,DIR",
        help="folders in which gin files are looked for, before the working directory and the "
        "installed gin folder",
    )
    group.add_argument(
        "--gin_bindings",
        action="append",
        default=[],
        metavar="BINDING",
        help="one gin statement, e.g. --gin_bindings='TRAIN_STEPS = 300'",
    )
    group.add_argument(
        "--gin.NAME",
        dest="_shown_only",
        metavar="VALUE",
        help="sets a macro or a parameter to a Python literal, after all files: "
        "--gin.TRAIN_STEPS=300, --gin.MODEL_DIR=\"'runs/a'\", --gin.OptConfig.num_layers=2",
    )
    group.add_argument(
        "--dry_run",
        action="store_true",
        help="resolve configuration, store, vocabulary, shapes and mesh, print them and stop",
    )


def split_gin_flags(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Separates `--gin.NAME=VALUE` and `--gin.NAME VALUE` from the other arguments.

    Returns:
        The other arguments, and (name, value) of each gin flag in their order.

    Example:
        ["train", "--gin.A=1", "--gin.B.c", "2"] -> ["train"], [("A", "1"), ("B.c", "2")]
    """
    others: list[str] = []
    bindings: list[tuple[str, str]] = []
    arguments = list(argv)
    while arguments:
        argument = arguments.pop(0)
        if not argument.startswith(GIN_PREFIX):
            others.append(argument)
            continue
        name, separator, value = argument.removeprefix(GIN_PREFIX).partition("=")
        if not re.fullmatch(r"[A-Za-z_][\w./]*", name.strip()):
            raise InputError(
                f"{argument}: '{name}' is not the name of a macro or parameter. "
                "Write --gin.MACRO=VALUE or --gin.CONFIGURABLE.parameter=VALUE."
            )
        if not separator:
            if not arguments or arguments[0].startswith("--"):
                raise InputError(f"{argument} has no value. Write {argument}=VALUE.")
            value = arguments.pop(0)
        bindings.append((name.strip(), value))
    return others, bindings


def shell_words(argv: Sequence[str]) -> list[str]:
    """The arguments as one would type them: quoted for a shell where they must be, and readably.

    Example:
        "--gin.STORE='s'" becomes `--gin.STORE="'s'"`.
    """
    words = []
    for argument in argv:
        word = shlex.quote(argument)
        if word != argument and not any(character in argument for character in '"$`\\!'):
            name, equals, value = argument.partition("=") if argument[:2] == "--" else ("", "", "")
            simple = equals and shlex.quote(name) == name
            word = f'{name}="{value}"' if simple else f'"{argument}"'
        words.append(word)
    return words
