import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optiml_jax import types
from optiml_jax.model import decoder
from optiml_jax.model.config import REMAT, OptConfig

CONFIG = OptConfig(
    vocab_size=40,
    num_layers=3,
    num_heads=2,
    d_model=16,
    ffn_dim=24,
    max_positions=32,
    dtype="float32",
    embedding_dropout=True,
)
# The architecture of 350M, and that of the first uploads to Hugging Face.
POST = dataclasses.replace(CONFIG, norm_placement="post", final_norm=False, embedding_dim=12)
VARIANTS = {
    "pre": CONFIG,
    "post": POST,
    "no_final_norm": dataclasses.replace(CONFIG, final_norm=False),
}
hidden_states = jax.jit(decoder.hidden_states, static_argnums=0)
init_params = jax.jit(decoder.init_params, static_argnums=0)


@pytest.fixture(scope="module")
def params():
    return _draw(CONFIG)


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request):
    """A config and its parameters."""
    return VARIANTS[request.param], _draw(VARIANTS[request.param])


def _draw(config):
    drawn = init_params(config, jax.random.key(0))
    # Larger and everywhere: with 0.006 and zero biases a mistake may hide in the rounding.
    leaves, tree = jax.tree.flatten(drawn)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten(
        leaf + jnp.float32(0.2) * jax.random.normal(key, leaf.shape, jnp.float32)
        for leaf, key in zip(leaves, keys, strict=True)
    )


def _documents(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(4, CONFIG.vocab_size, length).astype(np.int32) for length in lengths]


def _pack(rows, length):
    inputs, segments, positions = (np.zeros((len(rows), length), np.int32) for _ in range(3))
    for row, documents in enumerate(rows):
        start = 0
        for number, document in enumerate(documents, 1):
            place = slice(start, start + len(document))
            inputs[row, place] = document
            segments[row, place] = number
            positions[row, place] = np.arange(len(document))
            start += len(document)
    return inputs, segments, positions


def test_initial_distribution():
    config = dataclasses.replace(CONFIG, d_model=64, ffn_dim=256, num_layers=8, vocab_size=512)
    params = init_params(config, jax.random.key(0))
    small = 0.006 / (2 * 8) ** 0.5
    layers = params["layers"]
    for array, std in (
        (params["token_embedding"], 0.006),
        (params["position_embedding"], 0.006),
        (layers["qkv"]["kernel"], 0.006),
        (layers["fc1"]["kernel"], 0.006),
        (layers["out"]["kernel"], small),
        (layers["fc2"]["kernel"], small),
    ):
        assert float(jnp.std(array)) == pytest.approx(std, rel=0.05)
        assert array.dtype == jnp.float32
    assert not np.asarray(params["token_embedding"])[types.PAD_ID].any()
    assert not np.asarray(params["position_embedding"])[types.PAD_ID].any()
    for name in ("qkv", "out", "fc1", "fc2", "attention_norm", "ffn_norm"):
        assert not np.asarray(layers[name]["bias"]).any()
    # Layers are drawn apart from each other.
    assert not np.allclose(layers["fc1"]["kernel"][0], layers["fc1"]["kernel"][1])


def test_narrow_embeddings_start_as_the_rest():
    config = dataclasses.replace(POST, d_model=64, vocab_size=512, embedding_dim=32)
    params = init_params(config, jax.random.key(0))
    assert params["token_embedding"].shape == (512, 32)
    assert params["position_embedding"].shape == (34, 64)
    for name, shape in (("project_in", (32, 64)), ("project_out", (64, 32))):
        assert set(params[name]) == {"kernel"}
        assert params[name]["kernel"].shape == shape
        assert float(jnp.std(params[name]["kernel"])) == pytest.approx(0.006, rel=0.05)
    assert "final_norm" not in params


