"""Logits, gradients and names of every variant against transformers' OPTForCausalLM."""

import dataclasses

import jax
import numpy as np
import pytest

from optiml_jax import errors
from optiml_jax.interop import huggingface, huggingface_config
from optiml_jax.model import decoder
from optiml_jax.train import losses

from ..interop import models

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

ROWS, LENGTH = 3, 40


@pytest.fixture(scope="module", params=models.VARIANTS)
def reference(request):
    """(model of transformers, our config of it), logits as far apart as in a trained model."""
    model = models.hf_model(request.param)
    config = huggingface_config.from_hf(model.config.to_dict(), request.param)
    return model, dataclasses.replace(config, dtype="float32")


@pytest.fixture(scope="module")
def pre():
    model = models.hf_model("pre")
    config = huggingface_config.from_hf(model.config.to_dict(), "pre")
    return model, dataclasses.replace(config, dtype="float32")


def _plain_batch(ids):
    positions = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
    return ids, np.ones_like(ids), positions


def _state(model):
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


def test_the_variants_are_what_they_say():
    found = {
        name: huggingface_config.from_hf(models.hf_model(name).config.to_dict(), name)
        for name in models.VARIANTS
    }
    told = {
        name: (one.norm_placement, one.final_norm, one.embedding_dim) for name, one in found.items()
    }
    assert told == {
        "pre": ("pre", True, None),
        "post": ("post", False, 24),
        "no_final_norm": ("pre", False, None),
        "projected": ("pre", True, 24),
    }


@pytest.mark.parametrize("scan_layers", [True, False])
def test_logits_match(reference, scan_layers):
    model, config = reference
    config = dataclasses.replace(config, scan_layers=scan_layers)
    ids = models.ids(ROWS, LENGTH)
    with torch.no_grad():
        expected = model(torch.tensor(ids, dtype=torch.long)).logits.numpy()
    params = huggingface.params_from_hf(_state(model), config)
    hidden, _ = jax.jit(decoder.hidden_states, static_argnums=0)(config, params, *_plain_batch(ids))
    ours = np.asarray(decoder.logits(config, params, hidden))
    assert expected.std() >= 1.0
    # float32 rounding through three layers; the bar is that of docs/fidelity.md.
    assert np.abs(ours - expected).max() <= 2e-5 * np.abs(expected).max()


def test_gradients_match(reference):
    model, config = reference
    ids = models.ids(ROWS, LENGTH)
    tokens = torch.tensor(ids, dtype=torch.long)
    model.zero_grad()
    scores = model(tokens).logits
    loss = torch.nn.functional.cross_entropy(
        scores[:, :-1].reshape(-1, config.vocab_size), tokens[:, 1:].reshape(-1), reduction="sum"
    )
    loss.backward()
    weights = np.ones((ROWS, LENGTH), np.float32)
    weights[:, -1] = 0.0
    params = huggingface.params_from_hf(_state(model), config)

    def summed(params):
        hidden, _ = decoder.hidden_states(config, params, *_plain_batch(ids))
        targets = np.roll(ids, -1, axis=1)
        return losses.summed_cross_entropy(config, params, hidden, targets, weights)[0]

    ours_loss, ours = jax.jit(jax.value_and_grad(summed))(params)
    assert float(ours_loss) == pytest.approx(loss.item(), rel=1e-5)
    gradients = huggingface.params_to_hf(ours, config)
    checked = 0
    for name, value in model.named_parameters():
        expected = value.grad.numpy()
        # torch leaves out the gradient of `padding_idx` rows of the lookup; no id 1 occurs here.
        scale = max(np.abs(expected).max(), 1.0)
        np.testing.assert_allclose(
            gradients[name], expected, atol=1e-5 * scale, rtol=0, err_msg=name
        )
        checked += 1
    assert checked == len(huggingface.places(config))


def test_padded_rows_match(reference):
    """Right padding in ours against an attention mask there."""
    model, config = reference
    ids, segment_ids, positions = (array.copy() for array in _plain_batch(models.ids(ROWS, LENGTH)))
    for row, length in enumerate((LENGTH, 17, 5)):
        ids[row, length:] = segment_ids[row, length:] = positions[row, length:] = 0
    with torch.no_grad():
        expected = model(
            torch.tensor(ids, dtype=torch.long), attention_mask=torch.tensor(segment_ids)
        ).logits.numpy()
    params = huggingface.params_from_hf(_state(model), config)
    hidden, _ = decoder.hidden_states(config, params, ids, segment_ids, positions)
    ours = np.asarray(decoder.logits(config, params, hidden))
    real = segment_ids != 0
    assert np.abs((ours - expected)[real]).max() <= 2e-5 * np.abs(expected[real]).max()


def test_names_and_arrays_round_trip(reference):
    model, config = reference
    state = _state(model)
    back = huggingface.params_to_hf(huggingface.params_from_hf(state, config), config)
    assert set(back) == set(state)
    for name, array in state.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)


def test_base_model_names(pre):
    model, config = pre
    state = {name.removeprefix("model."): array for name, array in _state(model).items()}
    del state["lm_head.weight"]
    params = huggingface.params_from_hf(state, config)
    np.testing.assert_array_equal(params["token_embedding"], state["decoder.embed_tokens.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("model.decoder.layers.1.fc1.bias"),
            r"missing +model\.decoder\.layers\.1\.fc1\.bias \[128\]",
        ),
        (
            lambda state: state.update({"model.decoder.project_in.weight": np.zeros((2, 2))}),
            r"unexpected +model\.decoder\.project_in\.weight \[2, 2\]",
        ),
        (
            lambda state: state.update({"model.decoder.layers.0.fc2.weight": np.zeros((2, 2))}),
            r"shape +.*fc2\.weight is \[2, 2\], not \[32, 128\]",
        ),
        (
            lambda state: state.update({"model.decoder.layers.0.fc1.bias": np.zeros(128, int)}),
            r"dtype +.*fc1\.bias is int64, not a float",
        ),
        (
            lambda state: state["model.decoder.layers.2.fc1.weight"].fill(np.nan),
            r"not finite +model\.decoder\.layers\.2\.fc1\.weight",
        ),
        (
            lambda state: state.update({"lm_head.weight": np.zeros((272, 32))}),
            r"not tied +lm_head\.weight differs from the embedding",
        ),
    ],
)
def test_wrong_state_is_refused(pre, change, message):
    model, config = pre
    state = _state(model)
    change(state)
    with pytest.raises(errors.InputError, match=message):
        huggingface.params_from_hf(state, config)
