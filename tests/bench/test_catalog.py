import dataclasses
import json
import re

import pytest

from optiml_jax.bench import catalog
from optiml_jax.errors import InputError

SPEC = catalog.TaskSpec(
    name="flan__rte",
    original_name="rte",
    benchmark="flan",
    category="Textual Entailment",
    instruction_kind="instance",
    sources=("rte",),
    metric="accuracy",
    input_languages=("English",),
    output_languages=("English",),
    licence="MIT",
    num_examples=7,
    path="",
    num_dropped=1,
)


def test_catalog_survives_json():
    other = dataclasses.replace(SPEC, name="flan__a", original_name="a")
    table = catalog.Catalog([SPEC, other])
    again = catalog.Catalog.from_json(json.loads(json.dumps(table.to_json())))
    assert list(again.items()) == list(table.items())
    assert list(again) == ["flan__rte", "flan__a"]


def test_task_names_are_legal_for_seqio():
    name = catalog.task_name("super_natural_instructions", "task1421_a-b (c)/d.e")
    assert name == "super_natural_instructions__task1421_a_b__c__d.e"
    assert re.fullmatch(r"[\w\d\.\:_#]+", name)


def test_two_tasks_of_one_name_are_refused():
    with pytest.raises(
        InputError, match=r"two tasks are named 'flan__rte': 'a\.json' and 'b\.json'"
    ):
        catalog.Catalog(dataclasses.replace(SPEC, path=p) for p in ("a.json", "b.json"))


def test_an_unknown_task_offers_the_nearest():
    with pytest.raises(InputError, match=r"unknown task 'flan__rtf'\. Did you mean 'flan__rte'\?"):
        catalog.Catalog([SPEC]).find("flan__rtf")
    assert catalog.Catalog([SPEC]).find("flan__rte") is SPEC


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "rouge"}, "unknown metric 'rouge'. Did you mean 'rouge_l'?"),
        ({"instruction_kind": "both"}, "unknown instruction_kind 'both'"),
        ({"name": "a-b"}, "'a-b' holds a character that SeqIO refuses"),
        ({"sources": "rte"}, "field 'sources' is 'rte', expected a list of strings"),
        ({"num_examples": "7"}, "field 'num_examples' is '7', expected int"),
        ({"metrics": "x"}, "unknown field 'metrics'. Did you mean 'metric'?"),
    ],
)
def test_bad_rows_name_the_field(change, message):
    with pytest.raises(InputError, match=re.escape(message)):
        catalog.TaskSpec.from_json(SPEC.to_json() | change)


def test_real_names_differ_after_replacement(real_tasks):
    specs = [task.spec for task in real_tasks[0]]
    replaced = [s for s in specs if s.name != f"{s.benchmark}__{s.original_name}"]
    assert len(replaced) == 40
    assert len({s.name for s in specs}) == len(specs)
