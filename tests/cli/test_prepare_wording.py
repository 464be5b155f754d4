"""`optiml prepare`'s flags of wording: what a store is made with, keeps, and refuses."""

import json

import pytest

from optiml_jax.data import store as store_lib
from optiml_jax.main import cli

from .commands import prepare, task_file

META_ICL = ("--meta_icl=1", "--suffix_loss", "--separator=\\n--\\n", "--separator=|")


@pytest.fixture
def task_dir(tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "task001_made.json").write_text(json.dumps(task_file()))
    return folder


def test_meta_icl_is_kept_and_turned_off(task_dir, tmp_path, capsys):
    store = tmp_path / "store"
    assert cli.main(prepare(task_dir, store, *META_ICL)) == 0
    made = store_lib.open_store(store).meta["render"]["prompt"]
    assert made["meta_icl"] == {"exponent": 1.0, "max_shots": 5, "suffix_loss": True}
    assert made["separators"] == ["\n--\n", "|"]
    before = store_lib.open_store(store).lengths.sum()
    capsys.readouterr()
    assert cli.main(prepare(task_dir, store)) == 0
    assert "0 tasks rendered, 1 taken over" in capsys.readouterr().out
    assert cli.main(prepare(task_dir, store, "--no-suffix_loss")) == 0
    opened = store_lib.open_store(store)
    assert not opened.meta["render"]["prompt"]["meta_icl"]["suffix_loss"]
    assert opened.lengths.sum() == before
    assert cli.main(prepare(task_dir, store, "--meta_icl=none", "--separator=|")) == 0
    opened = store_lib.open_store(store)
    assert opened.meta["render"]["prompt"]["meta_icl"] is None
    assert opened.lengths.sum() < before


def test_the_loss_starts_earlier_with_the_suffix_loss(task_dir, tmp_path):
    starts = []
    for name, flags in (("a", META_ICL), ("b", (*META_ICL, "--no-suffix_loss"))):
        assert cli.main(prepare(task_dir, tmp_path / name, *flags)) == 0
        opened = store_lib.open_store(tmp_path / name)
        starts.append((opened.lengths, opened.loss_starts))
    (lengths, early), (same, late) = starts
    assert (lengths == same).all()
    assert (early <= late).all()
    # Zipf with exponent 1 leaves 41 % of the examples without demonstrations.
    assert 0.3 < (early < late).mean() < 0.9


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--meta_icl=many"], "--meta_icl is 'many', expected a number such as 2 or 4, or none."),
        (["--meta_icl=-1"], "--meta_icl is '-1', expected a number such as 2 or 4, or none."),
        (["--meta_icl=2", "--meta_icl_shots=0"], "max_shots is 0, expected 1 or more."),
        (["--suffix_loss"], "--suffix_loss goes with --meta_icl=A, which is not given."),
        (["--meta_icl_shots=3"], "--meta_icl_shots goes with --meta_icl=A, which is not given."),
        (["--separator="], "PromptConfig.separator is '', expected some text."),
        (["--separator=a", "--separator="], "one is empty."),
        (["--max_eval_prompts=0"], "max_eval_prompts is 0, expected 1 or more."),
    ],
)
def test_bad_flags(task_dir, tmp_path, capsys, flags, message):
    assert cli.main(prepare(task_dir, tmp_path / "store", *flags)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "store" / "index.json").exists()


def test_other_benchmarks_of_a_store_must_have_the_same_wording(task_dir, tmp_path, capsys):
    store = tmp_path / "store"
    assert cli.main(prepare(task_dir, store)) == 0
    mini = ("prepare", "mini", f"--out={store}", "--split=opt_iml", "--meta_icl=2")
    assert cli.main(mini) == 2
    assert "was made with meta_icl None, this run has {'exponent': 2.0" in capsys.readouterr().err
