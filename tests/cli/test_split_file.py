"""A split of a user's own on the command line, and the notes on empty levels."""

import dataclasses
import json

import pytest

from optiml_jax import tasks as declarations  # pyright: ignore[reportAttributeAccessIssue]
from optiml_jax.bench import catalog_table, splits
from optiml_jax.data import store as store_lib
from optiml_jax.errors import InputError
from optiml_jax.main import cli, split_notes

from .commands import prepare, task_file

HEAD = "role\tlevel\tfield\tpattern\treason\n"
LAST = "train\t\tdefault\t\tall others\n"
TEST = "test\tfully_held_out\tcategory\tTextual Entailment\tthe question\n"


@pytest.fixture
def task_dir(tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, category in (("001_a", "Text Matching"), ("002_b", "Textual Entailment")):
        text = json.dumps({**task_file(), "Categories": [category], "Source": [name]})
        (folder / f"task{name}.json").write_text(text)
    return folder


@pytest.fixture
def split(tmp_path):
    def write(*rows, name="mine.tsv"):
        path = tmp_path / name
        path.write_text(HEAD + "".join(rows))
        return f"--split={path}"

    return write


def roles(store):
    return {t.spec.original_name: (t.role, t.level) for t in store_lib.open_store(store).tasks}


def test_a_store_keeps_its_split_file(task_dir, tmp_path, split, capsys):
    store = tmp_path / "store"
    assert cli.main(prepare(task_dir, store, split(TEST, LAST))) == 0
    err = capsys.readouterr().err
    assert "note: split 'mine' leaves the level partially_supervised empty" in err
    assert "leaves the level fully" not in err
    meta = store_lib.open_store(store).meta
    assert (meta["split"], meta["render"]["split_rules"]) == ("mine", HEAD + TEST + LAST)
    assert len(meta["render"]["split_digest"]) == 16
    before = roles(store)
    assert before["task002_b"] == ("test", "fully_held_out")
    # The next run needs no file.
    (tmp_path / "mine.tsv").unlink()
    assert cli.main(prepare(task_dir, store)) == 0
    assert "0 tasks rendered, 2 taken over" in capsys.readouterr().out
    assert roles(store) == before


def test_a_changed_file_is_noticed(task_dir, tmp_path, split, capsys):
    store = tmp_path / "store"
    assert cli.main(prepare(task_dir, store, split(TEST, LAST))) == 0
    row = "excluded\t\ttask\ttask001_a\tnot now\n"
    capsys.readouterr()
    assert cli.main(prepare(task_dir, store, split(row, TEST, LAST))) == 0
    assert "the rows of split 'mine' have changed since" in capsys.readouterr().err
    assert roles(store)["task001_a"] == ("excluded", "")
    # Another benchmark's tasks would stay where the old rows put them.
    mini = ["prepare", "mini", f"--out={store}", "--tasks=extract_drink"]
    index = (store / store_lib.INDEX_FILE).read_bytes()
    assert cli.main([*mini, split(TEST, LAST)]) == 2
    assert "was made with split_digest" in capsys.readouterr().err
    assert roles(store)["task001_a"] == ("excluded", "")
    assert (store / store_lib.INDEX_FILE).read_bytes() == index


def test_another_split_than_the_stores_is_refused(task_dir, tmp_path, split, capsys):
    store = tmp_path / "store"
    assert cli.main(prepare(task_dir, store, split(TEST, LAST))) == 0
    assert cli.main(prepare(task_dir, store, split(TEST, LAST, name="other.tsv"))) == 2
    assert "was made with split mine, this run has other" in capsys.readouterr().err
    assert cli.main(prepare(task_dir, store, "--split=opt_iml")) == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((TEST,), "the last row says what becomes of all other tasks"),
        (("test\tfully_held_out\ttask\ttask001_a\t\n", LAST.replace("train", "trian")), "'trian'"),
        (
            ("test\tfully_held_out\ttask\ttask001_a\t\n", "test\tpartially_supervised\tname\t"
             "super_natural_instructions__task001_a\t\n", LAST),
            "is test and fully_held_out by the row task 'task001_a' and test and partially_super",
        ),
    ],
)  # fmt: skip
def test_a_bad_file_writes_nothing(task_dir, tmp_path, split, capsys, rows, message):
    store = tmp_path / "store"
    assert cli.main(prepare(task_dir, store, split(*rows))) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "mine.tsv" in err
    assert not store.exists()


