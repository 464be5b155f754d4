"""Every gin file builds: the configuration, and the model's arrays as abstract shapes."""

import dataclasses
import math
import pathlib
import re

import jax
import pytest
from jax.sharding import AbstractMesh

from optiml_jax.ahead import topology
from optiml_jax.main import eval_job, gin_config, train_job
from optiml_jax.model import config as model_config
from optiml_jax.model import decoder, partitioning
from optiml_jax.train import step as steps

ROOT = pathlib.Path(__file__).parents[2]
FILES = gin_config.gin_files()
MODELS = [name for name in FILES if name.startswith("models/")]
PODS = [name for name in FILES if name.startswith("pods/")]
MIXTURES = [name for name in FILES if name.startswith("mixtures/")]
TRAIN_RUNS = ["runs/pretrain.gin", "runs/finetune.gin"]

# OPT (arXiv 2205.01068) Table 1 names the sizes; the counts are of the released checkpoints.
PUBLISHED_PARAMS = {
    "125m": 125_239_296,
    "350m": 331_196_416,
    "1_3b": 1_315_758_080,
    "2_7b": 2_651_596_800,
    "6_7b": 6_658_473_984,
    "13b": 12_853_473_280,
    "30b": 29_974_540_288,
    "66b": 65_720_678_400,
    "175b": 174_604_861_440,
}


def build(model, run, root="train", configurables=train_job.CONFIGURABLES, **macros):
    values = {"STORE": "'store'", "MODEL_DIR": "'run'", **macros}
    bindings = tuple((f"--gin.{name}", f"{name} = {value}") for name, value in values.items())
    return gin_config.build(gin_config.Sources((model, run), (), bindings), root, configurables)


def build_eval(model, **macros):
    values = {"CHECKPOINT_PATH": "'run'", "EVAL_OUTPUT_DIR": "'out'", "STORE": "'store'", **macros}
    bindings = tuple((f"--gin.{name}", f"{name} = {value}") for name, value in values.items())
    sources = gin_config.Sources((model, "runs/eval.gin"), (), bindings)
    return gin_config.build(sources, "evaluate", eval_job.CONFIGURABLES)


def test_no_file_is_left_out():
    others = set(FILES) - {*PODS, *MIXTURES}
    assert others == {*MODELS, *TRAIN_RUNS, "runs/eval.gin"}
    assert len(MODELS) == len(PUBLISHED_PARAMS) + 3


@pytest.mark.parametrize("run", TRAIN_RUNS)
def test_packing_is_a_macro(run):
    assert build("models/opt_tiny.gin", run).value.packing == "greedy"
    assert build("models/opt_tiny.gin", run, PACKING="'first_fit'").value.packing == "first_fit"


