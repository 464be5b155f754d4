"""Reads the tables that say what a benchmark's own files do not: categories, sources, metrics.

A table is tab-separated UTF-8 text with one row of column names; `tasks/tables/` holds one for each
benchmark that needs it. Cells are not quoted, and a list in a cell is parted by commas.
"""

import pathlib
from collections.abc import Iterator, Mapping, Sequence

from optiml_jax.bench.sources import files
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
    rows: dict[str, Mapping[str, str]] = {}
    for where, row in read_rows(path, columns):
        if not row[key] or row[key] in rows:
            problem = f"'{row[key]}' is there twice" if row[key] else "it is blank"
            raise InputError(f"{where}: column '{key}': {problem}. Each row needs its own.")
        rows[row[key]] = row
    return rows


def read_rows(
    path: pathlib.Path, columns: Sequence[str]
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The rows of a table in their order, each with exactly the given columns, and their places.

    Raises:
        InputError: the file cannot be read, has other columns, or has a row with another number of
            cells.
    """
    lines = files.lines(path)
    _, header = next(lines, ("", ""))
    found = header.rstrip("\r\n").split("\t") if header else []
    if found != list(columns):
        raise InputError(f"{path}:1: the columns are {found}, expected {list(columns)}.")
    for where, line in lines:
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != len(columns):
            raise InputError(
                f"{where}: the row has {len(cells)} cells, expected {len(columns)}"
                f" ({', '.join(columns)}), parted by tabs."
            )
        yield where, dict(zip(columns, cells, strict=True))


def listed(cell: str) -> tuple[str, ...]:
    """The items of a cell that holds a list.

    Example:
        listed("qnli, squad") is ("qnli", "squad"), listed("") is ().
    """
    return tuple(part.strip() for part in cell.split(",") if part.strip())
