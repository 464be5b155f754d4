"""The table of results, plain and on a terminal."""

import io

import pytest
from rich import console

from optiml_jax.eval import aggregation, table
from optiml_jax.eval.tasks import EvalTask


@pytest.fixture(scope="module")
def results():
    rows = {
        f"a__{k}": EvalTask(f"a__{k}", "a", "Textual Entailment", "rouge_l", "fully_held_out")
        for k in range(2)
    }
    samples = [
        {
            "task": f"a__{k}",
            "id": str(number),
            "prompt_id": "",
            "metric": "rouge_l",
            "score": 100.0 * (number % 2),
            "scores": {"rouge_l": 100.0 * (number % 2)},
            "truncated": False,
        }
        for k in range(2)
        for number in range(1 + 9 * k)
    ]
    return aggregation.aggregate(samples, rows, model="run", step=300, suite="sni", shots=0)


def test_plain_text(results):
    lines = table.plain_text(results).splitlines()
    assert lines[0] == "run, step 300, sni, 0-shot"
    assert lines[1].split() == ["n", "score", "95", "%", "CI"]
    assert [line.split()[0] for line in lines[2:]] == ["overall", "fully_held_out", "Textual"]
    assert lines[4].startswith("  Textual Entailment ")
    assert lines[2].split()[1:3] == ["11", "25.0"]
    assert len({len(line) for line in lines[1:]}) == 1
    with_tasks = table.plain_text(results, tasks=True).splitlines()
    assert with_tasks[5].split() == ["a__0", "1", "0.0", "-"]
    assert with_tasks[6].split()[:3] == ["a__1", "10", "50.0"]


def test_a_pipe_gets_plain_text(results):
    stream = io.StringIO()
    table.show(results, stream)
    assert stream.getvalue() == table.plain_text(results) + "\n"


def test_a_terminal_gets_colours(results):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    table.show(results, stream)
    assert "overall" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()


@pytest.mark.parametrize("width", [40, 120])
def test_numbers_stay_whole_in_a_narrow_terminal(results, width):
    stream = io.StringIO()
    console.Console(file=stream, width=width).print(table.make_table(results))
    lines = stream.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    low, high = results["overall"]["ci"]
    assert f"[{low:.1f}, {high:.1f}]" in stream.getvalue()
    assert "25.0" in stream.getvalue()
