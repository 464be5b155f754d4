"""`optiml inspect` as a user runs it: tables in a pipe, JSON, and a terminal with colours."""

import json
import os
import pty
import subprocess
import sys

import pytest

from optiml_jax.main import cli

TASK = "super_natural_instructions__task001_made"
HELD_OUT = "super_natural_instructions__task002_made"


@pytest.fixture
def inspect(store, capsys):
    """Runs `optiml inspect --store=...` and returns what it printed."""

    def run(*flags):
        assert cli.main(["inspect", f"--store={store}", *flags]) == 0
        return capsys.readouterr().out

    return run


def test_json_keeps_the_faces_that_scripts_rely_on(inspect):
    content = json.loads(inspect("--json"))
    assert content.keys() >= {
        *("num_tasks", "num_examples", "num_tokens", "benchmarks", "categories", "levels"),
        *("lengths", "views", "vocabulary"),
    }
    assert content["num_tasks"] == 2
    assert content["levels"]["fully_held_out"]["num_eval"] == 30
    assert "tasks" not in content


def test_tables_of_a_store(inspect):
    lines = inspect().splitlines()
    assert lines[0].startswith("super_natural_instructions, split opt_iml: 2 tasks (0 more excl")
    assert any(
        line.split() == ["Textual", "Entailment", "1", "0", "0", "0", "30"] for line in lines
    )
    titles = ("benchmarks", "categories", "levels", "roles", "lengths of training examples")
    assert [line for line in lines if line in titles] == list(titles)


def test_tasks_are_listed_in_whole_lines(inspect):
    lines = inspect("--tasks", "--role=test").splitlines()
    (line,) = (line for line in lines if line.startswith(HELD_OUT))
    assert line.split()[1:] == [
        *("Textual", "Entailment", "test", "fully_held_out", "rouge_l"),
        *("0", "30", "-", "-"),
    ]
    assert len(line) > 80
    assert not any(line.startswith(TASK) for line in lines)


def test_filters_narrow_the_json(inspect):
    content = json.loads(inspect("--json", "--tasks", "--category=question answering"))
    assert [row["name"] for row in content["tasks"]] == [TASK]
    assert list(content["categories"]) == ["Question Answering"]


def test_a_mixture(inspect):
    out = inspect("--mixture", "--eps=10", "--rows=20", "--feature_length=64", "--tasks")
    assert "eps 10, alpha 1, proportions as they come" in out
    assert "20 rows of 64 tokens (greedy packing, seed 0) hold " in out
    assert " their tokens with loss, in rows of 64 tokens\n" in out
    (line,) = (line for line in out.splitlines() if line.startswith(TASK))
    name, examples, *shares, tokens, targets, epochs = line.split()
    assert shares == ["100.0"] * 3
    content = json.loads(
        inspect("--mixture", "--eps=10", "--rows=20", "--feature_length=64", "--json")
    )
    (row,) = content["tasks"]
    assert (row["name"], f"{row['num_examples']}") == (name, examples)
    assert f"{row['mean_tokens']:.1f} {row['mean_target_tokens']:.1f}" == f"{tokens} {targets}"
    assert f"{row['epochs']:.2f}" == epochs
    assert row["epochs"] == content["num_drawn_examples"] / row["num_examples"]


def test_mixing_settings_are_read(inspect):
    flags = ("--eps=none", "--alpha=0.5", "--equalize_clusters")
    proportions = "--proportions=super_natural_instructions=1.0"
    content = json.loads(inspect("--mixture", "--json", *flags, proportions))
    assert content["settings"] == {
        "eps": None,
        "alpha": 0.5,
        "proportions": {"super_natural_instructions": 1.0},
        "equalize_clusters": True,
        **{"num_tasks": None, "num_clusters": None, "subset_seed": 0},
        **{"ingredients": None, "ingredients_from": None, "replay_unit": "examples"},
        **{"rate_fn": None, "has_own_rates": False},
    }
    assert content["tasks"][0]["epochs"] is None


