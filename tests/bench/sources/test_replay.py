"""Plain text: documents and their pieces, which joined are the documents again.

Small files are written for these tests; the real ones are those of the test data.
"""

import json
import os
import pathlib

import pytest

from optiml_jax.bench import record
from optiml_jax.bench.sources import replay
from optiml_jax.errors import InputError
from optiml_jax.tasks import replay as declared
from optiml_jax.tasks.declaration import Request


def read(folder):
    said = []
    return declared.BENCHMARK.read(Request(folder, on_skip=said.append)).tasks, said


def test_documents_of_a_text_file(tmp_path):
    text = "\ufeffOne.\r\n\r\nStill one.\n<|endoftext|>\n\n <|endoftext|> \nTwo.\n<|endoftext|>\n"
    (tmp_path / "a.txt").write_text(text, "utf-8", newline="")
    ((task,), said) = read(tmp_path)
    assert (task.spec.name, task.spec.category) == ("replay__a", "Pre-training Text")
    assert (task.spec.instruction_kind, task.spec.num_examples) == ("text", 2)
    assert said == [f"{tmp_path / 'a.txt'}: dropped 1 of 3 rows without text."]
    assert task.load().records == (
        record.Record("0", references=("One.\n\nStill one.",)),
        record.Record("2", references=("Two.",)),
    )
    assert task.load().definition == ""


def test_rows_and_long_documents(tmp_path):
    long = "\n\n".join(f"Paragraph {i}. " + "word " * 300 for i in range(10))
    rows = [{"text": "short"}, {"text": long, "url": "x"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ((task,), _) = read(tmp_path)
    records = task.load().records
    assert [one.id for one in records] == ["0", "1-0", "1-1", "1-2", "1-3"]
    assert all(len(one.references[0]) <= replay.MAX_BYTES for one in records)
    joined = " ".join(one.references[0] for one in records[1:])
    assert joined.split() == long.split()
    assert all(one.references[0].startswith("Paragraph") for one in records[1:])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("One two.\n\nThree four.\n\nFive.", ["One two.", "Three four.\n\nFive."]),
        ("One two.\nThree fours.\nFive six.", ["One two.", "Three fours.", "Five six."]),
        ("One. Two two two. Three three!", ["One. Two two two.", "Three three!"]),
        ("one two three four five six", ["one two three four", "five six"]),
        ("  \n a \n ", ["a"]),
        ("é" * 12, ["é" * 5, "é" * 5, "é" * 2]),
        (" \n", []),
        ("a\n\n" + "b" * 12 + "\n\nc", ["a\n\n" + "b" * 12 + "\n\nc"]),
        ("a\n\n" + "b" * 21 + "\n\nc", ["a", *["bbbbb"] * 4, "b\n\nc"]),
    ],
)
def test_pieces_end_where_parts_end(text, found):
    assert list(replay.pieces(text, 20)) == found


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"ok\n\xff\n", r"a\.txt:2: not UTF-8 at byte 0 \(0xff\) of the line"),
        ("a.txt", b" \n", r"a\.txt: the file has no text"),
        ("a.jsonl", b"", r"a\.jsonl: the file has no text"),
        ("a.jsonl", b'{"txt": "a"}\n', r"row 1: field 'text' is missing \(it has: txt\)"),
        ("a.jsonl", b'{"text": ["a"]}\n', r"row 1: field 'text' is \['a'\], expected a text"),
        ("a.jsonl", b"text\n", r"a\.jsonl:1: not JSON"),
    ],
)
def test_bad_files(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_a_changed_file_is_noticed(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    ((task,), _) = read(tmp_path)
    (tmp_path / "a.txt").write_text("two")
    with pytest.raises(InputError, match="changed while it was being used"):
        task.load()


def test_real_texts_are_whole(real_data):
    tasks, said = read(real_data / "text")
    assert (len(tasks), said) == (11, [])
    for task in tasks:
        texts = [one.references[0] for one in task.load().records]
        assert len(texts) == task.spec.num_examples
        assert max(len(text.encode()) for text in texts) <= replay.MAX_BYTES
        if task.spec.path.endswith(".txt"):
            whole = pathlib.Path(task.spec.path).read_text("utf-8")
            assert " ".join(texts).split() == whole.split()
            # Pieces are full: what is lost to their ends is little.
            assert sum(map(len, texts)) / len(texts) > 4000
    c4 = next(task for task in tasks if task.spec.original_name == "c4_demo")
    assert len({one.id.split("-")[0] for one in c4.load().records}) == 300


def test_links_to_nothing_and_to_themselves(tmp_path):
    (tmp_path / "a.txt").write_text("Some text.")
    (tmp_path / "dead.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"dead.txt: no file that can be read"):
        read(tmp_path)
    (tmp_path / "dead.txt").unlink()
    (tmp_path / "self").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"self: a link to the folder that it lies in"):
        read(tmp_path)


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("Some text.")
    (tmp_path / "closed").mkdir()
    listdir = os.listdir

    def refuse(folder):
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(InputError, match=r"closed: the folder cannot be read \(Permission denied"):
        read(tmp_path)
