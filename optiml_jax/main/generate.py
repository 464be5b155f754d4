"""`optiml generate`: a prompt at a time, continued on the screen as tokens come.

Neighbours: `infer` for files of prompts; `decoding_flags` and `opened_model` are shared with it.
JAX is imported when the command runs.
"""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from optiml_jax.errors import InputError
from optiml_jax.main import decoding_flags, flags

EXAMPLES = """
optiml generate --checkpoint=runs/tiny
optiml generate --checkpoint=runs/tiny --prompt="Is the sky blue?" --max_new_tokens=32
optiml generate --checkpoint=runs/tiny --temperature=0.8 --top_p=0.95 --stop='\\n'
"""

MARK, MORE = "> ", ". "


def register(subparsers: Any) -> None:
    """Adds the command's flags."""
    parser = flags.add_command(
        subparsers,
        "generate",
        run,
        summary="prompt a checkpoint and watch it answer, token by token",
        description=(
            "Reads prompts from the terminal, or lines of a pipe, and continues each. A line that"
            " ends in a backslash goes on in the next. Ctrl-C stops a continuation, Ctrl-D leaves."
        ),
        examples=EXAMPLES,
        stopped="Nothing was written; start it again.",
    )
    decoding_flags.add(parser)
    parser.add_argument("--prompt", metavar="TEXT", help="continue this one and leave")


def run(args: argparse.Namespace) -> int:
    """Opens the model, then answers until the prompts end."""
    from optiml_jax.infer.session import Session
    from optiml_jax.main import opened_model

    settings = decoding_flags.settings(args)
    if args.prompt is not None:
        _check_text(args.prompt, "--prompt")
    opened = opened_model.open_model(
        args.checkpoint, args.dtype, decoding_flags.mesh_config(args.mesh), settings
    )
    described = ", ".join(
        f"{name} {value!r}" for name, value in settings.to_json().items() if _tells(name, value)
    )
    _note(
        f"{opened.checkpoint}, step {opened.step}, {opened.config.num_params():,} parameters in "
        f"{opened.config.dtype}; {described}"
    )
    session = Session(opened.load(), settings)
    if args.prompt is not None:
        _answer(session, args.prompt)
        return 0
    _announce(session, "")
    session.warm_up()
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        _note("Ctrl-C stops a continuation, Ctrl-D leaves; a backslash ends a line that goes on.")
    _converse(session, is_terminal)
    return 0


def _converse(session: Any, is_terminal: bool) -> None:
    """Answers prompt by prompt; on a terminal Ctrl-C stops one continuation only."""
    for prompt in _prompts(is_terminal):
        try:
            _answer(session, prompt)
        except KeyboardInterrupt:
            if not is_terminal:
                raise
            print("", flush=True)


def _answer(session: Any, prompt: str) -> None:
    """Prints the continuation of one prompt, and a line break."""
    _announce(session, prompt)
    for piece in session.stream(prompt):
        print(piece, end="", flush=True)
    print("", flush=True)


def _announce(session: Any, prompt: str) -> None:
    length = session.length_to_compile(prompt)
    if length is not None:
        _note(f"compiling for prompts of up to {length} tokens ...")


def _prompts(is_terminal: bool) -> Iterator[str]:
    """Prompts as they are typed or piped; lines that end in a backslash are joined."""
    if is_terminal:
        # Gives `input` its editing and its history.
        import readline  # noqa: F401
    lines: list[str] = []
    while True:
        try:
            line = input((MORE if lines else MARK) if is_terminal else "")
            _check_text(line, "standard input")
        except UnicodeDecodeError:
            raise _not_utf8("standard input") from None
        except EOFError:
            if is_terminal:
                print("", flush=True)
            if lines:
                yield "\n".join(lines)
            return
        except KeyboardInterrupt:
            if not is_terminal:
                raise
            # As in a shell: what is typed is dropped.
            lines = []
            print("", flush=True)
            continue
        if line.endswith("\\"):
            lines.append(line[:-1])
            continue
        yield "\n".join([*lines, line])
        lines = []


def _check_text(text: str, where: str) -> None:
    """Raises InputError for bytes that Python could not decode: half pairs stand for them."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _not_utf8(where)


def _not_utf8(where: str) -> InputError:
    return InputError(f"{where}: a prompt is not UTF-8. Convert it, e.g. with iconv.")


def _tells(name: str, value: Any) -> bool:
    """Whether a setting says something: drawing is off at temperature 0, beams always."""
    quiet = {"top_k": 0, "top_p": 1.0, "stop": [], "num_beams": 1, "num_return_sequences": 1}
    return name != "length_penalty" and not (name in quiet and quiet[name] == value)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
