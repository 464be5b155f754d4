"""Dialogues: turns on lines, the whole of it the target.

Small files are written for these tests; the real ones are those of the test data.
"""

import json

import pytest

from optiml_jax.bench import prompts, record
from optiml_jax.errors import InputError
from optiml_jax.tasks import dialogue
from optiml_jax.tasks.declaration import Request

TURNS = ["Hello there", "Hi!\n How are\r\nyou? ", "  ", "Fine."]
TEXT = "Hello there\nHi! How are you?\nFine."


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def read(folder, skip_bad=False):
    said = []
    return dialogue.BENCHMARK.read(
        Request(folder, skip_bad=skip_bad, on_skip=said.append)
    ).tasks, said


@pytest.mark.parametrize(
    "row",
    [
        {"turns": TURNS},
        {"turns": [{"speaker": "A", "utterance": turn} for turn in TURNS]},
        {"messages": [{"role": "user", "content": turn} for turn in TURNS]},
        {"conversations": [{"from": "human", "value": turn} for turn in TURNS]},
        {"dialogue": TEXT, "summary": "They greet."},
    ],
)
def test_forms(tmp_path, row):
    write(tmp_path / "a.jsonl", row, {"id": 9, "turns": ["x"]})
    ((task,), said) = read(tmp_path)
    assert (task.spec.name, task.spec.category) == ("dialogue__a", "Dialogue")
    assert (task.spec.instruction_kind, task.spec.num_examples, said) == ("text", 2, [])
    content = task.load()
    assert content.records == (
        record.Record("row-0", references=(TEXT,)),
        record.Record("9", references=("x",)),
    )
    example = prompts.render(
        task.spec, content, content.records[0], prompts.PromptConfig(), 0, 0, ()
    )
    assert (example.source, example.target, example.prompt_id) == ("", TEXT, "text")


def test_folders_below_and_lists_in_json(tmp_path):
    write(tmp_path / "light" / "train.jsonl", {"turns": ["a", "b"]})
    (tmp_path / "c.json").write_text('[{"turns": ["c"]}, {"turns": [" "]}]')
    write(tmp_path / ".cache" / "x.jsonl", {"broken": 1})
    (tmp_path / "notes.md").write_text("x")
    (tasks, said) = read(tmp_path)
    assert [task.spec.name for task in tasks] == ["dialogue__c", "dialogue__light_train"]
    assert said == [f"{tmp_path / 'c.json'}: dropped 1 of 2 rows without text."]


BAD = {
    "no turns": ("a.jsonl", '{"text": "x"}', r"row 1: no turns \(it has: text\)"),
    "not a list": ("a.jsonl", '{"turns": 3}', r"row 1: field 'turns' is 3, expected a list"),
    "not a text": ("a.jsonl", '{"turns": ["a", 3]}', r"field 'turns\[1\]' is 3, expected a text"),
    "no content": ("a.jsonl", '{"messages": [{"role": "x"}]}', r"field 'messages\[0\]' is"),
    "bad id": ("a.jsonl", '{"id": " ", "turns": ["a"]}', r"row 1: its id is ' '"),
    "same id": ("a.jsonl", '{"id": 1, "turns": ["a"]}\n' * 2, r"the id '1' is there twice"),
    "empty": ("a.jsonl", "", r"a\.jsonl: the file has no text"),
    "broken line": ("a.jsonl", "{}{", r"a\.jsonl:1: not JSON"),
    "broken file": (
        "a.json",
        "[\n{]",
        r"a\.json: not JSON at line 2, column 2: .* is named \.jsonl",
    ),
    "surrogate": ("a.json", '[{"turns": ["\\ud800"]}]', r"row 1 holds half of a surrogate pair"),
    "not rows": ("a.json", '{"turns": []}', r"a\.json: holds .*, expected a list of objects"),
    "encoding": ("a.json", b'["\xff"]', r"a\.json: not UTF-8 at byte 2 \(0xff\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(tmp_path, case):
    name, text, message = BAD[case]
    (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError, match=message):
        read(tmp_path)
    with pytest.raises(InputError, match=f"every file is bad. The first: .*{message}"):
        read(tmp_path, skip_bad=True)
    write(tmp_path / "good.jsonl", {"turns": ["x"]})
    (tasks, said) = read(tmp_path, skip_bad=True)
    assert [task.spec.original_name for task in tasks] == ["good"]
    assert len(said) == 1


def test_folders(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "none")
    with pytest.raises(InputError, match="has no such file"):
        read(tmp_path)
    write(tmp_path / "a b.jsonl", {"turns": ["x"]})
    write(tmp_path / "a_b.jsonl", {"turns": ["x"]})
    with pytest.raises(InputError, match="two tasks are named 'dialogue__a_b'"):
        read(tmp_path)


def test_real_dialogues(real_data):
    tasks, said = read(real_data / "dialogue")
    counts = {task.spec.original_name: task.spec.num_examples for task in tasks}
    assert said == []
    assert counts == {
        "chitchat_sample": 403,
        "dialogsum.dev": 500,
        "sgd_dev_dialogues_005": 128,
        "sgd_dev_dialogues_007": 68,
    }
    for task in tasks:
        records = task.load().records
        assert len(records) == task.spec.num_examples
        for one in records:
            (text,) = one.references
            lines = text.split("\n")
            assert all(line and line == line.strip() for line in lines)
            assert "\r" not in text
    text = (real_data / "dialogue" / "chitchat_sample.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in text.split("\n") if line]
    for row, one in zip(rows, tasks[0].load().records, strict=True):
        assert one.id == row["id"]
        assert one.references[0].split() == " ".join(row["turns"]).split()
