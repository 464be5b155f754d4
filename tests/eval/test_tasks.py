"""Rows of an evaluation from a store's rows."""

import pytest

from optiml_jax.bench.catalog import TaskSpec
from optiml_jax.data.store import StoredTask
from optiml_jax.errors import InputError
from optiml_jax.eval import tasks


def stored(name, level, num_eval, metric="rouge_l"):
    spec = TaskSpec(
        name=f"a__{name}",
        original_name=name,
        benchmark="a",
        category="Textual Entailment",
        instruction_kind="task",
        sources=("s",),
        metric=metric,
        input_languages=("English",),
        output_languages=("French",),
        licence="MIT",
        num_examples=3,
        path="",
    )
    return StoredTask(
        spec=spec,
        role="test",
        level=level,
        reason="",
        keys={},
        places={},
        first_example=0,
        num_train=0,
        num_eval=num_eval,
        num_tokens=0,
        num_target_tokens=0,
        num_truncated=0,
    )


def test_tasks_with_an_evaluation_part():
    rows = tasks.from_store(
        [
            stored("one", "fully_held_out", 3),
            stored("two", "", 0),
            stored("three", "fully_supervised", 0),
        ]
    )
    assert rows == {
        "a__one": tasks.EvalTask(
            "a__one",
            "a",
            "Textual Entailment",
            "rouge_l",
            "fully_held_out",
            output_languages=("French",),
        )
    }


def test_rows_check_themselves():
    with pytest.raises(InputError, match="unknown level 'held_out'"):
        tasks.EvalTask("a__one", "a", "X", "rouge_l", "held_out")
    with pytest.raises(InputError, match=r"unknown metric 'rouge'\. Did you mean 'rouge_l'"):
        tasks.EvalTask("a__one", "a", "X", "rouge", "fully_held_out")
