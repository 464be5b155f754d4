"""Names of slices, and what a machine without the compiler is told."""

import importlib.util
import os

import pytest

from optiml_jax.ahead import topology
from optiml_jax.errors import InputError


@pytest.mark.parametrize(
    ("name", "chips"),
    [("v4:8x8x8", 512), ("v5e:16x16", 256), ("v5p:2x2x1", 4), ("v6e:4x8", 32)],
)
def test_names_of_slices(name, chips):
    of = topology.parse(name)
    assert (of.num_chips, of.name) == (chips, name)


def test_slices_multiply():
    of = topology.parse("v4:4x8x8", num_slices=2)
    assert (of.num_chips, of.num_slices, of.shape) == (512, 2, (4, 8, 8))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5:8x8x8", "unknown TPU 'v5'. Did you mean 'v5"),
        ("a100", "Known: v4, v5e, v5p, v6e."),
        ("", "For example: v4:2x2x1"),
        ("v4", "'v4' is no slice of v4, expected v4: and chips x chips x chips"),
        ("v4:8x8", "For example: v4:2x2x1"),
        ("v5e:8x8x8", "expected v5e: and chips x chips, at most 256 chips"),
        ("v5e:32x32", "at most 256 chips"),
        ("v5e:0x4", "is no slice of v5e"),
        ("v6e:4x-4", "is no slice of v6e"),
        ("v6e:4x4x", "is no slice of v6e"),
    ],
)
def test_unknown_slices_are_told_with_the_known_ones(name, message):
    with pytest.raises(InputError, match=r"topology") as error:
        topology.parse(name)
    assert message in str(error.value)


def test_a_number_of_slices_is_at_least_one():
    with pytest.raises(InputError, match="--num_slices is 0, expected 1 or more"):
        topology.parse("v4:2x2x1", num_slices=0)


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'optiml_jax\[tpu\]'"):
        topology.devices(topology.parse("v4:2x2x1"))


def test_the_users_environment_stays(monkeypatch):
    for name in topology.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TPU_MIN_LOG_LEVEL", "0")
    topology.prepare_environment()
    assert os.environ["TPU_MIN_LOG_LEVEL"] == "0"
    assert os.environ["TPU_SKIP_MDS_QUERY"] == "1"
    for name in topology.ENVIRONMENT:
        monkeypatch.setenv(name, os.environ[name])  # undone at the end


def test_figures_of_chips_are_plausible():
    for chip in topology.CHIPS.values():
        # A byte from memory pays for 100 to 700 operations, one from a link for more.
        assert 100 < chip.peak_flops / chip.hbm_bytes_per_second < 700
        assert chip.ici_bytes_per_second < chip.hbm_bytes_per_second
        assert chip.dcn_bytes_per_second < chip.ici_bytes_per_second
        assert chip.limit_bytes > 15 * topology.GIB
