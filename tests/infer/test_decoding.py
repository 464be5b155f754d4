"""Cached greedy decoding against the loop that runs the whole model for every token."""

import dataclasses

import jax
import numpy as np
import pytest

from optiml_jax.errors import InputError
from optiml_jax.infer import buckets, decoding
from optiml_jax.model import decoder, partitioning

EOS = 2
LENGTHS = (1, 7, 3, 15, 66, 2, 70, 9, 30)


@pytest.fixture(scope="module")
def prompts(config):
    rng = np.random.default_rng(0)
    return [rng.integers(4, config.vocab_size, size=n).tolist() for n in LENGTHS]


def brute_force(naive_log_probs, prompt, max_new_tokens, eos_id):
    ids, new = list(prompt), []
    for _ in range(max_new_tokens):
        token = int(np.argmax(naive_log_probs(ids)[-1]))
        if token == eos_id:
            return new, True
        new.append(token)
        ids.append(token)
    return new, False


@pytest.fixture(scope="module")
def expected(naive_log_probs, prompts):
    """Brute-force continuations of 12 tokens that no token stops."""
    return [brute_force(naive_log_probs, prompt, 12, -1)[0] for prompt in prompts]


@pytest.fixture(scope="module")
def stop_id(expected):
    """A token that ends some rows early and others not."""
    counts = {}
    for row in expected:
        for token in set(row):
            counts[token] = counts.get(token, 0) + 1
    chosen = [t for t, n in sorted(counts.items()) if 1 < n < len(expected)]
    return chosen[0]


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_equals_brute_force_over_ragged_prompts(
    config, params, prompts, expected, stop_id, batch_size
):
    result = decoding.greedy(config, params, prompts, 12, stop_id, batch_size=batch_size)
    wanted = [row[: row.index(stop_id)] if stop_id in row else row for row in expected]
    assert result.tokens == wanted
    assert result.stopped == [stop_id in row for row in expected]
    assert any(result.stopped)
    assert not all(result.stopped)
    assert result.num_truncated == 0


def test_order_of_prompts_does_not_matter(config, params, prompts, stop_id):
    forward = decoding.greedy(config, params, prompts, 12, stop_id, batch_size=4)
    backward = decoding.greedy(config, params, prompts[::-1], 12, stop_id, batch_size=4)
    assert backward.tokens == forward.tokens[::-1]


def test_prompt_without_room_is_cut_on_the_left_behind_its_prefix(config, params, naive_log_probs):
    room = config.max_positions - 8
    prompt = [2, *np.random.default_rng(1).integers(4, 200, size=150).tolist()]
    result = decoding.greedy(config, params, [prompt, prompt[:9]], 8, -1, num_prefix=1)
    assert result.truncated == [True, False]
    assert result.num_truncated == 1
    kept = [2, *prompt[-(room - 1) :]]
    assert result.tokens[0] == brute_force(naive_log_probs, kept, 8, -1)[0]


def test_cut_left():
    assert decoding.cut_left([2, 10, 11, 12], 3, 1) == [2, 11, 12]
    assert decoding.cut_left([2, 10, 11, 12], 3) == [10, 11, 12]
    assert decoding.cut_left([2, 10], 3, 1) == [2, 10]


def test_bfloat16_does_not_depend_on_the_batch(config, params, prompts):
    half = dataclasses.replace(config, dtype="bfloat16")
    alone = [decoding.greedy(half, params, [p], 1, EOS).tokens[0] for p in prompts[:4]]
    together = decoding.greedy(half, params, prompts[:4], 1, EOS)
    assert together.tokens == alone


def test_bfloat16_cast_ahead_changes_no_bit(config, params, prompts):
    from optiml_jax.infer import arrays

    half = dataclasses.replace(config, dtype="bfloat16")
    ids = np.asarray([prompts[3]], np.int32)
    args = (np.ones_like(ids), np.arange(ids.shape[1], dtype=np.int32)[None])
    first, _ = decoder.hidden_states(half, params, ids, *args)
    second, _ = decoder.hidden_states(half, arrays.cast_kernels(half, params), ids, *args)
    np.testing.assert_array_equal(np.asarray(first), np.asarray(second))


def test_all_rows_done_leaves_the_loop(config, params, prompts, expected):
    # The first token of this prompt is the end: nothing is generated.
    result = decoding.greedy(config, params, [prompts[0]], 12, expected[0][0])
    assert result.tokens == [[]]
    assert result.stopped == [True]


def test_compilations_are_bounded_and_counted(config, params):
    rng = np.random.default_rng(2)
    prompts = [rng.integers(4, 200, size=n).tolist() for n in rng.integers(1, 90, size=50)]
    before = buckets.compile_counts()
    decoding.greedy(config, params, prompts, 5, EOS, batch_size=8)
    decoding.greedy(config, params, prompts, 5, EOS, batch_size=8)
    after = buckets.compile_counts()
    new = {name: n - before.get(name, 0) for name, n in after.items() if n != before.get(name, 0)}
    shapes = ("8x91+5", "8x64+5", "2x64+5")
    programs = ("prefill", "decode")
    assert new == {f"{program} {shape}": 1 for program in programs for shape in shapes}


def test_a_mesh_gives_the_same(config, params, prompts, expected):
    mesh = partitioning.make_mesh(partitioning.MeshConfig())
    shardings = partitioning.shardings(mesh, decoder.logical_axes(config))
    placed = jax.device_put(params, shardings)
    result = decoding.greedy(config, placed, prompts, 12, -1, batch_size=4, mesh=mesh)
    assert result.tokens == expected


@pytest.mark.parametrize("max_new_tokens", [0, 96])
def test_no_room_for_new_tokens(config, params, max_new_tokens):
    with pytest.raises(InputError, match=r"max_new_tokens is \d+, but the model has 96 positions"):
        decoding.greedy(config, params, [[5]], max_new_tokens, EOS)


def test_an_empty_prompt_is_refused(config, params):
    with pytest.raises(InputError, match="prompt 1 has no tokens"):
        decoding.greedy(config, params, [[5], []], 4, EOS)


def test_no_prompts(config, params):
    assert decoding.greedy(config, params, [], 4, EOS).tokens == []
