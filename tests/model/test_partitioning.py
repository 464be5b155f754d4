import jax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from optiml_jax import errors
from optiml_jax.model import decoder, partitioning
from optiml_jax.model.config import OptConfig
from optiml_jax.model.partitioning import MeshConfig

CONFIG = OptConfig(vocab_size=40, num_layers=2, num_heads=6, d_model=24, ffn_dim=32)


def _mesh(data, fsdp, model):
    return AbstractMesh((data, fsdp, model), partitioning.MESH_AXES)


def test_mesh_fills_in_the_rest():
    mesh = partitioning.make_mesh(MeshConfig(), jax.devices()[:1])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "model": 1}
    assert all(kind == jax.sharding.AxisType.Auto for kind in mesh.axis_types)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"data": 1, "model": 2}, r"data=1 x fsdp=1 x model=2 does not fit 1 device"),
        ({"fsdp": 3}, r"does not fit 1 device"),
        ({"data": -1, "fsdp": -1}, r"only one axis may be -1"),
        ({"model": 0}, r"'model' is 0"),
    ],
)
def test_wrong_meshes_are_refused(config, message):
    with pytest.raises(errors.InputError, match=message):
        partitioning.make_mesh(MeshConfig(**config), jax.devices()[:1])


@pytest.mark.parametrize(
    ("mesh", "options", "message"),
    [
        (_mesh(1, 1, 4), {}, r"num_heads 6 does not divide by the mesh axis model=4"),
        (_mesh(1, 1, 3), {}, r"ffn_dim 32 .* model=3"),
        (_mesh(1, 5, 1), {}, r"d_model 24 .* fsdp=5"),
        (_mesh(2, 2, 1), {"batch_size": 6}, r"batch of 6 rows .* data x fsdp = 4"),
        (_mesh(2, 2, 1), {"batch_size": 8, "num_microbatches": 4}, r"multiple of 16"),
    ],
)
def test_what_does_not_divide_is_named(mesh, options, message):
    with pytest.raises(errors.InputError, match=message):
        partitioning.check_divides(CONFIG, mesh, **options)


def test_what_divides_passes():
    partitioning.check_divides(CONFIG, _mesh(2, 4, 2), batch_size=16, num_microbatches=2)


def test_parameters_lie_where_the_rules_say():
    axes = decoder.logical_axes(CONFIG)
    spec = partitioning.partition_spec
    assert spec(axes["token_embedding"]) == PartitionSpec("model", "fsdp")
    assert spec(axes["layers"]["qkv"]["kernel"]) == PartitionSpec(None, "fsdp", "model", None, None)
    assert spec(axes["layers"]["fc2"]["kernel"]) == PartitionSpec(None, "model", "fsdp")
    assert spec(("batch", "length")) == PartitionSpec(("data", "fsdp"), None)


def test_rules_can_be_changed():
    with partitioning.use_rules({"vocab": None}):
        assert partitioning.partition_spec(("vocab", "embed")) == PartitionSpec(None, "fsdp")
    assert partitioning.partition_spec(("vocab",)) == PartitionSpec("model")
    with (
        pytest.raises(errors.InputError, match=r"unknown mesh axis 'modle'\. Did you mean"),
        partitioning.use_rules({"vocab": "modle"}),
    ):
        pass
