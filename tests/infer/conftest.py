"""A tiny random model whose scores differ enough to be told apart, and its naive forward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optiml_jax.data import vocabularies
from optiml_jax.infer import engine
from optiml_jax.model import decoder
from optiml_jax.model.config import OptConfig

CORPUS = [
    "The cat sat on the mat and the dog sat on the cat.",
    "Is this text produced by a model? yes or no",
    "Answer the question: what is the colour of the sky, blue or green?",
] * 4


@pytest.fixture(scope="session")
def vocabulary():
    return vocabularies.train_vocabulary(CORPUS, 296)


@pytest.fixture(scope="session")
def config(vocabulary):
    return OptConfig(
        vocab_size=vocabulary.size,
        num_layers=2,
        num_heads=2,
        d_model=16,
        ffn_dim=32,
        max_positions=96,
        dtype="float32",
        init_std=0.3,
    )


@pytest.fixture(scope="session")
def params(config):
    return jax.jit(decoder.init_params, static_argnums=0)(config, jax.random.key(3))


@pytest.fixture(scope="session")
def naive_log_probs(config, params):
    """log p(next | ids) at every position of one sequence, [T, V], without a cache.

    Padded at the end to one shape, which a causal model does not see.
    """

    @jax.jit
    def run(ids, segment_ids):
        positions = jnp.arange(config.max_positions, dtype=jnp.int32)[None]
        hidden, _ = decoder.hidden_states(config, params, ids, segment_ids, positions)
        return jax.nn.log_softmax(decoder.logits(config, params, hidden)[0])

    def log_probs(ids):
        padded = np.zeros((2, 1, config.max_positions), np.int32)
        padded[0, 0, : len(ids)] = ids
        padded[1, 0, : len(ids)] = 1
        return np.asarray(run(*padded))[: len(ids)]

    return log_probs


@pytest.fixture(scope="session")
def tiny_engine(config, params, vocabulary):
    return engine.Engine(config, params, vocabulary, generate_batch_size=4, rank_batch_size=4)
