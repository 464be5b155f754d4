"""Every file of gin/mixtures, through the real training configuration, on a store of everything."""

import collections
import dataclasses
import functools
import pathlib

import numpy as np
import pytest

from optiml_jax.bench import taxonomy
from optiml_jax.data import mixing, prepare, stream, subsets, summary, vocabularies
from optiml_jax.data import store as store_lib
from optiml_jax.errors import InputError
from optiml_jax.main import gin_config, inspect_mixture, mixture_files, train_job
from tests.data.conftest import WORDS, assign, make_task

MIXTURES = [name for name in gin_config.gin_files() if name.startswith("mixtures/")]
BENCH = [name for name in MIXTURES if name != "mixtures/mini.gin"]
RUN = ("models/opt_demo.gin", "runs/finetune.gin")
COLUMNS = ("crossfit", "exmix", "flan", "super_natural_instructions")
COLUMNS += ("promptsource", "t5", "unifiedskg")

# OPT-IML (arXiv 2212.12017) Table 5, in the order of COLUMNS.
TABLE_5 = (
    *("2/1/5/71/18/1/2", "2/1/35/25/34/1/2", "3/3/35/25/25/7/2", "2/1/27/40/27/1/2"),
    *("3/3/25/25/35/7/2", "4/2/35/25/30/2/2", "4/2/20/25/45/2/2", "2/1/35/25/30/5/2"),
    *("7/1/35/25/28/2/2", "0/0/35/30/35/0/0"),
)

NUM_TASKS = {
    **dict.fromkeys(COLUMNS, 30),
    **{"super_natural_instructions": 900, "reasoning": 5, "replay": 3, "dialogue": 2},
}


def build(*files, **macros):
    values = {"STORE": "'store'", "MODEL_DIR": "'run'", **macros}
    bindings = tuple((f"--gin.{name}", f"{name} = {value}") for name, value in values.items())
    sources = gin_config.Sources((*RUN, *files), (), bindings)
    return gin_config.build(sources, "train", train_job.CONFIGURABLES).value


def stem(name):
    return pathlib.Path(name).stem


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """1,085 tasks of all benchmarks in 90 categories; each has two to six examples."""
    categories = [
        name for name in taxonomy.CATEGORIES if name not in taxonomy.INGREDIENT_CATEGORIES
    ][:90]
    tasks = []
    for benchmark, count in NUM_TASKS.items():
        own = [name for name in subsets.ALWAYS_TASKS if name.startswith(f"{benchmark}__")]
        for number in range(count):
            words = {"replay": 120, "dialogue": 30}.get(benchmark, 12)
            task = make_task(number, 2 + number % 5, benchmark=benchmark, words=words)
            spec = dataclasses.replace(
                task.spec,
                name=own[number] if number < len(own) else task.spec.name,
                category=categories[number * 7 % len(categories)],
            )
            tasks.append(dataclasses.replace(task, spec=spec))
    assert {task.spec.name for task in tasks} >= set(subsets.ALWAYS_TASKS)
    out = tmp_path_factory.mktemp("bench")
    vocabulary = vocabularies.train_vocabulary([" ".join(WORDS), "Definition Input Output"], 320)
    prepare.prepare_store(tasks, assign(tasks), out, vocabulary, prepare.PrepareConfig())
    return store_lib.open_store(out)


def shares_of(store, job, key="example_share"):
    """Benchmark -> share, as `optiml inspect` shows it."""
    found = {}
    for one in summary.mixture_shares(store, None, job.mixture, job.feature_length):
        found[one.benchmark] = found.get(one.benchmark, 0.0) + getattr(one, key)
    return found


