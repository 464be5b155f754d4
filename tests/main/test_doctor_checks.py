"""What the doctor finds in machines and folders that are not in order."""

import sys

import numpy as np
import pytest

from optiml_jax.main import doctor_checks, doctor_folders


@pytest.mark.parametrize(
    ("product", "status", "told"),
    [
        (lambda a, b: a @ b, "ok", "is right to"),
        (lambda a, b: (a @ b) * 1.01, "problem", "came out wrong"),
        (lambda a, b: np.where(a > 3, np.nan, a @ b), "problem", "came out wrong"),
        (lambda a, b: [][0], "problem", "list index out of range"),
    ],
    ids=["right", "off", "not finite", "raises"],
)
def test_computing(product, status, told):
    found = doctor_checks.check_compute(product)
    assert found.status == status
    assert told in found.found


def test_this_machine_computes():
    findings = {one.name: one for one in doctor_checks.check_devices(quick=False)}
    assert findings["devices"].status == "ok"
    assert "cpu" in findings["devices"].found
    assert findings["compute"].status == "ok"


def test_a_device_that_cannot_be_opened(monkeypatch):
    def busy():
        raise RuntimeError("Unable to initialize backend 'tpu': The TPU is already in use")

    monkeypatch.setattr("jax.devices", busy)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    (found,) = doctor_checks._devices()
    assert found.status == "problem"
    assert "Another process may hold the TPU" in found.advice


def test_without_jax_the_doctor_still_speaks(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    (found,) = doctor_checks.check_devices(quick=False)
    assert (found.status, found.name) == ("problem", "devices")
    assert "import of jax halted" in found.found


def test_a_tpu_that_is_not_used(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("TPU_NAME", "pod-1")
    found = {one.name: one for one in doctor_checks._unused_accelerators()}
    assert found["tpu"].status == "warning"
    assert "TPU_NAME is set, but JAX computes on the CPU" in found["tpu"].found


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    found = {one.name: one for one in doctor_checks.check_machine(str(tmp_path))}
    assert found["permission"].status == "problem"
    assert "cannot be written (Permission denied)" in found["permission"].found


def test_a_folder_to_be_made_is_judged_by_the_one_above(tmp_path):
    found = {one.name: one for one in doctor_checks.check_machine(str(tmp_path / "runs" / "new"))}
    assert found["permission"].status == "ok"
    assert f"{tmp_path} ('{tmp_path / 'runs' / 'new'}' is not there)" in found["permission"].found
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_name_cannot_be(tmp_path):
    checked = doctor_checks.check_machine(str(tmp_path / ("a" * 300)))
    (found,) = (one for one in checked if one.name == "folder")
    assert found.status == "problem"
    assert "File name too long" in found.found


def test_a_file_is_no_folder_for_runs(tmp_path):
    (tmp_path / "file").write_text("")
    (found,) = (
        one for one in doctor_checks.check_machine(str(tmp_path / "file")) if one.name == "folder"
    )
    assert found.status == "problem"


def test_little_disk_and_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor_checks, "LOW_DISK_BYTES", 1 << 60)
    monkeypatch.setattr(doctor_checks, "LOW_MEMORY_BYTES", 1 << 60)
    found = {one.name: one for one in doctor_checks.check_machine(str(tmp_path))}
    assert found["disk"].status == found["memory"].status == "warning"


def test_task_files_that_cannot_be_read(tmp_path):
    (tmp_path / "task001_bad.json").write_text("{")
    (found,) = doctor_folders.check_data_dir(str(tmp_path))
    assert found.status in ("warning", "problem")
    assert "task001_bad.json" in found.found + found.advice