def test_a_held_out_category_that_trains_writes_nothing(task_dir, tmp_path, split, capsys):
    text = json.dumps({**task_file(), "Categories": ["Textual Entailment"]})
    (task_dir / "task003_c.json").write_text(text)
    row = "test\tfully_held_out\ttask\ttask002_b\t\n"
    assert cli.main(prepare(task_dir, tmp_path / "store", split(row, LAST))) == 2
    assert "category 'Textual Entailment' is trained on ('task003_c')" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_a_category_held_out_beside_a_stored_benchmark(task_dir, tmp_path, split, capsys):
    row = "test\tfully_held_out\ttask\ttask002_b\t\n"
    store, flag = tmp_path / "store", split(row, LAST)
    assert cli.main(prepare(task_dir, store, flag)) == 0
    index = (store / store_lib.INDEX_FILE).read_bytes()
    assert cli.main(["prepare", "mini", f"--out={store}", flag]) == 2
    assert "category 'Textual Entailment' is trained on ('mini__" in capsys.readouterr().err
    assert (store / store_lib.INDEX_FILE).read_bytes() == index


@pytest.mark.parametrize(
    ("row", "base", "category"),
    [
        ("train\t\tname\tflan__cb\t\n", "flan_entailment", "entailment"),
        ("test\tfully_held_out\tname\tflan__xsum\t\n", "flan_entailment", "summarization"),
        (
            "train\t\tname\tcrossfit__glue_rte\t\n",
            *("crossfit_train_non_nli_test_nli", "Natural Language Inference"),
        ),
        ("train\t\tname\tpromptsource__hellaswag\t\n", "t0", "Sentence Completion"),
    ],
)
def test_a_file_cannot_train_on_what_its_base_holds_out(split, capsys, row, base, category):
    assert cli.main(["inspect", "--catalog", split(row, f"\t\tsplit\t{base}\t\n")]) == 2
    out, err = capsys.readouterr()
    assert f"mine.tsv: category '{category}' is trained on ('" in err
    assert not out


def test_idle_rows_are_told(task_dir, tmp_path, split, capsys):
    # Of another benchmark, and of none.
    rows = ("excluded\t\tname\tflan__rte\t\n", "train\t\tname\tflan__rtee\t\n", TEST, LAST)
    assert cli.main(prepare(task_dir, tmp_path / "store", split(*rows))) == 0
    err = capsys.readouterr().err
    assert "mine.tsv: no task has name 'flan__rtee'. Did you mean 'flan__rte'?" in err
    assert "'flan__rte'." not in err


def test_a_slip_in_a_row_that_holds_out_writes_nothing(task_dir, tmp_path, split, capsys):
    flag = split(TEST.replace("Entailment", "Entailmnt"), LAST)
    assert cli.main(prepare(task_dir, tmp_path / "store", flag)) == 2
    err = capsys.readouterr().err
    assert "mine.tsv:2: no task has category 'Textual Entailmnt'" in err
    assert "Did you mean 'Textual Entailment'?" in err
    assert not (tmp_path / "store").exists()
    assert cli.main(["inspect", "--catalog", flag]) == 2
    assert "Did you mean 'Textual Entailment'?" in capsys.readouterr().err


GIGAWORD = "test\tpartially_supervised\tname\tflan__gigaword\tmine\n"
ON_OPT_IML = "\t\tsplit\topt_iml\trest\n"


