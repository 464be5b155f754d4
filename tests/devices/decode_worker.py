"""Decoding on eight pretended CPU devices and on one; prints one line of JSON."""

import json

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

import numpy as np  # noqa: E402

from optiml_jax.infer import beam, decoding  # noqa: E402
from optiml_jax.infer.settings import DecodingConfig  # noqa: E402
from optiml_jax.model import decoder, partitioning  # noqa: E402
from optiml_jax.model.config import OptConfig  # noqa: E402
from optiml_jax.model.partitioning import MeshConfig  # noqa: E402

CONFIG = OptConfig(64, 2, 4, 32, 64, max_positions=96, dtype="float32", init_std=0.3)
SHAPES = {"one": (1, 1, 1), "data=8": (8, 1, 1), "data=2 fsdp=2 model=2": (2, 2, 2)}
SETTINGS = {
    "greedy": DecodingConfig(max_new_tokens=8),
    "drawn": DecodingConfig(max_new_tokens=8, temperature=1.0, top_k=20, top_p=0.9, seed=3),
    "beams": DecodingConfig(max_new_tokens=8, num_beams=3, num_return_sequences=3),
}


def main():
    rng = np.random.default_rng(0)
    prompts = [rng.integers(4, 64, size=n).tolist() for n in (3, 70, 9, 1, 30)]
    params = jax.jit(decoder.init_params, static_argnums=0)(CONFIG, jax.random.key(0))
    out = {}
    for name, shape in SHAPES.items():
        devices = jax.devices()[: int(np.prod(shape))]
        mesh = partitioning.make_mesh(MeshConfig(*shape), devices)
        placed = jax.device_put(params, partitioning.shardings(mesh, decoder.logical_axes(CONFIG)))
        for kind, settings in SETTINGS.items():
            run = beam.search if kind == "beams" else decoding.decode
            found = run(CONFIG, placed, prompts, settings, 2, batch_size=8, mesh=mesh)
            out[f"{name} {kind}"] = (
                [[[one.tokens, one.score] for one in row] for row in found.found]
                if isinstance(found, beam.Beams)
                else found.tokens
            )
    return out


if __name__ == "__main__":
    print(json.dumps(main()))
