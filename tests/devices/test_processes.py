"""Two processes of four devices train as one process of eight, through store, loop and resume."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from optiml_jax.data import prepare, vocabularies
from tests.data.conftest import WORDS, assign, make_task

WORKER = pathlib.Path(__file__).with_name("process_worker.py")
ROOT = WORKER.parents[2]

pytestmark = pytest.mark.multiprocess


@pytest.fixture(scope="module")
def store_path(tmp_path_factory):
    out = tmp_path_factory.mktemp("store")
    made = [make_task(i, 30) for i in range(6)]
    vocabulary = vocabularies.train_vocabulary([" ".join(WORDS)], 320)
    prepare.prepare_store(made, assign(made), out, vocabulary, prepare.PrepareConfig(num_shards=2))
    return out


def train(num_processes, store_path, model_dir, steps):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    started = [
        subprocess.Popen(
            [
                *[sys.executable, WORKER, str(port), str(num_processes), str(process)],
                *[str(store_path), str(model_dir), str(steps)],
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        for process in range(num_processes)
    ]
    for process in started:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output[-4000:]
    lines = (model_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_two_processes_equal_one_and_resume(store_path, tmp_path):
    one = train(1, store_path, tmp_path / "one", 8)
    two = train(2, store_path, tmp_path / "two", 5)
    assert len(one) == 8
    assert len(two) == 5
    # The order of summation differs between one process and two.
    assert two == pytest.approx(one[:5], rel=1e-6)
    resumed = train(2, store_path, tmp_path / "two", 8)
    assert resumed[:5] == two
    assert resumed == pytest.approx(one, rel=1e-6)
