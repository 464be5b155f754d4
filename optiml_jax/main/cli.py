"""`optiml`: finds the command, runs it, and turns what went wrong into a message and a code.

Neighbours: one module per command, each with `register(subparsers)` and `run(args) -> int`; they
import JAX, Grain or SeqIO inside `run`, so that help costs a tenth of a second. Faults of this
package keep their traceback on purpose; only `InputError` becomes one message.

Exit codes: 0 done; 2 bad usage or bad input; 75 preempted after a saved checkpoint (start the same
command again); 130 stopped by Ctrl-C; 141 the reader of a pipe left before the command was done.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

import optiml_jax
from optiml_jax import errors
from optiml_jax.errors import InputError
from optiml_jax.main import (
    compare,
    completion,
    convert,
    demo,
    doctor,
    evaluate,
    flags,
    generate,
    infer,
    inspect,
    leakage,
    precompile,
    prepare,
    report,
    train,
)

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

COMMANDS = {
    "demo": demo,
    "prepare": prepare,
    "train": train,
    "eval": evaluate,
    "infer": infer,
    "generate": generate,
    "precompile": precompile,
    "compare": compare,
    "inspect": inspect,
    "leakage": leakage,
    "convert": convert,
    "doctor": doctor,
    "completion": completion,
    "report": report,
}

DESCRIPTION = """\
OPT-IML in JAX: instruction meta-learning from task files to scores at three levels of
generalization.

  optiml demo
  optiml prepare super_natural_instructions --data_dir=DIR --out=STORE
  optiml train --gin_file=models/opt_tiny.gin --gin_file=runs/finetune.gin ...
  optiml eval --gin_file=models/opt_tiny.gin --gin_file=runs/eval.gin ...
  optiml convert --from_hf=DIR --out=MODEL_DIR

`optiml COMMAND --help` shows a command's flags and whole examples.
"""


def make_parser() -> flags.Parser:
    """The parser of all commands."""
    parser = flags.Parser(prog="optiml", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=optiml_jax.__version__)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for module in COMMANDS.values():
        module.register(subparsers)
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; prints errors on stderr."""
    prog = "optiml"
    command = None
    stopped = flags.STOPPED
    try:
        parser = make_parser()
        command = next((word for word in argv if not word.startswith("-")), None)
        if command is None and not {"-h", "--help", "--version"} & set(argv):
            parser.check_flags(argv)
            parser.print_help(sys.stderr)
            return EXIT_BAD_INPUT
        if command is not None and argv[0] == command:
            if command not in COMMANDS:
                raise errors.unknown("command", command, COMMANDS)
            prog = f"optiml {command}"
        others, bindings = flags.split_gin_flags(argv)
        args, extra = parser.parse_known_args(others)
        args.parser.check_flags(extra)
        stopped = args.stopped
        _check_paths(args)
        if bindings and not hasattr(args, "gin_file"):
            raise InputError(f"{prog} reads no gin configuration, got --gin.{bindings[0][0]}.")
        args.gin = bindings
        args.command_line = " ".join(["optiml", *flags.shell_words(argv)])
        return args.run(args)
    except InputError as error:
        _tell(f"{prog}: error: {error}")
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        _tell(f"\n{prog}: stopped. {stopped}")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe (`| head`) left. What only shows something is done by that; other
        # commands were cut short.
        shows = command in (None, "compare", "inspect", "doctor", "completion", "precompile") or {
            "-h",
            "--help",
            "--version",
        } & set(argv)
        return 0 if shows else EXIT_BROKEN_PIPE
    except SystemExit as error:  # argparse, after --help and --version
        return int(error.code or 0)


def _check_paths(args: argparse.Namespace) -> None:
    """Refuses empty names of files and folders: they would stand for the working directory."""
    for action in args.parser._actions:
        value = getattr(args, action.dest, None)
        is_path = action.option_strings and action.metavar in completion.PATHS
        if is_path and isinstance(value, str) and not value.strip():
            flag = action.option_strings[-1]
            raise InputError(f"{flag} is {value!r}, expected the name of a file or folder.")


def entry() -> None:
    """The console script."""
    code = main(sys.argv[1:])
    # The exit must not flush to a pipe without a reader: Python would make the code 120.
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _tell(text: str) -> None:
    """Prints a message; what data brought into it must not steer the terminal."""
    shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    with contextlib.suppress(OSError):
        print(shown, file=sys.stderr)