@pytest.mark.parametrize("name", ["eps_128", "eps_128.gin", "mixtures/eps_128.gin"])
def test_a_mixtures_file(inspect, name):
    out = inspect(name)
    assert out.startswith("mixtures/eps_128.gin of super_natural_instructions, split opt_iml: 1 tr")
    assert "eps 128, alpha 1, proportions as they come; replay=0, dialogue=0, reasoning=0;" in out
    content = json.loads(inspect(name, "--json", "--alpha=0.5"))
    assert content["mixture_file"] == "mixtures/eps_128.gin"
    assert (content["settings"]["eps"], content["settings"]["alpha"]) == (128, 0.5)
    assert content["settings"]["ingredients"] == {"replay": 0, "dialogue": 0, "reasoning": 0}
    alone = json.loads(inspect(name, f"--mixture={TASK}", "--json"))
    assert alone["mixture"] == TASK


def test_a_name_of_the_store_is_a_mixture_too(inspect):
    flagged = json.loads(inspect(f"--mixture={TASK}", "--json"))
    content = json.loads(inspect(TASK, "--json"))
    assert content == flagged
    assert content["mixture_file"] is None


def test_steps_and_batch_size_are_rows(inspect):
    length = "--feature_length=64"
    rows = json.loads(inspect("eps_128", "--rows=512", length, "--json"))
    assert json.loads(inspect("eps_128", "--steps=2", length, "--json")) == rows
    steps = ("--steps=64", "--batch_size=8")
    assert json.loads(inspect("eps_128", *steps, length, "--json")) == rows
    assert rows["tasks"][0]["epochs"] > 1


def test_packing_and_seed_are_those_of_a_run(inspect):
    flags = ("eps_128", "--rows=40", "--feature_length=64")
    assert "40 rows of 64 tokens (first_fit packing, seed 1234) hold " in inspect(
        *flags, "--packing=first_fit", "--seed=1234"
    )
    greedy = json.loads(inspect(*flags, "--json"))
    full = json.loads(inspect(*flags, "--packing=first_fit", "--json"))
    assert full["num_drawn_examples"] > greedy["num_drawn_examples"]
    assert (greedy["packing"], greedy["seed"], full["packing"]) == ("greedy", 0, "first_fit")


def test_shares_are_of_rows_of_the_feature_length(inspect):
    """With or without an epoch to count."""
    short = json.loads(inspect("eps_128", "--feature_length=8", "--json"))
    long = json.loads(inspect("eps_128", "--json"))
    assert (short["feature_length"], long["feature_length"]) == (8, 2048)
    assert short["mean_tokens"] == 9 < long["mean_tokens"]