def counted_rates(store, spec):
    """Task -> rate, from the paper's words, task by task; replay in rows by bisection."""
    tasks = {task.name: task for task in store.tasks}
    benchmark = {name: task.spec.benchmark for name, task in tasks.items()}
    capped = {n: min(t.num_train, spec.eps or t.num_train) for n, t in tasks.items()}
    ingredients = spec.ingredients
    base = [n for n in tasks if benchmark[n] not in ingredients]
    if spec.proportions:
        base = [n for n in base if spec.proportions[benchmark[n]]]
    if spec.num_clusters:
        sizes = collections.Counter(tasks[n].spec.category for n in base)
        order = sorted(sizes, key=lambda c: (c not in subsets.ALWAYS_CATEGORIES, -sizes[c], c))
        base = [n for n in base if tasks[n].spec.category in order[: spec.num_clusters]]
    if spec.num_tasks:
        base = sorted(subsets.choose_tasks([tasks[n].spec for n in base], spec.num_tasks))

    def with_replay(replay):
        given = {**ingredients, "replay": replay}
        rates = {}
        for n in (*base, *(n for n in tasks if given.get(benchmark[n]))):
            alike = [m for m in tasks if benchmark[m] == benchmark[n]] if n not in base else base
            share = given[benchmark[n]] if n not in base else 1 - sum(given.values())
            if n in base and spec.proportions:
                alike = [m for m in base if benchmark[m] == benchmark[n]]
                share *= spec.proportions[benchmark[n]]
                if spec.ingredients_from:
                    share = spec.proportions[benchmark[n]]
                    share -= sum(given.values()) * (benchmark[n] == spec.ingredients_from)
            rates[n] = share * capped[n] / totals(tuple(alike))
        return rates

    @functools.cache
    def totals(names):
        return sum(capped[n] for n in names)

    if spec.replay_unit == "examples" or not ingredients["replay"]:
        return with_replay(ingredients["replay"])
    tokens = {
        n: store.lengths[:, t.first_example : t.first_example + t.num_train].mean()
        for n, t in tasks.items()
    }
    low, high = 0.0, 1.0
    for _ in range(40):
        rates = with_replay((low + high) / 2)
        drawn = {n: rate * tokens[n] for n, rate in rates.items()}
        replay = sum(v for n, v in drawn.items() if benchmark[n] == "replay")
        if replay < ingredients["replay"] * sum(drawn.values()):
            low = (low + high) / 2
        else:
            high = (low + high) / 2
    return rates


@pytest.mark.parametrize("name", BENCH)
def test_a_mixture_trains(store, name):
    """The rates that a run draws by and those that are shown, against rates counted here."""
    job = build(name)
    config = stream.StreamConfig(
        mixture=job.mixture, feature_length=job.feature_length, batch_size=4
    )
    source = stream.TrainStream(store, config)
    rates = {task.name: rate for task, rate in zip(source.tasks, source.rates) if rate}
    assert rates == pytest.approx(counted_rates(store, job.mixture))
    shown = summary.mixture_shares(store, None, job.mixture, job.feature_length)
    assert rates == {one.task: one.example_share for one in shown}
    assert source.batch(0)["inputs"].shape == (4, job.feature_length)
    assert not any(task.startswith("dialogue__") for task in rates) or "dialogue_0_5" in name


@pytest.mark.parametrize("name", BENCH)
def test_a_mixture_of_the_catalog(name):
    """Without a store; the file alone says the same as the file behind a run."""
    spec = inspect_mixture.read_spec(name)
    assert spec == build(name).mixture
    content = inspect_mixture.members_content(name, spec, None, inspect_mixture.Filters())
    expected = {"tasks_16": 16, "tasks_64": 64, "tasks_256": 256, "tasks_1024": 1024}
    if stem(name) in expected:
        assert content["num_tasks"] == expected[stem(name)]
    has_reasoning = any(task["benchmark"] == "reasoning" for task in content["tasks"])
    assert has_reasoning == (
        stem(name) in ("reasoning_1", "reasoning_2", "reasoning_4")
        or stem(name).startswith("opt_iml")
    )
    if spec.proportions:
        shares = [row["example_share"] for row in content["benchmarks"].values()]
        assert sum(shares) == pytest.approx(1)


def test_every_setting_of_the_paper_has_its_file():
    """OPT-IML (arXiv 2212.12017) Tables 4, 5, 7, 8, 16-19 and its two models."""
    expected = {"mini", "opt_iml", "opt_iml_max", "meta_icl", "replay_0"}
    expected |= {f"eps_{2**power}" for power in range(7, 15)} | {"eps_none"}
    expected |= {"proportions_" + row.replace("/", "_") for row in TABLE_5}
    expected |= {f"tasks_{number}" for number in (16, 64, 256, 1024, "all")}
    expected |= {f"clusters_{number}" for number in (4, 16, 64, 93)}
    expected |= {f"replay_{p}_{unit}" for p in (1, 5, 10, 50) for unit in mixing.REPLAY_UNITS}
    expected |= {f"reasoning_{percent}" for percent in (0, 1, 2, 4)} | {
        "dialogue_0",
        "dialogue_0_5",
    }
    assert {stem(name) for name in MIXTURES} == expected


@pytest.mark.parametrize("name", MIXTURES)
def test_the_head_names_its_own_file(name):
    text = gin_config.find_file(name).read_text("utf-8")
    assert f"--gin_file={name}" in text
    if name in BENCH:
        assert f"optiml inspect {stem(name)} " in text
        assert "OPT-IML (arXiv 2212.12017)" in " ".join(text.replace("\n#", "").split())


