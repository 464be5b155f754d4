"""The plan: rates, permutations, rows, and that any block can be computed alone."""

import itertools

import numpy as np
import pytest

from optiml_jax.data import packing
from optiml_jax.errors import InputError


def make_plan(
    sizes,
    rates,
    *,
    renderings=1,
    row_tokens=64,
    seed=3,
    block_draws=500,
    names=None,
    packing_name="greedy",
):
    sizes = np.asarray(sizes)
    lengths = np.random.default_rng(0).integers(2, 50, (renderings, sizes.sum())).astype(np.int32)
    first = np.cumsum(sizes) - sizes
    names = names or tuple(f"task_{i}" for i in range(len(sizes)))
    tasks = packing.PlanTasks(names, np.asarray(rates, float), first, sizes)
    plan = packing.Plan(tasks, lengths, row_tokens, seed, block_draws, packing_name)
    return plan, lengths


def first_fit_by_hand(lengths, row_tokens, edges):
    """Rows as lists of example numbers, window after window."""
    rows = []
    for start, end in itertools.pairwise(edges):
        own, room = [], []
        for i in range(start, end):
            row = next((r for r, left in enumerate(room) if left >= lengths[i]), len(room))
            if row == len(room):
                own.append([])
                room.append(row_tokens)
            own[row].append(i)
            room[row] -= lengths[i]
        rows += own
    return rows


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


def as_rows(order, starts):
    return [order[a:b].tolist() for a, b in itertools.pairwise(starts)]


def test_first_fit_rows_equal_a_loop():
    order, starts = packing.first_fit_rows(np.array([3, 6, 4, 2]), 8, np.array([0, 4]))
    assert (order.tolist(), starts.tolist()) == ([0, 2, 1, 3], [0, 2, 4])
    rng = np.random.default_rng(1)
    for _ in range(40):
        lengths = rng.integers(1, rng.integers(2, 41), rng.integers(1, 300))
        inner = np.sort(rng.choice(len(lengths) + 1, rng.integers(0, 5)))
        edges = np.concatenate([[0], inner, [len(lengths)]])
        rows = as_rows(*packing.first_fit_rows(lengths, 40, edges))
        assert rows == first_fit_by_hand(lengths, 40, edges)


