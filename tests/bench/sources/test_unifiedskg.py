"""UnifiedSKG's records: how text, knowledge and conversation become one input.

The records are written for these tests, in the official format.
"""

import json
import pathlib

import pytest

from optiml_jax.bench import prompts, record
from optiml_jax.bench.sources import text_pairs, unifiedskg
from optiml_jax.errors import InputError
from optiml_jax.tasks import unifiedskg as declared
from optiml_jax.tasks.declaration import Request

SPIDER = {
    "id": "dev-17",
    "text_in": "How many singers?",
    "struct_in": "| concert | singer : id , name",
    "seq_out": "select count(*) from singer",
    "description": "task: spider",
}


def write(folder, task, *rows, name="dev.jsonl"):
    path = pathlib.Path(folder, task, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def read(folder):
    return declared.BENCHMARK.read(Request(folder)).tasks


def one_input(folder, task, text, knowledge, output="x"):
    write(folder, task, {"text_in": text, "struct_in": knowledge, "seq_out": output})
    return read(folder)[0].load().records[0].input


def test_a_record_ends_with_its_field_and_gets_no_delimiter(tmp_path):
    write(tmp_path, "spider", SPIDER, {**SPIDER, "id": "dev-18"})
    (task,) = read(tmp_path)
    content = task.load()
    first = content.records[0]
    assert (first.id, first.references) == ("validation-dev-17", ("select count(*) from singer",))
    assert first.metadata == {record.HELD_OUT: "validation"}
    example = prompts.render(task.spec, content, first, prompts.PromptConfig(), 0, 0, ())
    assert example.source == (
        "Write an SQL query that answers the following question to a database with this schema.\n"
        "How many singers? ; structured knowledge: | concert | singer : id , name ; SQL query:"
    )


def test_knowledge_alone(tmp_path):
    triples = "Mars : moon : Phobos"
    expected = f"structured knowledge: {triples} ; textual description:"
    assert one_input(tmp_path, "dart", "", triples) == expected


def test_text_alone(tmp_path):
    expected = "select 1 ; structured knowledge:  ; query description:"
    assert one_input(tmp_path, "sql2text", "select 1", "") == expected


def test_a_conversation_has_its_earlier_turns_last(tmp_path):
    text = "and in may ? || how many in april ? | hello"
    assert one_input(tmp_path, "sqa", text, "col : month | sales") == (
        "and in may ? ; structured knowledge: col : month | sales ;"
        " context: how many in april ? | hello ; answer:"
    )


def test_labels_are_options(tmp_path):
    write(tmp_path, "tab_fact", {"text_in": "a", "struct_in": "b", "seq_out": "entailed"})
    (task,) = read(tmp_path)
    assert task.spec.metric == "accuracy"
    assert task.load().records[0].options == ("entailed", "refuted")


def test_every_task_reads_and_names_its_output(tmp_path):
    table = text_pairs.read_table(declared.TABLE, unifiedskg.FORMAT.more_columns)
    for name, task in table.items():
        output = task.options[0] if task.options else "x"
        write(tmp_path, name, {"text_in": "t", "struct_in": "k", "seq_out": output})
    found = {task.spec.original_name: task.load().records[0].input for task in read(tmp_path)}
    assert len(found) == 21
    for name, text in found.items():
        assert text == f"t ; structured knowledge: k ; {table[name].more['field']}"
        assert text.endswith(":")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text_in": "a", "struct_in": "b"}, "row 1: field 'seq_out' is missing"),
        ({"text_in": None, "struct_in": "b", "seq_out": "c"}, "field 'text_in' is None"),
        ({"text_in": "", "struct_in": " ", "seq_out": "c"}, "no row that can be used"),
    ],
)
def test_bad_records(tmp_path, row, message):
    write(tmp_path, "dart", row)
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_rows_of_one_id(tmp_path):
    write(tmp_path, "spider", SPIDER, SPIDER)
    write(tmp_path, "spider", SPIDER, name="train.jsonl")
    (task,) = read(tmp_path)
    ids = [one.id for one in task.load().records]
    assert ids == ["train-dev-17", "validation-dev-17", "validation-dev-17#2"]
