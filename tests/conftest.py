"""What all tests share.

Tests run on one CPU device. The tests of tests/devices start a process of their own with eight
pretended devices, so that the rest of the suite neither waits for them nor depends on which tests
were chosen. Most of the suite's time is compilation, so compiled programs are kept for the session
(a run that is stopped and resumed compiles the same step again) and LLVM does not optimise them;
`XLA_FLAGS= pytest` runs them as users do.
"""

import os
import shutil
import tempfile

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
_CACHE = tempfile.mkdtemp(prefix="optiml_jax_tests_")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _CACHE)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def pytest_unconfigure():
    shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.fixture(autouse=True)
def _own_environment():
    """Variables that a command sets for its own process do not reach the next test."""
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def strict_promotion():
    """Makes every implicit change of dtype an error."""
    import jax

    with jax.numpy_dtype_promotion("strict"):
        yield
