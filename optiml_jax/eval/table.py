"""`results.json` as a table: coloured and fitted to the window on a terminal, else plain text."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from rich import box, console, table

HEADINGS = ("", "n", "score", "95 % CI")


def show(results: Mapping[str, Any], stream: TextIO | None = None, tasks: bool = False) -> None:
    """Prints overall, levels and categories, and tasks when asked for."""
    out = stream or sys.stdout
    if out.isatty():
        console.Console(file=out).print(make_table(results, tasks))
    else:
        out.write(plain_text(results, tasks) + "\n")


def plain_text(results: Mapping[str, Any], tasks: bool = False) -> str:
    """The table in plain characters, columns aligned.

    Example:
                                    n  score       95 % CI
        overall                   300   41.5  [38.9, 44.0]
        fully_held_out            100   30.1  [26.0, 34.4]
          Textual Entailment      100   30.1  [26.0, 34.4]
    """
    cells = [HEADINGS, *([name, *values] for _, name, *values in _rows(results, tasks))]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADINGS))]
    lines = [
        "  ".join(
            value.ljust(width) if column == 0 else value.rjust(width)
            for column, (value, width) in enumerate(zip(row, widths))
        )
        for row in cells
    ]
    return "\n".join([caption(results), *(line.rstrip() for line in lines)])


def make_table(results: Mapping[str, Any], tasks: bool = False) -> table.Table:
    """The table for a terminal; names wrap where the window is narrow, numbers never."""
    made = table.Table(box=box.SIMPLE_HEAD, title=caption(results), title_justify="left")
    made.add_column(HEADINGS[0], overflow="fold")
    for heading in HEADINGS[1:]:
        made.add_column(heading, justify="right", no_wrap=True)
    for depth, *values in _rows(results, tasks):
        made.add_row(*values, style=("bold", "bold cyan", "", "dim")[depth])
    return made


def caption(results: Mapping[str, Any]) -> str:
    """Which model and suite a table is of."""
    parts = [results["model"] or "model", f"step {results['step']}"]
    parts += [results["suite"]] * bool(results["suite"])
    return ", ".join([*parts, f"{results['shots']}-shot"])


def _rows(results: Mapping[str, Any], tasks: bool) -> Iterator[tuple[int, str, str, str, str]]:
    """(depth, indented name, n, score, interval) from the top of the tree down."""
    yield _row(0, "overall", results["overall"])
    for level, node in results["levels"].items():
        yield _row(1, level, node)
        for category, inner in node["categories"].items():
            yield _row(2, category, inner)
            if tasks:
                for task, leaf in inner["tasks"].items():
                    yield _row(3, task, leaf)


def _row(depth: int, name: str, node: Mapping[str, Any]) -> tuple[int, str, str, str, str]:
    interval = node["ci"]
    shown = "-" if interval is None else f"[{interval[0]:.1f}, {interval[1]:.1f}]"
    return depth, "  " * max(0, depth - 1) + name, str(node["n"]), f"{node['score']:.1f}", shown
