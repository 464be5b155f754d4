"""Option scores against one naive forward per option."""

import numpy as np
import pytest

from optiml_jax.errors import InputError
from optiml_jax.infer import buckets, scoring
from optiml_jax.model import decoder


@pytest.fixture(scope="module")
def sequences(config):
    rng = np.random.default_rng(0)

    def draw(n):
        return rng.integers(4, config.vocab_size, size=n).tolist()

    made = []
    for num_context, option_lengths in [
        (10, (1, 1, 1, 1)),
        (1, (3, 2)),
        (70, (5, 1, 20)),
        (33, (40, 2)),
        (94, (3, 1)),
    ]:
        context = draw(num_context)
        made += [([*context, *draw(n)], num_context) for n in option_lengths]
        first = made[-len(option_lengths)]
        # An option that goes on where the first one ends shares its row.
        made.append(([*first[0], *draw(1)][: config.max_positions + 1], num_context))
    made.append(made[0])
    return made


@pytest.fixture(scope="module")
def expected(sequences, naive_log_probs):
    totals = []
    for ids, start in sequences:
        log_probs = naive_log_probs(ids[:-1])
        totals.append(sum(float(log_probs[i - 1, ids[i]]) for i in range(start, len(ids))))
    return np.asarray(totals)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_equals_one_forward_per_option(config, params, sequences, expected, batch_size):
    values = scoring.sequence_log_probs(config, params, sequences, batch_size=batch_size)
    np.testing.assert_allclose(values, expected, atol=1e-4)
    assert expected.std() > 1.0


def test_order_does_not_matter(config, params, sequences, expected):
    order = np.random.default_rng(1).permutation(len(sequences))
    values = scoring.sequence_log_probs(config, params, [sequences[i] for i in order])
    np.testing.assert_allclose(values, expected[order], atol=1e-4)


def test_chunks_of_positions_do_not_matter(config, params, sequences, expected, monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK_POSITIONS", 8)
    values = scoring.sequence_log_probs(config, params, sequences, batch_size=5)
    np.testing.assert_allclose(values, expected, atol=1e-4)


def test_options_come_back_prompt_by_prompt(config, params, naive_log_probs):
    prompts = [([5, 6], [[7], [8, 9]]), ([10], [[11]])]
    values = scoring.option_log_probs(config, params, prompts)
    after = naive_log_probs([5, 6, 8])
    wanted = [[after[1, 7], after[1, 8] + after[2, 9]], [naive_log_probs([10])[0, 11]]]
    assert [len(v) for v in values] == [2, 1]
    np.testing.assert_allclose([*values[0], *values[1]], [*wanted[0], *wanted[1]], atol=1e-5)


def test_options_of_one_token_share_a_row():
    rows = scoring._shared_rows([([5, 6, 7], 2), ([5, 6, 8], 2), ([5, 9, 9], 2), ([5, 6, 7, 4], 2)])
    assert sorted((row.ids, sorted(set(row.sequences))) for row in rows) == [
        ([5, 6, 7], [0, 1, 3]),
        ([5, 9], [2]),
    ]


def test_a_row_is_shared_by_so_many_targets_only(config, params, sequences, expected, monkeypatch):
    """A thousand options of one token behind one context would else gather [B, 1024, D]."""
    rows = scoring._shared_rows([([5, 6, token], 2) for token in range(1000)])
    assert max(len(row.targets) for row in rows) == scoring.MOST_TARGETS
    assert len(rows) == -(-1000 // scoring.MOST_TARGETS)
    monkeypatch.setattr(scoring, "MOST_TARGETS", 2)
    values = scoring.sequence_log_probs(config, params, sequences, batch_size=5)
    np.testing.assert_allclose(values, expected, atol=1e-4)


def test_the_whole_score_matrix_never_exists(config, params):
    batch, length, vocab = 8, 96, config.vocab_size
    zeros = np.zeros((batch, length), np.int32)
    column = np.zeros(batch, np.int32)
    few = np.zeros((batch, 4), np.int32)
    text = scoring._score.lower(config, params, zeros, column, column, few, few, 4, 4).as_text()
    assert f"{batch}x4x{vocab}xf32" in text
    assert f"{batch}x{length}x{vocab}" not in text
    assert f"{batch * length}x{vocab}" not in text


def test_compilations_are_bounded(config, params):
    rng = np.random.default_rng(5)
    prompts = [
        (rng.integers(4, 200, size=n).tolist(), [[7], [8], [9, 10, 11]])
        for n in rng.integers(1, 90, size=40)
    ]
    before = buckets.compile_counts()
    scoring.option_log_probs(config, params, prompts, batch_size=16)
    scoring.option_log_probs(config, params, prompts[::-1], batch_size=16)
    after = buckets.compile_counts()
    new = {name: n - before.get(name, 0) for name, n in after.items() if n != before.get(name, 0)}
    assert set(new.values()) == {1}
    assert len(new) <= 2 * 2 + 1


@pytest.mark.parametrize("bad", [([5, 6], 0), ([5, 6], 2), (list(range(4, 104)), 5)])
def test_sequences_that_cannot_be_scored(config, params, bad):
    with pytest.raises(InputError, match="sequence 1"):
        scoring.sequence_log_probs(config, params, [([5, 6], 1), bad])


def test_normalizations():
    score = scoring.OptionScore(-6.0, 3, "né", unconditional=-2.0)
    values = {name: rule(score) for name, rule in scoring.NORMALIZATIONS.items()}
    assert values == {
        "none": -6.0,
        "per_token": -2.0,
        "per_character": -3.0,
        "per_byte": -2.0,
        "unconditional": -4.0,
    }
    with pytest.raises(ValueError, match="unconditional"):
        scoring.NORMALIZATIONS["unconditional"](scoring.OptionScore(-6.0, 3, "a"))


def test_max_length_row_fits(config, params, naive_log_probs):
    ids = np.random.default_rng(9).integers(4, 200, size=config.max_positions + 1).tolist()
    value = scoring.sequence_log_probs(config, params, [(ids, config.max_positions)])[0]
    assert value == pytest.approx(naive_log_probs(ids[:-1])[-1, ids[-1]], abs=1e-4)
    assert decoder.POSITION_OFFSET == 2
