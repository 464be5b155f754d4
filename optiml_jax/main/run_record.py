"""`config.gin` of a run: what was in force, with which version, commit and command.

Neighbours: `gin_config` gives the text, `train_job` and `eval_job` the folder.
"""

import pathlib
import subprocess

import optiml_jax
from optiml_jax.errors import InputError
from optiml_jax.main import gin_config

CONFIG_NAME = "config.gin"


def write_config(directory: pathlib.Path, text: str, command: str) -> pathlib.Path:
    """Writes the effective config; an earlier one that binds something else is kept.

    Args:
        text: `gin_config.Built.text`.
        command: the command line, as it was typed.

    Raises:
        InputError: the file cannot be read or written.

    Example:
        a restart with other values leaves config-1.gin (the first) and config.gin (in force)
    """
    path = directory / CONFIG_NAME
    try:
        _write(path, text, command)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path}: the configuration of the run cannot be kept there ({reason}). Move what is "
            "there away, or choose another folder."
        ) from None
    return path


def _write(path: pathlib.Path, text: str, command: str) -> None:
    directory = path.parent
    if path.exists():
        old = path.read_text("utf-8")
        if gin_config.same(old, text):
            return
        number = 1
        while (directory / f"config-{number}.gin").exists():
            number += 1
        (directory / f"config-{number}.gin").write_text(old, "utf-8")
    staged = directory / (CONFIG_NAME + ".tmp")
    staged.write_text(f"{header(command)}\n{text}", "utf-8")
    staged.rename(path)


def header(command: str) -> str:
    """Comment lines that say where a config came from."""
    lines = (
        f"optiml_jax {optiml_jax.__version__}",
        f"commit {commit() or 'unknown'}",
        f"command {command}",
    )
    return "".join(f"# {line}\n" for line in lines)


def commit() -> str:
    """The commit of the checkout this package runs from, "-dirty" when changed; else ""."""
    root = pathlib.Path(optiml_jax.__file__).parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
