"""Greedy tokens, beams and sampling filters against transformers' `generate` (random weights)."""

import dataclasses

import numpy as np
import pytest

from optiml_jax.infer import beam, decoding, sampling
from optiml_jax.infer.settings import DecodingConfig
from optiml_jax.interop import huggingface
from optiml_jax.model.config import OptConfig

pytestmark = pytest.mark.parity

CONFIG = OptConfig(
    vocab_size=272,
    num_layers=3,
    num_heads=4,
    d_model=64,
    ffn_dim=256,
    max_positions=128,
    dtype="float32",
)
VARIANTS = {
    "pre": CONFIG,
    "350m": dataclasses.replace(CONFIG, norm_placement="post", final_norm=False, embedding_dim=32),
}
LENGTHS = (9, 3, 17, 1, 12)
EOS = 2
TIED = (1, 2)


def reference(config, seed):
    """A random model of `transformers`, scores spread, and our parameters of it."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    model = transformers.OPTForCausalLM(
        transformers.OPTConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            ffn_dim=config.ffn_dim,
            max_position_embeddings=config.max_positions,
            word_embed_proj_dim=config.embedding_width,
            do_layer_norm_before=config.norm_placement == "pre",
            dropout=0.0,
            attn_implementation="eager",
        )
    ).float()
    model.eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "layer_norm" in name and name.endswith("weight"):
                value.normal_(1.0, 0.2)
            else:
                value.normal_(0.0, 0.15)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    return torch, model, huggingface.params_from_hf(state, config)


def prompts_of(config, seed):
    rng = np.random.default_rng(seed)
    return [rng.integers(4, config.vocab_size, size=n).tolist() for n in LENGTHS]


def generate(torch, model, prompts, **options):
    """`generate` over left-padded prompts; new tokens and all that it returns."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[1] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    with torch.no_grad():
        out = model.generate(
            ids,
            attention_mask=mask,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
            pad_token_id=1,
            **options,
        )
    return out.sequences[:, longest:].tolist(), out


def whole(row, eos_id):
    return row[: row.index(eos_id)] if eos_id in row else row


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_is_identical_over_64_steps(variant):
    config = VARIANTS[variant]
    torch, model, params = reference(config, 0)
    prompts = prompts_of(config, 0)
    # No id ends a row: all 64 steps are compared.
    expected, _ = generate(torch, model, prompts, max_new_tokens=64, eos_token_id=-1)
    found = decoding.greedy(config, params, prompts, 64, -1)
    assert [len(row) for row in found.tokens] == [64] * len(prompts)
    assert found.tokens == expected
    assert len({token for row in expected for token in row}) > 8  # Not one token repeated.


def beam_eos(config, params, prompts):
    """A token that greedy rows contain in their middle, so that beams finish at unequal lengths."""
    rows = decoding.greedy(config, params, prompts, 10, -1).tokens
    return rows[0][4]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("seed", "num_beams", "length_penalty"),
    [(0, 4, 1.0), (1, 3, 0.0), (2, 5, 2.0), (3, 2, -0.5), (4, 4, 0.6), (3, 2, -1.0)],
)
def test_beams_match(variant, seed, num_beams, length_penalty):
    config = VARIANTS[variant]
    torch, model, params = reference(config, seed)
    prompts = prompts_of(config, seed)
    eos_id = beam_eos(config, params, prompts)
    settings = DecodingConfig(
        max_new_tokens=16,
        num_beams=num_beams,
        length_penalty=length_penalty,
        num_return_sequences=num_beams,
    )
    sequences, out = generate(
        torch,
        model,
        prompts,
        max_new_tokens=16,
        num_beams=num_beams,
        length_penalty=length_penalty,
        num_return_sequences=num_beams,
        early_stopping=False,
        eos_token_id=eos_id,
    )
    found = beam.search(config, params, prompts, settings, eos_id)
    ours = [one for row in found.found for one in row]
    assert [one.tokens for one in ours] == [whole(row, eos_id) for row in sequences]
    scores = [one.score for one in ours]
    # At a penalty of -1 scores are log-probability times length, hundreds large: a float32 of that
    # size is no finer than 1e-4.
    rtol = 16 * 2e-7 if length_penalty <= -1.0 else 0
    np.testing.assert_allclose(scores, out.sequences_scores.numpy(), atol=1e-4, rtol=rtol)
    lengths = {len(one.tokens) for one in ours}
    assert len(lengths) > 1  # Some finished before the limit.


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(0.7, 0, 1.0), (1.0, 5, 1.0), (1.3, 0, 0.8), (0.5, 20, 0.9), (2.0, 500, 0.3), (1.0, 1, 0.5)],
)
def test_filters_match(temperature, top_k, top_p):
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    scores = np.random.default_rng(0).normal(0.0, 3.0, (6, 300)).astype(np.float32)
    # Ties, at the edge of top-k and of top-p too: the rows of TIED.
    scores[1] = np.round(scores[1])
    scores[2] = 0.0
    warpers = [process.TemperatureLogitsWarper(temperature)]
    warpers += [process.TopKLogitsWarper(top_k)] if top_k else []
    warpers += [process.TopPLogitsWarper(top_p)] if top_p < 1.0 else []
    expected = torch.tensor(scores)
    for warper in warpers:
        expected = warper(None, expected)
    settings = {
        "temperature": np.float32(temperature),
        "top_k": np.int32(top_k),
        "top_p": np.float32(top_p),
    }
    found = np.asarray(sampling.filtered(scores, settings))
    expected = expected.numpy()
    for number, (ours, theirs) in enumerate(zip(found, expected)):
        if number not in TIED:
            np.testing.assert_array_equal(np.isneginf(ours), np.isneginf(theirs))
        # Which of tied ids stay is left open by torch's sort; how many, and of which score, is not.
        # (A sum of equal probabilities may reach top_p one id sooner or later.)
        ours, theirs = (np.sort(row[~np.isneginf(row)])[::-1] for row in (ours, theirs))
        assert abs(len(ours) - len(theirs)) <= (number in TIED)
        shared = min(len(ours), len(theirs))
        np.testing.assert_allclose(ours[:shared], theirs[:shared], rtol=1e-6)
