"""Tables and marked text, in a pipe and on a terminal."""

import io
import re
import sys

import pytest
from rich import console

from optiml_jax.main import show

TABLE = show.Table("sizes", ("task", "examples"), [("a", "1,000"), ("long" * 30, "7")])
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def terminal(monkeypatch):
    """Makes rich see a terminal of a width; returns how, and what was printed."""
    printed = io.StringIO()
    made = console.Console

    def on(width, **options):
        monkeypatch.setattr(
            "rich.console.Console",
            lambda: made(
                file=printed, force_terminal=True, width=width, **{"color_system": "256", **options}
            ),
        )
        monkeypatch.setattr(sys, "stdout", printed)
        return printed

    return on


def test_a_pipe_gets_aligned_whole_rows(capsys):
    show.show([TABLE])
    lines = capsys.readouterr().out.splitlines()
    width = len("long" * 30)
    assert lines[0] == "sizes"
    assert lines[1] == "task".ljust(width) + "  examples"
    assert lines[2] == "a".ljust(width) + "     1,000"
    assert lines[3] == "long" * 30 + "         7"


def test_the_example_of_plain():
    table = show.Table("sizes", ("task", "examples"), [("a", "1,000"), ("long", "7")])
    assert show.plain(table) in re.sub(r"^ {12}", "", str(show.plain.__doc__), flags=re.MULTILINE)


def test_columns_are_aligned_as_told():
    table = show.Table("", ("a", "b", "c"), [("xx", "1", "yy"), ("x", "100", "y")], align="lrl")
    assert show.plain(table).splitlines()[2:] == ["xx    1  yy", "x   100  y"]


def test_a_table_without_rows_shows_its_columns():
    assert show.plain(show.Table("none", ("task", "examples"), [])) == "none\ntask  examples"


def test_a_terminal_folds_names_and_never_numbers(terminal):
    printed = terminal(100)
    show.show([TABLE])
    text = ESCAPES.sub("", printed.getvalue())
    assert max(map(len, text.splitlines())) <= 100
    assert "1,000" in text
    assert "".join(re.findall("[long]{4,}", text)).count("long") >= 30


def test_columns_that_would_be_folded_to_nothing_are_left_to_the_terminal(terminal):
    printed = terminal(30)
    show.show([TABLE])
    assert printed.getvalue() == show.plain(TABLE) + "\n\n"


def test_brackets_are_text(terminal):
    printed = terminal(80)
    show.show([show.Table("[b]", ("[a]",), [("[red]x",)])])
    show.show_marked("[red]", "[/red]")
    text = ESCAPES.sub("", printed.getvalue())
    assert all(part in text for part in ("[b]", "[a]", "[red]x", "[red][/red]"))


def test_what_carries_loss_is_marked_in_a_pipe(capsys):
    show.show_marked("2 + 2 =", " 4</s>")
    assert capsys.readouterr().out == "2 + 2 =⟦ 4</s>⟧\n"


def test_what_carries_loss_is_coloured_on_a_terminal(terminal):
    printed = terminal(20)
    show.show_marked("a long source that is not folded: ", "4</s>")
    assert printed.getvalue() == "a long source that is not folded: \x1b[1;32m4</s>\x1b[0m\n"


def test_a_terminal_without_colours_gets_marks(terminal):
    printed = terminal(20, color_system=None)
    show.show_marked("=", "4")
    assert printed.getvalue() == "=⟦4⟧\n"


def test_statuses_stand_in_columns(capsys):
    show.show_statuses(
        [("ok", "python", "3.11", ""), ("problem", "jax", "not [there]", "Install it.")]
    )
    assert capsys.readouterr().out.splitlines() == [
        "ok       python  3.11",
        "problem  jax     not [there]",
        "                 -> Install it.",
    ]


def test_statuses_are_coloured_on_a_terminal(terminal):
    printed = terminal(20)
    show.show_statuses([("problem", "jax", "not [there] and much more", "Install it.")])
    assert "\x1b[1;31mproblem\x1b[0m  jax  not [there] and much more\n" in printed.getvalue()


def test_statuses_are_shown_without_rich(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich", None)
    show.show_statuses([("ok", "python", "3.11", "")])
    assert capsys.readouterr().out == "ok       python  3.11\n"


def test_percent_keeps_digits_of_small_shares():
    assert [show.percent(share) for share in (1, 0.1234, 0.01234, 0)] == [
        *("100.0", "12.3", "1.23", "0.00")
    ]
