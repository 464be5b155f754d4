"""What the doctor finds in installs that are not in order."""

import subprocess
import sys

import pytest

from optiml_jax.main import doctor_install

TESTED = {"grain": "0.2.18"}


@pytest.mark.parametrize(
    ("version", "least", "status"),
    [
        ("0.2.18", "0.2.12", "ok"),
        ("0.2.9", "0.2.12", "problem"),
        ("0.2.18", "0.10", "problem"),
        ("0.3.0", "0.2.12", "warning"),
    ],
)
def test_versions(monkeypatch, version, least, status):
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    found = doctor_install.check_package("grain", least, TESTED)
    assert (found.status, found.found) == (status, version)
    if status == "problem":
        assert f"pip install --upgrade 'grain>={least}'" in found.advice
    if status == "warning":
        assert "The tests ran with 0.2.18." in found.advice


def test_a_package_that_is_not_installed():
    found = doctor_install.check_package("no-such-package", "2.0", {})
    assert found.status == "problem"
    assert found.advice == "Run `pip install 'no-such-package>=2.0'`."


def test_pins_are_read_from_the_checkout():
    tested = doctor_install.tested_versions()
    assert tested["orbax-checkpoint"] == "0.12.8"
    assert "tensorboardx" in tested  # folded, as pip compares names


@pytest.mark.parametrize(
    ("version", "key"),
    [("0.10.2", (0, 10, 2)), ("2.13.0+cpu", (2, 13, 0)), ("0.10.2rc1", (0, 10, 2)), ("dev", ())],
)
def test_version_keys(version, key):
    assert doctor_install.version_key(version) == key


def test_a_package_that_does_not_load(monkeypatch, tmp_path):
    (tmp_path / "broken_build.py").write_text("raise ImportError('libmissing.so: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor_install, "IMPORTED", ("json", "broken_build"))
    (found,) = doctor_install._imports()
    assert (found.status, found.name) == ("problem", "import broken_build")
    assert "libmissing.so" in found.found
    assert "pip install --force-reinstall broken_build" in found.advice


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        ("", "ok", ""),
        ("raise ImportError('no libtensorflow')", "warning", "no libtensorflow"),
        ("import os; os._exit(11)", "warning", "exit code 11"),
    ],
)
def test_a_heavy_import_takes_place_elsewhere(code, status, told):
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    found = doctor_install._finish_import("seqio", process)
    assert found.status == status
    assert told in found.found


def test_an_import_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(doctor_install, "IMPORT_SECONDS", 0.2)
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], stderr=subprocess.PIPE, text=True
    )
    assert doctor_install._finish_import("seqio", process).status == "warning"
    assert process.poll() is not None
