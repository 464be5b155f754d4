"""The splash kernels compile for a TPU slice, one call per chip, without a TPU."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding

from optiml_jax.ahead import topology
from optiml_jax.model import attention, partitioning, splash
from optiml_jax.model.partitioning import MeshConfig

pytestmark = pytest.mark.tpu_compile


@pytest.fixture(scope="module")
def mesh():
    pytest.importorskip("libtpu")
    topology.prepare_environment()
    devices = topology.devices(topology.parse("v5e:2x2"))
    return partitioning.make_mesh(MeshConfig(1, 2, 2), devices)


def _compiled(mesh, head_dim, policy=jax.checkpoint_policies.everything_saveable):
    """The program of a gradient, rows over fsdp and heads over model."""

    def array(shape, dtype, *names):
        sharding = NamedSharding(mesh, partitioning.partition_spec(names))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    heads = array((4, 1024, 4, head_dim), jnp.bfloat16, "batch", None, "heads", None)
    segments = array((4, 1024), jnp.int32, "batch", None)

    def total(query, key, value, segments):
        slots = jnp.broadcast_to(jnp.arange(1024, dtype=jnp.int32), segments.shape)

        def attend(query, key, value):
            return attention.attend(
                "auto",
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

        mixed = jax.checkpoint(attend, policy=policy)(query, key, value)
        return jnp.sum(jnp.square(mixed.astype(jnp.float32)))

    with jax.set_mesh(mesh):
        gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
        return gradient.lower(heads, heads, heads, segments).compile().as_text()


@pytest.mark.parametrize("head_dim", [64, 80, 128])
def test_kernels_of_every_published_head_size(mesh, head_dim):
    program = _compiled(mesh, head_dim)
    # Forward, keys and values backward, queries backward; no chip asks another for anything.
    assert program.count('custom_call_target="tpu_custom_call"') == 3
    assert "all-gather" not in program
    assert "all-to-all" not in program


def test_a_named_policy_spares_the_second_forward_kernel(mesh):
    policies = jax.checkpoint_policies
    calls = [
        _compiled(mesh, 64, policy).count('custom_call_target="tpu_custom_call"')
        for policy in (
            policies.nothing_saveable,
            policies.save_only_these_names(splash.RESIDUALS),
        )
    ]
    assert calls == [4, 3]
