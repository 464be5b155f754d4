"""`optiml precompile`: what it refuses at once, and one recipe compiled for a real slice.

The compiler of TPUs is libtpu, which comes with the extra `dev`; no TPU is used. The tests that
compile run the command in a process of their own (marker `tpu_compile`): libtpu reads its
environment once.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from optiml_jax.main import cli

ROOT = pathlib.Path(__file__).parents[2]
TINY = ("precompile", "--gin_file=models/opt_tiny.gin")


@pytest.fixture
def complain(capsys):
    def run(*argv):
        assert cli.main(argv) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("optiml precompile: error: ")
        assert captured.err.count("error: ") == 1
        assert "Traceback" not in captured.err
        assert captured.out == ""
        return captured.err

    return run


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "the following arguments are required: --topology"),
        (["--topology=v5:8x8"], "unknown TPU 'v5'"),
        (["--topology=a100"], "Known: v4, v5e, v5p, v6e. For example: v4:2x2x1"),
        (["--topology=v4:8x8"], "'v4:8x8' is no slice of v4"),
        (["--topology=v5e:32x32"], "at most 256 chips. For example: v5e:2x2"),
        (["--topology=v4:2x2x1", "--num_slices=0"], "--num_slices is 0, expected 1 or more"),
        (["--topology=v4:2x2x1", "--num_slices=two"], "invalid int value: 'two'"),
        (["--topology=v4:2x2x1", "--mode=trian"], "unknown mode 'trian'. Did you mean 'train'?"),
        (["--topology=v4:2x2x1", "--mode=decode", "--plan"], "--plan searches training recipes"),
        (["--topology=v4:2x2x1", "--rows=8"], "--rows belongs to --mode=decode, which is not"),
        (["--topology=v4:2x2x1", "--new_tokens=8"], "--new_tokens belongs to --mode=decode"),
        (["--topologi=v4:2x2x1"], "unknown flag '--topologi'. Did you mean '--topology'?"),
    ],
)
def test_flags(complain, flags, message):
    assert message in complain(*TINY, *flags)


def test_without_libtpu(complain, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "libtpu" else found(name)
    )
    told = complain(*TINY, "--topology=v4:2x2x1")
    assert "pip install 'optiml_jax[tpu]'" in told


def precompile(*flags, environment=None):
    """The command in a process of its own, as a user starts it: (code, output, errors)."""
    changed = {name: value for name, value in os.environ.items() if not name.startswith("XLA_")}
    done = subprocess.run(
        [sys.executable, "-m", "optiml_jax", "precompile", *flags],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**changed, **(environment or {})},
    )
    return done.returncode, done.stdout, done.stderr


SMALL = (
    *("--gin_file=models/opt_125m.gin", "--topology=v5e:2x2", "--gin.BATCH_SIZE=8"),
    *("--gin.MESH_DATA=1", "--gin.MESH_FSDP=2", "--gin.MESH_MODEL=2"),
    *("--gin.OptConfig.num_layers=2", "--gin.ATTENTION_DROPOUT_RATE=0.0"),
)


@pytest.mark.tpu_compile
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--gin.OptConfig.num_heads=3"], "num_heads 3 does not divide by the mesh axis model=2"),
        (["--gin.BATCH_SIZE=7"], "the batch of 7 rows does not divide"),
        (["--gin.TASK_FEATURE_LENGTHS={'targets': 4096}"], "rows of 4096 tokens do not fit"),
        (["--gin.MESH_FSDP=3"], "does not fit 4 device(s)"),
        (["--gin.OptConfig.attention='splash'", "--gin.ATTENTION_DROPOUT_RATE=0.1"],
         "cannot drop any, but attention_dropout_rate is 0.1"),
        (["--topology=v5e:3x5"], "libtpu has no slice 'v5e:3x5'"),
        (["--gin_file=models/opt_2_6b.gin"], "unknown gin file 'models/opt_2_6b.gin'"),
        (["--dry_run", "--gin.MESH_FSDP=1"], "does not fit 4 device(s)"),
        (["--gin.OptConfig.attention='cudnn'"], "it runs on NVIDIA GPUs, not on tpu"),
        (["--mode=decode", "--rows=0"], "--rows is 0, expected a multiple of data x fsdp = 2"),
        (["--plan", "--topology=v5e:16x16", "--gin.BATCH_SIZE=7"], "no mesh of 256 chips divides"),
    ],
)  # fmt: skip
def test_recipes_that_cannot_run_on_the_slice(flags, message):
    code, output, told = precompile(*SMALL, *flags)
    assert code == 2
    assert message in told
    assert told.count("error: ") == 1
    assert "Traceback" not in told
    assert output == ""


@pytest.mark.tpu_compile
def test_a_recipe_compiles_for_a_slice():
    """Two layers of OPT-125M's width on v5e:2x2, fsdp 2 x model 2, splash attention."""
    code, output, told = precompile(*SMALL, "--json")
    assert code == 0, told
    # Neither libtpu's log nor XLA's complaints about copies of whole arrays.
    assert told == ""
    found = json.loads(output)
    assert found["fits"]
    assert found["attention"] == "splash"
    assert found["num_chips"] == 4
    assert found["mesh"] == {"data": 1, "fsdp": 2, "model": 2}
    assert found["argument_bytes"] < found["peak_bytes"] < found["limit_bytes"] == 15.75 * 2**30
    # Parameters and both moments, in float32, over four chips; little else goes in.
    state = 12 * found["num_params"] / 4
    assert state < found["argument_bytes"] < 1.1 * state + 2**20
    # The new state takes the place of the old one.
    assert found["donated_bytes"] > 0.99 * state
    assert found["flops_per_token"] > 5 * found["num_params"]
    sent = {kind: row["bytes"] for kind, row in found["collectives"].items()}
    # Weights are gathered and gradients reduced, in whatever form XLA chose, a few times each.
    assert 2 * found["num_params"] < sum(sent.values()) < 40 * found["num_params"]
    assert found["estimate"]["is"] == "a roofline estimate, not a measurement"


