"""Reads the tables that say what a benchmark's own files do not: categories, sources, metrics.

A table is tab-separated UTF-8 text with one row of column names; `tasks/tables/` holds one for each
benchmark that needs it. Cells are not quoted, and a list in a cell is parted by commas.
"""

import pathlib
from collections.abc import Mapping, Sequence

from optiml_jax.errors import InputError


def read(
    path: pathlib.Path, columns: Sequence[str], key: str | None = None
) -> dict[str, Mapping[str, str]]:
    """The rows of a table by their key, each with exactly the given columns.

    Args:
        key: column whose cells name the rows; the first one when None.

    Raises:
        InputError: the file cannot be read, has other columns, or has a row that is broken or
            named like another one.
    """
    key = key or columns[0]
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the table cannot be read ({error}).") from error
    lines = text.splitlines()
    if not lines or lines[0].split("\t") != list(columns):
        found = lines[0].split("\t") if lines else []
        raise InputError(f"{path}:1: the columns are {found}, expected {list(columns)}.")
    rows: dict[str, Mapping[str, str]] = {}
    for number, line in enumerate(lines[1:], start=2):
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != len(columns):
            raise InputError(
                f"{path}:{number}: the row has {len(cells)} cells, expected {len(columns)}"
                f" ({', '.join(columns)}), parted by tabs."
            )
        row = dict(zip(columns, cells, strict=True))
        if not row[key] or row[key] in rows:
            problem = f"'{row[key]}' is there twice" if row[key] else "it is blank"
            raise InputError(f"{path}:{number}: column '{key}': {problem}. Each row needs its own.")
        rows[row[key]] = row
    return rows


def listed(cell: str) -> tuple[str, ...]:
    """The items of a cell that holds a list.

    Example:
        listed("qnli, squad") is ("qnli", "squad"), listed("") is ().
    """
    return tuple(part.strip() for part in cell.split(",") if part.strip())
