"""Plans of batches: every item once, few shapes."""

import pytest

from optiml_jax.errors import InputError
from optiml_jax.infer import buckets


def test_length_buckets_end_at_the_limit():
    assert buckets.length_buckets(1792) == (64, 128, 256, 512, 1024, 1792)
    assert buckets.length_buckets(2048) == (64, 128, 256, 512, 1024, 2048)
    assert buckets.length_buckets(20) == (20,)


def test_plan_as_in_the_docstring():
    plans = buckets.plan_batches([3, 90, 5], 2, (64, 128))
    assert plans == [buckets.BatchPlan((1, 2), 2, 128), buckets.BatchPlan((0,), 1, 64)]


def test_every_item_is_planned_once_and_fits():
    lengths = [(7 * i) % 200 + 1 for i in range(101)]
    sizes = buckets.length_buckets(256)
    plans = buckets.plan_batches(lengths, 24, sizes)
    assert sorted(i for plan in plans for i in plan.indices) == list(range(101))
    for plan in plans:
        assert max(lengths[i] for i in plan.indices) <= plan.length
        assert len(plan.indices) <= plan.rows <= 24
    shapes = {(plan.rows, plan.length) for plan in plans}
    assert len(shapes) <= len(sizes) + 1
    assert plans[-1].rows == 8  # 101 = 4 x 24 + 5


def test_no_items_no_batches():
    assert buckets.plan_batches([], 4, (64,)) == []


def test_batch_size_must_be_positive():
    with pytest.raises(InputError, match="batch size 0"):
        buckets.plan_batches([1], 0, (64,))


def test_a_value_beyond_all_buckets_is_our_mistake():
    with pytest.raises(ValueError, match="largest bucket"):
        buckets.bucket(65, (64,))
