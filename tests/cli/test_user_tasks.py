"""`--module` and MIXTURE_OR_TASK_MODULE: what a user can do wrong, and the ways that go well."""

import json
import sys

import pytest

from optiml_jax.data import store as store_lib
from optiml_jax.main import cli, report

from .commands import EVAL, train

seqio = pytest.importorskip("seqio")

MODULE = """
import seqio, tensorflow as tf
from optiml_jax import tasks

tasks.register("super_natural_instructions", data_dir={data!r})
ROWS = [(f"Say {{n}}", f"{{n}}") for n in range(20)]
FEATURES = seqio.get_mixture_or_task("super_natural_instructions").output_features

def add(name, splits):
    def rows(split, shuffle_files):
        columns = dict(zip(("inputs", "targets"), zip(*ROWS)))
        return tf.data.Dataset.from_tensor_slices({{k: list(v) for k, v in columns.items()}})
    seqio.TaskRegistry.add(name, source=seqio.FunctionDataSource(rows, splits),
        preprocessors=[seqio.preprocessors.tokenize], output_features=FEATURES)

add("own_a", ["train"])
add("own_b", ["test"])
seqio.MixtureRegistry.add("own_mix", [("own_a", 1), ("super_natural_instructions", 3)])
"""
MORE = 'seqio.MixtureRegistry.add("wide", [("own_a", 1), ("own_b", 1)])\n'


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch, store):
    """A working directory with the module; registrations and imports are gone afterwards."""
    monkeypatch.chdir(tmp_path)
    # The store's own task files; one whose category is held out is among them.
    (tmp_path / "own_tasks.py").write_text(MODULE.format(data=str(store.parent / "tasks")) + MORE)
    registries = (seqio.TaskRegistry, seqio.MixtureRegistry)
    known = {registry: set(registry.names()) for registry in registries}
    modules, paths = set(sys.modules), list(sys.path)
    yield
    for registry, names in known.items():
        for name in set(registry.names()) - names:
            registry.remove(name)
    for name in [n for n in set(sys.modules) - modules if n.startswith(("own_", "optiml_user_"))]:
        del sys.modules[name]
    sys.path[:] = paths


def prepare(name, out, *flags, module="own_tasks"):
    arguments = ["prepare", name, f"--module={module}", f"--out={out}", *flags]
    return cli.main([*arguments, "--vocabulary=small", "--vocab_size=264"])


def message(capsys, code=2):
    assert code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def table(tmp_path, text):
    with (tmp_path / "own_tasks.py").open("a") as file:
        file.write(f"OPTIML = {text}\n")


@pytest.mark.parametrize(
    ("name", "flags", "expected"),
    [
        (
            "own_mux",
            (),
            "module 'own_tasks': unknown SeqIO task or mixture 'own_mux'. Did you mean",
        ),
        ("own_mix", ("--data_dir=d",), "--data_dir goes with a benchmark, --module with your own"),
        (
            "super_natural_instructions",
            (),
            "'super_natural_instructions' is this package's own: run `optiml prepare"
            " super_natural_instructions --out=made` without --module.",
        ),
        (
            "own_mix",
            ("--split=super_natural_instructions_official",),
            "the module registers 'super_natural_instructions' under the split 'opt_iml', the"
            " store's is 'super_natural_instructions_official'.",
        ),
    ],
)
def test_bad_names_and_flags(capsys, name, flags, expected):
    assert expected in message(capsys, prepare(name, "made", *flags))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("own_task", "Did you mean 'own_tasks'?"),
        ("gone/own_tasks.py", "module file 'gone/own_tasks.py' does not exist."),
        ("own_bad", "module 'own_bad' cannot be imported: "),
    ],
)
def test_bad_modules(capsys, tmp_path, store, name, expected):
    (tmp_path / "own_bad.py").write_text("import seqio\n1 / 0\n")
    assert expected in message(capsys, prepare("own_mix", "made", module=name))
    flags = (f"--gin.MIXTURE_OR_TASK_MODULE={name!r}", "--gin.MIXTURE_OR_TASK_NAME='own_mix'")
    assert expected in message(capsys, cli.main(train(store, tmp_path / "run", *flags)))
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{'own_c': {}}", "own_tasks': OPTIML: unknown task 'own_c'. Did you mean 'own_"),
        ("{'own_a': {'metric': 'bleu'}}", "OPTIML['own_a']: unknown metric 'bleu'."),
        ("{'own_a': {'category': ''}}", "OPTIML['own_a']['category'] is '', expected some text."),
        (
            "{'own_a': {'category': 'Textual Entailment'}}",
            "task 'own_a' trains on the category 'Textual Entailment', which the store's split"
            " holds out fully: 'super_natural_instructions__task002_made' would no longer be",
        ),
        (
            "{'own_a': {'benchmark': 'super_natural_instructions'}}",
            "OPTIML puts it under the benchmark 'super_natural_instructions', whose own tasks are",
        ),
    ],
)
def test_bad_tables(capsys, tmp_path, text, expected):
    table(tmp_path, text)
    assert expected in message(capsys, prepare("own_mix", "made"))
    assert not (tmp_path / "made" / "index.json").exists()


