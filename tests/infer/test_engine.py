"""Text in, text out: tokenization, prefixes, truncation and choice."""

import dataclasses

import jax
import numpy as np
import pytest

from optiml_jax.errors import InputError
from optiml_jax.infer import buckets, decoding
from optiml_jax.infer import engine as engines
from optiml_jax.infer.settings import DecodingConfig
from optiml_jax.model import partitioning

EOS = 2
PROMPTS = [
    ("Is the sky blue?", ("yes", "no", "yes or no")),
    ("Answer the question: the cat sat on the mat. ", ("the dog", "the cat")),
    ("", ("blue", "green")),
    ("Is this text produced by a model?\n", ("yes", "no ")),
]


def naive_scores(vocabulary, naive_log_probs, source, options, prefix=(), eos=False):
    """The definition, option by option: joint tokens, those of the source masked."""
    scores = []
    for option in options:
        source, option = source.rstrip(" "), option.rstrip()
        start = len(prefix) + len(vocabulary.encode(source))
        text = f"{source} {option}" if source else option
        ids = [*prefix, *vocabulary.encode(text)] + [EOS] * eos
        if start == 0:
            ids, start = [EOS, *ids], 1
        log_probs = naive_log_probs(ids)
        scores.append(sum(float(log_probs[i - 1, ids[i]]) for i in range(start, len(ids))))
    return scores


@pytest.mark.parametrize("eos", [False, True])
@pytest.mark.parametrize("prefix", [(), (EOS,)])
def test_rank_equals_the_definition(tiny_engine, vocabulary, naive_log_probs, prefix, eos):
    one = dataclasses.replace(tiny_engine, prompt_prefix=prefix)
    rankings = one.rank(PROMPTS, score_eos=eos)
    for (source, options), ranking in zip(PROMPTS, rankings):
        wanted = naive_scores(vocabulary, naive_log_probs, source, options, prefix, eos)
        np.testing.assert_allclose(ranking.log_probs, wanted, atol=1e-4)
        assert ranking.choice == int(np.argmax(wanted))
        assert not ranking.truncated


def test_rank_does_not_depend_on_batch_or_order(tiny_engine):
    wanted = tiny_engine.rank(PROMPTS, batch_size=1)
    reversed_ones = tiny_engine.rank(PROMPTS[::-1], batch_size=7)[::-1]
    for one, other in zip(wanted, reversed_ones):
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-4)


def test_normalisations_choose_by_their_own_score(tiny_engine, vocabulary, naive_log_probs):
    source, options = PROMPTS[0]
    sums = np.asarray(naive_scores(vocabulary, naive_log_probs, source, options))
    tokens = [len(vocabulary.encode(f" {o}")) for o in options]
    # The very tokens that stand behind the source, after nothing but `</s>`.
    alone = []
    for option in options:
        ids = [EOS, *vocabulary.encode(" " + option)]
        log_probs = naive_log_probs(ids)
        alone.append(sum(float(log_probs[i - 1, ids[i]]) for i in range(1, len(ids))))
    wanted = {
        "none": sums,
        "per_token": sums / tokens,
        "per_character": sums / [len(o) for o in options],
        "per_byte": sums / [len(o.encode()) for o in options],
        "unconditional": sums - alone,
    }
    for name, values in wanted.items():
        ranking = tiny_engine.rank([PROMPTS[0]], normalization=name)[0]
        assert ranking.choice == int(np.argmax(values)), name
        np.testing.assert_allclose(ranking.log_probs, sums, atol=1e-4)
        assert list(ranking.num_tokens) == tokens
    np.testing.assert_allclose(ranking.unconditional, alone, atol=1e-4)


def test_the_longest_option_that_fits_has_every_normalisation(tiny_engine, vocabulary):
    """At the start of a text "the" has more tokens than behind a space; it must still fit."""
    room = tiny_engine.config.max_positions
    option = "the" + "!" * (room - 1)
    assert len(vocabulary.encode(" " + option)) == room < len(vocabulary.encode(option))
    prompts = [("Is the sky blue?", ("yes",)), ("a", (option, "no"))]
    ranking = tiny_engine.rank(prompts, normalization="unconditional")[1]
    assert np.isfinite(ranking.unconditional).all()