# --- files beside files --------------------------------------------------------------------------


def sources(*files, **flags):
    values = {"STORE": "'store'", "MODEL_DIR": "'run'", **flags}
    bindings = tuple((f"--gin.{name}", f"{name} = {value}") for name, value in values.items())
    return gin_config.Sources(("models/opt_demo.gin", *files), (), bindings)


def built(*files, **flags):
    """As `optiml train` builds it."""
    given = sources(*files, **flags)
    value = gin_config.build(given, "train", train_job.CONFIGURABLES).value
    mixture_files.check(given)
    return value.mixture


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_before_the_run_file_is_the_same(name):
    assert built(name, "runs/finetune.gin") == built("runs/finetune.gin", name)
    behind = built("runs/pretrain.gin", name)
    if behind.eps is None:  # eps_none, and mini, which binds no cap
        assert built(name, "runs/pretrain.gin") == behind
        return
    message = rf"runs/pretrain.gin:\d+: MixtureSpec.eps = None would undo {name}:\d+, which binds"
    with pytest.raises(InputError, match=message):
        built(name, "runs/pretrain.gin")


def test_mixture_files_combine_where_they_agree():
    both = built("runs/finetune.gin", "mixtures/tasks_16.gin", "mixtures/clusters_4.gin")
    assert (both.num_tasks, both.num_clusters, both.eps) == (16, 4, 4096)
    for first, second, setting in (
        ("tasks_16", "eps_128", "eps = 128 would undo mixtures/tasks_16.gin"),
        ("opt_iml", "tasks_16", "ingredients = .* would undo mixtures/opt_iml.gin"),
        ("replay_5_examples", "reasoning_1", "ingredients = "),
    ):
        files = [f"mixtures/{name}.gin" for name in (first, second)]
        with pytest.raises(InputError, match=rf"{second}.gin:\d+: MixtureSpec.{setting}") as error:
            built("runs/finetune.gin", *files)
        assert "combine only where they agree" in str(error.value)


def test_a_flag_or_an_experiment_changes_a_mixture(tmp_path):
    files = ("runs/finetune.gin", "mixtures/tasks_16.gin")
    changed = built(*files, **{"MixtureSpec.eps": 128})
    assert (changed.num_tasks, changed.eps) == (16, 128)
    own = tmp_path / "experiment.gin"
    own.write_text("MixtureSpec.eps = 128\n")
    assert built(*files, str(own)) == changed
    folder = tmp_path / "mixtures"
    folder.mkdir()
    (folder / "mine.gin").write_text("include 'mixtures/tasks_16.gin'\nMixtureSpec.eps = 128\n")
    assert built(files[0], str(folder / "mine.gin")) == changed


# --- settings ------------------------------------------------------------------------------------


def test_the_mini_mixture():
    job = build("mixtures/mini.gin")
    assert job.mixture.proportions == {"mini": 0.9, "replay": 0.08, "dialogue": 0.02}
    assert job.mixture.eps == 4096


@pytest.mark.parametrize("row", TABLE_5)
def test_proportions_are_those_of_table_5(store, row):
    got = shares_of(store, build(f"mixtures/proportions_{row.replace('/', '_')}.gin"))
    shares = {k: int(v) / 100 for k, v in zip(COLUMNS, row.split("/"))}
    assert got == pytest.approx({k: share for k, share in shares.items() if share})


def test_caps():
    for name in MIXTURES:
        eps = build(name).mixture.eps
        cap = stem(name).removeprefix("eps_") if "eps_" in name else "4096"
        assert str(eps).lower() == cap


@pytest.mark.parametrize("number", [16, 64, 256, 1024])
def test_subsets_of_tasks(store, number):
    job = build(f"mixtures/tasks_{number}.gin")
    drawn = {one.task for one in summary.mixture_shares(store, None, job.mixture)}
    assert len(drawn) == number
    assert drawn >= set(subsets.ALWAYS_TASKS)
    whole = summary.mixture_shares(store, None, build("mixtures/tasks_all.gin").mixture)
    assert drawn < {one.task for one in whole}


def test_subsets_of_clusters(store):
    for number, expected in ((4, 4), (16, 16), (64, 64), (93, 90)):
        job = build(f"mixtures/clusters_{number}.gin")
        shares = summary.mixture_shares(store, None, job.mixture)
        categories = {one.category for one in shares}
        assert len(categories) == expected
        assert categories >= set(subsets.ALWAYS_CATEGORIES)


