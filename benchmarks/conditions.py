"""Under which conditions a benchmark ran; every script's figures carry them."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent


def commit() -> str:
    """The commit that is measured, with a + where the tree has changes beside it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    return done.stdout.strip() or "unknown"


def measured(*packages: str, **more: Any) -> dict[str, Any]:
    """Commit, machine, load, Python, versions of packages, and what the script adds.

    Call it before measuring: `load_before` is the load of the last minute.
    """
    return {
        "commit": commit(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        **more,
    }


def shown(found: dict[str, Any]) -> str:
    """One line of them."""
    return ", ".join(f"{name} {value}" for name, value in found.items())


def _cpu() -> str:
    with open("/proc/cpuinfo") as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
