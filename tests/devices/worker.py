"""Runs on eight pretended CPU devices, in a process of its own; prints one line of JSON.

python worker.py losses | splash | initialise | restore DIRECTORY
"""

import collections
import dataclasses
import json
import pathlib
import sys

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from optiml_jax.model import attention, partitioning  # noqa: E402
from optiml_jax.model.config import OptConfig  # noqa: E402
from optiml_jax.model.partitioning import MeshConfig  # noqa: E402
from optiml_jax.train import checkpoints as checkpointing  # noqa: E402
from optiml_jax.train import state as states  # noqa: E402
from optiml_jax.train import step as steps  # noqa: E402
from optiml_jax.train.checkpoints import Checkpoints, ModelCard  # noqa: E402
from optiml_jax.train.optimizer import OptimizerConfig  # noqa: E402

STEPS = 10
CONFIG = OptConfig(
    vocab_size=64,
    num_layers=2,
    num_heads=4,
    d_model=32,
    ffn_dim=64,
    max_positions=16,
    dtype="float32",
    embedding_dropout=True,
)
OPTIMIZER = OptimizerConfig(3e-3, 2, STEPS)
SHAPES = {"data=8": (8, 1, 1), "data=2 fsdp=2 model=2": (2, 2, 2), "fsdp=4 model=2": (1, 4, 2)}


