import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from optiml_jax import errors
from optiml_jax.model import partitioning
from optiml_jax.model.config import OptConfig
from optiml_jax.model.partitioning import MeshConfig
from optiml_jax.train import checkpoints as checkpointing
from optiml_jax.train import state as states
from optiml_jax.train import step as steps
from optiml_jax.train.checkpoints import Checkpoints, ModelCard
from optiml_jax.train.optimizer import OptimizerConfig

CONFIG = OptConfig(
    vocab_size=40,
    num_layers=2,
    num_heads=2,
    d_model=16,
    ffn_dim=32,
    max_positions=8,
    dtype="float32",
)
DEVICE = OptimizerConfig(1e-2, 1, 10)
HOST = OptimizerConfig(1e-2, 1, 10, memory="host")


@pytest.fixture
def mesh():
    return partitioning.make_mesh(MeshConfig(), jax.devices()[:1])


def _batch(position):
    ids = np.random.default_rng(position).integers(4, 40, (4, 8)).astype(np.int32)
    ones = np.ones((4, 8), np.int32)
    return {
        "inputs": ids,
        "targets": np.roll(ids, -1, 1),
        "loss_weights": ones.astype(np.float32),
        "segment_ids": ones,
        "positions": np.broadcast_to(np.arange(8, dtype=np.int32), (4, 8)),
    }


def _train(mesh, optimizer, first, last, state=None):
    with jax.set_mesh(mesh):
        if state is None:
            state = states.make_state(CONFIG, optimizer, mesh, jax.random.key(0))
        step = steps.compile_train_step(CONFIG, optimizer, mesh)
        for position in range(first, last):
            state, _ = step(state, _batch(position), jax.random.key(1))
    return state


def _memories(state):
    """The memories of the moments, and of everything else."""
    opt_state = state["policy"]["opt_state"]
    moments = {leaf.sharding.memory_kind for leaf in jax.tree.leaves((opt_state.mu, opt_state.nu))}
    rest = {**state, "policy": (state["policy"]["params"], opt_state.count)}
    return moments, {leaf.sharding.memory_kind for leaf in jax.tree.leaves(rest)}


def _assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


def test_moments_in_host_memory_give_the_same_bits(mesh):
    on_device, on_host = (_train(mesh, optimizer, 0, 4) for optimizer in (DEVICE, HOST))
    assert _memories(on_device) == ({"device"}, {"device"})
    assert _memories(on_host) == ({"pinned_host"}, {"device"})
    _assert_same(on_host, on_device)
    assert float(jnp.abs(on_device["policy"]["opt_state"].mu["token_embedding"]).max()) > 0


@pytest.mark.parametrize("other", [HOST, DEVICE], ids=["host", "device"])
def test_a_checkpoint_of_host_moments_is_resumed(mesh, tmp_path, other):
    """Where they lived is no part of a checkpoint: a run may go on either way."""
    directory = checkpointing.prepare_model_dir(tmp_path / "run", ModelCard(CONFIG))
    with Checkpoints(directory) as saved:
        saved.save(2, _train(mesh, HOST, 0, 2), {})
        saved.wait()
        restored = saved.restore(states.abstract_state(CONFIG, other, mesh))
    expected = {"pinned_host"} if other is HOST else {"device"}
    assert _memories(restored) == (expected, {"device"})
    _assert_same(_train(mesh, other, 2, 4, restored), _train(mesh, DEVICE, 0, 4))


def test_given_parameters_start_with_host_moments(mesh):
    params = states.init_state(CONFIG, HOST, jax.random.key(3))["policy"]["params"]
    state = states.make_state(CONFIG, HOST, mesh, jax.random.key(0), params)
    assert _memories(state) == ({"pinned_host"}, {"device"})
    _assert_same(state["policy"]["params"], params)


class _Device:
    """A device without host memory."""

    platform = device_kind = "abacus"
    process_index = 0

    def addressable_memories(self):
        return []


def test_devices_without_host_memory_are_refused():
    class Mesh:
        devices = np.array([_Device()])

    message = r"memory is 'host', but abacus has no pinned_host memory .*memory = 'device'"
    with pytest.raises(errors.InputError, match=message):
        states.check_host_memory(Mesh())


def test_shapes_of_a_state_need_no_device_of_the_mesh():
    """As for a slice that can only be compiled for: its mesh is in use, its devices are not."""
    shape = (1, 2, 1)
    mesh = jax.sharding.AbstractMesh(shape, partitioning.MESH_AXES, (AxisType.Auto,) * 3)
    with jax.sharding.use_abstract_mesh(mesh):
        leaves = jax.tree.leaves(states.abstract_state(CONFIG, DEVICE))
    assert sum(leaf.size for leaf in leaves) == 3 * CONFIG.num_params() + 5
