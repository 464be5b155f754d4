"""Eight pretended devices, in three mesh shapes, give what one device gives."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

WORKER = pathlib.Path(__file__).with_name("worker.py")
ROOT = WORKER.parents[2]
MESHES = ("data=8", "data=2 fsdp=2 model=2", "fsdp=4 model=2")


def _run(*arguments):
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-W", "error", WORKER, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # XLA says this where it must copy a whole array to every device.
    assert "rematerialization" not in done.stderr, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def losses():
    return _run("losses")


@pytest.mark.parametrize("mesh", MESHES)
def test_ten_losses_equal_one_devices(losses, mesh):
    assert len(losses[mesh]) == 10
    # Order of summation differs; float32 over ten updates with dropout on.
    assert losses[mesh] == pytest.approx(losses["one"], rel=1e-6)


def test_it_is_training(losses):
    assert losses["one"][-1] < losses["one"][0] - 0.01


def test_microbatches_on_a_mesh(losses):
    assert losses["microbatches"] == pytest.approx(losses["microbatches one"], rel=1e-6)
    assert losses["microbatches"] != losses["one"]  # Other dropout draws.


def test_parameters_are_cut(losses):
    assert losses["data=8 shard"] == [2, 32, 64]
    assert losses["data=2 fsdp=2 model=2 shard"] == [2, 16, 32]
    assert losses["fsdp=4 model=2 shard"] == [2, 8, 32]


def test_a_checkpoint_opens_on_other_meshes(tmp_path):
    result = _run("restore", tmp_path / "run")
    assert result["same"] == result["whole"]
    assert result["other"] == pytest.approx(result["whole"], rel=1e-6)
    assert result["one"] == pytest.approx(result["whole"], rel=1e-6)
    assert result["shard"] == [2, 8, 32]


def test_splash_on_a_mesh():
    """Every device runs the kernels on its rows and heads."""
    result = _run("splash")
    ours, expected = result.pop("splash"), result.pop("dense")
    assert ours == pytest.approx(expected, rel=1e-5)
    assert len(result) == 5
    # The same kernels on the same numbers: only the order of heads' sums differs.
    assert max(result.values()) <= 1e-6


def test_arrays_are_made_in_parts():
    """Drawn on a mesh or on one device, a state is the same; no device holds much over its part."""
    result = _run("initialise")
    for mesh, least in zip(MESHES, (1, 1 / 4, 1 / 8), strict=True):
        same, largest_share = result[mesh]
        assert same
        # Norms and biases are whole or cut one way only: much of a model this small.
        assert least <= largest_share <= least * 1.5
