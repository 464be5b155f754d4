"""leakage.html and leakage.json: written together into a folder, whole or not at all.

The page is one file that asks for nothing, like the evaluation report, whose style it has; rows are
made by its script from the data inside, a few hundred at a time, because there may be thousands.

Neighbours: `leakage_content` gives the object; `eval.report_page` has the folder of templates.
"""

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any, TextIO

import jinja2
import markupsafe

from optiml_jax.errors import InputError
from optiml_jax.eval import report_page
from optiml_jax.main import leakage_content, show

FILES = ("leakage.json", "leakage.html")
STAGED = ".leakage."
LOCK = "lock"
STATIC_ROWS = 100
"""Rows that stand in the page itself, for browsers without scripts."""


class Folder:
    """A folder for the two files, claimed before hours of counting and filled after them.

    Raises:
        InputError: it cannot be written, or holds other files.
    """

    def __init__(self, path: str):
        self.path = pathlib.Path(path)
        try:
            names = sorted(one.name for one in self.path.iterdir()) if self.path.exists() else []
            # What a killed run left is not foreign.
            ours = (*FILES, STAGED)
            if foreign := [name for name in names if not name.startswith(ours)]:
                raise InputError(
                    f"--out '{path}' is not empty (it has '{foreign[0]}') and is not a folder of"
                    " this command. Give a new or empty folder."
                )
            self.path.absolute().parent.mkdir(parents=True, exist_ok=True)
            parent = self.path if self.path.exists() else self.path.absolute().parent
            for place in {parent, self.path.absolute().parent}:
                _sweep(place)
            self._staged = pathlib.Path(tempfile.mkdtemp(dir=parent, prefix=STAGED))
            self._lock = _hold(self._staged)
        except OSError as error:
            is_file = isinstance(error, NotADirectoryError | FileExistsError)
            reason = "a file stands there" if is_file else error.strerror
            raise InputError(
                f"--out '{path}' cannot be written ({reason}). Give a folder that you may write to."
            ) from None

    def write(self, content: Mapping[str, Any], made: Mapping[str, str]) -> None:
        """Puts both files in place."""
        text = json.dumps({**content, "made": made}, indent=1, ensure_ascii=False)
        try:
            (self._staged / FILES[0]).write_text(text + "\n", "utf-8")
            (self._staged / FILES[1]).write_text(render(content, made), "utf-8")
            self.path.mkdir(exist_ok=True)
            for name in FILES:
                os.replace(self._staged / name, self.path / name)
        except OSError as error:
            raise InputError(f"--out '{self.path}' cannot be written ({error.strerror}).") from None

    def close(self) -> None:
        """Removes what is not in place."""
        shutil.rmtree(self._staged, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()


def _hold(staged: pathlib.Path) -> TextIO | None:
    """A lock that says as long as it is open that a run uses the folder.

    None where the file system has no locks: there, what a killed run leaves stays.
    """
    with contextlib.suppress(OSError):
        lock = (staged / f"{LOCK}.new").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Under this name it is always locked, so no other run takes it for a dead one's.
        os.rename(lock.name, staged / LOCK)
        return lock
    return None


def _sweep(folder: pathlib.Path) -> None:
    """Removes what killed runs left in a folder."""
    for path in folder.glob(f"{STAGED}*/{LOCK}"):
        with contextlib.suppress(OSError), path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if {one.name for one in path.parent.iterdir()} <= {*FILES, LOCK}:
                shutil.rmtree(path.parent)


def render(content: Mapping[str, Any], made: Mapping[str, str]) -> str:
    """The page; the same content gives the same text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(report_page.FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=format_percent,
        breakable=report_page.breakable,
        count_of=show.count_of,
    )
    style, own, script = (
        (report_page.FOLDER / name).read_text("utf-8")
        for name in ("style.css", "leakage.css", "leakage.js")
    )
    pairs = content["pairs"]
    return environment.get_template("leakage.html").render(
        content=content,
        made=made,
        style=markupsafe.Markup(style + own),
        script=markupsafe.Markup(script),
        style_digest=_digest(style + own),
        script_digest=_digest(script),
        verdicts=leakage_content.VERDICTS,
        levels=sorted({pair["eval_level"] for pair in pairs}),
        static_rows=pairs[:STATIC_ROWS],
        data=report_page.embed({"pairs": pairs, "verdicts": leakage_content.VERDICTS}),
    )


def _digest(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"sha256-{digest}"


def format_percent(fraction: float) -> str:
    """With one decimal, two where it is small."""
    return f"{100 * fraction:.1f}" if fraction >= 0.1 else f"{100 * fraction:.2f}"
