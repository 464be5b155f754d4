"""The plan: rates, permutations, rows, and that any block can be computed alone."""

import numpy as np
import pytest

from optiml_jax.data import packing
from optiml_jax.errors import InputError


def make_plan(sizes, rates, *, renderings=1, row_tokens=64, seed=3, block_draws=500, names=None):
    sizes = np.asarray(sizes)
    lengths = np.random.default_rng(0).integers(2, 50, (renderings, sizes.sum())).astype(np.int32)
    first = np.cumsum(sizes) - sizes
    names = names or tuple(f"task_{i}" for i in range(len(sizes)))
    tasks = packing.PlanTasks(names, np.asarray(rates, float), first, sizes)
    return packing.Plan(tasks, lengths, row_tokens, seed, block_draws), lengths


def test_greedy_rows_equal_a_loop():
    rng = np.random.default_rng(1)
    for _ in range(20):
        lengths = rng.integers(1, 40, 300)
        starts, used = [0], 0
        for i, length in enumerate(lengths):
            if used + length > 40:
                starts.append(i)
                used = 0
            used += length
        assert packing.greedy_rows(lengths, 40).tolist() == [*starts, 300]
    assert packing.greedy_rows(np.array([3, 4, 5, 2]), 8).tolist() == [0, 2, 4]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 17, 255, 1000])
def test_permutation_is_one_and_depends_on_its_key(size):
    def image(key):
        whole = np.full(size, size)
        bits = np.full(size, packing._half_bits(size), np.uint64)
        return packing.permute(np.arange(size), whole, bits, np.full(size, key, np.uint64))

    assert sorted(image(7)) == list(range(size))
    assert image(7).tolist() == image(7).tolist()
    if size > 10:
        assert image(7).tolist() != image(8).tolist()
        assert image(7).tolist() != list(range(size))


def test_counts_stay_within_one_of_the_rate_at_every_block():
    sizes, rates = [10, 200, 3, 50], [0.1, 0.6, 0.05, 0.25]
    plan, _ = make_plan(sizes, rates)
    first = np.cumsum(sizes) - sizes
    total = np.zeros(4)
    for b in range(12):
        task = np.searchsorted(first, plan.block(b).examples, side="right") - 1
        total += np.bincount(task, minlength=4)
        assert np.all(np.abs(total - (b + 1) * 500 * np.array(rates)) <= 1)


def test_no_example_repeats_before_its_task_is_through():
    sizes = [10, 200, 3, 50]
    plan, _ = make_plan(sizes, [0.1, 0.6, 0.05, 0.25])
    drawn = [e for b in range(10) for e in sorted_by_draw(plan, b)]
    counts = np.bincount(drawn, minlength=sum(sizes))
    first = np.cumsum(sizes) - sizes
    for start, size in zip(first, sizes):
        own = counts[start : start + size]
        assert own.max() - own.min() <= 1


def sorted_by_draw(plan, block):
    return plan.block(block).examples.tolist()


def test_epochs_take_the_renderings_in_turn():
    plan, _ = make_plan([40], [1.0], renderings=2, block_draws=40)
    drawn = np.concatenate([plan.block(b).examples for b in range(4)])
    # 4 blocks of 40 draws are 4 passes (the phase shifts the first block by less than one draw).
    per_rendering = np.bincount(drawn // 40, minlength=2)
    assert abs(per_rendering[0] - per_rendering[1]) <= 40
    assert per_rendering.sum() == len(drawn)
    assert set(drawn // 40) == {0, 1}


def test_rows_never_overflow_and_examples_are_cut_to_a_row():
    plan, lengths = make_plan([30, 30], [0.5, 0.5], row_tokens=32)
    block = plan.block(2)
    kept = np.minimum(lengths[0, block.examples], 32)
    per_row = np.add.reduceat(kept, block.row_starts[:-1])
    assert per_row.max() <= 32
    assert block.row_starts[-1] == len(block.examples)


def test_a_block_is_a_pure_function_and_seeds_differ():
    one, _ = make_plan([100, 80], [0.5, 0.5], seed=3)
    two, _ = make_plan([100, 80], [0.5, 0.5], seed=3)
    other, _ = make_plan([100, 80], [0.5, 0.5], seed=4)
    one.block(0)
    assert one.block(5).examples.tolist() == two.block(5).examples.tolist()
    assert one.block(5).examples.tolist() != other.block(5).examples.tolist()


def test_adding_a_task_keeps_the_inner_order_of_the_others():
    alone, _ = make_plan([50], [1.0], names=("a",), block_draws=50)
    both, _ = make_plan([50, 50], [0.5, 0.5], names=("a", "b"), block_draws=100)
    first_pass = [e for b in range(2) for e in _in_draw_order(both, b) if e < 50]
    assert _in_draw_order(alone, 0) == first_pass[: len(_in_draw_order(alone, 0))]


def _in_draw_order(plan, block):
    """A block's examples before they are shuffled."""
    shuffled = plan.block(block).examples
    generator = np.random.Generator(np.random.Philox(key=[plan._seed, block]))
    order = generator.permutation(len(shuffled))
    original = np.empty_like(shuffled)
    original[order] = shuffled
    return original.tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"row_tokens": 1}, "rows of 1 tokens"), ({"seed": -1}, "seed -1")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        make_plan([5], [1.0], **arguments)
