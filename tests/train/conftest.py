import jax
import numpy as np
import pytest

from optiml_jax.model import partitioning
from optiml_jax.model.config import OptConfig
from optiml_jax.model.partitioning import MeshConfig


@pytest.fixture(scope="session")
def tiny():
    """A decoder that compiles in a second."""
    return OptConfig(
        vocab_size=48,
        num_layers=2,
        num_heads=2,
        d_model=16,
        ffn_dim=32,
        max_positions=16,
        dtype="float32",
        embedding_dropout=True,
    )


@pytest.fixture(scope="session")
def one_device():
    return partitioning.make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="session")
def make_batch():
    """A pure function of (position, rows, length): ragged packed documents with prompts."""

    def batch(position, rows=4, length=16, vocab_size=48, weight_share=0.5):
        rng = np.random.default_rng([7, position])
        fields = {
            name: np.zeros((rows, length), np.int32)
            for name in ("inputs", "targets", "segment_ids", "positions")
        }
        fields["loss_weights"] = np.zeros((rows, length), np.float32)
        for row in range(rows):
            start = 0
            for segment in range(1, length):
                size = int(rng.integers(2, 8))
                if start + size > length:
                    break
                tokens = rng.integers(4, vocab_size, size + 1)
                place = slice(start, start + size)
                fields["inputs"][row, place] = tokens[:-1]
                fields["targets"][row, place] = tokens[1:]
                fields["segment_ids"][row, place] = segment
                fields["positions"][row, place] = np.arange(size)
                prompt = int(size * (1 - weight_share))
                fields["loss_weights"][row, start + prompt : start + size] = 1.0
                start += size
        return fields

    return batch
