import dataclasses
import math

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from optiml_jax import errors
from optiml_jax.model import config as configs
from optiml_jax.model import decoder, partitioning
from optiml_jax.model.config import OptConfig
from optiml_jax.model.partitioning import MeshConfig
from optiml_jax.train import state as states
from optiml_jax.train.optimizer import OptimizerConfig

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


@dataclasses.dataclass(frozen=True)
class Chip:
    """What JAX reads of a TPU device to lay out a mesh."""

    id: int
    coords: tuple[int, int, int]
    slice_index: int
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"
    core_on_chip: int = 0
    process_index: int = 0


def _slices(count, side=4):
    return [
        Chip(number * side * side + x + side * y, (x, y, 0), number)
        for number in range(count)
        for y in range(side)
        for x in range(side)
    ]


@pytest.mark.parametrize("shape", [(4, 4, 2), (2, 8, 2), (2, 16, 1), (8, 1, 4)])
def test_only_data_crosses_slices(shape):
    grid = partitioning.lay_out(shape, _slices(2))
    assert grid.shape == shape
    assert len(set(grid.flat)) == 32
    first, second = np.split(grid, 2)
    assert {chip.slice_index for chip in first.flat} == {0}
    assert {chip.slice_index for chip in second.flat} == {1}


def test_an_axis_may_be_a_part_of_the_torus():
    """Where 4 is not a side of 16 x 16, the four are neighbours all the same."""
    grid = partitioning.lay_out((1, 64, 4), _slices(1, side=16))
    for chips in grid.reshape(-1, 4):
        (xs, ys) = (sorted({chip.coords[axis] for chip in chips}) for axis in (0, 1))
        assert len(xs) * len(ys) == 4
        assert xs[-1] - xs[0] < 4
        assert ys[-1] - ys[0] < 4


def test_weights_that_would_cross_slices_are_refused():
    message = (
        r"data=2 on 4 slices.* whose 16 chips they must divide: make 'data' a multiple of 4, "
        r"and fsdp x model at most 16"
    )
    with pytest.raises(errors.InputError, match=message):
        partitioning.lay_out((2, 32, 1), _slices(4))


@pytest.mark.parametrize(
    ("rules", "mesh", "options", "message"),
    [
        (
            {"residual_length": "model"},
            _mesh(1, 1, 2),
            {"length": 31},
            r"the length of a row, 31 does not divide by the mesh axis model=2, along which the "
            r"logical rule 'residual_length' cuts it\. Choose model among the divisors of 31, or",
        ),
        ({}, _mesh(1, 8, 1), {}, r"embedding_dim 20 .* axis fsdp=8"),
        ({"norm": "fsdp", "embed": None}, _mesh(1, 16, 1), {}, r"d_model 24 .* rule 'norm'"),
        (
            {"layers": "model", "heads": None, "ffn": None},
            _mesh(1, 1, 4),
            {},
            r"num_layers 2 .* model=4",
        ),
        ({"batch": "data"}, _mesh(4, 4, 1), {"batch_size": 6}, r"6 rows .* by data = 4"),
    ],
)
def test_what_the_rules_in_use_cut_must_divide(rules, mesh, options, message):
    config = dataclasses.replace(CONFIG, embedding_dim=20)
    with (
        partitioning.use_rules(rules),
        pytest.raises(errors.InputError, match=message),
    ):
        partitioning.check_divides(config, mesh, **options)


def test_rows_that_divide_or_are_not_cut_pass():
    partitioning.check_divides(CONFIG, _mesh(1, 1, 2), length=31)
    with partitioning.use_rules({"residual_length": "model"}):
        partitioning.check_divides(CONFIG, _mesh(1, 1, 2), length=32)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"head": "model"}, r"unknown logical axis 'head'\. Did you mean 'heads'\?"),
        ({"vocab": ("fsdp", "modle")}, r"'vocab': unknown mesh axis 'modle'"),
        ({"vocab": 2}, r"'vocab' is 2, expected a mesh axis, a tuple of them, or None"),
        (
            {"ffn": "fsdp"},
            r"axis 'fsdp' would cut both 'embed' and 'ffn' of arrays \[layers, embed, ffn\]",
        ),
        ({"length": "data"}, r"'data' would cut both 'batch' and 'length'"),
        ({"vocab": ("model", "model")}, r"'model' would cut both 'vocab' and 'vocab'"),
    ],
)
def test_rules_that_cannot_hold_are_refused(rules, message):
    with (
        pytest.raises(errors.InputError, match=message),
        partitioning.use_rules(rules),
    ):
        pass


def test_gin_writes_lists():
    with partitioning.use_rules({"vocab": ["model"]}):
        assert partitioning.partition_spec(("vocab",)) == PartitionSpec(("model",))


@pytest.mark.parametrize("size", ["125m", "350m"])
def test_every_parameter_is_checked_for_doubled_axes(size):
    axes = decoder.logical_axes(configs.published(size))
    leaves = jax.tree.leaves(axes, is_leaf=lambda node: isinstance(node, tuple))
    assert set(leaves) <= set(partitioning.ARRAYS)


@pytest.mark.parametrize("size", configs.PUBLISHED)
@pytest.mark.parametrize("mesh", [_mesh(1, 16, 1), _mesh(1, 4, 4)], ids=["fsdp", "fsdp x model"])
def test_no_matrix_of_the_state_is_whole_on_every_device(size, mesh):
    config = configs.published(size)
    leaves = jax.tree.leaves(states.abstract_state(config, OptimizerConfig(1e-3, 0, 1), mesh))
    shares = [leaf.sharding.shard_shape(leaf.shape) for leaf in leaves]
    for leaf, share in zip(leaves, shares, strict=True):
        # Norms and biases are: a vector a layer.
        if math.prod(leaf.shape) > config.num_layers * config.ffn_dim:
            assert math.prod(share) <= math.prod(leaf.shape) // 4, leaf
    # Parameters and two moments of each; what is whole or cut in four only weighs little.
    total = sum(math.prod(leaf.shape) for leaf in leaves)
    assert total == pytest.approx(3 * config.num_params(), rel=1e-6)
    assert sum(map(math.prod, shares)) <= total / 16 * 1.05
