"""Tables of tasks: what is read, and how a broken one is refused."""

import pytest

from optiml_jax.bench.sources import tables
from optiml_jax.errors import InputError


def table(tmp_path, text):
    path = tmp_path / "table.tsv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_rows_by_their_key(tmp_path):
    path = table(tmp_path, 'a\tb\nx\t"q", r\ny\t\n')
    assert tables.read(path, ("a", "b")) == {
        "x": {"a": "x", "b": '"q", r'},
        "y": {"a": "y", "b": ""},
    }
    assert list(tables.read(table(tmp_path, "a\tb\nx\t1\nx\t2\n"), ("a", "b"), "b")) == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"table\.tsv:1: the columns are \[\], expected"),
        ("a\tc\n", r"table\.tsv:1: the columns are \['a', 'c'\], expected \['a', 'b'\]"),
        ("a\tb\nx\n", r"table\.tsv:2: the row has 1 cells, expected 2 \(a, b\)"),
        ("a\tb\nx\t1\nx\t2\n", r"table\.tsv:3: column 'a': 'x' is there twice"),
        ("a\tb\n\t1\n", r"table\.tsv:2: column 'a': it is blank"),
        (b"a\tb\n\xff\t1\n", r"table\.tsv:2: not UTF-8 at byte 0 \(0xff\) of the line"),
    ],
)
def test_broken_tables(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        tables.read(table(tmp_path, text), ("a", "b"))


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"none\.tsv: cannot be read \(No such file"):
        tables.read(tmp_path / "none.tsv", ("a",))


def test_lists():
    assert tables.listed("qnli, squad") == ("qnli", "squad")
    assert tables.listed(" ") == ()