@pytest.mark.parametrize("length", [1, 20, 21, 26, 40])
def test_first_fit_of_equal_lengths_opens_as_many_rows_as_it_needs(length):
    """Among them just over half a row, where rows are emptiest."""
    lengths = np.full(90, length)
    order, starts = packing.first_fit_rows(lengths, 40, np.array([0, 50, 90]))
    per_row = 40 // length
    assert len(starts) - 1 == -(-50 // per_row) + -(-40 // per_row)
    assert order.tolist() == list(range(90))


def test_windows_lie_within_slices_and_join_short_ones():
    assert packing.window_edges(np.array([5, 4]), 3).tolist() == [0, 2, 5, 7, 9]
    assert packing.window_edges(np.array([2, 2, 2, 2, 2]), 4).tolist() == [0, 4, 8, 10]
    assert packing.window_edges(np.array([7]), 10).tolist() == [0, 7]


def test_first_fit_holds_each_draw_in_one_row_and_fills_the_rows():
    """Lengths of Super-NaturalInstructions' law: median 132, 90th percentile 363, at most 2049."""
    rng = np.random.default_rng(2)
    drawn = rng.lognormal(np.log(132), np.log(363 / 132) / 1.2816, 40_000)
    lengths = np.clip(drawn, 8, 2500).astype(np.int32)
    sizes = np.array([30_000, 10_000])
    tasks = packing.PlanTasks(("a", "b"), sizes / sizes.sum(), np.array([0, 30_000]), sizes)
    blocks, fill = {}, {}
    for name in packing.PACKINGS:
        plan = packing.Plan(tasks, lengths[None], 2049, 3, packing=name)
        blocks[name] = block = plan.block(1)
        kept = np.minimum(lengths[block.examples], 2049)
        per_row = np.add.reduceat(kept, block.row_starts[:-1])
        assert per_row.max() <= 2049
        assert per_row.sum() == kept.sum()
        fill[name] = per_row.mean() / 2049
    greedy, fitted = blocks["greedy"], blocks["first_fit"]
    assert sorted(greedy.examples) == sorted(fitted.examples)
    assert fill["greedy"] > 0.89
    assert fill["first_fit"] > 0.98


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


PACKINGS = pytest.mark.parametrize("packing_name", packing.PACKINGS)


def tasks_of(examples, sizes):
    return np.searchsorted(np.cumsum(sizes), examples, side="right")


@PACKINGS
def test_counts_stay_within_one_of_the_rate_at_every_block(packing_name):
    """The first task is through after 60 draws; a block of at most 500 has 8 such epochs."""
    sizes, rates = [10, 200, 3, 50], [0.1, 0.6, 0.05, 0.25]
    plan, _ = make_plan(sizes, rates, packing_name=packing_name)
    total = np.zeros(4)
    for b in range(12):
        total += np.bincount(tasks_of(plan.block(b).examples, sizes), minlength=4)
        assert np.all(np.abs(total - (b + 1) * 480 * np.array(rates)) <= 1)


def test_shares_over_many_epochs_are_the_rates():
    """Anywhere in the order, within the error of drawing at random (and better at blocks' ends)."""
    sizes, rates = [10, 200, 3, 50], np.array([0.1, 0.6, 0.05, 0.25])
    plan, _ = make_plan(sizes, rates)
    drawn = np.concatenate([plan.block(b).examples for b in range(40)])
    for end in (1_003, 5_555, 12_345, 18_001):
        shares = np.bincount(tasks_of(drawn[:end], sizes), minlength=4) / end
        assert np.all(np.abs(shares - rates) < 4 * np.sqrt(rates * (1 - rates) / end))
        # An epoch of 60 draws is exact to one draw; only the last, open one is at random.
        assert np.all(np.abs(shares - rates) <= 61 / end)


@PACKINGS
@pytest.mark.parametrize("block_draws", [100_000, 5_000, 700])
def test_one_epoch_draws_the_capped_sizes_exactly(packing_name, block_draws):
    """Many epochs a block, and 1 or 7 blocks an epoch."""
    sizes = np.array([1, 17, 400, 4000, 33])
    capped = np.minimum(sizes, 4096)
    plan, _ = make_plan(
        sizes, capped / capped.sum(), block_draws=block_draws, packing_name=packing_name
    )
    epoch = int(capped.sum())
    drawn = np.concatenate([plan.block(b).examples for b in range(8)])[:epoch]
    assert np.bincount(drawn).tolist() == [1] * epoch


@PACKINGS
def test_one_epoch_of_a_capped_mixture(packing_name):
    sizes = np.array([10, 500, 90])
    capped = np.minimum(sizes, 60)
    plan, _ = make_plan(
        sizes, capped / capped.sum(), packing_name=packing_name, block_draws=130 * 5
    )
    drawn = plan.block(0).examples
    for epoch in range(5):
        own = drawn[epoch * 130 : (epoch + 1) * 130]
        if packing_name == "first_fit":
            # Slices this short share a window of 2,048 draws: only the block's end is exact.
            own = drawn
        counts = np.bincount(tasks_of(own, sizes), minlength=3)
        assert (counts * 130 / len(own)).tolist() == capped.tolist()
    assert np.bincount(drawn, minlength=600)[10:510].max() == 1


def test_no_example_repeats_before_its_task_is_through():
    """At every draw, not only at a block's end; for equal rates, tasks pass at unequal speeds."""
    sizes = [10, 200, 3, 50]
    plan, _ = make_plan(sizes, [0.1, 0.6, 0.05, 0.25])
    drawn = np.concatenate([plan.block(b).examples for b in range(3)])
    counts = np.zeros(sum(sizes), int)
    first = np.cumsum(sizes) - sizes
    for example in drawn:
        counts[example] += 1
        task = tasks_of(example, sizes)
        own = counts[first[task] : first[task] + sizes[task]]
        assert own.max() - own.min() <= 1


def test_a_slice_is_shuffled_and_slices_differ():
    plan, _ = make_plan([40, 40], [0.5, 0.5], block_draws=80)
    one, two = (plan.block(b).examples.tolist() for b in (0, 1))
    assert sorted(one) == sorted(two) == list(range(80))
    assert one != two
    # The tasks alternate at random, not in turn.
    changes = np.count_nonzero(np.diff(tasks_of(np.array(one), [40, 40])))
    assert 20 < changes < 60


def test_a_task_that_is_drawn_over_and_over_does_not_make_blocks_large():
    """5,000 tasks and one that is through after two draws: slices x tasks stay bounded."""
    sizes = np.array([1] + [100] * 5000)
    rates = np.array([0.5] + [0.5 / 5000] * 5000)
    plan, _ = make_plan(sizes, rates, block_draws=20_000)
    assert plan._num_slices * len(sizes) <= 8 * 20_000
    counts = np.bincount(tasks_of(plan.block(0).examples, sizes), minlength=len(sizes))
    assert abs(counts[0] - counts.sum() / 2) < 30
    assert counts[1:].max() <= 3


def test_epochs_take_the_renderings_in_turn():
    plan, _ = make_plan([40], [1.0], renderings=2, block_draws=40)
    drawn = np.concatenate([plan.block(b).examples for b in range(4)])
    assert (drawn // 40).tolist() == [0] * 40 + [1] * 40 + [0] * 40 + [1] * 40


@PACKINGS
def test_rows_never_overflow_and_examples_are_cut_to_a_row(packing_name):
    plan, lengths = make_plan([30, 30], [0.5, 0.5], row_tokens=32, packing_name=packing_name)
    block = plan.block(2)
    kept = np.minimum(lengths[0, block.examples], 32)
    per_row = np.add.reduceat(kept, block.row_starts[:-1])
    assert per_row.max() <= 32
    assert block.row_starts[-1] == len(block.examples)


@PACKINGS
def test_a_block_is_a_pure_function_and_seeds_differ(packing_name):
    def rows(seed, blocks):
        plan, _ = make_plan([100, 80], [0.5, 0.5], seed=seed, packing_name=packing_name)
        made = [plan.block(b) for b in blocks][-1]
        return made.examples.tolist(), made.row_starts.tolist()

    assert rows(3, [0, 5]) == rows(3, [5])
    assert rows(3, [5]) != rows(4, [5])
    assert rows(3, [5]) != rows(3, [4])


def test_adding_a_task_keeps_the_inner_order_of_the_others():
    alone, _ = make_plan([50], [1.0], names=("a",), block_draws=50)
    both, _ = make_plan([50, 50], [0.5, 0.5], names=("a", "b"), block_draws=100)
    drawn = both.block(0).examples
    assert alone.block(0).examples.tolist() == drawn[drawn < 50].tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"row_tokens": 1}, "rows of 1 tokens"),
        ({"seed": -1}, "seed -1"),
        ({"packing_name": "first-fit"}, "unknown packing 'first-fit'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        make_plan([5], [1.0], **arguments)
