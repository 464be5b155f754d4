"""The plan: rates, permutations, rows, and that any block can be computed alone."""

import collections
import itertools
import math
from fractions import Fraction

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


def first_fit_by_hand(lengths, row_tokens, edges, seams):
    """Rows as lists of example numbers, window after window."""
    rows = []
    for start, end in itertools.pairwise(edges):
        own, room, first_open = [], [], 0
        for i in range(start, end):
            if i in seams:
                first_open = max(0, len(own) - 1)
            fitting = (r for r in range(first_open, len(own)) if room[r] >= lengths[i])
            row = next(fitting, len(own))
            if row == len(own):
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
    few, whole = np.array([3, 6, 4, 2]), np.array([0, 4])
    order, starts = packing.first_fit_rows(few, 8, whole, np.array([], int))
    assert (order.tolist(), starts.tolist()) == ([0, 2, 1, 3], [0, 2, 4])
    order, starts = packing.first_fit_rows(few, 8, whole, np.array([2]))
    assert (order.tolist(), starts.tolist()) == ([0, 1, 3, 2], [0, 1, 3, 4])
    rng = np.random.default_rng(1)
    for _ in range(80):
        lengths = rng.integers(1, rng.integers(2, 41), rng.integers(1, 300))
        inner = np.sort(rng.choice(len(lengths) + 1, rng.integers(0, 5)))
        edges = np.concatenate([[0], inner, [len(lengths)]])
        seams = rng.choice(len(lengths) + 1, rng.integers(0, 40))
        order, starts = packing.first_fit_rows(lengths, 40, edges, seams)
        assert as_rows(order, starts) == first_fit_by_hand(lengths, 40, edges, seams)
        # No example comes before one from the other side of a seam.
        for seam in seams:
            assert set(order[:seam]) == set(range(seam))


