"""What the compiler's messages say, and one layer compiled for a slice."""

import os
import pathlib
import subprocess
import sys

import pytest

from optiml_jax.ahead import compile as ahead

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (89.62G) exceeds available HBM (15.75G).",
            (int(89.62 * 2**30), int(15.75 * 2**30)),
        ),
        (
            "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: XLA:TPU compile permanent error. Ran "
            "out of memory in memory space hbm. Used 17.53G of 15.75G hbm. Exceeded hbm capacity "
            "by 1.78G.",
            (int(17.53 * 2**30), int(15.75 * 2**30)),
        ),
        ("(900.00M) exceeds available HBM (512.00M).", (900 * 2**20, 512 * 2**20)),
        ("INTERNAL: Mosaic failed to compile TPU kernel", None),
    ],
)
def test_messages_of_programs_that_are_too_large(message, expected):
    assert ahead.out_of_memory(message) == expected


COMPILE = """
import sys
from optiml_jax.ahead import topology
topology.prepare_environment()
from optiml_jax.ahead import collectives, compile as ahead
from optiml_jax.model import config, partitioning
from optiml_jax.train.optimizer import OptimizerConfig
of = topology.parse("v5e:2x2")
mesh = partitioning.make_mesh(partitioning.MeshConfig(1, 4, 1), topology.devices(of))
for attention in ("splash", "dense"):
    model = config.published(
        "125m", num_layers=3, attention=attention, attention_dropout_rate=0.0, remat="full")
    program = ahead.train_step(model, OptimizerConfig(1e-4, 1, 2), mesh, 32, 1024)
    outcome = ahead.run(program, of)
    assert outcome.argument_bytes >= program.argument_bytes
    assert program.loop_trips > 1
    stack = 3 * 768 * 3072 * 2
    print(attention, outcome.fits, outcome.peak_bytes, ("tpu_custom_call" in outcome.text),
          "bf16[3,768,3072]" in [line for line in outcome.text.splitlines()
                                 if " all-gather" in line].__str__())
"""


@pytest.mark.tpu_compile
def test_splash_against_dense_on_a_slice():
    """Dense attention holds a square of scores; no chip ever holds the whole stack."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    splash, dense = (line.split() for line in done.stdout.splitlines())
    assert splash[:2] == ["splash", "True"]
    assert dense[:2] == ["dense", "True"]
    # 8 rows x 12 heads x 1024 x 1024 scores in float32 are 384 MiB.
    assert int(dense[2]) - int(splash[2]) > 300 * 2**20
    assert (splash[3], dense[3]) == ("True", "False")  # Pallas kernel
    assert (splash[4], dense[4]) == ("False", "False")  # a gather of all layers at once
