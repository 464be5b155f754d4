"""`optiml doctor` as a user runs it."""

import json
import shutil
import subprocess
import sys

import pytest

from optiml_jax.main import cli


@pytest.fixture
def doctor(capsys):
    """Runs the doctor; returns its exit code and its findings by name."""

    def run(*flags):
        code = cli.main(["doctor", "--quick", "--json", *flags])
        content = json.loads(capsys.readouterr().out)
        findings = {one["name"]: one for one in content["findings"]}
        statuses = [one["status"] for one in content["findings"]]
        for status in ("ok", "warning", "problem"):
            assert content[status] == statuses.count(status)
        assert code == (2 if content["problem"] else 0)
        return code, findings

    return run


def test_this_install_is_in_order(doctor, tmp_path):
    code, findings = doctor(f"--dir={tmp_path}")
    assert code == 0
    assert findings.keys() >= {
        *("python", "jax", "flax", "optax", "orbax-checkpoint", "grain", "seqio", "tensorflow"),
        *("tokenizers", "cpu", "memory", "disk", "permission", "vocabulary", "gin files"),
        *("benchmarks", "torch", "transformers", "libtpu", "browser"),
    }
    assert "mini" in findings["benchmarks"]["found"]
    assert "50,272 ids" in findings["vocabulary"]["found"]
    assert list(tmp_path.iterdir()) == []


def test_a_store_and_a_run_in_order(doctor, store, trained):
    code, findings = doctor(f"--store={store}", f"--run={trained}")
    assert code == 0
    assert "2 tasks, 22 training examples" in findings["store"]["found"]
    assert "step 2, 298,112 parameters" in findings["run"]["found"]
    assert findings["run vocabulary"]["status"] == findings["run config"]["status"] == "ok"


def test_a_damaged_store_is_a_problem(doctor, store, tmp_path):
    spoilt = shutil.copytree(store, tmp_path / "store")
    shard = next(iter((spoilt / "shards").iterdir()))
    shard.unlink()
    code, findings = doctor(f"--store={spoilt}")
    assert code == 2
    assert findings["store"]["status"] == "problem"
    assert shard.name in findings["store"]["found"]


def test_a_run_without_its_parts(doctor, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "config.gin").unlink()
    shutil.rmtree(run / "vocabulary")
    code, findings = doctor(f"--run={run}")
    assert code == 2
    assert findings["run config"]["status"] == "warning"
    assert findings["run vocabulary"]["status"] == "problem"
    assert "does not exist" in findings["run vocabulary"]["found"]


def test_folders_that_are_not_there(doctor, tmp_path):
    missing = tmp_path / "nothing"
    code, findings = doctor(f"--store={missing}", f"--run={missing}", f"--data_dir={missing}")
    assert code == 2
    for name in ("store", "run", "data_dir"):
        assert findings[name]["status"] == "problem"
        assert "nothing" in findings[name]["found"]


def test_task_files_are_read(doctor, tmp_path):
    from .commands import task_file

    (tmp_path / "task001_made.json").write_text(json.dumps(task_file()))
    (tmp_path / "task002_bad.json").write_text("[")
    code, findings = doctor(f"--data_dir={tmp_path}")
    assert code == 0
    found = findings["data_dir"]
    assert found["status"] == "warning"
    assert "1 tasks that can be read as super_natural_instructions, 1 that cannot" in found["found"]
    assert "task002_bad.json" in found["advice"]


def test_lines_for_people(tmp_path, capsys):
    assert cli.main(["doctor", "--quick", f"--dir={tmp_path}", f"--store={tmp_path}"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["ok", "python"]
    assert any(line.startswith("problem  store") and "no index.json" in line for line in lines)
    assert lines[-1].endswith("1 problem.")


@pytest.mark.slow
def test_the_whole_examination():
    """In a process of its own, with TensorFlow, SeqIO and a computation."""
    done = subprocess.run(
        [sys.executable, "-m", "optiml_jax", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    findings = {one["name"]: one for one in json.loads(done.stdout)["findings"]}
    assert findings["import seqio"]["status"] == "ok"
    assert findings["compute"]["status"] == "ok"
