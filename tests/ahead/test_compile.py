"""What the compiler's messages say, and one layer compiled for a slice."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from optiml_jax.ahead import compile as ahead
from optiml_jax.infer import arrays, decoding
from optiml_jax.model import config, decoder, partitioning

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


def test_decoding_counts_what_an_engine_holds():
    """Prompts' stacked parameters and steps' weights lie side by side, the tables once."""
    model = config.published("125m", num_layers=2, vocab_size=512, max_positions=64, d_model=48)
    model = dataclasses.replace(model, num_heads=4, ffn_dim=96, dtype="bfloat16")
    mesh = partitioning.make_mesh(partitioning.MeshConfig(1, 1, 1), jax.devices()[:1])
    programs = ahead.decode(model, mesh, 4, 16, 8)
    params = arrays.cast_kernels(model, decoder.init_params(model, jax.random.key(0)))
    weights = decoding.prepare(model, params)
    held = {
        leaf.unsafe_buffer_pointer(): leaf.nbytes for leaf in jax.tree.leaves((params, weights))
    }
    prompts, lengths = 4 * 16 * 4, 4 * 4
    prefill = programs["prefill"]
    assert prefill.argument_bytes + prefill.resident_bytes == sum(held.values()) + prompts + lengths
    cache = 2 * (2 * 4 * 24 * 48 * 2) + 4 * 24 * 4
    tokens = 4 * 4 + 4 * 4 + 4
    step = programs["step"]
    assert step.argument_bytes + step.resident_bytes == sum(held.values()) + cache + tokens


HOST = """
from optiml_jax.ahead import topology
topology.prepare_environment()
import jax
from jax.sharding import SingleDeviceSharding
from optiml_jax.ahead import collectives, compile as ahead
of = topology.parse("v5e:2x2")
chip = topology.devices(of)[0]
for kind in ("device", "pinned_host"):
    here, there = SingleDeviceSharding(chip), SingleDeviceSharding(chip, memory_kind=kind)
    small = jax.ShapeDtypeStruct((1024,), "float32", sharding=here)
    large = jax.ShapeDtypeStruct((64, 1024, 1024), "float32", sharding=there)
    for donated in ((), (0, 1)):
        step = jax.jit(lambda x, y: (x + 1, y), out_shardings=(here, there), donate_argnums=donated)
        outcome = ahead.run(ahead.Program(step.lower(small, large), MESH, 0), of)
        print(outcome.peak_bytes, outcome.host_bytes)
"""


@pytest.mark.tpu_compile
def test_what_lies_in_the_host_is_not_in_the_peak():
    code = HOST.replace("MESH", "jax.sharding.Mesh([chip], 'x')")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    rows = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    size = 64 * 2**22
    assert [host for _, host in rows] == [0, 0, 2 * size, size]
    assert all(peak > size for peak, _ in rows[:2])
    assert all(peak < size / 8 for peak, _ in rows[2:])


DECODE = """
from optiml_jax.ahead import topology
topology.prepare_environment()
from optiml_jax.ahead import compile as ahead
from optiml_jax.model import config, partitioning
of = topology.parse("v5e:2x2")
mesh = partitioning.make_mesh(partitioning.MeshConfig(4, 1, 1), topology.devices(of))
model = config.published("125m", num_layers=2, dropout_rate=0.0, attention_dropout_rate=0.0)
for program in ahead.decode(model, mesh, 32, 1024, 16).values():
    outcome = ahead.run(program, of)
    print(sorted(outcome.traffic), outcome.peak_bytes, "tpu_custom_call" in outcome.text)
"""


@pytest.mark.tpu_compile
def test_data_parallel_decoding_sends_nothing():
    done = subprocess.run(
        [sys.executable, "-c", DECODE], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    prefill, step = (line.rsplit(" ", 2) for line in done.stdout.splitlines())
    assert prefill[0] == step[0] == "[]"
    # 8 rows x 12 heads x 1024 x 1024 scores in float32 would be 384 MiB alone.
    assert int(prefill[1]) < 1.2 * 2**30
    assert (prefill[2], step[2]) == ("True", "False")  # splash reads the prompts
