"""Tables and marked text for people: rich on a terminal, plain and whole in a pipe.

Neighbours: commands build `Table`s from their content and print them here. A pipe gets aligned
columns that are never folded or cut, whatever width the terminal has, so that `grep` and `awk`
find whole rows. rich is imported when something is shown: `--help` has to answer at once.
"""

import dataclasses
from collections.abc import Sequence

MARKS = ("⟦", "⟧")
"""Stand around the tokens that carry loss where there is no colour."""

MARKED_STYLE = "bold green"
STATUS_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def count_of(number: int, noun: str) -> str:
    """A number of things: "1 pair", "1,200 pairs"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text under a title.

    Attributes:
        columns: their headers.
        rows: one text a column.
        align: a letter a column, "l" for text and "r" for numbers, which are never folded; the
            last letter stands for all columns that follow.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str = "lr"

    def is_text(self, column: int) -> bool:
        """Whether a column is flush left."""
        return self.align[min(column, len(self.align) - 1)] == "l"


def plain(table: Table) -> str:
    """The table as aligned text, one line a row, title and header first.

    Example:
        Table("sizes", ("task", "examples"), [("a", "1,000"), ("long", "7")]) is
            sizes
            task  examples
            a        1,000
            long         7
    """
    lines = [tuple(table.columns), *(tuple(row) for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]

    def laid(row: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if table.is_text(number) else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths))
        )
        return "  ".join(cells).rstrip()

    return "\n".join([table.title, *map(laid, lines)])


def show(tables: Sequence[Table]) -> None:
    """Prints tables one below the other on standard output."""
    from rich import box, console, markup
    from rich import table as rich_table

    out = console.Console()
    for table in tables:
        text = plain(table)
        spare = out.width - max(map(len, text.splitlines()))
        first = max((len(row[0]) for row in table.rows), default=0)
        # Columns folded to a few letters are worse than long lines that the terminal wraps.
        if not out.is_terminal or -spare > first // 2:
            print(text + "\n")
            continue
        grid = rich_table.Table(
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,
            title=markup.escape(table.title),
            title_justify="left",
            title_style="bold",
        )
        for number, name in enumerate(table.columns):
            is_text = table.is_text(number)
            grid.add_column(
                markup.escape(name),
                justify="left" if is_text else "right",
                overflow="fold",
                no_wrap=not is_text,
            )
        for row in table.rows:
            grid.add_row(*map(markup.escape, row))
        out.print(grid)


def show_marked(head: str, marked: str, tail: str = "") -> None:
    """Prints text whose middle part stands out: in colour on a terminal, else between marks."""
    from rich import console, text

    out = console.Console()
    if out.is_terminal and out.color_system and not out.no_color:
        out.print(
            text.Text.assemble(head, (marked, MARKED_STYLE), tail), soft_wrap=True, highlight=False
        )
    else:
        print(f"{head}{MARKS[0]}{marked}{MARKS[1]}{tail}")


def show_heading(line: str) -> None:
    """Prints a line that stands above something."""
    from rich import console, text

    out = console.Console()
    if out.is_terminal:
        out.print(text.Text(line, style="bold"), soft_wrap=True)
    else:
        print(line)


def show_statuses(rows: Sequence[tuple[str, str, str, str]]) -> None:
    """Prints (status, name, text, advice) of each row; the advice stands below its text.

    Without rich it prints no colours: the doctor has to speak where packages are missing.
    """
    width = max((len(name) for _, name, _, _ in rows), default=0)
    lines: list[tuple[str, str]] = []
    for status, name, told, advice in rows:
        lines.append((f"{status:<8} {name:<{width}}  {told}", status))
        if advice:
            lines.append((" " * (width + 11) + f"-> {advice}", ""))
    try:
        from rich import console, text
    except ImportError:
        print("\n".join(line for line, _ in lines))
        return
    out = console.Console()
    for line, status in lines:
        if not out.is_terminal:
            print(line)
            continue
        shown = text.Text(line, style="" if status else "italic")
        if status:
            shown.stylize(STATUS_STYLES[status], 0, len(status))
        out.print(shown, soft_wrap=True)


def percent(share: float) -> str:
    """A share as a percentage without its sign, for columns that carry it."""
    value = 100 * share
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