def test_training_on_evaluated_data_is_told(task_dir, tmp_path, split, capsys):
    text = json.dumps({**task_file(), "Source": ["gigaword"], "Categories": ["Summarization"]})
    (task_dir / "task003_c.json").write_text(text)
    flag = split(GIGAWORD, LAST)
    assert cli.main(prepare(task_dir, tmp_path / "store", flag)) == 0
    told = (
        "1 training task names the data of an evaluated task (first:"
        " 'super_natural_instructions__task003_c', data set 'gigaword', evaluated in 'gigaword')"
    )
    assert told in capsys.readouterr().err
    assert cli.main(["inspect", "--catalog", flag]) == 0
    assert "training tasks name the data of an evaluated task" in capsys.readouterr().err
    row = "excluded\t\tsource\tgigaword\t\n"
    assert cli.main(["inspect", "--catalog", split(GIGAWORD, row, LAST)]) == 0
    assert "data of an evaluated task" not in capsys.readouterr().err


def test_copies_of_suites_that_train_are_told(task_dir, tmp_path, split, capsys):
    assert cli.main(["inspect", "--catalog", split(LAST)]) == 0
    err = capsys.readouterr().err
    assert "mine.tsv: 58 training tasks copy evaluation suites (first: '" in err
    row = "excluded\t\tsource\tbig*bench*\n"
    assert "excluded, field source, pattern big*bench*" in err
    # Read alone, and of a folder's tasks.
    text = json.dumps({**task_file(), "Source": ["bigbench"]})
    (task_dir / "task003_bigbench.json").write_text(text)
    assert cli.main(prepare(task_dir, tmp_path / "store", split(LAST))) == 0
    assert "1 training task copies evaluation suites (first: 'super" in capsys.readouterr().err
    assert cli.main(prepare(task_dir, tmp_path / "without", split(row, LAST))) == 0
    assert "evaluation suites" not in capsys.readouterr().err


def test_a_partially_supervised_category_without_training_is_told(
    task_dir, tmp_path, split, capsys
):
    row = "test\tpartially_supervised\tcategory\tTextual Entailment\tx\n"
    flag = split(row, LAST)
    assert cli.main(["inspect", "--catalog", flag]) == 0
    told = (
        "64 tasks are partially_supervised, and no training task in the catalog has their category:"
    )
    assert f"{told} Textual Entailment." in capsys.readouterr().err
    store = tmp_path / "store"
    assert cli.main(prepare(task_dir, store, flag)) == 0
    told = f"1 task is partially_supervised, and no training task of {store} has its category: T"
    assert told in capsys.readouterr().err
    text = json.dumps({**task_file(), "Categories": ["Textual Entailment"]})
    (task_dir / "task003_c.json").write_text(text)
    assert cli.main(prepare(task_dir, store, split("train\t\ttask\ttask003_c\n", row, LAST))) == 0
    assert "partially_supervised, and" not in capsys.readouterr().err


def test_the_catalog_under_a_file_on_opt_iml_shares_no_data(split, capsys):
    flag = split(GIGAWORD, ON_OPT_IML)
    assert cli.main(["inspect", "--catalog", "--json", flag]) == 0
    out, err = capsys.readouterr()
    assert "data of an evaluated task" not in err
    on = [task for task in json.loads(out)["tasks"] if "gigaword" in task["sources"]]
    assert {task["name"] for task in on if task["role"] == "test"} == {"flan__gigaword"}
    assert len(on) > 1
    assert "train" not in {task["role"] for task in on}


def test_evaluated_data_of_a_stored_benchmark_does_not_train(task_dir, tmp_path, split, capsys):
    # The embedded benchmark's are no tasks of the catalog.
    text = json.dumps({**task_file(), "Source": ["mini_extract_drink"]})
    (task_dir / "task003_c.json").write_text(text)
    store = tmp_path / "store"
    row = "validation\tpartially_supervised\tname\tmini__extract_drink\t\n"
    flag = split(row, ON_OPT_IML)
    assert cli.main(prepare(task_dir, store, flag)) == 0
    index = (store / store_lib.INDEX_FILE).read_bytes()
    assert cli.main(["prepare", "mini", f"--out={store}", flag]) == 2
    err = capsys.readouterr().err
    assert "task003_c' trains on the data of 'mini_extract_drink', and 'extract_drink'" in err
    assert (store / store_lib.INDEX_FILE).read_bytes() == index


