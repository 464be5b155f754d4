"""Floating-point operations against a count by hand and by XLA; the roofline's arithmetic."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.extend import core

from optiml_jax.ahead import estimate, topology
from optiml_jax.ahead.collectives import Traffic
from optiml_jax.model import config as model_config
from optiml_jax.model import decoder

TINY = model_config.OptConfig(
    vocab_size=64,
    num_layers=2,
    num_heads=2,
    d_model=16,
    ffn_dim=64,
    max_positions=32,
    dtype="float32",
    scan_layers=False,
    dropout_rate=0.0,
    attention_dropout_rate=0.0,
)


def test_flops_by_hand():
    flops = estimate.flops_per_token(TINY, 32)
    layer = 4 * 16 * 16 + 2 * 16 * 64
    head = 64 * 16
    square = 2 * 2 * 32 * 16 / 2  # queries x keys and probabilities x values, causal
    assert flops.with_attention == 6 * (2 * layer + head) + 3 * 2 * square
    assert flops.parameters == 6 * TINY.num_params()
    assert flops.with_remat == flops.with_attention  # remat "none"


def test_recomputed_flops_by_hand():
    forward = {
        "none": 0,
        "minimal": 0,
        "save_projections": 2 * 16 * 64 + 2 * 32 * 16,
        "full": 2 * (4 * 16 * 16 + 16 * 64) + 2 * 32 * 16,
    }
    assert set(forward) == set(model_config.REMAT)
    for remat, layer in forward.items():
        config = dataclasses.replace(TINY, remat=remat)
        assert estimate.recomputed_flops_per_token(config, 32) == 2 * layer


@pytest.mark.parametrize("remat", ["save_projections", "full"])
def test_recomputed_flops_are_those_that_the_traced_step_adds(remat):
    """Matrix products of the traced gradient; dense attention computes the whole square."""

    def products(config):
        shapes = jax.eval_shape(lambda rng: decoder.init_params(config, rng), jax.random.key(0))
        ids = jnp.zeros((1, 32), jnp.int32)

        def loss(params):
            hidden, _ = decoder.hidden_states(config, params, ids, ids + 1, ids)
            return jnp.sum(hidden)

        return _product_flops(jax.make_jaxpr(jax.grad(loss))(shapes).jaxpr)

    added = products(dataclasses.replace(TINY, remat=remat)) - products(TINY)
    config = dataclasses.replace(TINY, remat=remat)
    half_square = 2 * 2 * 32 * 16 / 2
    expected = 32 * (estimate.recomputed_flops_per_token(config, 32) + 2 * half_square)
    assert added == expected


def _product_flops(jaxpr):
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            size = 2
            for axis in contracted:
                size *= equation.invars[0].aval.shape[axis]
            for length in equation.outvars[0].aval.shape:
                size *= length
            total += size
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for inner in core.jaxprs_in_params(equation.params):
            total += times * _product_flops(inner)
    return total


MESH = {"data": 1, "fsdp": 64, "model": 4}
GPT3 = model_config.published("175b", remat="full")


def test_the_step_takes_as_long_as_its_slowest_unit():
    of = topology.parse("v6e:16x16")
    traffic = {"all-gather": Traffic(1, 4 * 10**11)}
    found = estimate.train_step(GPT3, of, MESH, 768, 2048, 1, traffic)
    flops = estimate.flops_per_token(GPT3, 2048)
    compute = flops.with_remat * 768 * 2048 / 256 / 918e12
    assert found.bound_by == "compute"
    assert found.parts["compute"] == pytest.approx(compute)
    assert found.parts["interconnect"] == pytest.approx(1.0)
    assert found.seconds == pytest.approx(compute / estimate.EFFICIENCY)
    assert found.tokens_per_second == pytest.approx(768 * 2048 / found.seconds)
    share = flops.with_attention / flops.with_remat * estimate.EFFICIENCY
    assert found.mfu == pytest.approx(share)


def test_what_goes_between_slices_is_slower():
    of = topology.parse("v4:4x8x8", num_slices=2)
    traffic = {"all-reduce": Traffic(1, 10**12, dcn_bytes=10**12)}
    found = estimate.train_step(GPT3, of, MESH, 512, 2048, 1, traffic)
    assert found.bound_by == "network"
    assert found.parts["network"] == pytest.approx(160)
    assert found.parts["interconnect"] == 0


def test_expected_traffic_of_plain_fsdp():
    found = estimate.expected_traffic(GPT3, {"data": 1, "fsdp": 256, "model": 1}, 768, 2048, 1)
    weights = GPT3.num_params()
    assert found["all-gather"].bytes == pytest.approx(3 * 2 * weights * 255 / 256)
    assert found["reduce-scatter"].bytes == pytest.approx(4 * weights * 255 / 256)
    assert set(found) == {"all-gather", "reduce-scatter"}