@pytest.mark.parametrize("percent", [1, 5, 10, 50])
def test_replay_in_both_units(store, percent):
    in_examples = build(f"mixtures/replay_{percent}_examples.gin")
    assert shares_of(store, in_examples)["replay"] == pytest.approx(percent / 100)
    in_rows = build(f"mixtures/replay_{percent}_rows.gin")
    assert shares_of(store, in_rows)["replay"] < percent / 100
    # All texts of this store fit a row.
    assert store.lengths.max() <= in_rows.feature_length
    assert shares_of(store, in_rows, "token_share")["replay"] == pytest.approx(percent / 100)


@pytest.mark.parametrize("percent", [0, 1, 2, 4])
def test_reasoning_comes_from_super_natural_instructions(store, percent):
    """§4.6, on proportions 2/1/27/40/27/1/2."""
    got = shares_of(store, build(f"mixtures/reasoning_{percent}.gin"))
    expected = dict(zip(COLUMNS, (0.02, 0.01, 0.27, 0.40 - percent / 100, 0.27, 0.01, 0.02)))
    assert got.pop("reasoning", 0) == pytest.approx(percent / 100)
    assert got == pytest.approx(expected)


def test_dialogue(store):
    got = shares_of(store, build("mixtures/dialogue_0_5.gin"))
    assert got.pop("dialogue") == pytest.approx(0.005)
    plain = shares_of(store, build("mixtures/dialogue_0.gin"))
    assert got == pytest.approx({name: share * 0.995 for name, share in plain.items()})


@pytest.mark.parametrize("name", ["opt_iml", "opt_iml_max"])
def test_the_published_mixture(store, name):
    got = shares_of(store, build(f"mixtures/{name}.gin"))
    shares = [0.04, 0.02, 0.20, 0.25, 0.45, 0.02, 0.02]
    expected = {name: 0.94 * share for name, share in zip(COLUMNS, shares)}
    assert got == pytest.approx({**expected, "reasoning": 0.01, "replay": 0.05})


def test_baselines_are_one_mixture(store):
    """Tables 4, 7, 8, 16-18 compare with EPS 4096, all tasks, nothing added."""
    names = ("eps_4096", "tasks_all", "clusters_93", "replay_0", "dialogue_0", "meta_icl")
    first, *others = (
        summary.mixture_shares(store, None, build(f"mixtures/{name}.gin").mixture) for name in names
    )
    assert all(other == first for other in others)
    assert {one.benchmark for one in first} == set(COLUMNS)


def test_a_run_packs_replay_by_rows(store, tmp_path):
    """`optiml train` itself: what it resolves draws the share of tokens that was asked for."""
    job = build(
        "mixtures/replay_10_rows.gin",
        STORE=repr(str(store.path)),
        MODEL_DIR=repr(str(tmp_path / "run")),
        VOCAB_SIZE=store.vocabulary().size,
        TASK_FEATURE_LENGTHS="{'targets': 160}",
        BATCH_SIZE=64,
    )
    parts = train_job.resolve(job)
    tokens = np.zeros(2)
    replay = np.zeros(store.lengths.shape[1], bool)
    for task in store.tasks:
        if task.spec.benchmark == "replay":
            replay[task.first_example : task.first_example + task.num_train] = True
    for step in range(40):
        drawn = np.concatenate(parts.source.examples(step))
        lengths = np.minimum(store.lengths[0, drawn], job.feature_length + 1)
        tokens += [lengths[replay[drawn]].sum(), lengths.sum()]
    assert tokens[0] / tokens[1] == pytest.approx(0.10, abs=0.01)
    told = train_job.describe(job, parts)
    (line,) = (line for line in told.splitlines() if line.startswith("mixture:"))
    assert line.endswith("; replay=0.1 (of rows), dialogue=0, reasoning=0")
    (line,) = (line for line in told.splitlines() if line.startswith("store:"))
    num_trained = sum(NUM_TASKS[name] for name in (*COLUMNS, "replay"))
    assert f": {num_trained:,} training tasks, " in line


def test_a_checkpoint_notices_another_mixture(store):
    """Its data order is of the rates: a run that goes on with others is refused."""

    def source(name):
        spec = build(f"mixtures/{name}.gin").mixture
        return stream.TrainStream(store, stream.StreamConfig(mixture=spec, feature_length=160))

    state = source("tasks_64").state(3)
    source("tasks_64").restore(state)
    for other in ("tasks_16", "replay_5_rows", "eps_4096"):
        with pytest.raises(ValueError, match=r"trained on other batches .* other rates"):
            source(other).restore(state)
