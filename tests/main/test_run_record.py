"""config.gin of a run, over restarts."""

import subprocess

import pytest

import optiml_jax
from optiml_jax.errors import InputError
from optiml_jax.main import run_record


def test_restart_with_the_same_values_keeps_the_file(tmp_path):
    path = run_record.write_config(tmp_path, "A = 1\n", "optiml train --gin.A=1")
    first = path.read_text()
    assert first.startswith(f"# optiml_jax {optiml_jax.__version__}\n# commit ")
    assert "# command optiml train --gin.A=1\n" in first
    assert first.endswith("\n\nA = 1\n")
    run_record.write_config(tmp_path, "# another comment\nA = 1\n", "optiml train")
    assert path.read_text() == first
    assert [file.name for file in tmp_path.iterdir()] == ["config.gin"]


def test_restarts_with_other_values_keep_every_earlier_one(tmp_path):
    for value in (1, 2, 3):
        run_record.write_config(tmp_path, f"A = {value}\n", "optiml train")
    told = {file.name: file.read_text().splitlines()[-1] for file in tmp_path.iterdir()}
    assert told == {"config-1.gin": "A = 1", "config-2.gin": "A = 2", "config.gin": "A = 3"}


def test_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    package = tmp_path / "optiml_jax"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(optiml_jax, "__file__", str(package / "__init__.py"))
    assert run_record.commit() == ""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert run_record.commit() == head.stdout.strip()
    (package / "__init__.py").write_text("changed = 1")
    assert run_record.commit() == head.stdout.strip() + "-dirty"


def test_a_folder_in_its_place_is_refused(tmp_path):
    (tmp_path / "config.gin").mkdir()
    with pytest.raises(InputError, match=r"config\.gin: .* cannot be kept there \(Is a directory"):
        run_record.write_config(tmp_path, "A = 1\n", "optiml train")