def test_a_name_without_its_module(capsys):
    told = message(capsys, cli.main(["prepare", "own_mix", "--out=made"]))
    assert "unknown benchmark 'own_mix'." in told
    assert told.endswith("A SeqIO task or mixture of your own needs --module=MODULE.")


def test_a_mixture_brings_the_benchmark_whole(capsys, tmp_path):
    """Its held-out task is not in the SeqIO mixture, and in the store nevertheless."""
    assert prepare("own_mix", "made") == 0
    assert (
        "own_a  trains on 17, 3 evaluated at the level fully_supervised" in capsys.readouterr().out
    )
    store = store_lib.open_store("made")
    assert {t.name: (t.role, t.level) for t in store.tasks} == {
        "own_a": ("train", "fully_supervised"),
        "super_natural_instructions__task001_made": ("train", "fully_supervised"),
        "super_natural_instructions__task002_made": ("test", "fully_held_out"),
    }
    assert store.mixtures["own_mix"] == pytest.approx(
        {"own_a": 0.25, "super_natural_instructions__task001_made": 0.75}
    )
    # What is there is taken over, by this command and by the benchmark's own.
    assert prepare("own_mix", "made") == 0
    assert "0 tasks rendered, 3 taken over" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["super_natural_instructions", "own_mix"])
def test_a_benchmark_that_joins_a_users_store_brings_its_split(store, name):
    """Users' tasks are placed by no split: the one that stands there must not place a benchmark."""
    assert prepare("own_a", "made", "--split=mini") == 0
    assert prepare("own_b", "made") == 0
    assert store_lib.open_store("made").meta["split"] == "mini"
    if name == "own_mix":
        assert prepare(name, "made") == 0
    else:
        command = ("prepare", name, f"--data_dir={store.parent / 'tasks'}", "--out=made")
        assert cli.main(command) == 0
    made = store_lib.open_store("made")
    assert made.meta["split"] == "opt_iml"
    assert made.by_name["super_natural_instructions__task002_made"].level == "fully_held_out"
    assert prepare("own_b", "made", "--split=mini") == 2


def test_seqio_streams_the_mixture_afterwards():
    """Our task and the user's, in the vocabulary that both are registered with."""
    assert prepare("own_mix", "made") == 0
    lengths = {"inputs": 64, "targets": 64}
    dataset = seqio.get_mixture_or_task("own_mix").get_dataset(lengths, "train")
    rows = list(dataset.take(100).as_numpy_iterator())
    own = [row for row in rows if len(row["inputs"]) < 5]
    assert 10 < len(own) < 45  # a quarter of 100


