"""Names offered where one is unknown."""

import pytest

from optiml_jax import errors

TASKS = [
    "flan__anli_r1",
    "super_natural_instructions__task190_snli_classification",
    "super_natural_instructions__task191_hotpotqa_question_generation",
    "super_natural_instructions__task1344_glue_entailment_classification",
]
LEVELS = ["fully_held_out", "fully_supervised", "partially_supervised"]


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("opt_imk", ["opt_iml", "mini"], "opt_iml"),
        ("OPT_IML", ["opt_iml", "mini"], "opt_iml"),
        # A part of a long name.
        ("task1344", TASKS, TASKS[3]),
        ("task190_snli_clasification", TASKS, TASKS[1]),
        ("anli_r1", TASKS, TASKS[0]),
        # The beginning of one, misspelt.
        ("fuly", LEVELS, "fully_held_out"),
        ("partialy", LEVELS, "partially_supervised"),
        ("xyz", LEVELS, None),
        ("", LEVELS, None),
        ("a", [], None),
    ],
)
def test_nearest(name, known, expected):
    assert errors.nearest(name, known) == expected


def test_many_names_are_not_all_listed():
    message = str(errors.unknown("number", "x", [f"n{i:02d}" for i in range(40)]))
    assert "n11, ... (40 in all)." in message
    assert "n12" not in message


def test_long_names_are_listed_until_the_message_is_long():
    known = [f"benchmark__{i}_{'long' * 25}" for i in range(9)]
    message = str(errors.unknown("task", "benchmark__z", known))
    assert "... (9 in all)." in message
    assert len(message) < 600
    assert known[0] in message


def test_few_names_are_all_listed():
    message = str(errors.unknown("level", "x", LEVELS, "--level"))
    assert message == f"--level: unknown level 'x'. Known: {', '.join(LEVELS)}."
    assert str(errors.unknown("level", "x", [])).endswith("None is known here.")


def test_a_path_beside_the_one_that_is_not_there(tmp_path):
    (tmp_path / "sni_store").mkdir()
    assert errors.near_path(tmp_path / "sni_stor") == f" Did you mean '{tmp_path / 'sni_store'}'?"
    assert errors.near_path(tmp_path / "elsewhere") == ""
    assert errors.near_path(tmp_path / "nothing" / "sni_store") == ""