def test_post_norm_normalises_the_sum():
    """A post-LN layer's output has the mean and the spread that its last norm gives."""
    params = _draw(POST)
    norm = {"scale": jnp.full((3, 16), 2.0), "bias": jnp.full((3, 16), 0.5)}
    params["layers"]["ffn_norm"] = norm
    config = dataclasses.replace(POST, embedding_dim=None)
    tree = {**params, "token_embedding": jnp.ones((40, 16)) * params["token_embedding"][:, :1]}
    tree = {name: leaf for name, leaf in tree.items() if "project" not in name}
    hidden, _ = hidden_states(config, tree, *_pack([_documents([6])], 6))
    np.testing.assert_allclose(np.mean(hidden, -1), 0.5, atol=1e-5)
    np.testing.assert_allclose(np.std(hidden, -1), 2.0, rtol=1e-3)


def test_logical_axes_mirror_the_parameters(variant):
    config, params = variant
    axes = decoder.logical_axes(config)
    flat = jax.tree.map(
        lambda names, leaf: len(names) == leaf.ndim,
        axes,
        params,
        is_leaf=lambda node: isinstance(node, tuple),
    )
    assert all(jax.tree.leaves(flat))
    assert jax.tree.structure(flat) == jax.tree.structure(params)


def test_packed_equals_alone(variant):
    config, params = variant
    documents = _documents([5, 1, 7, 3])
    packed, _ = hidden_states(config, params, *_pack([documents], 20))
    start = 0
    for document in documents:
        alone, _ = hidden_states(config, params, *_pack([[document]], len(document)))
        place = slice(start, start + len(document))
        np.testing.assert_allclose(packed[0, place], alone[0], rtol=1e-5, atol=1e-5)
        start += len(document)


def test_rows_of_padding_are_finite(params):
    rows = _pack([_documents([4])[:1], []], 6)
    hidden, _ = hidden_states(CONFIG, params, *rows, dropout_rng=jax.random.key(0))
    assert np.isfinite(hidden).all()


def _gradient(config, params, rows):
    def total(params):
        hidden, _ = decoder.hidden_states(config, params, *rows, dropout_rng=jax.random.key(7))
        return jnp.sum(jnp.sin(hidden))

    return jax.jit(jax.value_and_grad(total)), params


@pytest.mark.parametrize(
    ("name", "remat", "scan_layers"),
    [
        *(("pre", remat, True) for remat in REMAT if remat != "none"),
        ("pre", "none", False),
        ("pre", "full", False),
        ("post", "full", False),
        ("no_final_norm", "minimal", False),
    ],
)
def test_scan_remat_and_unrolled_agree(name, remat, scan_layers):
    """With dropout on: the draws must be the same too."""
    config = VARIANTS[name]
    params = _draw(config)
    rows = _pack([_documents([5, 4]), _documents([8], 1)], 10)

    def run(config):
        gradient, arguments = _gradient(config, params, rows)
        return gradient(arguments)

    other = dataclasses.replace(config, scan_layers=scan_layers, remat=remat)
    (plain, plain_gradients), (value, gradients) = run(config), run(other)
    assert float(value) == pytest.approx(float(plain), rel=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4),
        gradients,
        plain_gradients,
    )


def test_remat_computes_again_what_it_does_not_save(params):
    """Matrix products of the backward pass: the scores alone; with fc1 and the mixing; all five.

    fc2 is never computed again: nothing in the backward pass asks for its output.
    """
    rows = _pack([_documents([5, 4])], 10)
    counts = {}
    for remat in REMAT:
        config = dataclasses.replace(CONFIG, remat=remat)
        gradient, arguments = _gradient(config, params, rows)
        counts[remat] = gradient.lower(arguments).as_text().count("stablehlo.dot_general")
    again = {remat: count - counts["none"] for remat, count in counts.items()}
    assert again == {"none": 0, "minimal": 1, "save_projections": 3, "full": 5}


