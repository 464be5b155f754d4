"""What all tests share.

Tests run on one CPU device. The tests of tests/devices start a process of their own with eight
pretended devices, so that the rest of the suite neither waits for them nor depends on which tests
were chosen.
"""

import os

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")


@pytest.fixture
def strict_promotion():
    """Makes every implicit change of dtype an error."""
    import jax

    with jax.numpy_dtype_promotion("strict"):
        yield