def test_the_same_command_twice_keeps_the_vocabulary(capsys):
    """The second time only the user's tasks are read: nothing to train a vocabulary on."""
    assert prepare("own_mix", "made") == 0
    before = store_lib.open_store("made").meta["vocabulary"]
    assert prepare("own_mix", "made") == 0
    assert store_lib.open_store("made").meta["vocabulary"] == before
    with_another = ["prepare", "own_mix", "--module=own_tasks", "--out=made", "--vocabulary=gpt2"]
    assert "store 'made' was made with vocabulary" in message(capsys, cli.main(with_another))


def test_a_stored_benchmark_lacks_a_task_of_the_mixture(capsys, tmp_path, store):
    """The module registers other files than the store was made of."""
    assert prepare("own_mix", "made") == 0
    index = json.loads((tmp_path / "made/index.json").read_text())
    gone = "super_natural_instructions__task001_made"
    index["tasks"] = [row for row in index["tasks"] if row["spec"]["name"] != gone]
    index["mixtures"] = {}
    (tmp_path / "made/index.json").write_text(json.dumps(index))
    told = message(capsys, prepare("own_mix", "made"))
    assert f"has the benchmark 'super_natural_instructions' without the task '{gone}'" in told


def test_one_task_and_training_on_it(tmp_path, capsys, store):
    assert prepare("own_a", "made") == 0
    flags = ("--gin.MIXTURE_OR_TASK_NAME='own_a'", "--gin.MIXTURE_OR_TASK_MODULE='own_tasks.py'")
    assert cli.main([*train("made", tmp_path / "run", *flags), "--dry_run"]) == 0
    assert "mixture:     own_a, eps 4,096" in capsys.readouterr().out
    assert store_lib.open_store("made").mixtures == {}


def test_a_mixture_that_the_store_does_not_name(tmp_path):
    """Its tasks are there, so it trains; the report says why it does not know the shares."""
    assert prepare("own_a", "made") == 0
    with (tmp_path / "own_tasks.py").open("a") as file:
        file.write("seqio.MixtureRegistry.add('own_new', [('own_a', 2)])\n")
    del sys.modules["own_tasks"]
    for registry in (seqio.TaskRegistry, seqio.MixtureRegistry):
        for name in [n for n in registry.names() if n.startswith("own_") or n == "wide"]:
            registry.remove(name)
    run = tmp_path / "run"
    flags = ("--gin.MIXTURE_OR_TASK_NAME='own_new'", "--gin.MIXTURE_OR_TASK_MODULE='own_tasks.py'")
    assert cli.main(train("made", run, *flags)) == 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    found = report.find_mixture(str(run), None)
    assert found.note == (
        "Not known: 'own_new' is a mixture of own_tasks.py that the store made does not hold."
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("own_mux", "MIXTURE_OR_TASK_MODULE 'own_tasks': unknown mixture or task 'own_mux'. Did"),
        (
            "wide",
            "lacks 2 of the 2 task(s) of 'wide' (first: 'own_a'). Run `optiml prepare wide"
            " --module=own_tasks --out=",
        ),
    ],
)
def test_names_that_the_store_lacks(capsys, tmp_path, store, trained, name, expected):
    flags = (f"--gin.MIXTURE_OR_TASK_NAME='{name}'", "--gin.MIXTURE_OR_TASK_MODULE=['own_tasks']")
    assert expected in message(capsys, cli.main(train(store, tmp_path / "run", *flags)))
    evaluate = (
        *(*EVAL, f"--gin.STORE='{store}'", f"--gin.CHECKPOINT_PATH='{trained}'"),
        *(f"--gin.EVAL_OUTPUT_DIR='{tmp_path / 'out'}'", "--gin.VOCAB_SIZE=264", *flags),
    )
    assert expected in message(capsys, cli.main(evaluate))


