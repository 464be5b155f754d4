"""Files as text, lines and JSON: what is said about those that are not."""

import pytest

from optiml_jax.bench.sources import files
from optiml_jax.errors import InputError

MARK = b"\xef\xbb\xbf"
DEEP = "[" * 100_000
LONG = "[" + "1" * 5000 + "]"


def test_lines_keep_their_ends(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(MARK + "é\r\n\n".encode() + MARK + "b\u2028c".encode())
    found = [(f"{path}:1", "é\r\n"), (f"{path}:2", "\n"), (f"{path}:3", "b\u2028c")]
    assert list(files.lines(path)) == found
    path.write_bytes(b"a\nb\xffc\n")
    with pytest.raises(InputError, match=r"a\.tsv:2: not UTF-8 at byte 1 \(0xff\) of the line\."):
        list(files.lines(path))
    with pytest.raises(InputError, match=r"b\.tsv: cannot be read \(No such .*\)\. Check"):
        list(files.lines(tmp_path / "b.tsv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[1,\n2,,",
            r"^x: not JSON at line 2, column 3: .*\. Correct the file or fetch",
        ),
        (DEEP, r"^x: its JSON is nested too deeply\. Flatten it\.$"),
        (LONG, r"^x: its JSON has a whole number of more than 4,300 digits\. Shorten it, or write"),
        ('{"a": 1, "b": ["\\uD800"]}', r"^x: field 'b' holds half of .* \(\\ud800\)\. Correct"),
        ('{"\\udcff": 1}', r"^x: field '\\udcff' holds half of a surrogate pair"),
        ('[{}, {"a": "\\udc00"}]', r"^x: row 2 holds half of a surrogate pair"),
        ('"\\ud800"', r"^x: it holds half of a surrogate pair"),
    ],
)
def test_json_that_cannot_be_used(text, message):
    with pytest.raises(InputError, match=message):
        files.parse_json(text, "x")


def test_json():
    assert files.parse_json('["\\ud83d\\ude00 \\\\ud800"]', "x") == ["\U0001f600 \\ud800"]
    with pytest.raises(InputError, match=r"^x:7: not JSON at column 1: .*\. Do that\.$"):
        files.parse_json("x", "x:7", "Do that.", is_line=True)


def test_folders(tmp_path):
    (tmp_path / "b").mkdir()
    for name in (".hidden", "a"):
        (tmp_path / name).touch()
    assert files.listed(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    files.check_folder(tmp_path, "it", "Expected one.")
    with pytest.raises(InputError, match=r"^it is a file, not a folder\. Expected one\.$"):
        files.check_folder(tmp_path / "a", "it", "Expected one.")
    with pytest.raises(InputError, match=r"^it does not exist\. Expected one\.$"):
        files.check_folder(tmp_path / "c", "it", "Expected one.")
    with pytest.raises(InputError, match=r"c: the folder cannot be read \(No such file"):
        files.listed(tmp_path / "c")