def test_a_model_of_nans_is_refused(tiny_engine):
    """The first option would else be chosen everywhere, and score as if it were an answer."""
    broken = jax.tree.map(lambda leaf: leaf * leaf.dtype.type("nan"), tiny_engine.params)
    with pytest.raises(InputError, match="log-probabilities that are not numbers"):
        dataclasses.replace(tiny_engine, params=broken).rank(PROMPTS)


@pytest.mark.parametrize("name", ["final_norm", "token_embedding"])
@pytest.mark.parametrize(
    "settings",
    [
        DecodingConfig(max_new_tokens=3),
        DecodingConfig(max_new_tokens=3, temperature=1.0, top_k=5, top_p=0.9),
        DecodingConfig(max_new_tokens=3, num_beams=2),
    ],
    ids=["greedy", "drawn", "beams"],
)
def test_scores_that_are_not_numbers_give_no_text(tiny_engine, settings, name):
    """One NaN is enough: in the last norm, or in the row of a token that no prompt has."""
    leaves, tree = jax.tree.flatten(tiny_engine.params[name])
    leaves = [leaf.at[(-1,) * leaf.ndim].set(leaf.dtype.type("nan")) for leaf in leaves]
    broken = {**tiny_engine.params, name: jax.tree.unflatten(tree, leaves)}
    model = dataclasses.replace(tiny_engine, params=broken)
    with pytest.raises(InputError, match="scores that are not numbers"):
        model.generate(["Is the sky blue?", "the cat"], settings=settings)


def test_a_row_that_breaks_later_is_refused(tiny_engine):
    """A position that only the third new token sees; the prompt fills its bucket."""
    prompts = [[5] * buckets.SMALLEST_LENGTH]
    table = tiny_engine.params["position_embedding"]
    # Two rows stand before position 0 (OPT's offset).
    broken = table.at[2 + buckets.SMALLEST_LENGTH + 1].set(table.dtype.type("nan"))
    broken = {**tiny_engine.params, "position_embedding": broken}
    config = tiny_engine.config
    two = decoding.greedy(config, broken, prompts, 2, -1)
    assert two == decoding.greedy(config, tiny_engine.params, prompts, 2, -1)
    with pytest.raises(InputError, match="scores that are not numbers"):
        decoding.greedy(config, broken, prompts, 3, -1)


def test_weights_are_prepared_once(tiny_engine, monkeypatch):
    calls = []
    prepare = decoding.prepare
    monkeypatch.setattr(decoding, "prepare", lambda *args: calls.append(1) or prepare(*args))
    model = dataclasses.replace(tiny_engine)
    first = model.generate(["the cat"], 2)
    assert model.generate(["the cat"], 2) == first
    model.generate(["the cat"], settings=DecodingConfig(max_new_tokens=2, num_beams=2))
    assert len(calls) == 1
    dataclasses.replace(model).generate(["the cat"], 2)
    assert len(calls) == 2


def test_nothing_asked_nothing_answered(tiny_engine):
    assert tiny_engine.rank([]) == []
    assert tiny_engine.generate([], 4) == []


def test_ties_go_to_the_first(tiny_engine):
    ranking = tiny_engine.rank([("Is the sky blue?", ("no", "no", "no"))])[0]
    assert ranking.choice == 0
    assert len(set(ranking.log_probs)) == 1