def test_evaluated_data_of_a_stored_benchmark_does_not_train_under_opt_iml(
    task_dir, tmp_path, capsys
):
    """A task of your own of a test category, and text that is named after its data."""
    text = json.dumps({**task_file(), "Source": ["own"], "Categories": ["Textual Entailment"]})
    (task_dir / "task003_c.json").write_text(text)
    store = tmp_path / "store"
    assert cli.main(prepare(task_dir, store)) == 0
    index = (store / store_lib.INDEX_FILE).read_bytes()
    folder = write_dialogues(tmp_path / "dialogues")
    assert cli.main(["prepare", "dialogue", f"--data_dir={folder}", f"--out={store}"]) == 2
    err = capsys.readouterr().err
    assert "split 'opt_iml': 'dialogue__own' trains on the data of 'own', and 'task003_c'" in err
    assert "pattern dialogue__own, the last row with the field split and the pattern opt_iml" in err
    assert (store / store_lib.INDEX_FILE).read_bytes() == index


def test_evaluated_data_of_the_catalog_does_not_train_under_opt_iml(task_dir, tmp_path):
    """Perspectrum is evaluated in Super-NaturalInstructions, and this folder has no task of it."""
    text = json.dumps({**task_file(), "Source": ["perspectrum"]})
    (task_dir / "task003_c.json").write_text(text)
    store = tmp_path / "store"
    assert cli.main(prepare(task_dir, store)) == 0
    assert roles(store)["task003_c"] == ("excluded", "")


@pytest.mark.parametrize("lists", [(), ("train_tasks.txt",)])
def test_lists_that_cannot_be_used_concern_the_official_split_alone(
    task_dir, tmp_path, split, capsys, lists
):
    folder = task_dir / "splits" / "default"
    folder.mkdir(parents=True)
    for name in lists:
        (folder / name).write_text("task001_a\n")
    assert cli.main(prepare(task_dir, tmp_path / "store", "--split=opt_iml")) == 0
    assert cli.main(prepare(task_dir, tmp_path / "mine", split(TEST, LAST))) == 0
    capsys.readouterr()
    flag = "--split=super_natural_instructions_official"
    assert cli.main(prepare(task_dir, tmp_path / "official", flag)) == 2
    assert "_tasks.txt: cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "official").exists()


@pytest.mark.parametrize(
    ("split", "track", "tested"),
    [
        ("super_natural_instructions_official", "default", "task002_b"),
        ("super_natural_instructions_xlingual", "xlingual", "task001_a"),
    ],
)
def test_each_official_split_has_lists_of_its_own(task_dir, tmp_path, capsys, split, track, tested):
    names = ("task001_a", "task002_b")
    for folder, (train, test) in {"default": names, "xlingual": names[::-1]}.items():
        lists = task_dir / "splits" / folder
        lists.mkdir(parents=True)
        (lists / "train_tasks.txt").write_text(train + "\n")
        (lists / "test_tasks.txt").write_text(test + "\n")
    store = tmp_path / "store"
    assert cli.main(prepare(task_dir, store, f"--split={split}")) == 0
    found = roles(store)
    assert {name for name, (role, _) in found.items() if role == "test"} == {tested}
    assert found[tested][1] == "fully_held_out"
    for path in (task_dir / "splits" / track).iterdir():
        path.unlink()
    (task_dir / "splits" / track).rmdir()
    capsys.readouterr()
    assert cli.main(prepare(task_dir, tmp_path / "other", f"--split={split}")) == 2
    assert f"with splits/{track}/{{train,test}}_tasks.txt" in capsys.readouterr().err


def test_a_file_with_a_benchmarks_name_is_refused(task_dir, tmp_path, split, capsys):
    flag = split(TEST, LAST, name="flan.tsv")
    assert cli.main(prepare(task_dir, tmp_path / "store", flag)) == 2
    assert "has the name of the benchmark 'flan'" in capsys.readouterr().err


def test_an_unknown_split_offers_the_nearest(task_dir, tmp_path, capsys):
    assert cli.main(prepare(task_dir, tmp_path / "store", "--split=flan_entailmnt")) == 2
    assert "Did you mean 'flan_entailment'?" in capsys.readouterr().err
    assert cli.main(prepare(task_dir, tmp_path / "store", "--split=t0")) == 2
    assert "split 't0' places the tasks of promptsource alone" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


