import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optiml_jax import errors
from optiml_jax.model import attention, partitioning
from optiml_jax.model.attention import Choice


def _brute_force(query, key, value, query_segments, key_segments, slots):
    """Softmax attention by loops, over what each query may see."""
    out = np.zeros_like(query, dtype=np.float64)
    for b, t, n in np.ndindex(query.shape[:3]):
        seen = [
            s
            for s in range(key.shape[1])
            if s <= slots[b, t] and key_segments[b, s] == query_segments[b, t]
        ]
        scores = np.array([query[b, t, n] @ key[b, s, n] for s in seen], np.float64)
        probs = np.exp(scores - scores.max())
        probs /= probs.sum()
        out[b, t, n] = sum(p * value[b, s, n] for p, s in zip(probs, seen, strict=True))
    return out


def _arrays(seed, queries, keys):
    rng = np.random.default_rng(seed)
    shapes = ((2, queries, 3, 4), (2, keys, 3, 4), (2, keys, 3, 4))
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("back_end", ["dense", "splash"])
def test_ragged_documents(back_end):
    query, key, value = _arrays(0, 9, 9)
    segments = np.array([[1, 1, 1, 2, 3, 3, 3, 0, 0], [1] * 8 + [2]], np.int32)
    slots = np.broadcast_to(np.arange(9, dtype=np.int32), (2, 9))
    ours = attention.BACK_ENDS[back_end](
        *map(jnp.asarray, (query, key, value)),
        query_segment_ids=jnp.asarray(segments),
        key_segment_ids=jnp.asarray(segments),
        query_slots=jnp.asarray(slots),
        dropout_rate=0.0,
        dropout_rng=None,
    )
    expected = _brute_force(query, key, value, segments, segments, slots)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_queries_at_offsets():
    query, key, value = _arrays(1, 2, 7)
    key_segments = np.array([[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0]], np.int32)
    query_segments = np.ones((2, 2), np.int32)
    slots = np.array([[3, 4], [1, 2]], np.int32)
    ours = attention.dense(
        *map(jnp.asarray, (query, key, value)),
        query_segment_ids=jnp.asarray(query_segments),
        key_segment_ids=jnp.asarray(key_segments),
        query_slots=jnp.asarray(slots),
        dropout_rate=0.0,
        dropout_rng=None,
    )
    expected = _brute_force(query, key, value, query_segments, key_segments, slots)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_mask_example_of_the_docstring():
    segments = jnp.array([[1, 1, 2]])
    mask = attention.document_mask(segments, segments, jnp.arange(3)[None])
    np.testing.assert_array_equal(mask[0], [[1, 0, 0], [1, 1, 0], [0, 0, 1]])


def test_nothing_to_see_is_no_nan():
    """Values and gradients, for a query whose document is not among the keys."""
    query, key, value = map(jnp.asarray, _arrays(2, 3, 3))

    def total(query, key, value):
        return jnp.sum(
            attention.dense(
                query,
                key,
                value,
                query_segment_ids=jnp.full((2, 3), 7),
                key_segment_ids=jnp.ones((2, 3), jnp.int32),
                query_slots=jnp.zeros((2, 3), jnp.int32),
                dropout_rate=0.1,
                dropout_rng=jax.random.key(0),
            )
        )

    value_, gradients = jax.value_and_grad(total, argnums=(0, 1, 2))(query, key, value)
    assert np.isfinite(value_)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_dropout_on_probabilities_has_the_right_mean_and_gradient():
    query, key, value = map(jnp.asarray, _arrays(3, 6, 6))
    segments = jnp.ones((2, 6), jnp.int32)

    def run(query, key, value, rng):
        return attention.dense(
            query,
            key,
            value,
            query_segment_ids=segments,
            key_segment_ids=segments,
            query_slots=jnp.broadcast_to(jnp.arange(6), (2, 6)),
            dropout_rate=0.25,
            dropout_rng=rng,
        )

    many = jax.vmap(lambda rng: run(query, key, value, rng))(
        jax.random.split(jax.random.key(0), 4000)
    )
    spread = np.std(many, axis=0) / 4000**0.5
    plain = run(query, key, value, None)
    assert (np.abs(np.mean(many, axis=0) - plain) <= 5 * spread + 1e-6).all()

    # The gradient is of the same draw as the value: compare with a difference quotient.
    rng = jax.random.key(5)
    direction = [jnp.asarray(array) for array in _arrays(4, 6, 6)]
    weights = jnp.asarray(_arrays(5, 6, 6)[0])

    def total(scale):
        moved = [a + scale * d for a, d in zip((query, key, value), direction, strict=True)]
        return jnp.sum(run(*moved, rng) * weights)

    step = jnp.float32(1e-2)
    quotient = (total(step) - total(-step)) / (jnp.float32(2.0) * step)
    assert float(jax.grad(total)(jnp.float32(0.0))) == pytest.approx(float(quotient), rel=2e-3)


