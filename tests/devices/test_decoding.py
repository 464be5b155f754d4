"""Eight pretended devices decode what one decodes: greedy, drawn and by beams."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

WORKER = pathlib.Path(__file__).with_name("decode_worker.py")
ROOT = WORKER.parents[2]
MESHES = ("data=8", "data=2 fsdp=2 model=2")


@pytest.fixture(scope="module")
def decoded():
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-W", "error", WORKER],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("kind", ["greedy", "drawn"])
def test_tokens_equal_one_devices(decoded, mesh, kind):
    assert decoded[f"{mesh} {kind}"] == decoded[f"one {kind}"]
    assert decoded["one greedy"] != decoded["one drawn"]


@pytest.mark.parametrize("mesh", MESHES)
def test_beams_equal_one_devices(decoded, mesh):
    found, wanted = decoded[f"{mesh} beams"], decoded["one beams"]
    assert len(found) == len(wanted) == 5
    for row, other in zip(found, wanted):
        assert [tokens for tokens, _ in row] == [tokens for tokens, _ in other]
        scores = [score for _, score in other]
        assert [score for _, score in row] == pytest.approx(scores, abs=1e-4)