def test_layers_are_unrolled_without_a_loop(params):
    rows = _pack([_documents([5])], 6)
    for scan_layers, loops in ((True, True), (False, False)):
        config = dataclasses.replace(CONFIG, scan_layers=scan_layers)
        text = hidden_states.lower(config, params, *rows).as_text()
        assert ("stablehlo.while" in text) == loops


def test_dropout_places(params):
    rows = _pack([_documents([6])], 6)

    def run(**rates):
        config = dataclasses.replace(CONFIG, **rates)
        return np.asarray(hidden_states(config, params, *rows, dropout_rng=jax.random.key(1))[0])

    off = {"dropout_rate": 0.0, "attention_dropout_rate": 0.0}
    plain = np.asarray(hidden_states(CONFIG, params, *rows)[0])
    np.testing.assert_array_equal(run(**off), plain)
    for on in (
        {**off, "attention_dropout_rate": 0.3},
        {**off, "dropout_rate": 0.3, "embedding_dropout": False},
    ):
        assert np.abs(run(**on) - plain).max() > 1e-2
    with_embeddings = run(**off | {"dropout_rate": 0.3, "embedding_dropout": True})
    without = run(**off | {"dropout_rate": 0.3, "embedding_dropout": False})
    assert np.abs(with_embeddings - without).max() > 1e-2


@pytest.mark.parametrize("scan_layers", [True, False])
def test_cache_equals_no_cache(variant, scan_layers):
    """Prefill of ragged prompts, then steps of one token, against whole rows."""
    config, params = variant
    config = dataclasses.replace(config, scan_layers=scan_layers)
    documents = _documents([9, 12, 4])
    prompts, steps = [5, 7, 1], 3
    whole, segments, positions = _pack([[document] for document in documents], 12)
    expected, _ = hidden_states(config, params, whole, segments, positions)

    width = max(prompts)
    prefill = _pack([[d[:n]] for d, n in zip(documents, prompts, strict=True)], width)
    hidden, cache = jax.jit(
        functools.partial(decoder.hidden_states, keep_cache=True), static_argnums=0
    )(config, params, *prefill)
    for row, prompt in enumerate(prompts):
        np.testing.assert_allclose(
            hidden[row, :prompt], expected[row, :prompt], rtol=1e-5, atol=1e-5
        )
    assert cache["keys"].shape == (config.num_layers, 3, width, config.num_heads, config.head_dim)
    cache = decoder.unstack_cache(cache, steps)
    weights, step = decoder.unstack(params), jax.jit(decoder.step, static_argnums=0)
    written = np.array(prompts, np.int32)
    for number in range(steps):
        tokens = whole[np.arange(3), written]
        slot = np.int32(width + number)
        hidden, cache = step(config, weights, tokens, written, cache, slot)
        for row in range(3):
            np.testing.assert_allclose(
                hidden[row], expected[row, written[row]], rtol=1e-5, atol=1e-5
            )
        written = written + 1


def test_bfloat16_is_near_float32(params):
    rows = _pack([_documents([6, 4])], 10)
    low = dataclasses.replace(CONFIG, dtype="bfloat16")
    hidden, _ = hidden_states(low, params, *rows)
    expected, _ = hidden_states(CONFIG, params, *rows)
    assert hidden.dtype == jnp.bfloat16
    assert decoder.logits(low, params, hidden).dtype == jnp.float32
    keeping = functools.partial(decoder.hidden_states, low, keep_cache=True)
    _, cache = jax.eval_shape(keeping, params, *rows)
    assert cache["keys"].dtype == cache["values"].dtype == jnp.bfloat16
    # Eight bits of mantissa through three layers, on values of order 1.
    assert np.abs(np.asarray(hidden, np.float32) - expected).max() < 0.15


def test_logits_are_the_tied_product(params):
    hidden = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 16)), jnp.float32)
    expected = np.asarray(hidden) @ np.asarray(params["token_embedding"]).T
    np.testing.assert_allclose(
        decoder.logits(CONFIG, params, hidden), expected, rtol=1e-5, atol=1e-5
    )
