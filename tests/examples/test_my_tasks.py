"""docs/register_your_tasks.md from its first to its last command, as a user types them.

Every command is a process of its own in a working directory that holds the examples, with fewer
steps and a smaller model than the page's.
"""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from optiml_jax.bench import splits
from optiml_jax.data import mixing, stream
from optiml_jax.data import store as store_lib

ROOT = pathlib.Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "register_your_tasks.md"
SMALL = ("--gin.OptConfig.num_layers=1", "--gin.OptConfig.d_model=32", "--gin.OptConfig.ffn_dim=32")
CHANGES = {
    "train": (*SMALL, "--gin.TRAIN_STEPS=4", "--gin.WARMUP_STEPS=1"),
    "eval": (*SMALL, "--gin.MAX_NEW_TOKENS=4"),
}
OWN = ("my_parity", "my_plural", "my_singular")


def commands():
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def run(folder, arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "optiml_jax", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "160"},
    )
    assert done.returncode == code, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done


def python(folder, code):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The folder after the walk, and what each command printed."""
    folder = tmp_path_factory.mktemp("walk")
    (folder / "examples").symlink_to(ROOT / "examples")
    told = {}
    for program, command, *arguments in commands():
        assert program == "optiml"
        done = run(folder, [command, *arguments, *CHANGES.get(command, ())])
        told.setdefault(command, []).append(done)
    return folder, told


def test_the_page_runs(walked):
    folder, told = walked
    assert set(told) == {"prepare", "inspect", "train", "eval", "report"}
    lines = told["prepare"][0].stdout.splitlines()
    for line in (
        "  my_parity    12 evaluated at the level fully_held_out  (Letter Counting, accuracy)",
        "  my_plural    trains on 48, 12 evaluated at the level fully_supervised"
        "  (Linguistic Probing, exact_match)",
        "  my_singular  12 evaluated at the level partially_supervised"
        "  (Linguistic Probing, exact_match)",
    ):
        assert line in lines
    # Nothing of what TensorFlow says about the machine, only what the user should know.
    assert told["prepare"][0].stderr.splitlines() == [
        "note: task 'my_parity': 'Letter Counting' is a category of your own."
    ]
    page = (folder / "runs/mine/eval/user/report.html").read_text("utf-8")
    assert all(name in page for name in OWN)


def test_tasks_stand_at_their_levels(walked):
    folder, _ = walked
    results = json.loads((folder / "runs/mine/eval/user/results.json").read_text())
    found = {
        level: {
            (category, task): row["n"]
            for category, node in content["categories"].items()
            for task, row in node["tasks"].items()
        }
        for level, content in results["levels"].items()
        if content["n"]
    }
    assert found == {
        "fully_held_out": {("Letter Counting", "my_parity"): 12},
        "partially_supervised": {("Linguistic Probing", "my_singular"): 12},
        "fully_supervised": {("Linguistic Probing", "my_plural"): 12},
    }


def test_the_benchmark_is_there_with_its_held_out_tasks(walked):
    store = store_lib.open_store(walked[0] / "stores/mine")
    mini = [task for task in store.tasks if task.spec.benchmark == "mini"]
    assert {task.level for task in mini} == set(splits.LEVELS)
    assert len(mini) > 160


def test_training_draws_at_the_chosen_rate(walked):
    """The run's own stream: 30 percent of its examples are of `my_plural`."""
    store = store_lib.open_store(walked[0] / "stores/mine")
    config = stream.StreamConfig("my_mixture", mixing.MixtureSpec(), 512, 8)
    source = stream.TrainStream(store, config)
    (plural,) = [task for task in source.tasks if task.name == "my_plural"]
    last = plural.first_example + plural.num_train
    drawn = [i for step in range(60) for row in source.examples(step) for i in row]
    share = sum(plural.first_example <= i < last for i in drawn) / len(drawn)
    # More than 3,000 draws: 0.03 is more than three standard deviations.
    assert len(drawn) > 3000
    assert share == pytest.approx(0.3, abs=0.03)
    assert {"my_singular", "my_parity"}.isdisjoint(task.name for task in source.tasks)


SEQIO_TEXTS = """
import json
from optiml_jax.data import user_modules
user_modules.load_modules("examples.my_tasks, examples/my_tasks")
import seqio
def texts(name, split):
    rows = seqio.get_mixture_or_task(name).get_dataset(None, split, shuffle=False)
    return [[row[f"{f}_pretokenized"].decode() for f in ("inputs", "targets")]
            for row in rows.as_numpy_iterator()]
mixture = seqio.get_mixture_or_task("my_mixture")
print(json.dumps({
    "train": texts("my_plural", "train"),
    "my_plural": texts("my_plural", "validation"),
    "my_singular": texts("my_singular", "test"),
    "my_parity": texts("my_parity", "test"),
    "rate": mixture.get_rate(seqio.TaskRegistry.get("my_plural")),
}))
"""


def test_stored_text_is_seqios_and_seqio_still_reads_it(walked):
    """Imported twice under two names, the module registers once."""
    folder, _ = walked
    texts = python(folder, SEQIO_TEXTS)
    store = store_lib.open_store(folder / "stores/mine")
    vocabulary = store.vocabulary()
    stored = [
        vocabulary.decode(store.train_tokens(0, "my_plural", number)[:-1])
        for number in range(store.by_name["my_plural"].num_train)
    ]
    assert stored == [f"{source} {target}" for source, target in texts["train"]]
    for name in OWN:
        records = store.eval_records("eval_0shot", [name])
        assert [[r.source, r.references[0]] for r in records] == texts[name]
    assert texts["rate"] == 0.3


NO_SEQIO = """
import contextlib, io, json, sys
from optiml_jax.main import cli
with contextlib.redirect_stdout(io.StringIO()):
    code = cli.main({arguments!r})
assert code == 0, code
print(json.dumps(sorted({{"seqio", "tensorflow", "my_tasks"}} & set(sys.modules))))
"""


def train_arguments(**changes):
    (found,) = [command[1:] for command in commands() if command[1] == "train"]
    bindings = [f"--gin.{name}={value!r}" for name, value in changes.items()]
    return [*found, *CHANGES["train"], *bindings]


def test_a_stored_mixture_trains_without_seqio(walked, tmp_path):
    """And gives the same batches: the losses are those of the run with the module."""
    folder, _ = walked
    arguments = train_arguments(MODEL_DIR=str(tmp_path / "run"), MIXTURE_OR_TASK_MODULE=None)
    assert python(folder, NO_SEQIO.format(arguments=arguments)) == []

    def losses(run_folder):
        lines = (run_folder / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    assert losses(tmp_path / "run") == losses(folder / "runs/mine")
