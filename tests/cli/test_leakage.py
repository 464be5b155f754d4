"""`optiml leakage` as a user runs it: counts, verdicts, the folder it writes, and bad input."""

import json
import os
import pathlib
import pty
import shutil
import signal
import subprocess
import sys
import time

import pytest

from optiml_jax.main import cli, leakage_page, leakage_store

from .commands import prepare, task_file

LONG = "the quick brown fox jumps over the lazy dog while nine old owls watch from a tall tree"
NAMES = ("question", "entails", "other", "copied")
PREFIX = "super_natural_instructions__task"


def instances(number, texts):
    return [
        {"id": f"task{number:03d}-{i}", "input": text, "output": ["yes"]}
        for i, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    """Training tasks 1 (one leaked text), 3 (nothing) and 4 (excluded: shares data with 2)."""
    folder = tmp_path_factory.mktemp("leaky")
    tasks = folder / "tasks"
    tasks.mkdir()
    fill = [f"Sentence {i} is about {'abcdefghij'[i % 10]} and number {i * 7}." for i in range(30)]
    rows = {
        1: ("Question Answering", "one", [*fill, LONG, f"{LONG} so"]),
        2: ("Textual Entailment", "two", [f"Premise {i}: {i} {i + 1}" for i in range(19)] + [LONG]),
        3: ("Question Answering", "three", [f"Asked {i}, told {i + 2}." for i in range(30)]),
        4: ("Question Answering", "two", [LONG, *fill]),
    }
    for number, (category, source, texts) in rows.items():
        content = task_file(
            Categories=[category],
            Source=[source],
            Definition=[f"This is the definition of task {number}. Do what it says."],
            Instances=instances(number, texts),
        )
        (tasks / f"task{number:03d}_{NAMES[number - 1]}.json").write_text(json.dumps(content))
    assert cli.main(prepare(tasks, folder / "store")) == 0
    assert cli.main(prepare(tasks, folder / "max", "--split=opt_iml_max")) == 0
    return folder


@pytest.fixture
def check(leaky, capsys):
    """Runs the command on the leaky store and returns what it printed."""

    def run(*flags, store="store"):
        assert cli.main(["leakage", f"--store={leaky / store}", "--jobs=1", *flags]) == 0
        return capsys.readouterr().out

    return run


def test_the_leaked_text_is_found(check):
    content = json.loads(check("--json", "--verify=6"))
    assert (content["num_train_tasks"], content["num_eval_tasks"]) == (2, 1)
    assert content["num_verified_pairs"] == 2
    (pair,) = content["pairs"]
    assert pair["train"] == f"{PREFIX}001_question"
    assert pair["eval"] == f"{PREFIX}002_entails"
    assert (pair["count"], pair["num_eval"], pair["fraction"]) == (1, 20, 0.05)
    assert pair["bare_count"] == 1
    assert pair["verdict"] == "instances"
    assert pair["shared"]["eval_example"] == "task002-19"
    assert pair["shared"]["train_example"].startswith("train_0 ")
    assert pair["shared"]["gram"] in LONG
    (removal,) = content["suggested"]
    assert removal["task"] == f"{PREFIX}001_question"
    assert removal["reason"].startswith("1 of 20 instances of ")
    assert " shares a gram with it" in removal["reason"]
    (left,) = content["excluded"]
    assert left["task"] == f"{PREFIX}004_copied"
    assert "shares the data of 'two'" in left["reason"]


def test_tokens_are_another_unit(check):
    content = json.loads(check("--json", "--unit=tokens", "--n=40", "--inputs_only", "--verify=4"))
    (pair,) = content["pairs"]
    assert pair["bare_count"] == 1
    assert pair["shared"]["gram"] in LONG


def test_the_threshold_decides(check):
    assert json.loads(check("--json", "--threshold=0.05"))["pairs"] == []
    assert len(json.loads(check("--json", "--threshold=0.049"))["pairs"]) == 1


def test_near_duplicates(check):
    content = json.loads(check("--json", "--near_duplicates"))
    (pair,) = content["pairs"]
    assert pair["near_duplicates"] == 1
    # The held-out instance that is 16 words long, and one with a word more: 13 of 14 shingles.
    assert pair["near_duplicate"]["jaccard"] > 0.9


def test_wording_alone_is_told_apart(check):
    """Held-out instances of a task share its definition with the task, and nothing else."""
    flags = ("--level=fully_supervised", "--train=*003*", "--eval=*003*", "--n=8")
    (pair,) = json.loads(check("--json", *flags))["pairs"]
    assert (pair["fraction"], pair["bare_fraction"], pair["verdict"]) == (1.0, 0.0, "same_task")
    assert json.loads(check("--json", "--inputs_only", *flags))["pairs"] == []


@pytest.fixture(scope="module")
def brief(tmp_path_factory):
    """A training task with the inputs of two evaluation tasks: one of nine words, one of two."""
    folder = tmp_path_factory.mktemp("brief")
    tasks = folder / "tasks"
    tasks.mkdir()
    definition = "Read the following text with care and say whether what it says is true or not."
    nine = [f"The {i} old owls watched {i + 1} foxes near town" for i in range(100, 120)]
    two = [f"Owl {i}" for i in range(20)]
    rows = {
        1: ("Question Answering", [*nine, *nine, *two]),
        2: ("Textual Entailment", nine),
        3: ("Textual Entailment", two),
    }
    for number, (category, texts) in rows.items():
        content = task_file(
            Categories=[category],
            Source=[f"source {number}"],
            Definition=[definition],
            Instances=instances(number, texts),
        )
        (tasks / f"task{number:03d}_brief.json").write_text(json.dumps(content))
    assert cli.main(prepare(tasks, folder / "store")) == 0
    return folder / "store"


def test_instances_shorter_than_a_gram(brief, capsys, tmp_path):
    flags = ["leakage", f"--store={brief}", "--jobs=1", f"--out={tmp_path / 'out'}", "--json"]
    assert cli.main(flags) == 0
    content = json.loads(capsys.readouterr().out)
    nine, two = sorted(content["pairs"], key=lambda pair: pair["eval"])
    # The others are held out of the training task.
    assert (nine["bare_fraction"], nine["verdict"]) == (0.8, "instances")
    assert (nine["num_whole"], nine["num_too_short"]) == (20, 0)
    assert (two["fraction"], two["bare_fraction"]) == (1.0, 0.0)
    assert (two["num_whole"], two["num_too_short"], two["verdict"]) == (0, 20, "too_short")
    assert (content["num_whole"], content["num_too_short"]) == (20, 20)
    assert [row["task"] for row in content["short_eval_tasks"]] == [nine["eval"], two["eval"]]
    page = (tmp_path / "out" / "leakage.html").read_text()
    assert "40 evaluation instances: 20 compared by their whole input, 20 too short" in page
    assert "<b>20</b><span>evaluation instances too short to compare</span>" in page
    assert cli.main(flags[:3]) == 0
    told = capsys.readouterr().out
    assert "40 evaluation instances of fewer than 13 words: 20 compared by the whole" in told
    assert "only wording overlaps" not in told


WAITING = """
import os, sys, time
from optiml_jax.main import cli, leakage_store
def wait(self, task):
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(60)
    yield
leakage_store.StoreTexts.trained = wait
if __name__ == "__main__":
    sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def waiting(leaky, tmp_path):
    """Starts a run with two processes that wait; its temporary files go to tmp_path/tmp."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "program.py").write_text(WAITING)
    argv = [sys.executable, tmp_path / "program.py", "leakage", f"--store={leaky / 'store'}"]
    argv += ["--jobs=2", f"--out={tmp_path / 'out'}"]

    def start(**settings):
        environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
        return subprocess.Popen(argv, text=True, env=environment, **pipes)

    return start


def is_gone(process, seconds=20.0):
    """Whether a process ends in that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if pathlib.Path(f"/proc/{process}/stat").read_text().split()[2] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cleans_up(waiting, tmp_path, number):
    """A run that is ended from outside while its processes work leaves no file and no warning."""
    with waiting(start_new_session=True) as process:
        workers = [int(process.stdout.readline()) for _ in range(2)]
        assert os.listdir(tmp_path / "tmp")
        # A terminal that is closed tells all its processes.
        send = os.killpg if number == signal.SIGHUP else os.kill
        send(process.pid, number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    (line,) = err.strip().splitlines()
    assert line.startswith("optiml leakage: stopped.")
    assert all(map(is_gone, workers))
    assert os.listdir(tmp_path / "tmp") == []
    assert sorted(os.listdir(tmp_path)) == ["program.py", "tmp"]


def test_a_closed_terminal_cleans_up(waiting, tmp_path):
    leader, follower = pty.openpty()
    with waiting(stderr=follower, start_new_session=True) as process:
        worker = int(process.stdout.readline())
        os.close(follower)
        os.close(leader)
        process.send_signal(signal.SIGHUP)
        process.wait(timeout=30)
    assert is_gone(worker)
    assert os.listdir(tmp_path / "tmp") == []
    assert sorted(os.listdir(tmp_path)) == ["program.py", "tmp"]


def test_nohup_goes_on(waiting):
    # A signal that is ignored stays so in a new process, as under nohup.
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        started = waiting()
    finally:
        signal.signal(signal.SIGHUP, before)
    with started as process:
        worker = int(process.stdout.readline())
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert process.poll() is None
        process.terminate()
        process.communicate(timeout=30)
    assert is_gone(worker)


def test_a_killed_run_leaves_no_process_and_the_next_removes_its_folder(waiting, tmp_path, check):
    with waiting() as first, waiting() as second:
        workers = [int(first.stdout.readline()) for _ in range(2)]
        second.stdout.readline()
        assert len(list(tmp_path.glob(".leakage.*"))) == 2
        first.kill()
        first.wait(timeout=30)
        assert all(map(is_gone, workers))
        (tmp_path / ".leakage.mine").mkdir()
        check(f"--out={tmp_path / 'out'}")
        # That of the run that lives, and one that is none of this command's.
        left = sorted(tmp_path.glob(".leakage.*"))
        assert len(left) == 2
        assert tmp_path / ".leakage.mine" in left
        second.terminate()
        second.wait(timeout=30)
    assert list(tmp_path.glob(".leakage.*")) == [tmp_path / ".leakage.mine"]


@pytest.mark.parametrize("flags", ["--near_duplicates", "--level=fully_supervised"])
def test_a_full_folder_of_temporary_files(leaky, tmp_path, flags):
    """`ulimit -f` stands for a full disk; the index of the second command is larger."""
    command = f"ulimit -f 1; exec {sys.executable} -m optiml_jax leakage --store={leaky / 'store'}"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", f"{command} {flags}"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(
        f"optiml leakage: error: temporary files cannot be written to '{tmp_path}'"
    )
    assert "They take up to 1 MB. Make room, or set TMPDIR to a folder that has it." in line
    assert os.listdir(tmp_path) == []


def test_shares_have_one_format():
    shown = [leakage_page.format_percent(share) for share in (0.0, 0.0333, 0.1, 1.0)]
    assert shown == ["0.00", "3.33", "10.0", "100.0"]


def test_against_another_store(check, leaky):
    content = json.loads(check(f"--against={leaky / 'store'}", "--json", store="max"))
    verdicts = {pair["train"]: pair["verdict"] for pair in content["pairs"]}
    assert verdicts[f"{PREFIX}001_question"] == "instances"
    assert verdicts[f"{PREFIX}004_copied"] == "left_out"
    assert verdicts[f"{PREFIX}002_entails"] == "left_out"
    assert [row["task"] for row in content["suggested"]] == [f"{PREFIX}001_question"]


def test_tables(check):
    lines = check().splitlines()
    assert lines[0].startswith("2 training tasks (")
    assert lines[1] == "1 over 1 % of the sequences or instances"
    assert lines[2].startswith("19 evaluation instances of fewer than 13 words: ")
    (row,) = (line for line in lines if line.startswith(f"{PREFIX}001_question  {PREFIX}002"))
    assert row.split()[2:5] == ["5.00", "5.00", "20"]
    assert "1 training task to look at" in lines
    assert "1 pair: instances overlap: look at it" in lines
    assert "left out by the split already: 1 task" in lines


def test_bare_inputs_of_training_examples(leaky):
    texts = leakage_store.StoreTexts(str(leaky / "store"), str(leaky / "store"), "eval_0shot")
    found = [
        " ".join(words)
        for _, block in texts.trained_instances(f"{PREFIX}003_other")
        for words in block
    ]
    assert len(found) > 20
    assert set(found) <= {f"asked {i} told {i + 2}" for i in range(30)}


def test_the_folder_is_written_whole(check, tmp_path):
    out = tmp_path / "new" / "report"
    check(f"--out={out}")
    assert sorted(os.listdir(out)) == ["leakage.html", "leakage.json"]
    assert sorted(os.listdir(out.parent)) == ["report"]
    content = json.loads((out / "leakage.json").read_text())
    assert content["made"]["command"].startswith("optiml leakage --store=")
    assert content["num_listed_pairs"] == len(content["pairs"]) == 1
    page = (out / "leakage.html").read_text()
    assert page.count('<tr class="pair"') == 1
    check(f"--out={out}", "--threshold=0.5")
    assert json.loads((out / "leakage.json").read_text())["pairs"] == []
    assert sorted(os.listdir(out)) == ["leakage.html", "leakage.json"]


def test_a_failed_run_leaves_nothing(leaky, tmp_path, capsys, monkeypatch):
    from optiml_jax.bench import leakage

    def stop(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(leakage, "count", stop)
    flags = ("leakage", f"--store={leaky / 'store'}", f"--out={tmp_path / 'out'}")
    assert cli.main(flags) == 130
    assert os.listdir(tmp_path) == []
    (tmp_path / "out" / ".leakage.killed").mkdir(parents=True)
    assert cli.main(flags) == 130
    assert os.listdir(tmp_path / "out") == [".leakage.killed"]
    assert "stopped" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--n=0", "--n is 0, expected 1 or more"),
        ("--n=100000", "--n is 100,000, but the longest of the 20 evaluation examples has "),
        ("--threshold=1.5", "--threshold is 1.5, expected a fraction from 0 to below 1"),
        ("--jobs=0", "--jobs is 0"),
        ("--verify=-1", "--verify is -1"),
        ("--jaccard=0.7", "--jaccard has no effect without --near_duplicates"),
        ("--near_duplicates --jaccard=0", "--jaccard is 0, expected a similarity from 0.053 to 1"),
        (f"--n={10**23}", "--n is 100,000,000,000,000,000,000,000, but the longest of the 20"),
        ("--n=2000000000", "--n is 2,000,000,000, but the longest of the 20"),
        ("--unit=word", "unknown unit 'word'. Did you mean 'words'?"),
        ("--level=held_out", "unknown level 'held_out'. Did you mean 'fully_held_out'?"),
        ("--level=partially_supervised", "has no tasks of the level 'partially_supervised'"),
        ("--view=eval_5shot", "unknown view 'eval_5shot'. Did you mean 'eval_0shot'?"),
        ("--train=task001_qestion", "--train: unknown task 'task001_qestion'. Did you mean"),
        ("--eval=flan__*", "--eval: unknown task 'flan__*'"),
        ("--against=nowhere", "store 'nowhere' does not exist"),
        ("--gin.N=1", "reads no gin configuration"),
    ],
)
def test_bad_input(leaky, capsys, flags, message):
    assert cli.main(["leakage", f"--store={leaky / 'store'}", *flags.split()]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.out == ""


def test_no_store(capsys, tmp_path):
    assert cli.main(["leakage", f"--store={tmp_path}"]) == 2
    assert "has no index.json" in capsys.readouterr().err


def test_a_store_without_an_evaluation_view(leaky, tmp_path, capsys):
    shutil.copytree(leaky / "store", tmp_path / "bare")
    index = json.loads((tmp_path / "bare" / "index.json").read_text())
    del index["shards"]["eval_0shot"]
    for task in index["tasks"]:
        task["places"].pop("eval_0shot", None)
    (tmp_path / "bare" / "index.json").write_text(json.dumps(index))
    assert cli.main(["leakage", f"--store={tmp_path / 'bare'}"]) == 2
    assert "has no evaluation view. Run the same `optiml prepare`" in capsys.readouterr().err


def test_a_store_that_evaluates_training_tasks_only(leaky, capsys):
    assert cli.main(["leakage", f"--store={leaky / 'max'}"]) == 2
    told = capsys.readouterr().err
    assert "has no tasks that validate or test" in told
    assert "--level=fully_supervised" in told


@pytest.fixture(scope="module")
def without_views(leaky, tmp_path_factory):
    """The store max, in which tasks 1 and 2 test: task 1 has eval_5shot alone, task 3 no view."""
    store = tmp_path_factory.mktemp("views") / "store"
    shutil.copytree(leaky / "max", store)
    index = json.loads((store / "index.json").read_text())
    index["shards"]["eval_5shot"] = index["shards"]["eval_0shot"]
    for task, role in zip(index["tasks"], ("test", "test", "validation", "train"), strict=True):
        task["role"] = role
    one, _, three, _ = index["tasks"]
    one["places"]["eval_5shot"] = one["places"].pop("eval_0shot")
    del three["places"]["eval_0shot"]
    (store / "index.json").write_text(json.dumps(index))
    return store


def test_tasks_without_the_view_are_named(without_views, capsys, tmp_path):
    flags = ["leakage", f"--store={without_views}", "--jobs=1"]
    assert cli.main([*flags, f"--out={tmp_path / 'out'}", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["num_eval_tasks"] == 1
    assert content["not_compared"] == [
        {"task": f"{PREFIX}001_question", "views": ["eval_5shot"]},
        {"task": f"{PREFIX}003_other", "views": []},
    ]
    assert json.loads((tmp_path / "out" / "leakage.json").read_text())["not_compared"]
    page = (tmp_path / "out" / "leakage.html").read_text().replace("<wbr>", "")
    assert "2 evaluation tasks not compared, without the view eval_0shot" in page
    assert f"<li>{PREFIX}001_question: has eval_5shot</li>" in page
    assert f"<li>{PREFIX}003_other: has no evaluation view</li>" in page
    assert cli.main(flags) == 0
    assert (
        "not compared, without the view eval_0shot: 2 evaluation tasks, with the views they have:"
        f" {PREFIX}001_question (eval_5shot), {PREFIX}003_other (none)\n"
    ) in capsys.readouterr().out
    assert cli.main([*flags, "--eval=*001*,*002*", "--view=eval_5shot"]) == 2
    assert cli.main([*flags, "--eval=*00[13]*"]) == 2
    assert cli.main([*flags, "--eval=*002*"]) == 0
    assert "not compared" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--eval=*001*",
            f"--eval=*001*: task '{PREFIX}001_question' has no evaluation view 'eval_0shot', only"
            " eval_5shot. Give --view=eval_5shot, or run `optiml prepare"
            " super_natural_instructions` again into the store with --shots=0,5.",
        ),
        (
            "--eval=*003*,*002*",
            f"--eval=*003*: task '{PREFIX}003_other' has no evaluation view 'eval_0shot', nor any"
            " other. Run `optiml prepare super_natural_instructions` again",
        ),
        (
            "--view=eval_5shot --eval=*00[23]*",
            f"all 2 evaluation tasks, such as '{PREFIX}002_entails', have no evaluation view"
            " 'eval_5shot', only eval_0shot. Give --view=eval_0shot",
        ),
    ],
)
def test_asking_for_tasks_without_the_view(without_views, capsys, flags, message):
    assert cli.main(["leakage", f"--store={without_views}", *flags.split()]) == 2
    assert message in capsys.readouterr().err


def test_a_damaged_store_is_named(leaky, tmp_path, capsys):
    shutil.copytree(leaky / "store", tmp_path / "cut")
    shard = max((tmp_path / "cut" / "shards").glob("train_0*"), key=os.path.getsize)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 255
    shard.write_bytes(data)
    assert cli.main(["leakage", f"--store={tmp_path / 'cut'}", "--jobs=2"]) == 2
    assert shard.name in capsys.readouterr().err


def test_places_that_cannot_be_written(leaky, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out, message in (
        ("full", "is not empty (it has 'mine.txt')"),
        ("file", "cannot be written (a file stands there)"),
        ("file/below", "cannot be written (a file stands there)"),
    ):
        flags = (f"--store={leaky / 'store'}", f"--out={tmp_path / out}")
        assert cli.main(["leakage", *flags]) == 2
        assert message in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["file", "full"]
    assert os.listdir(tmp_path / "full") == ["mine.txt"]