def test_what_every_subset_holds_may_be_absent(capsys, store, tmp_path):
    path = tmp_path / "one_task.gin"
    path.write_text("MixtureSpec.num_tasks = 1\n")
    assert cli.main(["inspect", str(path), f"--store={store}", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "note: every subset of tasks is to hold 4 that the fully supervised evaluation" in err
    (note,) = json.loads(out)["notes"]
    assert note in err
    assert cli.main(["inspect", "tasks_16", "--split=t0"]) == 0
    assert "3 of them cannot be drawn here: flan__squad_v1, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--mixture --packing=first_fit", "--packing has no effect without --rows"),
        ("--mixture --seed=1", "--seed has no effect without --rows"),
        ("--mixture --rows=5 --packing=best", "--packing: unknown packing 'best'"),
        ("--mixture --rows=5 --seed=-1", "--seed is -1, expected a whole number of 0 or more"),
        ("--feature_length=64", "--feature_length has no effect without --mixture"),
        ("--mixture --steps=1 --batch_size=10000000000", "is 10,000,000,000, expected 1 to"),
        (
            "--mixture --proportions=super_natural_instructions=0.3",
            "proportions sum to 0.3, and no other benchmark is left to take the rest",
        ),
    ],
)
def test_settings_that_cannot_be(capsys, store, flags, message):
    assert cli.main(["inspect", f"--store={store}", *flags.split()]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert not out


def test_json_has_no_nan(inspect):
    content = inspect("--mixture", "--alpha=100", f"--eps=1{'0' * 400}", "--json")
    assert json.loads(content)["tasks"][0]["example_share"] == 1
    assert "NaN" not in content


def test_a_file_of_ones_own(inspect, tmp_path, monkeypatch):
    own = "# Mine.\nSHARE = 1.0\nMixtureSpec.proportions = {'super_natural_instructions': %SHARE}\n"
    (tmp_path / "mine.gin").write_text(own)
    (tmp_path / "empty.gin").write_text("# Nothing.\n")
    path = tmp_path / "mine.gin"
    assert "proportions super_natural_instructions=1;" in inspect(str(path))
    monkeypatch.chdir(tmp_path)
    assert json.loads(inspect("mine.gin", "--json"))["mixture_file"] == "mine.gin"


def test_a_file_that_is_no_mixture(capsys, tmp_path):
    for name, text, message in (
        ("empty.gin", "# Nothing.\n", "it binds nothing of MixtureSpec: it is no mixture."),
        ("bad.gin", "MixtureSpec.ingredients = {'replay': -1.0}\n", "['replay'] is -1.0, expected"),
        ("wrong.gin", "MixtureSpec.esp = 1\n", "unknown parameter of MixtureSpec 'esp'. Did you"),
        (
            "nan.gin",
            "MixtureSpec.alpha = float('nan')\n",
            "MixtureSpec.alpha is float('nan'), expec",
        ),
        ("name.gin", "MixtureSpec.proportions = {'flna': 1.0}\n", "Did you mean 'flan'?"),
        (
            "taken.gin",
            "MixtureSpec.proportions = {'flan': 0.98, 't5': 0.02}\n"
            "MixtureSpec.ingredients = {'replay': 0.5}\nMixtureSpec.ingredients_from = 't5'\n",
            "taken.gin: MixtureSpec.ingredients take a share of 0.5 from 't5', which has 0.02",
        ),
        ("unused.gin", "X = 1\nMixtureSpec.eps = 1\n", "unknown macro 'X'"),
    ):
        (tmp_path / name).write_text(text)
        assert cli.main(["inspect", str(tmp_path / name)]) == 2
        out, err = capsys.readouterr()
        assert message in err
        assert not out


def test_a_mixture_without_a_store(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*flags):
        assert cli.main(["inspect", *flags]) == 0
        return capsys.readouterr().out

    lines = run("opt_iml").splitlines()
    assert lines[0].startswith("mixtures/opt_iml.gin, split opt_iml: ")
    (line,) = (line for line in lines if line.startswith("promptsource"))
    assert line.split()[2] == "42.3"  # .94 x 45 %
    (line,) = (line for line in lines if line.startswith("replay"))
    assert line.split() == ["replay", "0", "5.00"]
    assert run("opt_iml_max").startswith("mixtures/opt_iml_max.gin, split opt_iml_max: ")
    content = json.loads(run("tasks_64", "--json"))
    assert (content["num_tasks"], len(content["tasks"])) == (64, 64)
    assert sum(row["num_tasks"] for row in content["benchmarks"].values()) == 64
    assert content["benchmarks"]["flan"]["example_share"] is None
    flan = json.loads(run("tasks_64", "--json", "--benchmark=flan"))
    assert flan["tasks"] == [row for row in content["tasks"] if row["benchmark"] == "flan"]
    assert list(flan["benchmarks"]) == ["flan"]
    listed = run("tasks_16", "--tasks").splitlines()
    assert "16 tasks" in listed
    assert any(line.startswith("promptsource__blended_skill_talk ") for line in listed)


def test_counts_without_a_store_are_of_tasks_that_can_be_drawn(capsys):
    assert cli.main(["inspect", "proportions_0_0_35_30_35_0_0", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    drawn = {"flan", "super_natural_instructions", "promptsource"}
    assert {row["benchmark"] for row in content["tasks"]} == drawn
    assert content["num_tasks"] == len(content["tasks"]) < content["num_catalog_tasks"]
    assert content["benchmarks"]["t5"] == {"num_tasks": 0, "example_share": 0}


def test_a_mixture_under_any_split(capsys, tmp_path):
    own = tmp_path / "own.tsv"
    rows = ("role\tfield\tpattern", "excluded\tbenchmark\tflan", "train\tdefault\t")
    own.write_text("\n".join(rows) + "\n")
    for split, names in (
        ("flan_entailment", {"flan"}),
        ("opt_iml_max", {"flan", "t5"}),
        (str(own), {"t5"}),
    ):
        flags = ("--catalog", f"--split={split}", "--role=train", "--json")
        assert cli.main(["inspect", *flags]) == 0
        rows = json.loads(capsys.readouterr().out)["tasks"]
        assert cli.main(["inspect", "tasks_all", f"--split={split}", "--json"]) == 0
        content = json.loads(capsys.readouterr().out)
        assert content["num_catalog_tasks"] == len(rows)
        trained = {row["benchmark"] for row in content["tasks"]}
        assert trained & {"flan", "t5"} == names
    # A share that no task of the split can fill is named.
    assert cli.main(["inspect", "opt_iml", f"--split={own}"]) == 0
    assert "gives shares to flan, of which split 'own' trains on no task" in capsys.readouterr().err
    assert cli.main(["inspect", "opt_iml"]) == 0
    assert capsys.readouterr().err == ""


def test_a_store_has_one_split(capsys, store):
    assert cli.main(["inspect", "eps_128", f"--store={store}", "--split=opt_iml"]) == 2
    assert "a store has one split" in capsys.readouterr().err


def test_a_benchmark_without_a_share_may_be_absent(inspect, tmp_path):
    path = tmp_path / "mine.gin"
    shares = {"super_natural_instructions": 1.0, "t5": 0.0, "crossfit": 0.0}
    path.write_text(f"MixtureSpec.proportions = {shares}\n")
    content = json.loads(inspect(str(path), "--json"))
    assert [row["example_share"] for row in content["tasks"]] == [1.0]


def test_a_training_sample_is_marked_in_a_pipe(inspect):
    out = inspect("--samples=1")
    head, text = out.split(")\n", 1)
    assert head.startswith(f"--- {TASK}, train_0 0 (Question Answering, fully_supervised; ")
    assert "Say the word again." in text
    source, _, marked = text.partition("⟦")
    word = marked.removesuffix("</s>⟧\n\n").strip()
    assert word.startswith("word")
    assert word in source


def test_an_evaluation_sample_shows_its_references(inspect):
    out = inspect("--samples=2", "--view=eval_0shot", f"--task={HELD_OUT}")
    assert out.count(f"--- {HELD_OUT}, eval_0shot ") == 2
    assert "\nreferences:    word0\n" in out
    assert "⟦" not in out
    content = json.loads(inspect("--samples=1", "--view=eval_0shot", "--json"))
    assert content["view"] == "eval_0shot"
    assert content["samples"][0]["references"] == [content["samples"][0]["input"]]


def test_verify_is_kept(inspect, store):
    out = inspect("--verify", "--samples=1")
    assert out.endswith(f"verified: all shards of {store} are as they were written.\n")


def test_the_embedded_catalog(capsys):
    assert cli.main(["inspect", "--catalog=mini", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert {row["benchmark"] for row in content["tasks"]} >= {"mini", "dialogue", "replay"}
    flags = ("--catalog=mini", "--level=fully_held_out", "--benchmark=mini")
    assert cli.main(["inspect", *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = [row for row in content["tasks"] if row["level"] == "fully_held_out"]
    assert lines[0] == f"{len(expected)} tasks"
    assert len([line for line in lines if "fully_held_out" in line]) == len(expected)


@pytest.fixture
def catalog(capsys):
    """Runs `optiml inspect --catalog ...` and returns what it printed."""

    def run(*flags):
        assert cli.main(["inspect", "--catalog", *flags]) == 0
        return capsys.readouterr().out

    return run


def test_the_catalog_needs_neither_store_nor_data(catalog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = json.loads(catalog("--json"))
    assert content["split"] == "opt_iml"
    assert content["num_tasks"] == len(content["tasks"]) >= 1900
    assert len(content["categories"]) >= 100
    for row in content["tasks"]:
        assert row.keys() >= {
            *("name", "benchmark", "category", "level", "role", "metric", "opt_iml"),
            *("opt_iml_max", "sources", "instruction_kind", "answer", "languages", "licence"),
        }
    for name in ("benchmarks", "categories"):
        groups = content[name].values()
        for count in ("num_tasks", "train", "excluded", "opt_iml", "opt_iml_max"):
            assert sum(group[count] for group in groups) == content[count]


def test_the_catalog_is_counted(catalog):
    lines = catalog().splitlines()
    assert lines[0].startswith("OPT-IML Bench, split opt_iml: 2,178 tasks in 104 of 107 categor")
    assert [line for line in lines if line in ("benchmarks", "levels", "categories")]
    (line,) = (line for line in lines if line.startswith("reasoning"))
    assert line.split() == ["reasoning", "14", "10", "2", "0", "2", "14"]
    assert max(map(len, lines)) <= 80


def test_the_catalog_is_filtered_and_listed(catalog):
    filters = ("--benchmark=flan", "--category=question answering", "--role=test")
    lines = catalog("--tasks", *filters).splitlines()
    assert lines[3] == "4 tasks"
    (line,) = (line for line in lines if line.startswith("flan__bool_q "))
    assert line.split()[1:6] == [
        "Question",
        "Answering",
        "test",
        "partially_supervised",
        "accuracy",
    ]
    assert line.endswith("(OPT-IML §5.3)")
    trained = catalog("--tasks", "--benchmark=exmix", "--role=train")
    assert "shakespearizing_modern_english" in trained.split("data sets")[1]


def test_the_catalog_under_other_splits(catalog):
    most = json.loads(catalog("--json", "--split=opt_iml_max", "--role=train"))
    assert most["num_tasks"] == most["opt_iml_max"] > most["opt_iml"]
    official = "super_natural_instructions_official"
    tested = json.loads(catalog("--json", f"--split={official}", "--level=fully_held_out"))
    assert tested["num_tasks"] == tested["test"] == 119


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--benchmark=flann", "the catalog: unknown benchmark 'flann'. Did you mean 'flan'?"),
        ("--benchmark=mini", "benchmark 'mini' is not part of OPT-IML Bench. --catalog=mini shows"),
        ("--category=Translate", "unknown category 'Translate'. Did you mean 'Translation'?"),
        ("--role=trian", "unknown role 'trian'. Did you mean 'train'?"),
        ("--level=held_out", "unknown level 'held_out'. Did you mean 'fully_held_out'?"),
        ("--split=opt_iml_maxx", "unknown split 'opt_iml_maxx'. Did you mean 'opt_iml_max'?"),
        ("--split=mini", "--split=mini: the tasks of this split are not in the catalog of OPT-IML"),
        ("--benchmark=t5 --role=test", "has benchmark 't5' and role 'test'. Leave a filter out."),
        ("--data_dir=.", "--data_dir needs to know whose files these are: --catalog=BENCHMARK"),
    ],
)
def test_the_catalog_says_what_is_wrong(capsys, flags, message):
    assert cli.main(["inspect", "--catalog", *flags.split()]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert not out


def test_a_folders_catalog_is_always_listed(capsys):
    assert cli.main(["inspect", "--catalog=mini", "--tasks"]) == 2
    assert "--tasks has no effect with --catalog=mini, which lists" in capsys.readouterr().err


def test_a_terminal_gets_colour_instead_of_marks(store):
    """A real pseudo-terminal, as a user's own."""
    reader, writer = pty.openpty()
    argv = [sys.executable, "-m", "optiml_jax", "inspect", f"--store={store}", "--samples=1"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(argv, stdout=writer, stderr=writer, env=environment) as process:
        os.close(writer)
        told = b""
        while True:
            try:
                part = os.read(reader, 4096)
            except OSError:  # Linux says so where the other end is closed.
                break
            if not part:
                break
            told += part
    os.close(reader)
    assert process.returncode == 0, told
    text = told.decode()
    assert "⟦" not in text
    marked = text.split("\x1b[1;32m")[1].split("\x1b[0m")[0]
    assert marked.endswith("</s>")
    assert marked.strip().startswith("word")
