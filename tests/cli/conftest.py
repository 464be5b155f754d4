"""A prepared store and a run of two steps, made through the command line."""

import json

import pytest

from optiml_jax.main import cli

from .commands import prepare, task_file, train


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    tasks = folder / "tasks"
    tasks.mkdir()
    for number, category in ((1, "Question Answering"), (2, "Textual Entailment")):
        # Tasks that share a source with a held-out one leave training.
        content = task_file(Categories=[category], Source=[f"source{number}"])
        for row in content["Instances"]:
            row["id"] = row["id"].replace("task001", f"task{number:03d}")
        (tasks / f"task{number:03d}_made.json").write_text(json.dumps(content))
    assert cli.main(prepare(tasks, folder / "store")) == 0
    return folder / "store"


@pytest.fixture(scope="session")
def trained(store, tmp_path_factory):
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert cli.main(train(store, folder)) == 0
    return folder