@pytest.mark.parametrize(
    ("name", "platform", "options", "expected"),
    [
        ("dense", "tpu", {}, Choice("dense", "the configuration names it")),
        ("splash", "tpu", {}, Choice("splash", "the configuration names it")),
        (
            "splash",
            "cpu",
            {},
            Choice("splash", "the configuration names it; a CPU interprets its kernel, slowly"),
        ),
        ("auto", "cpu", {}, Choice("dense", "the platform is cpu")),
        ("auto", "tpu", {}, Choice("splash", "the platform is tpu")),
        ("auto", "gpu", {}, Choice("cudnn", "the platform is gpu")),
        (
            "auto",
            "tpu",
            {"dropout_rate": 0.1},
            Choice(
                "dense",
                "splash cannot drop attention probabilities (attention_dropout_rate 0.1)",
            ),
        ),
        (
            "auto",
            "gpu",
            {"dtype": "float32"},
            Choice("dense", "cudnn cannot: it computes in bfloat16 or float16, not in float32"),
        ),
        (
            "auto",
            "gpu",
            {"head_dim": 20},
            Choice(
                "dense",
                "cudnn cannot: its heads have a size that is a multiple of 8 and at most 128, "
                "not 20",
            ),
        ),
        (
            "auto",
            "gpu",
            {"length": 7},
            Choice("dense", "cudnn cannot: its rows have an even number of tokens, not 7"),
        ),
    ],
)
def test_what_auto_means(name, platform, options, expected):
    assert attention.choose(name, platform, **options) == expected
    assert attention.resolve(name, platform, **options) == expected.back_end


def test_unknown_back_ends_are_refused():
    message = r"unknown attention back-end 'splosh'\. Did you mean 'splash'\? Known: auto, cudnn"
    with pytest.raises(errors.InputError, match=message):
        attention.choose("splosh", "cpu")


def _attend(back_end, query, keys, **options):
    segments = jnp.ones(query.shape[:2], jnp.int32)
    return attention.attend(
        back_end,
        query,
        keys,
        keys,
        query_segment_ids=segments,
        key_segment_ids=jnp.ones(keys.shape[:2], jnp.int32),
        query_slots=jnp.broadcast_to(jnp.arange(query.shape[1]), query.shape[:2]),
        **{"dropout_rate": 0.0, "dropout_rng": None, "cached": False, **options},
    )


def test_a_cache_is_read_by_dense():
    query, keys, _ = map(jnp.asarray, _arrays(6, 1, 5))
    one, other = (_attend(name, query, keys, cached=True) for name in ("splash", "dense"))
    np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match=r"queries \(2, 1, 3, 4\) and keys \(2, 5, 3, 4\)"):
        _attend("splash", query, keys)


@pytest.mark.parametrize("back_end", ["splash", "cudnn"])
def test_fused_kernels_refuse_dropout(back_end):
    query, keys, _ = map(jnp.asarray, _arrays(7, 4, 4))
    message = rf"'{back_end}' cannot drop .* attention_dropout_rate 0\.1\. Set it to 0, or"
    with pytest.raises(errors.InputError, match=message):
        _attend(back_end, query, keys, dropout_rate=0.1, dropout_rng=jax.random.key(0))


def test_the_mesh_tells_the_platform():
    assert attention.platform_in_use() == jax.default_backend() == "cpu"
    mesh = partitioning.make_mesh(partitioning.MeshConfig(), jax.devices()[:1])
    with jax.set_mesh(mesh):
        assert attention.platform_in_use() == "cpu"
    device = jax.sharding.AbstractDevice("TPU v4", 1, "tpu")
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh.update(abstract_device=device)):
        assert attention.platform_in_use() == "tpu"
