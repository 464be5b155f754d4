import collections

import pytest

from optiml_jax.bench import demonstrations, record

POSITIVES = tuple(record.Demonstration(f"p{i}", f"out {i}") for i in range(3))
POOL = tuple(record.Record(f"id{i}", f"in {i}", (f"ref {i}", "other")) for i in range(12))
EXAMPLE = record.Record("me", "what?", ("x",))


def choose(shots, example=EXAMPLE, seed=0, rendering=0, pool=POOL, positives=POSITIVES):
    return demonstrations.choose("t", positives, example, shots, seed, rendering, pool)


def test_positive_examples_come_first_in_their_order():
    assert choose(2) == POSITIVES[:2]
    five = choose(5)
    assert five[:3] == POSITIVES
    assert {d.input for d in five[3:]} <= {r.input for r in POOL}
    assert all(d.output == d.input.replace("in", "ref") for d in five[3:])


@pytest.mark.parametrize("shots", [0, 1, 3, 5, 9, 14, 15, 40])
def test_demonstrations_are_distinct_and_as_many_as_there_are(shots):
    chosen = choose(shots)
    assert len(chosen) == len(set(chosen)) == min(shots, 15)


def test_what_is_answered_is_never_shown():
    for member in POOL:
        chosen = choose(15, example=member)
        assert len(chosen) == 14
        assert member.input not in {d.input for d in chosen}
    twin = record.Record("other id", " in 4 ", ("x",))
    assert "in 4" not in {d.input for d in choose(15, example=twin)}
    asked = record.Record("i", "p1", ("x",))
    assert [d.input for d in choose(2, example=asked)] == ["p0", "p2"]


def test_the_draw_is_a_function_of_its_arguments():
    assert choose(6) == choose(6)
    variants = {
        choose(6),
        choose(6, seed=1),
        choose(6, rendering=1),
        choose(6, example=record.Record("you", "what?", ("x",))),
    }
    assert len(variants) > 1


def test_every_member_of_the_pool_is_drawn_about_equally():
    counts = collections.Counter(
        choose(1, example=record.Record(str(i), "?", ("x",)), positives=())[0].input
        for i in range(6000)
    )
    # Expected 500 each; 5 standard deviations are 107.
    assert set(counts) == {r.input for r in POOL}
    assert all(abs(count - 500) < 107 for count in counts.values())


def test_placement_by_kind():
    parts = ["1+1 A: 2", "2+2 A: 4"]
    task = demonstrations.place("task", "Task: add", parts, "3+3 A:", "|")
    assert task == "Task: add\n1+1 A: 2|2+2 A: 4|3+3 A:"
    instance = demonstrations.place("instance", "add", parts[:1], "3+3 A:", "|")
    assert instance == "add\n1+1 A: 2|add\n3+3 A:"
    assert demonstrations.place("instance", "", [], "3+3 A:", "|") == "3+3 A:"


def test_an_instance_of_the_same_id_is_not_shown_even_with_other_text():
    asked = record.Record("id3", "edited input", ("x",))
    assert "in 3" not in {d.input for d in choose(15, example=asked)}