MODULE = """
import seqio
from optiml_jax import tasks
from optiml_jax.data import rendering

config = rendering.RenderConfig(split={split!r})
tasks.register("super_natural_instructions", data_dir={data!r}, config=config)
seqio.MixtureRegistry.add("split_mix", [("super_natural_instructions", 1)])
"""


@pytest.fixture
def module(task_dir, tmp_path, split):
    """Your module, which registers a benchmark under a split file."""
    import seqio

    path = tmp_path / "own_split.py"
    flag = split(TEST, LAST)
    path.write_text(MODULE.format(split=flag.partition("=")[2], data=str(task_dir)))
    registries = (seqio.TaskRegistry, seqio.MixtureRegistry)
    known = {registry: set(registry.names()) for registry in registries}
    yield str(path)
    for registry, names in known.items():
        for name in set(registry.names()) - names:
            registry.remove(name)


def test_seqio_tasks_are_registered_under_a_file(module, tmp_path):
    store = tmp_path / "store"
    flags = (f"--module={module}", f"--out={store}", "--vocabulary=small", "--vocab_size=264")
    assert cli.main(["prepare", "split_mix", *flags]) == 0
    meta = store_lib.open_store(store).meta
    assert (meta["split"], meta["render"]["split_rules"]) == ("mine", HEAD + TEST + LAST)
    assert roles(store)["task002_b"] == ("test", "fully_held_out")
    # Again, and the benchmark alone: the store's rows are the module's.
    assert cli.main(["prepare", "split_mix", *flags]) == 0
    assert cli.main(prepare(tmp_path / "tasks", store)) == 0
    assert roles(store)["task002_b"] == ("test", "fully_held_out")


