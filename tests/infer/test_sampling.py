"""Filters by hand, drawn frequencies by chi-squared; tests/parity compares with transformers."""

import jax
import numpy as np
import pytest
from scipy import stats

from optiml_jax.infer import buckets, decoding, sampling
from optiml_jax.infer.settings import DecodingConfig

PROBS = np.asarray([[0.1, 0.4, 0.05, 0.3, 0.15]], np.float32)


def settings(temperature=1.0, top_k=0, top_p=1.0):
    return {
        "temperature": np.float32(temperature),
        "top_k": np.int32(top_k),
        "top_p": np.float32(top_p),
    }


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"top_k": 2}, [1, 3]),
        ({"top_k": 9}, [0, 1, 2, 3, 4]),
        ({"top_p": 0.39}, [1]),
        ({"top_p": 0.41}, [1, 3]),
        ({"top_p": 0.9}, [0, 1, 3, 4]),
        ({"top_p": 1e-9}, [1]),
        # The two best have 4/7 and 3/7 between them.
        ({"top_k": 2, "top_p": 0.5}, [1]),
        ({"top_k": 2, "top_p": 0.6}, [1, 3]),
        # Cold, the best has nearly all.
        ({"temperature": 0.1, "top_p": 0.9}, [1]),
    ],
)
def test_kept_ids(options, kept):
    found = np.asarray(sampling.filtered(np.log(PROBS), settings(**options)))
    assert np.flatnonzero(np.isfinite(found[0])).tolist() == kept


def test_negative_and_tied_scores():
    scores = np.asarray([[-3.0, -1.0, -1.0, -2.0], [0.0, -0.0, 1.0, -5.0]], np.float32)
    kept = np.asarray(sampling.top_k(scores, np.int32(2)))
    assert kept.tolist() == [[False, True, True, False], [True, True, True, False]]


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 2.0}, {"top_k": 3}, {"top_p": 0.8}, {"temperature": 0.5}]
)
def test_frequencies(options):
    """4,000 draws against the filtered distribution; a right sampler fails 1 in 10,000 times."""
    num = 4000
    scores = np.repeat(np.log(PROBS), num, axis=0)
    keys = sampling.row_keys(np.uint32(5), np.arange(num, dtype=np.int32), np.int32(0))
    drawn = np.asarray(jax.jit(sampling.sample)(scores, settings(**options), keys))
    expected = np.asarray(jax.nn.softmax(sampling.filtered(np.log(PROBS), settings(**options))))[0]
    expected = expected.astype(np.float64) / expected.sum(dtype=np.float64)
    counts = np.bincount(drawn, minlength=5)
    assert counts[expected == 0].sum() == 0
    found = stats.chisquare(counts[expected > 0], expected[expected > 0] * num)
    assert found.pvalue > 1e-4


def test_a_draw_depends_on_seed_prompt_and_token_alone():
    keys = {
        (seed, prompt, token): tuple(
            jax.random.key_data(
                sampling.row_keys(np.uint32(seed), np.asarray([prompt], np.int32), np.int32(token))
            )[0].tolist()
        )
        for seed in (0, 1)
        for prompt in (0, 1)
        for token in (0, 1)
    }
    assert len(set(keys.values())) == 8
    both = sampling.row_keys(np.uint32(1), np.asarray([7, 1], np.int32), np.int32(1))
    assert tuple(jax.random.key_data(both)[1].tolist()) == keys[1, 1, 1]


def test_sampled_rows_do_not_depend_on_the_batch(config, params):
    rng = np.random.default_rng(4)
    prompts = [rng.integers(4, 200, size=n).tolist() for n in (3, 9, 70, 5, 66)]
    drawn = DecodingConfig(max_new_tokens=8, temperature=1.0, top_k=50, top_p=0.95, seed=3)

    def decode(chosen, batch_size):
        return decoding.decode(
            *(config, params, [prompts[i] for i in chosen], drawn, -1),
            numbers=chosen,
            batch_size=batch_size,
        ).tokens

    together = decode([0, 1, 2, 3, 4], 4)
    assert decode([4, 1], 1) == [together[4], together[1]]
    assert decode([0], 1) == [together[0]]
    other = DecodingConfig(max_new_tokens=8, temperature=1.0, top_k=50, top_p=0.95, seed=4)
    assert decoding.decode(config, params, prompts, other, -1).tokens != together


def test_other_settings_compile_nothing(config, params):
    def decode(**options):
        drawn = DecodingConfig(max_new_tokens=3, **options)
        return decoding.decode(config, params, [[5, 6, 7]], drawn, -1).tokens

    decode(temperature=1.0)
    before = buckets.compile_counts()
    assert before["decode sampled 1x64+3"] == 1
    decode(temperature=0.7, top_k=3, seed=9)
    decode(temperature=1.7, top_p=0.4)
    assert buckets.compile_counts() == before
    # So cold that the best token is drawn.
    cold = decode(temperature=1e-4)
    assert cold == decode()
