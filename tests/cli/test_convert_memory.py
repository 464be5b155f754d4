"""Converting never holds a model twice: the peak of a 305-million-parameter model, both ways."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from optiml_jax.data import vocabularies
from optiml_jax.interop import huggingface, huggingface_config, safetensors_files
from optiml_jax.model.config import OptConfig

pytestmark = pytest.mark.slow

CONFIG = OptConfig(vocab_size=50272, num_layers=20, num_heads=16, d_model=1024, ffn_dim=4096)
MEASURED = """
import resource, sys
from optiml_jax.main import cli
code = cli.main(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
sys.exit(code)
"""


def write_source(folder):
    """A Hugging Face folder in float16, one array in memory at a time."""
    folder.mkdir()
    places = huggingface.places(CONFIG)
    rng = np.random.default_rng(0)

    def values():
        for place in places:
            yield rng.normal(0, 0.02, place.shape).astype(np.float16)

    names = [(place.name, place.shape) for place in places]
    path = folder / "model.safetensors"
    safetensors_files.write_arrays(path, names, np.dtype(np.float16), values())
    (folder / "config.json").write_text(json.dumps(huggingface_config.to_hf(CONFIG, "float16")))
    vocabularies.gpt2_vocabulary().save(folder)


def peak_bytes(*flags):
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, flags)],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return int(done.stdout.rsplit("peak ", 1)[1])


def test_peak_memory(tmp_path):
    write_source(tmp_path / "hf")
    ours, back = tmp_path / "ours", tmp_path / "back"
    params = 4 * CONFIG.num_params()
    # What the program weighs without a model: JAX, Orbax, a vocabulary of 50,265 pieces.
    constant = peak_bytes("convert", f"--from_hf={tmp_path / 'hf'}", f"--out={ours}", "--dry_run")
    reading = peak_bytes("convert", f"--from_hf={tmp_path / 'hf'}", f"--out={ours}")
    writing = peak_bytes("convert", f"--from_checkpoint={ours}", f"--to_hf={back}")
    told = {"reading": reading, "writing": writing}
    print({name: round((peak - constant) / params, 3) for name, peak in told.items()}, constant)
    assert reading <= 1.25 * params + constant
    # Orbax decodes arrays of a checkpoint side by side; the writing itself adds one array.
    assert writing <= 1.5 * params + constant
