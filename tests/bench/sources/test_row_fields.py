import json
import pickle

import pytest

from optiml_jax.bench.sources import row_fields
from optiml_jax.errors import InputError

ROW = {
    "premise": "It rained.",
    "hypothesis": "It was wet.",
    "label": 1,
    "idx": 0,
    "score": 2.6,
    "is_long": True,
    "title": "New_York",
    "sentence": "The cup is in the bag as _ is small.",
    "answers": {"text": ["one", "two"], "answer_start": [0, 4]},
    "none": None,
    "blank": ["", " "],
    "empty": [],
}


def one(value, **changes):
    fields = row_fields.parse(json.dumps({"new": value}), "table:1")
    return fields.apply({**ROW, **changes}, "data:1")["new"]


def test_a_row_gets_the_fields_of_the_mapping_and_no_other():
    labels = {"constant": ["yes", "no"]}
    mapping = {"premise": "premise", "options": labels, "answer": {"pick": "label", "of": labels}}
    fields = row_fields.parse(json.dumps(mapping), "table:1")
    assert fields.names == {"premise", "options", "answer"}
    assert fields.paths == {"premise", "label"}
    made = fields.apply(ROW, "data:1")
    assert made == {"premise": "It rained.", "options": ["yes", "no"], "answer": "no"}
    assert pickle.loads(pickle.dumps(fields)) == fields


@pytest.mark.parametrize("text", ["", "  ", "{}"])
def test_an_empty_mapping_leaves_the_row_as_it_is(text):
    assert row_fields.parse(text, "table:1").apply(ROW, "data:1") is ROW


@pytest.mark.parametrize(
    ("value", "made"),
    [
        ("premise", "It rained."),
        ("answers.text", ["one", "two"]),
        ("answers.text.1", "two"),
        ("answers.text.2", None),
        ("empty.0", None),
        ("none.a.0", None),
        ({"text": "{premise} {answers.text.0}? {{{label}}}"}, "It rained. one? {1}"),
        ({"text": "{premise}{none}"}, None),
        ({"constant": {"a": [1, None]}}, {"a": [1, None]}),
        ({"list": ["premise", {"constant": None}]}, ["It rained.", None]),
        ({"object": {"text": "answers.text"}}, {"text": ["one", "two"]}),
        ({"pick": "is_long", "of": "answers.text"}, "two"),
        ({"pick": "answers.answer_start", "of": "answers.text"}, ["one", None]),
        ({"pick": "none", "of": "answers.text"}, None),
        ({"pick": "label", "of": "none"}, None),
        ({"concat": ["premise", {"constant": "!"}]}, "It rained.!"),
        ({"concat": ["answers.text", {"constant": "!"}]}, ["one!", "two!"]),
        ({"concat": ["answers.text", "answers.answer_start"]}, ["one0", "two4"]),
        ({"concat": ["empty", {"constant": "!"}]}, []),
        ({"concat": ["premise", "none"]}, None),
        ({"join": "answers.text", "by": "; "}, "one; two"),
        ({"join": "none", "by": ""}, None),
        ({"replace": {"_": " ", "New ": "Old "}, "in": "title"}, "Old York"),
        ({"replace": {"o": "0"}, "in": "answers.text"}, ["0ne", "tw0"]),
        ({"part": 0, "of": "sentence", "at": "_"}, "The cup is in the bag as "),
        ({"part": 1, "of": "sentence", "at": "_"}, " is small."),
        ({"part": 2, "of": "sentence", "at": "_"}, None),
        ({"part": 0, "of": "none", "at": "_"}, None),
        ({"numbered": "answers.text"}, "1. one\n2. two"),
        ({"numbered": "answers.text", "first": 1}, "1. one"),
        ({"numbered": "none"}, None),
        ({"stripped": {"constant": " a "}}, "a"),
        ({"lowered": "premise"}, "it rained."),
        ({"rounded": "score"}, "3"),
        ({"unpunctuated": {"constant": "Don't, he said."}}, "Dont he said"),
        ({"nonblank": "answers.text"}, ["one", "two"]),
        ({"nonblank": "blank"}, None),
        ({"nonblank": "none"}, None),
    ],
)
def test_what_a_form_makes(value, made):
    assert one(value) == made


@pytest.mark.parametrize(
    ("label", "made"), [(0, "one"), (1.0, "two"), (False, "one"), (-1, None), (2, None)]
)
def test_an_item_that_is_not_there_is_no_answer(label, made):
    assert one({"pick": "label", "of": "answers.text"}, label=label) == made


