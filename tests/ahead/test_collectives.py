"""Collectives are counted in hand-written HLO, and in a program that XLA compiled here."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from optiml_jax.ahead import collectives
from optiml_jax.ahead.collectives import Traffic

ROOT = pathlib.Path(__file__).parents[2]

# A loop of 12 rounds that gathers; the bound stands in the condition, the step in the body.
LOOP = """\
HloModule made

%body.1 (state.1: (s32[], f32[4,8], f32[2,8])) -> (s32[], f32[4,8], f32[2,8]) {
  %state.1 = (s32[]{:T(128)}, f32[4,8]{1,0:T(4,128)}, f32[2,8]{1,0}) parameter(0)
  %counter = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  %part = f32[2,8]{1,0} get-tuple-element(%state.1), index=2
  %one = s32[] constant(STEP)
  %whole = f32[4,8]{1,0:T(4,128)} all-gather(%part), channel_id=1, replica_groups={{0,1},{2,3}}
  %next = s32[] add(%counter, %one)
  %copied = s32[] copy(%next)
  ROOT %out = (s32[], f32[4,8], f32[2,8]) tuple(%copied, %whole, %part)
}

%condition.1 (state.2: (s32[], f32[4,8], f32[2,8])) -> pred[] {
  %state.2 = (s32[], f32[4,8], f32[2,8]) parameter(0)
  %counter.2 = s32[] get-tuple-element(%state.2), index=0
  %bound = s32[] constant(12)
  ROOT %less = pred[] compare(%counter.2, %bound), direction=LT
}

