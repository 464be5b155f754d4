"""One task after another: what is left out, and what stops."""

import pytest

from optiml_jax.bench import catalog
from optiml_jax.bench.sources import reading
from optiml_jax.errors import InputError


def task(name):
    if name.startswith("bad"):
        raise InputError(f"{name}: is bad.")
    spec = catalog.TaskSpec(
        *(f"b__{name}", name, "b", "Dialogue", "task", (), "rouge_l", (), (), "Unknown", 1, name)
    )
    return catalog.BenchTask(spec, lambda: catalog.TaskContent("", (), ()), name)


def read(*names, skip_bad=False):
    said = []
    made = reading.read_each(names, task, "DIR: every task", skip_bad, said.append)
    return [one.digest for one in made], said


def test_bad_ones_stop_or_are_left_out():
    assert read("a", "c", "b") == (["a", "c", "b"], [])
    assert read() == ([], [])
    with pytest.raises(InputError, match=r"^bad1: is bad\.$"):
        read("a", "bad1", "bad2")
    told = ["skipped: bad1: is bad.", "skipped: bad2: is bad."]
    assert read("bad1", "a", "bad2", skip_bad=True) == (["a"], told)
    with pytest.raises(InputError, match=r"^DIR: every task is bad\. The first: bad1: is bad\.$"):
        read("bad1", "bad2", skip_bad=True)


@pytest.mark.parametrize("skip_bad", [True, False])
def test_two_tasks_of_one_name(skip_bad):
    with pytest.raises(InputError, match="two tasks are named 'b__a'"):
        read("a", "a", skip_bad=skip_bad)


def test_a_change_is_refused():
    reading.check_unchanged("x", "1" * 64, "1" * 64)
    message = f"x: changed while it was being used (sha256 {'2' * 12}, was {'1' * 12}). Run the"
    with pytest.raises(InputError) as caught:
        reading.check_unchanged("x", "1" * 64, "2" * 64)
    assert str(caught.value).startswith(message)