@pytest.mark.tpu_compile
def test_a_recipe_that_is_too_large_says_by_how_much():
    flags = (
        "--gin.BATCH_SIZE=512",
        "--gin.OptConfig.num_layers=12",
        "--gin.OptConfig.remat='none'",
    )
    code, output, told = precompile(*SMALL, *flags)
    assert code == 1, told
    assert "no, by at least " in output
    assert "limit:       15.75 GiB a chip" in output


LEAST = ("--gin_file=models/opt_tiny.gin", "--gin.ATTENTION_DROPOUT_RATE=0.0")


@pytest.mark.tpu_compile
def test_decoding_compiles_and_needs_no_training_batch():
    """Dropout and batch are of the training recipe; prompts are read by the back-end named."""
    code, output, told = precompile(
        *("--gin_file=models/opt_tiny.gin", "--topology=v5e:2x2", "--mode=decode", "--json"),
        *("--gin.BATCH_SIZE=7", "--gin.OptConfig.attention='splash'", "--new_tokens=8"),
    )
    assert code == 0, told
    found = json.loads(output)
    assert (found["attention"], found["batch_size"], found["prompt_length"]) == ("splash", 32, 504)
    assert set(found["programs"]) == {"prefill", "step"}
    assert found["peak_bytes"] == max(one["peak_bytes"] for one in found["programs"].values())


@pytest.mark.tpu_compile
def test_a_plan_names_the_flags_of_the_best():
    code, output, told = precompile(*LEAST, "--topology=v5e:2x2", "--plan")
    assert code == 0, told
    assert told.count("fits") == 3
    assert "Best by the estimate (no measurement; see below):\n  --gin.MESH_DATA=" in output


@pytest.mark.tpu_compile
def test_two_slices_send_over_the_network_what_data_parallelism_must():
    code, output, told = precompile(*LEAST, "--topology=v5e:2x2", "--num_slices=2", "--json")
    assert code == 0, told
    found = json.loads(output)
    assert (found["num_chips"], found["mesh"]["data"]) == (8, 8)
    # Each chip of a slice sends its quarter of the float32 gradients to the other slice.
    crossing = sum(row["dcn_bytes"] for row in found["collectives"].values())
    assert crossing > 0.9 * 4 / 4 * found["num_params"]
