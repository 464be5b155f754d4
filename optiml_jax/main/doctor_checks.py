"""Checks of the machine and its devices for `optiml doctor`, and what a finding is.

Every check returns findings; a finding says what was found and, unless it is in order, what to do.
Neighbours: `doctor_install` looks at packages, `doctor_folders` at what a user made. Left out on
purpose: any repair.
"""

import dataclasses
import glob
import os
import pathlib
import platform
import re
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

STATUSES = ("ok", "warning", "problem")
GIB = 2**30
LOW_DISK_BYTES = 5 * GIB
"""A checkpoint of OPT 125M with its optimizer state takes 1.5 GB; two are kept while one is
written."""
LOW_MEMORY_BYTES = 4 * GIB
"""Importing JAX, reading a store and training the 20M-parameter model takes 2 GB."""

COMPUTE_SIZE = 256


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        status: ok, warning (works, but) or problem (does not work).
        name: what was looked at.
        found: what was there.
        advice: what to do, "" where nothing is to be done.
    """

    status: str
    name: str
    found: str
    advice: str = ""

    def to_json(self) -> dict[str, str]:
        """A dict of plain values."""
        return dataclasses.asdict(self)


def check_machine(directory: str) -> list[Finding]:
    """Cores, memory, free disk and permission to write where runs will go."""
    return [_cores(), _memory(), *_folder(pathlib.Path(directory))]


def check_devices(quick: bool) -> list[Finding]:
    """What JAX sees, accelerators that it does not use, and whether it computes rightly."""
    if quick:
        return []
    return looked_at("devices", lambda: [*_devices(), *_unused_accelerators()])


def looked_at(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """What a check finds; one that needs a package that is not there is a finding itself."""
    try:
        return check()
    except ImportError as error:
        found = f"cannot be looked at: {one_line(str(error))}"
        return [Finding("problem", name, found, "Mend the packages named above first.")]


# --- machine -------------------------------------------------------------------------------------


def _cores() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("ok", "cpu", f"{cores} core(s) for this process, {platform.machine()}")


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # not told on this system
        return Finding("ok", "memory", "unknown")
    free = _available_memory()
    found = f"{total / GIB:.1f} GiB" + (f", {free / GIB:.1f} GiB free" if free else "")
    if (free or total) < LOW_MEMORY_BYTES:
        advice = "Close other programs, or train the smallest model (models/opt_tiny.gin)."
        return Finding("warning", "memory", found, advice)
    return Finding("ok", "memory", found)


def _available_memory() -> int | None:
    path = pathlib.Path("/proc/meminfo")
    if not path.is_file():
        return None
    match = re.search(r"MemAvailable:\s+(\d+) kB", path.read_text())
    return int(match[1]) * 1024 if match else None


def _folder(folder: pathlib.Path) -> list[Finding]:
    """Disk and permission of a folder, or of the nearest one above it that exists."""
    existing = folder.absolute()
    try:
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
    except OSError as error:
        found = f"'{folder}' cannot be looked at ({error.strerror})"
        return [Finding("problem", "folder", found, "Give another folder with --dir.")]
    where = f"{existing}" + ("" if existing == folder.absolute() else f" ('{folder}' is not there)")
    if not existing.is_dir():
        return [Finding("problem", "folder", f"{existing} is a file", "Give a folder with --dir.")]
    return [_disk(existing, where), _permission(existing, where)]


def _disk(folder: pathlib.Path, where: str) -> Finding:
    usage = shutil.disk_usage(folder)
    found = f"{usage.free / GIB:,.1f} of {usage.total / GIB:,.1f} GiB free at {where}"
    if usage.free < LOW_DISK_BYTES:
        return Finding("warning", "disk", found, "Make room, or write elsewhere: --dir=DIR.")
    return Finding("ok", "disk", found)


def _permission(folder: pathlib.Path, where: str) -> Finding:
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".optiml_doctor_"):
            pass
    except OSError as error:
        found = f"{where} cannot be written ({error.strerror})"
        return Finding("problem", "permission", found, "Choose a folder that you may write to.")
    return Finding("ok", "permission", f"{where} can be written")


# --- devices -------------------------------------------------------------------------------------


def _devices() -> list[Finding]:
    import jax

    asked = os.environ.get("JAX_PLATFORMS")
    setting = f" (JAX_PLATFORMS={asked})" if asked else ""
    try:
        devices = jax.devices()
    except RuntimeError as error:
        advice = "Unset JAX_PLATFORMS." if asked else "Install JAX for this machine again."
        if "TPU" in str(error) or "libtpu" in str(error):
            advice = (
                "Another process may hold the TPU: end it, then remove /tmp/libtpu_lockfile if it"
                " is still there."
            )
        return [Finding("problem", "devices", one_line(str(error)) + setting, advice)]
    kinds = sorted({f"{one.platform} ({one.device_kind})" for one in devices})
    found = f"{len(devices)} {', '.join(kinds)}{_device_memory(devices[0])}{setting}"
    findings = [Finding("ok", "devices", found)]
    if (count := jax.process_count()) > 1:
        findings.append(Finding("ok", "processes", f"{count}, this is {jax.process_index()}"))
    return [*findings, check_compute(_product)]


def _device_memory(device: Any) -> str:
    stats = device.memory_stats() if hasattr(device, "memory_stats") else None
    limit = (stats or {}).get("bytes_limit")
    return f", {limit / GIB:.1f} GiB each" if limit else ""


def _product(left: Any, right: Any) -> Any:
    import jax
    import jax.numpy as jnp

    precise = jax.jit(lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST))
    return precise(left, right)


def check_compute(product: Callable[[Any, Any], Any]) -> Finding:
    """Whether a compiled matrix product is finite and right."""
    import numpy as np

    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, COMPUTE_SIZE, COMPUTE_SIZE)).astype(np.float32)
    try:
        result = np.asarray(product(left, right))
    # Drivers and compilers raise errors of many kinds; whichever, it did not compute.
    except Exception as error:
        return Finding(
            "problem",
            "compute",
            one_line(str(error)),
            "Reinstall JAX and the driver, or set JAX_PLATFORMS=cpu to go on without it.",
        )
    difference = float(np.max(np.abs(result - left.astype(np.float64) @ right)))
    # Float32 sums of 256 products of unit normals are off by about 1e-5.
    if not np.isfinite(result).all() or difference > 1e-3:
        return Finding(
            "problem",
            "compute",
            f"a matrix product came out wrong (off by {difference:.3g})",
            "Do not train on this machine: its device, driver or JAX build computes wrongly.",
        )
    return Finding("ok", "compute", f"a compiled matrix product is right to {difference:.1g}")


def _unused_accelerators() -> list[Finding]:
    """Accelerators of this machine that JAX does not use."""
    import jax

    try:
        platform_used = jax.default_backend()
    except RuntimeError:
        return []  # told by `_devices`
    if platform_used != "cpu" or os.environ.get("JAX_PLATFORMS"):
        return []
    findings = []
    tpu_names = [name for name in ("TPU_NAME", "TPU_WORKER_ID") if os.environ.get(name)]
    # Google's own device files; /dev/vfio alone also serves other hardware.
    if tpu_names or glob.glob("/dev/accel[0-9]*"):
        why = f"{', '.join(tpu_names)} is set" if tpu_names else "/dev/accel* is there"
        advice = "Run `pip install 'optiml_jax[tpu]'`, and see that no other process holds the TPU."
        findings.append(Finding("warning", "tpu", f"{why}, but JAX computes on the CPU", advice))
    if os.path.exists("/tmp/libtpu_lockfile") and tpu_names:
        found = "/tmp/libtpu_lockfile is there: a process holds the TPU, or one that died did"
        advice = "End that process; if there is none, remove the file."
        findings.append(Finding("warning", "libtpu", found, advice))
    if os.path.exists("/dev/nvidia0"):
        found = "an NVIDIA GPU is there, but JAX computes on the CPU"
        findings.append(Finding("warning", "gpu", found, "Run `pip install 'optiml_jax[gpu]'`."))
    return findings


def one_line(text: str) -> str:
    """The text without line breaks, and not endless."""
    return " ".join(text.split())[:400]