def test_a_stored_mixture_with_a_module_that_knows_nothing_of_it(tmp_path, capsys):
    assert prepare("own_mix", "made") == 0
    (tmp_path / "own_other.py").write_text("")
    seqio.MixtureRegistry.remove("own_mix")
    flags = ("--gin.MIXTURE_OR_TASK_NAME='own_mix'", "--gin.MIXTURE_OR_TASK_MODULE='own_other'")
    assert cli.main([*train("made", tmp_path / "run", *flags), "--dry_run"]) == 0
    assert "mixture:     own_mix, rates of its own" in capsys.readouterr().out


def test_a_benchmark_of_the_store_with_a_module(tmp_path, store, capsys):
    """As in T5X the module is imported; the benchmark is the store's."""
    flags = (
        "--gin.MIXTURE_OR_TASK_NAME='super_natural_instructions'",
        "--gin.MIXTURE_OR_TASK_MODULE='own_tasks'",
    )
    assert cli.main([*train(store, tmp_path / "run", *flags), "--dry_run"]) == 0
    assert "mixture:     super_natural_instructions, eps 4,096" in capsys.readouterr().out
    assert "own_a" in seqio.TaskRegistry.names()


def test_evaluation_of_a_mixture_of_held_out_tasks(tmp_path, capsys, store, trained):
    """Tasks of the mixture without a `train` split are evaluated with it."""
    out = tmp_path / "made"
    assert prepare("wide", out) == 0
    capsys.readouterr()
    evaluate = (
        *(*EVAL, f"--gin.STORE='{out}'", f"--gin.CHECKPOINT_PATH='{trained}'"),
        *(f"--gin.EVAL_OUTPUT_DIR='{tmp_path / 'out'}'", "--gin.VOCAB_SIZE=264"),
        *("--gin.OptConfig.num_layers=1", "--gin.MIXTURE_OR_TASK_NAME='wide'", "--dry_run"),
    )
    assert cli.main(evaluate) == 0
    told = capsys.readouterr().out
    assert "23 of 2 tasks, 0-shot: partially_supervised 20, fully_supervised 3" in told


def test_the_modules_current_rates_win(tmp_path, capsys):
    """The mixture changed after the store was prepared: training says so and follows the module."""
    assert prepare("own_mix", "made") == 0
    flags = ("--gin.MIXTURE_OR_TASK_NAME='own_mix'", "--gin.MIXTURE_OR_TASK_MODULE='own_tasks'")
    arguments = [*train("made", tmp_path / "run", *flags), "--dry_run"]
    capsys.readouterr()
    assert cli.main(arguments) == 0
    told = capsys.readouterr()
    assert "the rates of" not in told.err
    assert "mixture:     own_mix, rates of its own (SeqIO), proportions as they come" in told.out
    seqio.MixtureRegistry.remove("own_mix")
    seqio.MixtureRegistry.add("own_mix", [("own_a", 1), ("super_natural_instructions", 1)])
    assert cli.main(arguments) == 0
    assert capsys.readouterr().err.strip() == (
        "note: the rates of 'own_mix' in own_tasks are not those that the store was prepared with"
        " ('own_a' 0.25 -> 0.5); the module's are used."
    )


def test_the_command_in_the_message_helps(tmp_path, capsys):
    """A mixture grew: `optiml prepare` adds what is missing, and what was there stays."""
    assert prepare("own_mix", "made") == 0
    flags = ("--gin.MIXTURE_OR_TASK_NAME='wide'", "--gin.MIXTURE_OR_TASK_MODULE='own_tasks'")
    arguments = [*train("made", tmp_path / "run", *flags), "--dry_run"]
    command = "optiml prepare wide --module=own_tasks --out=made"
    assert f"(first: 'own_b'). Run `{command}` first." in message(capsys, cli.main(arguments))
    assert cli.main(command.split()[1:]) == 0
    assert cli.main(arguments) == 0
    store = store_lib.open_store("made")
    assert set(store.mixtures) == {"own_mix", "wide"}
    assert len(store.tasks) == 4