def test_a_long_source_is_cut_equally_for_all_options(tiny_engine, vocabulary, naive_log_probs):
    source = "the cat sat on the mat and " * 30
    options = ("blue", "blue or green yes or no")
    one = dataclasses.replace(tiny_engine, prompt_prefix=(EOS,))
    ranking = one.rank([(source, options)])[0]
    assert ranking.truncated
    own = vocabulary.encode(source.rstrip(" "))
    longest = max(len(vocabulary.encode(" " + o)) for o in options)
    kept = [EOS, *own[-(one.config.max_positions + 1 - longest - 1) :]]
    for option, value in zip(options, ranking.log_probs):
        answer = vocabulary.encode(" " + option)
        log_probs = naive_log_probs([*kept, *answer][:-1])
        positions = range(len(kept) - 1, len(kept) - 1 + len(answer))
        wanted = sum(float(log_probs[p, t]) for p, t in zip(positions, answer))
        assert value == pytest.approx(wanted, abs=1e-4)


def test_generate_equals_brute_force(tiny_engine, vocabulary, naive_log_probs):
    sources = ["Is the sky blue? ", "", "the cat " * 60]
    results = tiny_engine.generate(sources, max_new_tokens=6)
    assert [r.truncated for r in results] == [False, False, True]
    for source, result in zip(sources, results):
        ids = vocabulary.encode(source.rstrip(" ")) or [EOS]
        ids = ids[-(tiny_engine.config.max_positions - 6) :]
        new = []
        for _ in range(6):
            token = int(np.argmax(naive_log_probs([*ids, *new])[-1]))
            if token == EOS:
                break
            new.append(token)
        assert result.text == vocabulary.decode(new).strip()
        assert result.num_tokens == len(new)
        assert result.stopped == (len(new) < 6)


def test_generate_does_not_depend_on_the_batch(tiny_engine):
    sources = [source for source, _ in PROMPTS] + ["the cat " * n for n in range(1, 30)]
    together = tiny_engine.generate(sources, 6, batch_size=16)
    assert together == tiny_engine.generate(sources[::-1], 6, batch_size=3)[::-1]


def test_mesh_gives_the_same_ranking(tiny_engine):
    mesh = partitioning.make_mesh(partitioning.MeshConfig())
    meshed = dataclasses.replace(tiny_engine, mesh=mesh)
    for one, other in zip(tiny_engine.rank(PROMPTS), meshed.rank(PROMPTS)):
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-5)
    assert meshed.fingerprint == tiny_engine.fingerprint


def test_fingerprint_tells_models_apart(tiny_engine):
    changed = {**tiny_engine.params, "final_norm": dict(tiny_engine.params["final_norm"])}
    bias = changed["final_norm"]["bias"]
    changed["final_norm"]["bias"] = bias.at[-1].add(bias.dtype.type(1e-6))
    assert dataclasses.replace(tiny_engine, params=changed).fingerprint != tiny_engine.fingerprint
    assert dataclasses.replace(tiny_engine).fingerprint == tiny_engine.fingerprint
    prefixed = dataclasses.replace(tiny_engine, prompt_prefix=(EOS,))
    assert prefixed.fingerprint != tiny_engine.fingerprint


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (("a", ()), "prompt 1: no options"),
        (("a", ("yes", " ")), "prompt 1: option ' ' has no tokens"),
        (("a", ("cat " * 200,)), r"prompt 1: an option of \d+ tokens does not fit"),
        (("a", ("yes", "cat " * 200)), r"prompt 1: an option of \d{3} tokens does not fit"),
    ],
)
def test_prompts_that_cannot_be_ranked(tiny_engine, prompt, message):
    with pytest.raises(engines.PromptError, match=message):
        tiny_engine.rank([("a", ("b",)), prompt])


def test_bad_arguments(tiny_engine):
    with pytest.raises(InputError, match="Did you mean 'per_token'"):
        tiny_engine.rank(PROMPTS, normalization="per_tokens")
    with pytest.raises(InputError, match=r"Engine.rank_batch_size is 0"):
        dataclasses.replace(tiny_engine, rank_batch_size=0)
    small = dataclasses.replace(tiny_engine.config, vocab_size=64)
    with pytest.raises(InputError, match="Use the vocabulary that lies beside the checkpoint"):
        dataclasses.replace(tiny_engine, config=small)
    with pytest.raises(InputError, match="max_new_tokens is 96"):
        tiny_engine.generate(["a"], 96)
