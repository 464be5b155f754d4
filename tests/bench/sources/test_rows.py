"""Rows as JSONL and Parquet: what comes back, and what each kind of broken file says."""

import weakref

import pytest

from optiml_jax.bench import record
from optiml_jax.bench.sources import rows
from optiml_jax.errors import InputError

ROWS = [{"premise": "Ünder", "label": 0}, {"premise": "b", "label": 1}, {"a": [1], "b": None}]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def write_parquet(path, table):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(table), path)
    return path


def test_jsonl(tmp_path):
    text = '\ufeff{"premise": "Ünder", "label": 0}\n\n{"premise": "b", "label": 1}\r\n'
    path = write(tmp_path / "train.jsonl", text + '{"a": [1], "b": null}')
    assert list(rows.read(path)) == ROWS
    assert rows.count(path) == 3


def test_parquet(tmp_path):
    table = [{"text": str(i), "answers": {"text": ["x"] * (i % 3)}} for i in range(3000)]
    path = write_parquet(tmp_path / "train.parquet", table)
    assert list(rows.read(path)) == table
    assert rows.count(path) == 3000


def test_splits_are_ordered_and_dev_is_validation(tmp_path):
    for name in ("test.jsonl", "dev.jsonl", "train.jsonl", "README.md", ".dev.jsonl", "cache.json"):
        write(tmp_path / name, "{}\n")
    found = rows.split_files(tmp_path)
    assert {split: path.name for split, path in found.items()} == {
        "train": "train.jsonl",
        "validation": "dev.jsonl",
        "test": "test.jsonl",
    }
    assert list(found) == list(rows.SPLITS)
    assert rows.split_files(write(tmp_path / "empty" / "x.txt", "").parent) == {}


def test_records_name_split_and_row(tmp_path):
    files = {
        "train": write(tmp_path / "train.jsonl", '{"x": 1}\n\n{"x": 2}\n'),
        "validation": write_parquet(tmp_path / "dev.parquet", [{"x": 3}]),
        "test": write(tmp_path / "test.jsonl", '{"x": 4}\n'),
    }
    found = list(rows.records(files))
    assert [one.id for one in found] == ["train-0", "train-1", "validation-0", "test-0"]
    assert [one.fields for one in found] == [{"x": i} for i in (1, 2, 3, 4)]
    assert [one.metadata.get(record.HELD_OUT) for one in found] == [
        None,
        None,
        "validation",
        "test",
    ]
    assert not any(one.input or one.references or one.options for one in found)


def test_digest(tmp_path):
    one, two = write(tmp_path / "a", "xy"), write(tmp_path / "b", "z")
    base = rows.digest([one, two], "m", "n")
    assert len(base) == 64
    assert base == rows.digest(iter([one, two]), "m", "n")
    other = write(tmp_path / "other" / "a", "x"), write(tmp_path / "other" / "b", "yz")
    assert len({base, rows.digest(other, "m", "n"), rows.digest([one, two], "mn")}) == 3
    assert base == rows.digest([write(tmp_path / "c" / "a", "xy"), two], "m", "n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"x": }', r"train\.jsonl:3: not JSON at column 7"),
        (b'{"x": 1', r"train\.jsonl:3: not JSON"),
        (b"[1, 2]", r"train\.jsonl:3: the line is \[1, 2\], expected an object"),
        ('{"x": "é"}'.encode("latin-1"), r"train\.jsonl:3: not UTF-8 at byte 7 \(0xe9\)"),
        (b'{"x": "\\ud83d"}', r"train\.jsonl:3: .*half of a surrogate pair"),
        (b"[" * 100_000, r"train\.jsonl:3: .*(nested too deeply|not JSON)"),
        (
            b'{"x": ' + b"1" * 5000 + b"}",
            r"train\.jsonl:3: its JSON has a whole number of more than 4,300 digits\. Shorten",
        ),
    ],
)
def test_broken_line(tmp_path, line, message):
    path = write(tmp_path / "train.jsonl", b'{"x": 1}\n\n' + line + b'\n{"x": 2}\n')
    with pytest.raises(InputError, match=message):
        list(rows.read(path))


@pytest.mark.parametrize("content", [b"", b"PAR1 is not all", b'{"x": 1}\n' * 20])
def test_broken_parquet(tmp_path, content):
    pytest.importorskip("pyarrow")
    path = write(tmp_path / "train.parquet", content)
    with pytest.raises(InputError, match=r"train\.parquet: not Parquet that can be read"):
        list(rows.read(path))
    with pytest.raises(InputError, match=r"train\.parquet: not Parquet that can be read"):
        rows.count(path)


@pytest.mark.parametrize("name", ["train.jsonl", "train.parquet"])
def test_no_file(tmp_path, name):
    pytest.importorskip("pyarrow")
    for call in (lambda path: list(rows.read(path)), rows.count, lambda p: rows.digest([p])):
        with pytest.raises(InputError, match=f"{name}: cannot be read"):
            call(tmp_path / name)


def test_bad_folders(tmp_path):
    write(tmp_path / "twice" / "dev.jsonl", "{}")
    write(tmp_path / "twice" / "validation.parquet", "")
    with pytest.raises(InputError, match=r"'dev.jsonl' and 'validation.parquet' both hold"):
        rows.split_files(tmp_path / "twice")
    write(tmp_path / "other" / "training.jsonl", "{}")
    with pytest.raises(InputError, match=r"training.jsonl: .*unknown split.*Did you mean 'train'"):
        rows.split_files(tmp_path / "other")
    with pytest.raises(InputError, match="cannot be read"):
        rows.split_files(tmp_path / "none")


def test_a_split_may_lie_in_parts(tmp_path):
    for name in ("test_r1", "dev_r1", "train-00000-of-00002", "train-00001-of-00002", "test_r2"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "x"}\n')
    files = rows.split_files(tmp_path)
    assert list(files) == [
        "train-00000-of-00002", "train-00001-of-00002", "validation_r1", "test_r1", "test_r2",
    ]  # fmt: skip
    assert [rows.use_of(split) for split in files] == [
        "train", "train", "validation", "test", "test",
    ]  # fmt: skip
    found = list(rows.records(files))
    assert [one.id for one in found][:3] == [
        "train-00000-of-00002-0", "train-00001-of-00002-0", "validation_r1-0",
    ]  # fmt: skip
    assert [one.metadata.get(record.HELD_OUT) for one in found] == [
        None, None, "validation", "test", "test",
    ]  # fmt: skip
    (tmp_path / "labelled.jsonl").write_text("{}")
    with pytest.raises(InputError, match="unknown split 'labelled'"):
        rows.split_files(tmp_path)


def test_no_more_than_what_stays_is_held(tmp_path):
    """Rows stream past: of many only the kept ones are alive at any time."""
    alive, counts = [], []

    def stream():
        for number in range(1000):
            one = record.Record(f"train-{number}")
            alive.append(weakref.ref(one))
            counts.append(sum(ref() is not None for ref in alive))
            yield one

    kept = rows.capped(stream(), 50, "task")
    assert len(kept) == 50
    assert max(counts) < 60
