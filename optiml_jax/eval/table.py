"""Trees of scores as tables: coloured and fitted to the window on a terminal, else plain text.

show             results.json; the best answer that needs no model stands beside each score
show_comparison  a tree of `comparison`
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from rich import box, console, markup, table

from optiml_jax.eval import baselines

Row = tuple[Any, ...]
"""Depth in the tree, name, values as text."""

HEADINGS = ("", "n", "score", "95 % CI")
BASELINE_HEADING = "best baseline"
COMPARISON_HEADINGS = ("", "n", "before", "after", "difference", "95 % CI", "p")
ADJUSTED_HEADING = "p adj."

# Terminals of fewer columns show the baseline's score without its name, or no baseline.
_ROOM_FOR_NAMES = 72
_ROOM_FOR_BASELINES = 50

_STYLES = ("bold", "bold cyan", "", "dim")


def show(results: Mapping[str, Any], stream: TextIO | None = None, tasks: bool = False) -> None:
    """Prints overall, levels and categories, and tasks when asked for."""
    out = stream or sys.stdout
    if out.isatty():
        terminal = console.Console(file=out)
        terminal.print(make_table(results, tasks, terminal.width))
        for note in _notes(results):
            terminal.print(note, style="dim", highlight=False, markup=False)
    else:
        out.write(plain_text(results, tasks) + "\n")


def plain_text(results: Mapping[str, Any], tasks: bool = False) -> str:
    """The table in plain characters, columns aligned.

    Example:
                                    n  score       95 % CI  best baseline
        overall                   300   41.5  [38.9, 44.0]  24.0 majority
        fully_held_out            100   30.1  [26.0, 34.4]  12.5 copy_input
          Textual Entailment      100   30.1  [26.0, 34.4]  12.5 copy_input
    """
    rows = [values for _, *values in _rows(results, tasks)]
    return "\n".join([caption(results), *align([_headings(results), *rows]), *_notes(results)])


def show_comparison(
    tree: Mapping[str, Any], stream: TextIO | None = None, tasks: bool = False
) -> None:
    """Prints the differences of overall, levels and categories, and of tasks when asked for."""
    out = stream or sys.stdout
    headings = COMPARISON_HEADINGS + (ADJUSTED_HEADING,) * tasks
    rows = list(_comparison_rows(tree, tasks))
    if out.isatty():
        terminal = console.Console(file=out)
        if terminal.width < _ROOM_FOR_NAMES:
            # What is left tells the same: before is after minus the difference.
            headings = (headings[0], *headings[3:])
            rows = [(*row[:2], *row[4:]) for row in rows]
        terminal.print(rich_table(_comparison_caption(tree), headings, rows))
        notes = _comparison_notes(tree, tasks)
        terminal.print(notes, style="dim", highlight=False, markup=False)
    else:
        lines = align([headings, *([*values] for _, *values in rows)])
        told = [_comparison_caption(tree), *lines, _comparison_notes(tree, tasks)]
        out.write("\n".join(told) + "\n")


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines of plain text: numbers to the right, the first column and words to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lefts = (0, rows[0].index(BASELINE_HEADING) if BASELINE_HEADING in rows[0] else 0)
    return [
        "  ".join(
            value.ljust(width) if column in lefts else value.rjust(width)
            for column, (value, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def make_table(
    results: Mapping[str, Any], tasks: bool = False, width: int = _ROOM_FOR_NAMES
) -> table.Table:
    """The table for a terminal of `width` columns; names wrap where it is narrow, numbers never."""
    headings = _headings(results)
    rows: Iterable[Row] = _rows(results, tasks)
    if width < _ROOM_FOR_BASELINES:
        headings = HEADINGS
        rows = (row[: 1 + len(HEADINGS)] for row in rows)
    elif len(headings) > len(HEADINGS) and width < _ROOM_FOR_NAMES:
        headings = (*HEADINGS, "baseline")
        rows = ((*row[:-1], row[-1].split()[0]) for row in rows)
    return rich_table(caption(results), headings, rows)


def rich_table(title: str, headings: Sequence[str], rows: Iterable[Row]) -> table.Table:
    """A table for a terminal of rows (depth, name, values...)."""
    made = table.Table(
        box=box.SIMPLE_HEAD,
        # Users' names may hold what rich would take for markup.
        title=markup.escape(title),
        title_justify="left",
        padding=(0, 1, 0, 0),
    )
    made.add_column(headings[0], overflow="fold")
    for heading in headings[1:]:
        side = "left" if heading == BASELINE_HEADING else "right"
        made.add_column(heading, justify=side, no_wrap=True)
    for depth, *values in rows:
        made.add_row(*map(markup.escape, values), style=_STYLES[depth])
    return made


def caption(results: Mapping[str, Any]) -> str:
    """Which model and suite a table is of."""
    parts = [results["model"] or "model", f"step {results['step']}"]
    parts += [results["suite"]] * bool(results["suite"])
    return ", ".join([*parts, f"{results['shots']}-shot"])


def walk(results: Mapping[str, Any], tasks: bool) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """(depth, indented name, node) from the top of the tree down."""
    yield 0, "overall", results["overall"]
    for level, node in results["levels"].items():
        yield 1, level, node
        for category, inner in node["categories"].items():
            yield 2, "  " + category, inner
            if tasks:
                for task, leaf in inner["tasks"].items():
                    yield 3, "    " + task, leaf


def show_interval(interval: Sequence[float] | None) -> str:
    """An interval as it stands in a table."""
    return "-" if interval is None else f"[{interval[0]:.1f}, {interval[1]:.1f}]"


def _headings(results: Mapping[str, Any]) -> tuple[str, ...]:
    """Results of earlier versions have no baselines, and no column for them."""
    return HEADINGS + (BASELINE_HEADING,) * bool(results["overall"].get("baselines"))


def _notes(results: Mapping[str, Any]) -> list[str]:
    """What scores do not tell."""
    cut, total = results.get("num_truncated", 0), results["overall"]["n"]
    return [f"{cut} of {total} prompts were cut on the left to fit the model."] if cut else []


def _rows(results: Mapping[str, Any], tasks: bool) -> Iterator[Row]:
    with_baselines = len(_headings(results)) > len(HEADINGS)
    for depth, name, node in walk(results, tasks):
        best = baselines.best_baseline(node)
        told = (f"{best[1]['score']:.1f} {best[0]}" if best else "-",)
        shown = show_interval(node["ci"])
        yield (
            *(depth, name, str(node["n"]), f"{node['score']:.1f}", shown),
            *(told if with_baselines else ()),
        )


def _comparison_rows(tree: Mapping[str, Any], tasks: bool) -> Iterator[Row]:
    for depth, name, node in walk(tree, tasks):
        adjusted = _show_p(node["p_adjusted"]) if "p_adjusted" in node else ""
        yield (
            *(depth, name, str(node["n"]), f"{node['before']:.1f}", f"{node['after']:.1f}"),
            *(f"{node['difference']:+.1f}", show_interval(node["ci"]), _show_p(node["p"])),
            *((adjusted,) if tasks else ()),
        )


def _show_p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _comparison_caption(tree: Mapping[str, Any]) -> str:
    return "\n".join(
        f"{side + ':':<7} {caption({**tree[side], 'suite': tree['suite'], 'shots': tree['shots']})}"
        for side in ("before", "after")
    )


def _comparison_notes(tree: Mapping[str, Any], tasks: bool) -> str:
    """What the columns mean, and what is not the same on both sides."""
    notes = [
        "95 % CI: of the difference, over other tasks and instances like these.",
        "p: chance of such a difference on these instances between models that do not differ.",
    ]
    notes += ["p adj.: the same, adjusted for the number of tasks (Benjamini-Hochberg)."] * tasks
    left_out = [tree[side]["num_left_out"] for side in ("before", "after")]
    if any(left_out):
        notes.append(
            f"Compared: the {tree['overall']['n']} examples that both have;"
            f" {left_out[0]} of before and {left_out[1]} of after are left out."
        )
    for name, (before, after) in tree["settings"].items():
        notes.append(f"Not the same: {name} is {before!r} before, {after!r} after.")
    return "\n".join(notes)