@pytest.mark.parametrize("name", FILES)
def test_head_says_what_a_reader_needs(name):
    text = gin_config.find_file(name).read_text("utf-8")
    head = text.split("\n\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    for word in ("optiml ", "Hardware:", "To set:", "Often changed:"):
        assert word in head, f"{name}: the head lacks '{word}'"


@pytest.mark.parametrize("run", TRAIN_RUNS)
@pytest.mark.parametrize("model", MODELS)
def test_training_config_builds(model, run):
    built = build(model, run)
    job = built.value
    assert job.optimizer.total_steps == job.loop.steps
    assert job.feature_length == job.model.max_positions
    assert job.model.embedding_dropout == (run == "runs/finetune.gin")
    # A row of the run's own config file is all that is needed to start it again.
    assert "TrainConfig.steps = %TRAIN_STEPS" in built.text


@pytest.mark.parametrize("model", MODELS)
def test_evaluation_config_builds(model):
    assert build_eval(model).value.checkpoint_path == "run"


@pytest.mark.parametrize("model", MODELS)
def test_step_traces_with_abstract_shapes(model):
    job = build(model, "runs/finetune.gin").value
    shapes = jax.eval_shape(lambda rng: decoder.init_params(job.model, rng), jax.random.key(0))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert count == job.model.num_params()
    assert steps.make_train_step(job.model, job.optimizer) is not None


@pytest.mark.parametrize("size", PUBLISHED_PARAMS)
def test_published_sizes(size):
    job = build(f"models/opt_{size}.gin", "runs/finetune.gin").value
    assert job.model.num_params() == pytest.approx(PUBLISHED_PARAMS[size], rel=1e-3)
    published = model_config.PUBLISHED[size.replace("_", ".")]
    assert job.model.architecture() == published.architecture()
    assert job.model.init_std == published.init_std


def test_finetuning_is_opt_imls_recipe():
    """OPT-IML (arXiv 2212.12017) §3.3, §4.1, Table 3."""
    job = build("models/opt_30b.gin", "runs/finetune.gin").value
    assert job.optimizer.learning_rate == 5e-5
    assert job.optimizer.warmup_steps == 60
    assert job.optimizer.final_fraction == 0.0
    assert (job.optimizer.b1, job.optimizer.b2) == (0.9, 0.95)
    assert job.optimizer.weight_decay == 0.1
    assert job.optimizer.clip_norm == 1.0
    assert (job.model.dropout_rate, job.model.attention_dropout_rate) == (0.1, 0.1)
    assert job.model.embedding_dropout
    assert (job.loop.steps, job.loop.batch_size, job.feature_length) == (4000, 256, 2048)
    assert job.mixture.eps == 4096
    job = build("models/opt_175b.gin", "runs/finetune.gin").value
    assert (job.loop.steps, job.loop.batch_size) == (8000, 128)


@pytest.mark.parametrize(
    ("size", "rate", "batch_tokens", "warmup_tokens"),
    [
        ("125m", 6.0e-4, 0.5, 375e6),
        ("350m", 3.0e-4, 0.5, 375e6),
        ("1_3b", 2.0e-4, 1, 375e6),
        ("2_7b", 1.6e-4, 1, 375e6),
        ("6_7b", 1.2e-4, 2, 375e6),
        ("13b", 1.0e-4, 4, 375e6),
        ("30b", 1.0e-4, 4, 375e6),
        ("66b", 0.8e-4, 2, 375e6),
        ("175b", 1.2e-4, 2, 2000 * 2 * 2**20),
    ],
)
def test_pretraining_is_opts_recipe(size, rate, batch_tokens, warmup_tokens):
    """OPT (arXiv 2205.01068) §2.4, Table 1; its M is 2**20."""
    job = build(f"models/opt_{size}.gin", "runs/pretrain.gin").value
    row_tokens = job.loop.batch_size * job.feature_length
    assert job.optimizer.learning_rate == rate
    assert row_tokens == batch_tokens * 2**20
    assert job.optimizer.warmup_steps == round(warmup_tokens / row_tokens)
    assert job.loop.steps == round(300e9 / row_tokens)
    assert job.optimizer.final_fraction == 0.1
    assert not job.model.embedding_dropout
    assert job.mixture.eps is None


@pytest.mark.parametrize("run", TRAIN_RUNS)
@pytest.mark.parametrize("pod", PODS)
def test_pods_are_whole_runs(pod, run):
    """Model, mesh and batch divide, for the slice that the head names; the head is a command."""
    text = gin_config.find_file(pod).read_text("utf-8")
    match = re.search(rf"--gin_file={re.escape(pod)} --topology=(\S+)", text)
    assert match is not None
    of = topology.parse(match[1])
    # The head's command of a run may carry a binding for it.
    command = text.replace("\\\n#", "").partition(f"--gin_file={run}")[2].partition("\n")[0]
    microbatches = re.findall(r"--gin\.(NUM_MICROBATCHES)=(\d+)", command)
    job = build(pod, run, **dict(microbatches)).value
    sizes = dataclasses.astuple(job.mesh)
    assert math.prod(sizes) == of.num_chips
    mesh = AbstractMesh(sizes, partitioning.MESH_AXES)
    with partitioning.use_rules(job.logical_axis_rules):
        partitioning.check_divides(
            job.model,
            mesh,
            job.loop.batch_size,
            job.loop.num_microbatches,
            length=job.feature_length,
        )
    assert job.model.attention == "splash"
    assert (job.model.dropout_rate, job.model.attention_dropout_rate) == (0.1, 0.0)


def test_every_size_has_a_pod_of_every_kind():
    expected = {(size, kind) for size in PUBLISHED_PARAMS for kind in topology.CHIPS}
    found = {
        (size, kind)
        for size, kind in expected
        if any(name.startswith(f"pods/opt_{size}_{kind}_") for name in PODS)
    }
    assert found == expected


def test_every_pod_stands_in_the_guide():
    guide = (ROOT / "docs" / "precompile.md").read_text("utf-8")
    for name in PODS:
        assert pathlib.Path(name).stem in guide, f"{name}: run make precompile-all"
