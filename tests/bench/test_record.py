import dataclasses
import json

import pytest

from optiml_jax.bench import record
from optiml_jax.errors import InputError

EVAL = record.EvalRecord("i", "src ü", ("a", "b"), (), "x__y", "0.1.2", "src", "a")


def test_eval_record_survives_json():
    text = json.dumps(EVAL.to_json())
    assert record.EvalRecord.from_json(json.loads(text)) == EVAL


def test_eval_record_of_a_suite_file_needs_no_options():
    row = {"id": "i", "source": "s", "references": ["r"], "task": "t"}
    assert record.EvalRecord.from_json(row) == record.EvalRecord("i", "s", ("r",), (), "t", "")


def test_eval_record_of_a_store_of_earlier_versions_has_nothing_to_copy():
    row = EVAL.to_json()
    del row["input"], row["demonstration"]
    assert record.EvalRecord.from_json(row) == dataclasses.replace(EVAL, input="", demonstration="")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"demonstration": None}, "field 'demonstration' is None, expected a string"),
        ({"id": 3}, r"f\.jsonl:2: field 'id' is 3, expected a string"),
        ({"references": "yes"}, "field 'references' is 'yes', expected a list of strings"),
        ({"references": [1]}, "expected a list of strings"),
        ({"colour": "red"}, "unknown field 'colour'"),
    ],
)
def test_bad_eval_record_names_the_field(change, message):
    with pytest.raises(InputError, match=message):
        record.EvalRecord.from_json(EVAL.to_json() | change, "f.jsonl:2")


def test_missing_field_is_named():
    row = EVAL.to_json()
    del row["source"]
    with pytest.raises(InputError, match="field 'source' is missing"):
        record.EvalRecord.from_json(row)
