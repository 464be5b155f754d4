"""The table of results, plain and on a terminal."""

import io
import re

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


@pytest.fixture(scope="module")
def with_baselines(results):
    def add(node, majority, copied):
        baselines = {"majority": majority, "copy_input": copied}
        rows = {name: {**node, "score": score} for name, score in baselines.items()}
        return {**node, "baselines": rows}

    made = {**results, "overall": add(results["overall"], 12.5, 3.0), "levels": {}}
    for level, node in results["levels"].items():
        made["levels"][level] = add(node, 9.0, 30.0)
        # A node without baselines has a mark of its absence.
        made["levels"][level]["categories"] = node["categories"]
    return made


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


def test_the_best_baseline_stands_beside_the_score(with_baselines):
    lines = table.plain_text(with_baselines).splitlines()
    assert lines[1].endswith("95 % CI  best baseline")
    assert lines[2].endswith("]  12.5 majority")
    assert lines[3].endswith("]  30.0 copy_input")
    assert lines[4].endswith("]  -")
    stream = io.StringIO()
    console.Console(file=stream, width=100).print(table.make_table(with_baselines))
    assert "30.0 copy_input" in stream.getvalue()


def test_prompts_that_were_cut_are_told(results):
    assert "cut" not in table.plain_text(results)
    told = table.plain_text({**results, "num_truncated": 3}).splitlines()
    assert told[-1] == "3 of 11 prompts were cut on the left to fit the model."


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


@pytest.mark.parametrize("name", ["Odd [/x] name", "[bold]", "[link=x]"])
def test_names_are_text_not_markup(comparison, name, monkeypatch):
    """A user's category, or the folder of a model, may have any character."""
    monkeypatch.setenv("COLUMNS", "100")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    node = {"score": 1.0, "ci": None, "n": 2, "before": 1.0, "after": 1.0, "difference": 0.0}
    node |= {"p": 1.0, "categories": {name: {"score": 1.0, "ci": None, "n": 2, "tasks": {}}}}
    level = {"fully_held_out": {**node, "categories": {name: {**node, "tasks": {}}}}}
    results = {"model": f"runs/{name}", "step": 1, "suite": "s", "shots": 0}
    results |= {"overall": node, "levels": level, "num_truncated": 1}
    side = {"model": f"runs/{name}", "step": 1, "num_left_out": 0}
    settings = {"normalization": [name, "none"]}
    tree = {**comparison, "before": side, "after": side, "settings": settings, "levels": level}
    for show, shown in ((table.show, results), (table.show_comparison, tree)):
        stream = Terminal()
        show(shown, stream)
        text = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())
        assert f"runs/{name}" in text
        assert f"  {name} " in text


@pytest.mark.parametrize("width", [40, 71, 120])
def test_numbers_stay_whole_in_a_narrow_terminal(with_baselines, width):
    stream = io.StringIO()
    results = with_baselines
    console.Console(file=stream, width=width).print(table.make_table(results, width=width))
    lines = stream.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    low, high = results["overall"]["ci"]
    assert f"[{low:.1f}, {high:.1f}]" in stream.getvalue()
    assert "25.0" in stream.getvalue()
    assert ("12.5" in stream.getvalue()) == (width > 40)
    assert ("12.5 majority" in stream.getvalue()) == (width == 120)


@pytest.fixture(scope="module")
def comparison():
    node = {"before": 20.0, "after": 45.5, "difference": 25.5, "ci": [11.0, 40.0], "p": 0.0004}
    task = {**node, "n": 1, "ci": None, "p": 0.25, "p_adjusted": 0.5}
    category = {**node, "n": 7, "tasks": {"a__1": task}}
    level = {**node, "n": 7, "categories": {"Textual Entailment": category}}
    side = {"model": "base", "step": 0, "num_left_out": 0}
    return {
        "before": side,
        "after": {**side, "model": "tuned", "step": 9, "num_left_out": 4},
        "suite": "sni",
        "split": "opt_iml",
        "shots": 0,
        "settings": {"normalization": ["none", "per_token"]},
        "overall": {**node, "n": 7},
        "levels": {"fully_held_out": level},
    }


def test_comparison_in_plain_text(comparison):
    stream = io.StringIO()
    table.show_comparison(comparison, stream, tasks=True)
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["before: base, step 0, sni, 0-shot", "after:  tuned, step 9, sni, 0-shot"]
    assert " ".join(lines[3].split()) == "overall 7 20.0 45.5 +25.5 [11.0, 40.0] <0.001"
    assert " ".join(lines[6].split()) == "a__1 1 20.0 45.5 +25.5 - 0.250 0.500"
    assert "0 of before and 4 of after are left out." in stream.getvalue()
    assert lines[-1] == "Not the same: normalization is 'none' before, 'per_token' after."


@pytest.mark.parametrize("width", [56, 100])
def test_comparison_in_a_terminal(comparison, width, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    table.show_comparison(comparison, stream, tasks=True)
    lines = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue()).splitlines()
    assert all(len(line) <= width for line in lines)
    row = next(line for line in lines if "+25.5" in line)
    assert "45.5" in row
    assert ("20.0" in row) == (width == 100)
    assert "[11.0, 40.0]" in row