@pytest.mark.parametrize("length", [1, 20, 21, 26, 40])
def test_first_fit_of_equal_lengths_opens_as_many_rows_as_it_needs(length):
    """Among them just over half a row, where rows are emptiest."""
    lengths = np.full(90, length)
    order, starts = packing.first_fit_rows(lengths, 40, np.array([0, 50, 90]), np.array([50]))
    per_row = 40 // length
    assert len(starts) - 1 == -(-50 // per_row) + -(-40 // per_row)
    assert order.tolist() == list(range(90))


def test_windows_cut_long_slices_and_hold_several_short_ones():
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


@PACKINGS
def test_shares_over_many_epochs_are_the_rates(packing_name):
    """Anywhere in the order, within the error of drawing at random (and better at epochs' ends)."""
    sizes, rates = [10, 200, 3, 50], np.array([0.1, 0.6, 0.05, 0.25])
    plan, _ = make_plan(sizes, rates, packing_name=packing_name)
    drawn = np.concatenate([plan.block(b).examples for b in range(40)])
    for end in (1_003, 5_555, 12_345, 18_001):
        shares = np.bincount(tasks_of(drawn[:end], sizes), minlength=4) / end
        assert np.all(np.abs(shares - rates) < 4 * np.sqrt(rates * (1 - rates) / end))
        # An epoch of 60 draws is exact to one draw; only the last, open one is at random.
        assert np.all(np.abs(shares - rates) <= 61 / end)
    assert len(drawn) == 320 * 60
    # An example is drawn as often as if every epoch drew its task anew without replacement: its
    # count after 320 epochs has that mean, and less than that deviation.
    counts, first = np.bincount(drawn, minlength=263), np.cumsum(sizes) - sizes
    for start, size, rate in zip(first, sizes, rates):
        ratio = 60 * rate / size
        own = counts[start : start + size]
        assert own.mean() == pytest.approx(320 * ratio)
        assert np.all(np.abs(own - 320 * ratio) <= 4 * np.sqrt(320 * ratio * (1 - ratio)) + 1e-6)


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
    """Epochs of 130 draws, far shorter than a window of first-fit."""
    sizes = np.array([10, 500, 90])
    capped = np.minimum(sizes, 60)
    plan, _ = make_plan(
        sizes, capped / capped.sum(), packing_name=packing_name, block_draws=130 * 5
    )
    drawn = plan.block(0).examples
    for epoch in range(5):
        own = drawn[epoch * 130 : (epoch + 1) * 130]
        assert np.bincount(tasks_of(own, sizes), minlength=3).tolist() == capped.tolist()
        assert np.bincount(own).max() == 1
    assert np.bincount(drawn, minlength=600)[10:510].max() == 1


MIXES = {
    # sizes, weights, draws of a block
    "caps that do not divide the sizes": ([10, 500, 97, 61], [10, 60, 60, 60], 650),
    "caps that divide them": ([7, 21, 70, 35], [7, 7, 7, 7], 600),
    "every task over its cap": ([31, 57, 400], [16, 16, 16], 1000),
    "fractional rates": ([7, 31, 100, 12], [17, 29, 54, 3], 700),
    "an epoch of several blocks": ([33, 400, 5000], [33, 300, 300], 200),
    "a fractional epoch of several blocks": ([50, 333, 90], [5, 13, 7], 60),
    "a block for each epoch": ([40, 300], [40, 33], 100),
    "single examples": ([1, 1, 5, 2], [1, 1, 1, 1], 100),
    "a long window": ([100, 900], [100, 100], 20_000),
    "a hundredth of an example an epoch": ([20, 30], [2000, 1], 4000),
}
EVERY_MIX = pytest.mark.parametrize("mix", list(MIXES))


def mix_plan(mix, packing_name, seed=3):
    """The plan, and each task's draws an epoch as exact fractions."""
    sizes, weights, block_draws = MIXES[mix]
    rates = np.array(weights) / sum(weights)
    plan, _ = make_plan(
        sizes, rates, packing_name=packing_name, block_draws=block_draws, seed=seed, row_tokens=100
    )
    epoch = min(Fraction(size * sum(weights), weight) for size, weight in zip(sizes, weights))
    return plan, [epoch * weight / sum(weights) for weight in weights]


@EVERY_MIX
@PACKINGS
def test_epochs_are_exact_and_repeat_nothing(mix, packing_name):
    """By counting: in rows' order, at each epoch's end, and group after group."""
    sizes = np.array(MIXES[mix][0])
    plan, per_epoch = mix_plan(mix, packing_name)
    groups = [math.ceil(size / own) for size, own in zip(sizes.tolist(), per_epoch)]
    num_epochs = 2 * min(max(groups), 150) + 1
    ends = plan._counts(np.arange(num_epochs + 1) * plan._epoch_slices)
    order, block = [], 0
    while sum(map(len, order)) < ends[-1].sum():
        order.append(plan.block(block).examples)
        block += 1
    epochs = np.split(np.concatenate(order), ends.sum(axis=1))[1:-1]
    assert len(epochs) == num_epochs
    drawn = np.zeros(len(sizes), int)
    for number, examples in enumerate(epochs, start=1):
        assert np.bincount(examples).max() == 1
        counts = np.bincount(tasks_of(examples, sizes), minlength=len(sizes))
        drawn += counts
        for count, total, own in zip(counts, drawn, per_epoch):
            assert math.floor(own) <= count <= math.ceil(own)
            assert abs(Fraction(int(total)) - number * own) < 1
    first = np.cumsum(sizes) - sizes
    for start, size, length in zip(first, sizes, groups):
        for begin in range(0, num_epochs - length + 1, length):
            group = np.concatenate(epochs[begin : begin + length])
            own = group[(group >= start) & (group < start + size)]
            counts = np.bincount(own - start, minlength=size)
            # All of them, and one more time those that its last epoch draws beyond them.
            assert counts.min() == 1
            assert counts.max() <= 2


@EVERY_MIX
@PACKINGS
def test_any_block_alone_is_that_of_reading_in_order(mix, packing_name):
    plan, _ = mix_plan(mix, packing_name)
    in_order = [plan.block(b) for b in range(12)]
    for b in (11, 0, 7, 4):
        alone = mix_plan(mix, packing_name)[0].block(b)
        assert alone.examples.tolist() == in_order[b].examples.tolist()
        assert alone.row_starts.tolist() == in_order[b].row_starts.tolist()


def assert_every_example_once(epochs, sizes, groups):
    first = np.cumsum(sizes) - sizes
    for start, size, length in zip(first, sizes, groups):
        for begin in range(0, len(epochs) - length + 1, length):
            group = np.concatenate(epochs[begin : begin + length])
            own = group[(group >= start) & (group < start + size)]
            assert sorted(own) == list(range(start, start + size))


def test_groups_whose_draws_are_the_sizes_repeat_nothing_at_all():
    """The caps divide the sizes; also far from the order's beginning, where errors add up."""
    rng = np.random.default_rng(5)
    for _ in range(30):
        caps = rng.integers(1, 60, 6)
        sizes = caps * np.append(1, rng.integers(1, 8, 5))
        epoch = int(caps.sum())
        plan, _ = make_plan(sizes, caps / epoch, block_draws=epoch)
        assert plan._per_epoch.tolist() == caps.tolist()
        far = 420 * int(rng.integers(0, 10**10))  # 420: divided by every number up to 7
        epochs = [plan.block(far + number).examples for number in range(7)]
        assert [len(examples) for examples in epochs] == [epoch] * 7
        assert_every_example_once(epochs, sizes, sizes // caps)


def test_groups_of_fractional_draws_have_as_many_epochs_as_they_need():
    """A third of 10 examples an epoch: three epochs, though the quotients of floats are not 3."""
    rng = np.random.default_rng(6)
    for _ in range(30):
        sizes = np.repeat(rng.integers(2, 60), 6)
        groups = np.append(1, rng.integers(1, 30, 5))
        weights = 1 / groups
        plan, _ = make_plan(sizes, weights / weights.sum(), block_draws=5_000)
        ends = plan._counts(np.arange(60)).sum(axis=1)
        order = np.concatenate([plan.block(b).examples for b in range(3)])
        epochs = np.split(order, ends)[1:-1]
        assert_every_example_once(epochs, sizes, groups)


def test_a_task_that_is_hardly_ever_drawn():
    """Its group has more epochs than a run or an integer holds."""
    plan, _ = make_plan([40, 1000], [1.0, 1e-30], block_draws=80)
    for block in (0, 10**9):
        counts = np.bincount(plan.block(block).examples, minlength=1040)
        assert counts.tolist() == [2] * 40 + [0] * 1000


def test_every_group_has_its_own_permutation():
    plan, _ = make_plan([40], [1.0], block_draws=40)
    orders = [plan.block(b).examples.tolist() for b in range(5)]
    turned = [np.roll(order, -order.index(0)).tolist() for order in orders]
    assert all(one != other for one, other in itertools.combinations(turned, 2))


@PACKINGS
def test_a_task_that_is_drawn_over_and_over_is_drawn_evenly(packing_name):
    """It is through after 6 draws; 66 draws, over an eighth of the 501 tasks, count as an epoch."""
    sizes = np.array([3] + [100] * 500)
    rates = np.array([0.5] + [0.5 / 500] * 500)
    plan, _ = make_plan(sizes, rates, block_draws=2_000, packing_name=packing_name)
    assert plan._num_slices == 2_000 // 66
    ends = plan._counts(np.arange(100)).sum(axis=1)
    order = np.concatenate([plan.block(b).examples for b in range(4)])
    for begin, end in itertools.pairwise(ends):
        counts = np.bincount(order[begin:end], minlength=sizes.sum())
        assert counts[:3].tolist() == [11, 11, 11]
        assert counts[3:].max() == 1


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


def test_renderings_come_in_turn_and_no_text_twice_running():
    """20 of 50 an epoch: of three epochs 10 examples come again, as the text before the group's."""
    plan, _ = make_plan([20, 50], [0.5, 0.5], renderings=3, block_draws=40)
    for group in range(4):
        drawn = np.concatenate([plan.block(3 * group + epoch).examples for epoch in range(3)])
        own = drawn[drawn % 70 >= 20]
        assert len(set(own)) == 60
        assert np.bincount(own // 70, minlength=3).tolist() == np.roll([50, 0, 10], group).tolist()
    blocks = [plan.block(number).examples for number in range(24)]
    seen = collections.defaultdict(list)
    for example in np.concatenate(blocks).tolist():
        seen[example % 70].append(example // 70)
    for texts in [texts for example, texts in seen.items() if example >= 20]:
        assert all(one != other for one, other in itertools.pairwise(texts))


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
