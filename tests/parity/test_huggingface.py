"""Logits, gradients and names against transformers' OPTForCausalLM (random weights)."""

import dataclasses

import jax
import numpy as np
import pytest

from optiml_jax import errors
from optiml_jax.interop import huggingface
from optiml_jax.model import decoder
from optiml_jax.model.config import OptConfig
from optiml_jax.train import losses

pytestmark = pytest.mark.parity

CONFIG = OptConfig(
    vocab_size=272,
    num_layers=3,
    num_heads=4,
    d_model=64,
    ffn_dim=256,
    max_positions=64,
    dtype="float32",
)
ROWS, LENGTH = 3, 48


@pytest.fixture(scope="module")
def reference():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.OPTForCausalLM(
        transformers.OPTConfig(
            vocab_size=CONFIG.vocab_size,
            hidden_size=CONFIG.d_model,
            num_hidden_layers=CONFIG.num_layers,
            num_attention_heads=CONFIG.num_heads,
            ffn_dim=CONFIG.ffn_dim,
            max_position_embeddings=CONFIG.max_positions,
            word_embed_proj_dim=CONFIG.d_model,
            dropout=0.0,
            attn_implementation="eager",
        )
    ).float()
    model.eval()
    with torch.no_grad():
        # Every array is random, so that a bias or scale in the wrong place shows.
        for name, value in model.named_parameters():
            if "layer_norm" in name and name.endswith("weight"):
                value.normal_(1.0, 0.2)
            else:
                value.normal_(0.0, 0.15)
    return torch, model


def _ids():
    return np.random.default_rng(0).integers(4, CONFIG.vocab_size, (ROWS, LENGTH)).astype(np.int32)


def _plain_batch(ids):
    positions = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), ids.shape)
    return ids, np.ones_like(ids), positions


def _state(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("scan_layers", [True, False])
def test_logits_match(reference, scan_layers):
    torch, model = reference
    config = dataclasses.replace(CONFIG, scan_layers=scan_layers)
    ids = _ids()
    with torch.no_grad():
        expected = model(torch.tensor(ids, dtype=torch.long)).logits.numpy()
    params = huggingface.params_from_hf(_state(model), config)
    hidden, _ = jax.jit(decoder.hidden_states, static_argnums=0)(config, params, *_plain_batch(ids))
    ours = np.asarray(decoder.logits(config, params, hidden))
    assert expected.std() >= 1.0
    # float32 rounding through three layers; the bar is that of docs/fidelity.md.
    assert np.abs(ours - expected).max() <= 2e-5 * np.abs(expected).max()


def test_gradients_match(reference):
    torch, model = reference
    ids = _ids()
    tokens = torch.tensor(ids, dtype=torch.long)
    model.zero_grad()
    scores = model(tokens).logits
    loss = torch.nn.functional.cross_entropy(
        scores[:, :-1].reshape(-1, CONFIG.vocab_size), tokens[:, 1:].reshape(-1), reduction="sum"
    )
    loss.backward()
    weights = np.ones((ROWS, LENGTH), np.float32)
    weights[:, -1] = 0.0
    params = huggingface.params_from_hf(_state(model), CONFIG)

    def summed(params):
        hidden, _ = decoder.hidden_states(CONFIG, params, *_plain_batch(ids))
        targets = np.roll(ids, -1, axis=1)
        return losses.summed_cross_entropy(CONFIG, params, hidden, targets, weights)[0]

    ours_loss, ours = jax.jit(jax.value_and_grad(summed))(params)
    assert float(ours_loss) == pytest.approx(loss.item(), rel=1e-5)
    gradients = huggingface.params_to_hf(ours, CONFIG)
    for name, value in model.named_parameters():
        expected = value.grad.numpy()
        ours = gradients[name]
        # torch leaves out the gradient of `padding_idx` rows of the lookup; no id 1 occurs here.
        scale = max(np.abs(expected).max(), 1.0)
        np.testing.assert_allclose(ours, expected, atol=1e-5 * scale, rtol=0, err_msg=name)


def test_padded_rows_match(reference):
    """Right padding in ours against an attention mask there."""
    torch, model = reference
    ids, segment_ids, positions = (array.copy() for array in _plain_batch(_ids()))
    lengths = [LENGTH, 17, 5]
    for row, length in enumerate(lengths):
        ids[row, length:] = segment_ids[row, length:] = positions[row, length:] = 0
    with torch.no_grad():
        expected = model(
            torch.tensor(ids, dtype=torch.long), attention_mask=torch.tensor(segment_ids)
        ).logits.numpy()
    params = huggingface.params_from_hf(_state(model), CONFIG)
    hidden, _ = decoder.hidden_states(CONFIG, params, ids, segment_ids, positions)
    ours = np.asarray(decoder.logits(CONFIG, params, hidden))
    real = segment_ids != 0
    assert np.abs((ours - expected)[real]).max() <= 2e-5 * np.abs(expected[real]).max()


def test_names_and_arrays_round_trip(reference):
    _, model = reference
    state = _state(model)
    back = huggingface.params_to_hf(huggingface.params_from_hf(state, CONFIG), CONFIG)
    assert set(back) == set(state)
    for name, array in state.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)


def test_base_model_names(reference):
    _, model = reference
    state = {name.removeprefix("model."): array for name, array in _state(model).items()}
    del state["lm_head.weight"]
    params = huggingface.params_from_hf(state, CONFIG)
    np.testing.assert_array_equal(params["token_embedding"], state["decoder.embed_tokens.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("model.decoder.layers.1.fc1.bias"), r"layers\.1\.fc1\.bias.*miss"),
        (
            lambda state: state.update({"model.decoder.project_in.weight": np.zeros((2, 2))}),
            r"no place.*project_in",
        ),
        (
            lambda state: state.update({"model.decoder.layers.0.fc2.weight": np.zeros((2, 2))}),
            r"fc2\.weight.*\[2, 2\].*\[64, 256\]",
        ),
        (lambda state: state.update({"lm_head.weight": np.zeros((272, 64))}), "tied"),
    ],
)
def test_wrong_state_is_refused(reference, change, message):
    _, model = reference
    state = _state(model)
    change(state)
    with pytest.raises(errors.InputError, match=message):
        huggingface.params_from_hf(state, CONFIG)