def test_the_catalog_under_a_file(split, capsys):
    flag = split("train\t\tbenchmark\tcrossfitt\t\n", TEST, "\t\tsplit\topt_iml\t\n")
    assert cli.main(["inspect", "--catalog", "--json", flag]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["split"] == "mine"
    assert "no task has benchmark 'crossfitt'. Did you mean 'crossfit'?" in err
    assert found["notes"][0] in err
    by_name = {task["name"]: task for task in found["tasks"]}
    assert by_name["flan__rte"]["role"] == "test"
    assert by_name["promptsource__hans"]["role"] == "test"
    assert by_name["super_natural_instructions__task1557_jfleg_answer_generation"]["level"] == (
        "fully_held_out"
    )


def test_the_catalog_under_a_published_split(capsys):
    assert cli.main(["inspect", "--catalog", "--json", "--split=flan_entailment"]) == 0
    out, err = capsys.readouterr()
    tested = {t["name"]: t for t in json.loads(out)["tasks"] if t["role"] == "test"}
    assert len(tested) == 10
    assert tested["flan__qnli"]["category"] == "entailment"
    assert "leaves the level partially_supervised empty" in err
    assert "(FLAN holds out a whole cluster)" in err


def test_data_that_the_file_evaluates_leaves_in_every_benchmark(tmp_path, split):
    """FLAN's Gigaword is evaluated: Super-NaturalInstructions', read alone, must not train."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, source in (("001_a", "gigaword"), ("002_b", "toy")):
        text = json.dumps({**task_file(), "Categories": ["Text Matching"], "Source": [source]})
        (folder / f"task{name}.json").write_text(text)
    store = tmp_path / "store"
    row = "test\tpartially_supervised\tname\tflan__gigaword\tmine\n"
    last = "\t\tsplit\topt_iml\trest\n"
    assert cli.main(prepare(folder, store, split(row, last))) == 0
    found = roles(store)
    assert found["task001_a"][0] == "excluded"
    assert found["task002_b"][0] == "train"
    assert "gigaword" in store_lib.open_store(store).tasks[0].reason


def write_dialogues(folder):
    for name in (
        "dailydialog/train",
        "dialogsum.dev",
        "own",
        "dstc8-schema-guided-dialogue/dev/001",
    ):
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"turns": ["Hello there", "Hi!"]}\n')
    return folder


def text_roles(store):
    return {t.spec.original_name: (t.role, t.reason) for t in store_lib.open_store(store).tasks}


def test_text_named_after_evaluated_data_does_not_train(task_dir, tmp_path, capsys):
    """DailyDialog is evaluated by OPT-IML, and DialogSum holds it."""
    folder = write_dialogues(tmp_path / "dialogues")
    store = tmp_path / "store"
    command = ["prepare", "dialogue", f"--data_dir={folder}", f"--out={store}"]
    assert cli.main([*command, "--vocabulary=small", "--vocab_size=264"]) == 0
    found = text_roles(store)
    assert {name: role for name, (role, _) in found.items()} == {
        "dailydialog/train": "excluded",
        "dialogsum.dev": "excluded",
        "dstc8-schema-guided-dialogue/dev/001": "excluded",
        "own": "train",
    }
    assert "DailyDialog (§5.4), which is a part of it" in found["dialogsum.dev"][1]
    assert "leakage" not in capsys.readouterr().err
    # Beside evaluated tasks the rest is named.
    assert cli.main(["prepare", "super_natural_instructions", *prepare(task_dir, store)[2:]]) == 0
    told = capsys.readouterr().err
    assert f"`optiml leakage --store={store}`" in told
    assert "(1 in all, first 'dialogue__own')" in told


def test_rows_of_a_file_place_text(tmp_path, split):
    """What rows evaluate or exclude leaves; a row may train it; no default takes it out."""
    folder = write_dialogues(tmp_path / "dialogues")
    store = tmp_path / "store"
    rows = (
        "test\tfully_held_out\tsource\tdailydialog\tasked\n",
        "train\t\tname\tdialogue__dialogsum*\tcompared by hand\n",
        "excluded\t\tdefault\t\tothers\n",
    )
    command = ["prepare", "dialogue", f"--data_dir={folder}", f"--out={store}", split(*rows)]
    assert cli.main([*command, "--vocabulary=small", "--vocab_size=264"]) == 0
    found = text_roles(store)
    assert found["dailydialog/train"] == ("excluded", "evaluated data: asked")
    assert found["dialogsum.dev"] == ("train", "compared by hand")
    assert found["own"][0] == "train"


def test_text_named_after_what_a_published_split_evaluates_does_not_train(tmp_path, split, capsys):
    """No task is read beside it: what a split evaluates stands in the catalog."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("rte", "wsc", "own"):
        (folder / f"{name}.txt").write_text("Some text.\n" * 40)

    def found(store, flag):
        command = ["prepare", "replay", f"--data_dir={folder}", f"--out={tmp_path / store}", flag]
        assert cli.main([*command, "--vocabulary=small", "--vocab_size=264"]) == 0
        return {name: role for name, (role, _) in text_roles(tmp_path / store).items()}

    out = "excluded"
    flags = {
        "flan": ("--split=flan_entailment", {"rte": out, "wsc": out, "own": "train"}),
        "t0": ("--split=t0", {"rte": out, "wsc": out, "own": "train"}),
        "official": (
            "--split=super_natural_instructions_official",
            {"rte": out, "wsc": out, "own": "train"},
        ),
        "default": (split(LAST), {"rte": "train", "wsc": "train", "own": "train"}),
    }
    for store, (flag, roles) in flags.items():
        assert found(store, flag) == roles, store
    err = capsys.readouterr().err
    assert "published so" not in err
    # A row trains it: the user has said so.
    flag = split("train\t\tname\treplay__rte\tcompared by hand\n", "\t\tsplit\tflan_entailment\n")
    assert found("mine", flag) == {"rte": "train", "wsc": out, "own": "train"}
    assert "data of an evaluated task" not in capsys.readouterr().err


def test_text_on_the_data_of_a_stored_task_does_not_train_under_a_file(
    task_dir, tmp_path, split, capsys
):
    text = json.dumps({**task_file(), "Categories": ["Textual Entailment"], "Source": ["own"]})
    (task_dir / "task003_c.json").write_text(text)
    store, flag = tmp_path / "store", split(TEST, LAST)
    assert cli.main(prepare(task_dir, store, flag)) == 0
    folder = write_dialogues(tmp_path / "dialogues")
    assert cli.main(["prepare", "dialogue", f"--data_dir={folder}", f"--out={store}", flag]) == 2
    assert "'dialogue__own' trains on the data of 'own'" in capsys.readouterr().err


def test_rows_on_stored_text_are_not_idle(task_dir, tmp_path, split, capsys):
    folder = tmp_path / "dialogues"
    folder.mkdir()
    (folder / "dailydialogue.jsonl").write_text('{"turns": ["Hello there", "Hi!"]}\n')
    (folder / "mine.jsonl").write_text('{"turns": ["Hello there", "Hi!"]}\n')
    # Nearly the name of a data set of the catalog's.
    flag = split("excluded\t\tsource\tdailydialogue\tis DailyDialog\n", ON_OPT_IML)
    store = tmp_path / "store"
    command = ["prepare", "dialogue", f"--data_dir={folder}", f"--out={store}", flag]
    assert cli.main([*command, "--vocabulary=small", "--vocab_size=264"]) == 0
    assert cli.main(prepare(task_dir, store, flag)) == 0
    assert "no task has source" not in capsys.readouterr().err


def test_a_category_has_both_names_beside_a_stored_benchmark(split):
    """The store has CB under FLAN's kind, entailment; Super-GLUE's is Textual Entailment."""
    table = catalog_table.read(declarations.CATALOG)
    cb, other, qnli = (
        table[name].to_spec() for name in ("flan__cb", "promptsource__super_glue_cb", "flan__qnli")
    )
    row = "train\t\tname\tpromptsource__super_glue_cb\t\n"
    path = split(row, "\t\tsplit\tflan_entailment\n").partition("=")[2]

    def check(given, stored):
        assigned = splits.assign([given], path)[given.name]
        one = splits.assign([stored], path)[stored.name]
        spec = dataclasses.replace(stored, category=one.category)
        index = {"tasks": [{"spec": spec.to_json(), "role": one.role, "level": one.level}]}
        placed = {given.name: (given, assigned)}
        split_notes.check_beside(splits.find(path), placed, index, "STORE")

    for given, stored in ((other, cb), (cb, other)):
        with pytest.raises(InputError) as error:
            check(given, stored)
        assert "store 'STORE': category 'Textual Entailment' is trained on" in str(error.value)
        assert "('promptsource__super_glue_cb') and tested ('flan__cb')" in str(error.value)
    # Under any name another category.
    check(qnli, dataclasses.replace(other, category="Sentiment Analysis"))


TASK = "super_natural_instructions__task187_snli_entailment_to_contradiction_text_modification"


def test_a_leak_of_the_files_own_rows_is_not_called_published(split, capsys):
    row = "test\tpartially_supervised\tname\tpromptsource__imdb\t\n"
    assert cli.main(["inspect", "--catalog", split(row, "\t\tsplit\topt_iml_max\n")]) == 0
    err = capsys.readouterr().err
    assert "3 training tasks name the data of an evaluated task" in err
    assert "Add rows like excluded, field source, pattern imdb, below those of the" in err
    assert "published so" not in err
    # Beside the leaks of the base.
    row = "test\tpartially_supervised\tname\tflan__imdb_reviews\t\n"
    own = "train\t\tname\tpromptsource__imdb\t\n"
    flag = split(row, own, "\t\tsplit\tflan_translation\n")
    assert cli.main(["inspect", "--catalog", flag]) == 0
    err = capsys.readouterr().err
    assert "1 training task names the data of an evaluated task (first: 'promptsource__imdb'" in err
    assert "3 training tasks name the data of an evaluated task (first: 'flan__" in err
    assert err.count("published so") == 1
    # A row that trains on what the base evaluates.
    row = f"train\t\tname\t{TASK}\t\n"
    flag = split(row, "\t\tsplit\tflan_entailment\n")
    assert cli.main(["inspect", "--catalog", flag]) == 0
    err = capsys.readouterr().err
    assert f"1 training task names the data of an evaluated task (first: '{TASK}'" in err
    assert "no rule of this split takes them out of training. Rows of the file train them" in err
    assert "4 training tasks name the data of an evaluated task (first: 'flan__" in err
    assert err.count("published so") == 1