def batch(position, rows=16, length=16):
    """Ragged packed rows, the last of them padding."""
    rng = np.random.default_rng([11, position])
    segments = np.zeros((rows, length), np.int32)
    positions = np.zeros((rows, length), np.int32)
    weights = np.zeros((rows, length), np.float32)
    for row in range(rows - 1):
        start, segment = 0, 1
        while start < length - 2:
            size = int(rng.integers(2, 9))
            place = slice(start, min(start + size, length))
            size = place.stop - place.start
            segments[row, place] = segment
            positions[row, place] = np.arange(size)
            weights[row, start + size // 2 : place.stop] = 1.0
            start, segment = start + size, segment + 1
    ids = rng.integers(4, 12, (rows, length)).astype(np.int32)
    return {
        "inputs": ids * (segments != 0),
        "targets": np.roll(ids, -1, 1) * (segments != 0),
        "loss_weights": weights,
        "segment_ids": segments,
        "positions": positions,
    }


def mesh_of(data, fsdp, model):
    devices = jax.devices()[: data * fsdp * model]
    return partitioning.make_mesh(MeshConfig(data, fsdp, model), devices)


def train(mesh, num_microbatches=1, num_steps=STEPS, state=None, first=0, config=CONFIG):
    with jax.set_mesh(mesh):
        if state is None:
            state = states.make_state(config, OPTIMIZER, mesh, jax.random.key(0))
        step = steps.compile_train_step(config, OPTIMIZER, mesh, num_microbatches=num_microbatches)
        losses = []
        for position in range(first, first + num_steps):
            sharding = partitioning.batch_sharding(mesh)
            rows = {
                name: jax.make_array_from_process_local_data(sharding, values)
                for name, values in batch(position).items()
            }
            state, metrics = step(state, rows, jax.random.key(1))
            losses.append(float(metrics["loss"]))
    return state, losses


def losses():
    """Ten losses per mesh, dropout on; and how the parameters lie."""
    out = {"one": train(mesh_of(1, 1, 1))[1]}
    for name, shape in SHAPES.items():
        state, out[name] = train(mesh_of(*shape))
        kernel = state["policy"]["params"]["layers"]["fc1"]["kernel"]
        moment = state["policy"]["opt_state"].mu["layers"]["fc1"]["kernel"]
        assert kernel.sharding == moment.sharding
        out[name + " shard"] = kernel.addressable_shards[0].data.shape
    out["microbatches one"] = train(mesh_of(1, 1, 1), 2)[1]
    out["microbatches"] = train(mesh_of(2, 2, 2), 2)[1]
    return out


def splash():
    """Largest error of outputs and gradients by mesh, relative to one device's; three losses."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(4, 130, 4, 16)).astype(np.float32) for _ in range(4)]
    documents = np.sort(rng.integers(0, 4, (4, 130)).astype(np.int32), axis=1)

    @jax.jit
    def run(query, key, value, weights, segments):
        slots = jnp.broadcast_to(jnp.arange(130, dtype=jnp.int32), segments.shape)

        def total(query, key, value):
            mixed = attention.attend(
                "splash",
                query,
                key,
                value,
                query_segment_ids=segments,
                key_segment_ids=segments,
                query_slots=slots,
                dropout_rate=0.0,
                dropout_rng=None,
                cached=False,
            )
            return jnp.sum(mixed * weights), mixed

        gradients, mixed = jax.grad(total, argnums=(0, 1, 2), has_aux=True)(query, key, value)
        return mixed, *gradients

    out = {}
    for rows in (4, 1):  # One row does not divide: every device computes it.
        inputs = [values[:rows] for values in (*arrays, documents)]
        expected = jax.device_get(run(*inputs))
        for name, shape in SHAPES.items():
            if rows == 4 and shape[0] * shape[1] == 8:
                continue
            with jax.set_mesh(mesh_of(*shape)):
                ours = jax.device_get(run(*inputs))
            out[f"{name} rows={rows}"] = max(
                float(np.max(np.abs(one - other)) / np.max(np.abs(other)))
                for one, other in zip(ours, expected, strict=True)
            )
    for back_end, shape in (("dense", (1, 1, 1)), ("splash", (2, 2, 2))):
        config = dataclasses.replace(CONFIG, attention=back_end, attention_dropout_rate=0.0)
        out[back_end] = train(mesh_of(*shape), num_steps=3, config=config)[1]
    return out


def initialise():
    """Per mesh: whether all numbers are one device's, and the largest share that one holds."""
    expected = jax.device_get(
        states.make_state(CONFIG, OPTIMIZER, mesh_of(1, 1, 1), jax.random.key(0))
    )
    out = {}
    for name, shape in SHAPES.items():
        state = states.make_state(CONFIG, OPTIMIZER, mesh_of(*shape), jax.random.key(0))
        placed = states.state_shardings(CONFIG, OPTIMIZER, mesh_of(*shape))
        arrays = jax.tree.leaves(state)
        assert [array.sharding for array in arrays] == jax.tree.leaves(placed)
        same = all(
            np.array_equal(one, other)
            for one, other in zip(
                jax.tree.leaves(jax.device_get(state)), jax.tree.leaves(expected), strict=True
            )
        )
        held = collections.Counter()
        for array in arrays:
            for shard in array.addressable_shards:
                assert shard.data.shape == array.sharding.shard_shape(array.shape)
                held[shard.device.id] += shard.data.nbytes
        out[name] = [same, max(held.values()) / sum(array.nbytes for array in arrays)]
    return out


def restore(directory):
    """Five steps on one mesh, saved; five more on others, against ten on the first."""
    directory = checkpointing.prepare_model_dir(directory, ModelCard(CONFIG))
    first = mesh_of(2, 2, 2)
    state, before = train(first, num_steps=5)
    with Checkpoints(directory) as saved:
        saved.save(5, state, {})
        saved.wait()
        out = {"whole": train(first)[1]}
        for name, shape in (("same", (2, 2, 2)), ("other", (1, 4, 2)), ("one", (1, 1, 1))):
            mesh = mesh_of(*shape)
            state = saved.restore(states.abstract_state(CONFIG, OPTIMIZER, mesh))
            kernel = state["policy"]["params"]["layers"]["fc1"]["kernel"]
            assert len(kernel.sharding.device_set) == mesh.size
            out[name] = before + train(mesh, num_steps=5, state=state, first=5)[1]
    _, params, _ = checkpointing.load_params(directory, mesh_of(1, 4, 2))
    out["shard"] = params["layers"]["fc1"]["kernel"].addressable_shards[0].data.shape
    return out


COMMANDS = {"losses": losses, "splash": splash, "initialise": initialise, "restore": restore}

if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    assert len(jax.devices()) == 8
    result = COMMANDS[command](*map(pathlib.Path, arguments))
    print(json.dumps(result))