def test_a_text_of_the_row_is_never_looked_into():
    assert one({"text": "{premise}"}, premise="{label} {x.__class__}") == "{label} {x.__class__}"
    assert one({"text": "{{{premise}}}"}, premise="{") == "{{}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "premis",
            r"^data:1, for 'new', path 'premis': unknown field 'premis'\. Did you mean 'pre",
        ),
        ("answers.texts", r"path 'answers\.texts'.*Known: answer_start, text\."),
        ("premise.0", r"path 'premise\.0': 'It rained\.' has no '0'\."),
        ("answers.text.start", r"has no 'start'\. Correct the row, or the mapping"),
        ({"text": "{answers}"}, r"'text': .* is no text"),
        ({"concat": ["premise", "is_long"]}, r"'concat': True is no text"),
        ({"concat": ["answers.text", "blank", "empty"]}, r"lists of different lengths"),
        ({"pick": "score", "of": "answers.text"}, r"'pick': 2\.6 is no whole number"),
        ({"pick": "premise", "of": "answers.text"}, r"'It rained\.' is no whole number"),
        ({"pick": "label", "of": "premise"}, r"'pick': 'It rained\.' is no list"),
        ({"join": "premise", "by": ""}, r"'join': 'It rained\.' is no list"),
        ({"numbered": "answers"}, r"'numbered': .* is no list"),
        ({"nonblank": "answers"}, r"'nonblank': .* is no list"),
        ({"rounded": "premise"}, r"'rounded': 'It rained\.' cannot be used"),
    ],
)
def test_a_row_that_does_not_fit(value, message):
    with pytest.raises(InputError, match=message):
        one(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"^table:1: the mapping is not JSON at character 1: .* It begins with \{; correct"),
        ("[1]", r"the mapping is \[1\], expected \{field: value\}"),
        ("[" * 100_000, r"nested too deeply"),
        ('{"a": "b", "a": "c"}', r"'a' is there twice"),
        ('{"a": 1}', r"field 'a': 1 is no value\. Write a path, or \{\"constant\": 1\} for"),
        ('{"a": {}}', r"field 'a': \{\} is no value"),
        ('{"a": "b..c"}', r"field 'a': 'b\.\.c' is no path"),
        ('{"a": ""}', r"field 'a': '' is no path"),
        ('{"a": {"pik": "b"}}', r"field 'a': unknown form 'pik'\. Did you mean 'pick'\?"),
        ('{"a": {"pick": "b"}}', r"field 'a': 'pick' lacks \['of'\]"),
        ('{"a": {"pick": "b", "off": "c"}}', r"unknown key of 'pick' 'off'\. Did you mean 'of'"),
        ('{"a": {"pick": "b", "of": ["c"]}}', r"'pick' of: \[\"c\"\] is no value"),
        ('{"a": {"list": "b"}}', r"'list': \"b\", expected a list of values"),
        ('{"a": {"list": []}}', r"'list': \[\], expected a list of values"),
        ('{"a": {"list": [1]}}', r"'list': 1 is no value"),
        ('{"a": {"object": ["b"]}}', r"'object': .* expected an object of values"),
        ('{"a": {"object": {"b": 1}}}', r"'object' 'b': 1 is no value"),
        ('{"a": {"text": 1}}', r"'text': 1, expected a text"),
        ('{"a": {"text": "{b"}}', r"'text': '\{b' has a lone brace"),
        ('{"a": {"text": "{}"}}', r"'text': '\{\}' has a lone brace"),
        ('{"a": {"text": "{b..c}"}}', r"'b\.\.c' is no path"),
        ('{"a": {"join": "b", "by": 1}}', r"'join' by: 1, expected a text"),
        ('{"a": {"part": -1, "of": "b", "at": "c"}}', r"'part': -1, expected 0 or a higher"),
        ('{"a": {"part": true, "of": "b", "at": "c"}}', r"'part': true, expected 0"),
        ('{"a": {"part": 0, "of": "b", "at": ""}}', r"'part' at: \"\", expected a text that is n"),
        ('{"a": {"numbered": "b", "first": 0}}', r"'numbered' first: 0, expected 1 or a higher"),
        ('{"a": {"replace": {"": "b"}, "in": "c"}}', r"'replace': .* expected \{old text: new"),
        ('{"a": {"replace": ["b"], "in": "c"}}', r"'replace': .* expected \{old text: new"),
    ],
)
def test_a_mapping_that_is_none(text, message):
    with pytest.raises(InputError, match=message):
        row_fields.parse(text, "table:1")