ENTRY %main (a: f32[2,8], b: f32[4,8]) -> (s32[], f32[4,8], f32[2,8]) {
  %a = f32[2,8]{1,0} parameter(0)
  %b = f32[4,8]{1,0} parameter(1)
  %start = s32[] constant(0)
  %before = (s32[], f32[4,8], f32[2,8]) tuple(%start, %b, %a)
  ROOT %loop = (s32[], f32[4,8], f32[2,8]) while(%before), condition=%condition.1, body=%body.1
}
"""


def entry(line):
    return f"ENTRY %main (a: f32[8]) -> f32[8] {{\n  %a = f32[8] parameter(0)\n  {line}\n}}\n"


@pytest.mark.parametrize(("step", "trips"), [("1", 12), ("2", 6), ("5", 3)])
def test_a_loops_rounds_are_read_from_condition_and_body(step, trips):
    found = collectives.traffic(LOOP.replace("STEP", step))
    # Of 4 x 8 float32 in a group of two, a chip sends half.
    assert found == {"all-gather": Traffic(trips, trips * 64)}


def test_an_instruction_may_span_lines():
    kernel = '%made = f32[8] custom-call(%part), backend_config={\n"a": 1\n}, metadata={}\n  '
    text = LOOP.replace("STEP", "1").replace("%next = ", kernel + "%next = ")
    assert collectives.traffic(text) == {"all-gather": Traffic(12, 12 * 64)}


def test_a_stated_number_of_rounds_counts():
    stated = LOOP.replace("STEP", "1").replace(
        "body=%body.1", 'body=%body.1, backend_config={"known_trip_count":{"n":"7"}}'
    )
    assert collectives.traffic(stated)["all-gather"].count == 7


def test_a_loop_that_depends_on_data_runs_as_often_as_the_caller_says():
    text = LOOP.replace("STEP", "1").replace("s32[] constant(12)", "s32[] custom-call()")
    assert collectives.traffic(text)["all-gather"].count == 1
    assert collectives.traffic(text, data_dependent_trips=5)["all-gather"].count == 5


def test_a_bound_may_come_in_with_the_state():
    text = LOOP.replace("STEP", "1").replace(
        "%bound = s32[] constant(12)", "%bound = s32[] get-tuple-element(%state.2), index=3"
    )
    text = text.replace("tuple(%start, %b, %a)", "tuple(%start, %b, %a, %four)")
    text = text.replace("%start = ", "%four = s32[] constant(4)\n  %start = ")
    assert collectives.traffic(text)["all-gather"].count == 4


@pytest.mark.parametrize(
    ("line", "kind", "sent"),
    [
        ("%r = f32[8] all-reduce(%a), replica_groups={{0,1,2,3}}, to_apply=%add", "all-reduce", 48),
        ("%r = f32[2] reduce-scatter(%a), replica_groups=[1,4]<=[4]", "reduce-scatter", 24),
        ("%r = bf16[8] all-to-all(%a), replica_groups=[2,4]<=[4,2]T(1,0)", "all-to-all", 12),
        ("%r = f32[8] collective-permute(%a), source_target_pairs={{0,1},{1,0}}",
         "collective-permute", 32),
        ("%r = (f32[8], f32[32]) all-gather-start(%a), replica_groups={{0,1,2,3}}",
         "all-gather", 96),
        ("%r = (f32[8], f32[8], u32[], u32[]) collective-permute-start(%a), "
         "source_target_pairs={{0,1}}", "collective-permute", 32),
        ("%r = (f32[4]{0:T(128)S(1)}, /*index=1*/bf16[8]) all-reduce(%a, %a), "
         "replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_1'}, to_apply=%add", "all-reduce", 32),
    ],
)  # fmt: skip
def test_bytes_a_chip_sends(line, kind, sent):
    assert collectives.traffic(entry(line)) == {kind: Traffic(1, sent)}


def test_a_group_of_one_sends_nothing():
    assert collectives.traffic(entry("%r = f32[8] all-reduce(%a), replica_groups={{0},{1}}")) == {}


def test_parts_of_one_collective_count_once():
    part = "%NAME = f32[32] all-gather(%a), channel_id=4, replica_groups={{0,1,2,3}}"
    both = part.replace("NAME", "r0") + "\n  " + part.replace("NAME", "r1")
    assert collectives.traffic(entry(both)) == {"all-gather": Traffic(1, 96)}


def test_groups_that_span_slices_are_told_apart():
    near = "%r = f32[8] all-reduce(%a), channel_id=1, replica_groups={{0,1},{2,3}}"
    far = "%s = f32[8] all-reduce(%a), channel_id=2, replica_groups={{0,2},{1,3}}"
    found = collectives.traffic(entry(f"{near}\n  {far}"), slices=(0, 0, 1, 1))
    assert found == {"all-reduce": Traffic(2, 64, dcn_bytes=32)}


def test_part_of_a_mesh_axis():
    # The axis of 8 is cut into 2 x 4, and its last 4 are joined: devices 0..3.
    line = "%r = f32[8] all-reduce(%a), replica_groups=mesh['x'=8] {'x':(2)4}"
    assert collectives._group(line) == [0, 1, 2, 3]


COMPILED = """
import json
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from optiml_jax.ahead import collectives
mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
cut, whole = NamedSharding(mesh, P(None, "x")), NamedSharding(mesh, P())
def layers(weights, rows):
    def layer(rows, weight):
        return jnp.tanh(rows @ jax.lax.with_sharding_constraint(weight, whole)), None
    return jax.lax.scan(layer, rows, weights)[0]
shapes = (jax.ShapeDtypeStruct((5, 16, 16), "float32", sharding=NamedSharding(mesh, P(None, "x"))),
          jax.ShapeDtypeStruct((8, 16), "float32", sharding=NamedSharding(mesh, P("x"))))
text = jax.jit(layers).lower(*shapes).compile().as_text()
found = collectives.traffic(text)
print(json.dumps({kind: [row.count, row.bytes] for kind, row in found.items()}))
"""


def test_a_scan_over_layers_gathers_as_many_times():
    """Five layers, each gathering a 16 x 16 float32 matrix over four devices."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"all-gather": [5, 5 * 16 * 16 * 4 * 3 // 4]}
