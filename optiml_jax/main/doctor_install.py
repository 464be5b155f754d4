"""Checks of the install for `optiml doctor`: Python, packages, the package's own files, extras.

TensorFlow is never imported into this process: it is imported in one of its own, where a broken
build cannot take the doctor down with it.
"""

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping

import optiml_jax
from optiml_jax.errors import InputError
from optiml_jax.main.doctor_checks import Finding, looked_at, one_line

MIN_PYTHON = (3, 11)
IMPORTED = ("jax", "flax", "optax", "orbax.checkpoint", "grain", "tokenizers", "array_record")
"""What training needs; imported here. SeqIO and TensorFlow serve SeqIO's users alone."""

IMPORT_SECONDS = 180
OPTIONAL: Mapping[str, tuple[str, str]] = {
    "torch": (
        "torch",
        "parity tests and benchmarks beside it; pip install 'optiml_jax[dev]'",
    ),
    "transformers": ("transformers", "parity tests; pip install 'optiml_jax[dev]'"),
    "libtpu": ("libtpu", "TPUs and compiling for them; pip install 'optiml_jax[tpu]'"),
}
"""Name -> (module, what it is for and how to get it)."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def check_install(quick: bool) -> list[Finding]:
    """Python, required packages and their versions, the package's own files, extras."""
    other = None if quick else _start_import("seqio")
    findings = [_python(), *_packages(), *_imports()]
    for name, check in (
        ("vocabulary", _vocabulary),
        ("gin files", _gin_files),
        ("benchmarks", _benchmarks),
    ):
        findings += looked_at(name, lambda check=check: [check()])
    findings += [*_optional(), _browser()]
    if other is not None:
        findings.append(_finish_import("seqio", other))
    return findings


def _python() -> Finding:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < MIN_PYTHON:
        wanted = ".".join(map(str, MIN_PYTHON))
        return Finding("problem", "python", found, f"Use Python {wanted} or newer.")
    return Finding("ok", "python", found)


def _packages() -> list[Finding]:
    """Versions of the required packages, against what is required and what was tested."""
    try:
        required = importlib.metadata.requires("optiml_jax") or []
    except importlib.metadata.PackageNotFoundError:
        return [
            Finding(
                "problem",
                "optiml_jax",
                f"{optiml_jax.__version__}, not installed, only found on the path",
                "Run `pip install -e . -c constraints.txt` in the checkout.",
            )
        ]
    tested = tested_versions()
    findings = [Finding("ok", "optiml_jax", optiml_jax.__version__)]
    for requirement in required:
        if "extra ==" not in requirement:
            name, *least = re.split(r">=", requirement.split(";")[0].strip())
            findings.append(check_package(name, least[0] if least else "", tested))
    return findings


def check_package(name: str, least: str, tested: Mapping[str, str]) -> Finding:
    """One package's version against the least that is required and the one that was tested."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        wanted = f"{name}>={least}" if least else name
        return Finding("problem", name, "not installed", f"Run `pip install '{wanted}'`.")
    if least and version_key(version) < version_key(least):
        advice = f"{least} or newer is needed: run `pip install --upgrade '{name}>={least}'`."
        return Finding("problem", name, version, advice)
    known = tested.get(_folded(name))
    if known and known != version:
        advice = (
            f"The tests ran with {known}. If something fails, run"
            f" `pip install {name}=={known}`, or install with -c constraints.txt."
        )
        return Finding("warning", name, version, advice)
    return Finding("ok", name, version)


def tested_versions() -> dict[str, str]:
    """Package -> version of constraints.txt, empty where the package is no checkout."""
    path = pathlib.Path(optiml_jax.__file__).parent.parent / "constraints.txt"
    if not path.is_file():
        return {}
    pins = (line.split("==") for line in path.read_text("utf-8").splitlines() if "==" in line)
    return {_folded(name): version.strip() for name, version in pins}


def version_key(version: str) -> tuple[int, ...]:
    """A version's numbers, for comparing releases: "0.10.2rc1" is (0, 10, 2)."""
    numbers = []
    for part in version.split("."):
        if not (match := re.match(r"\d+", part)):
            break
        numbers.append(int(match[0]))
        if match[0] != part:
            break
    return tuple(numbers)


def _folded(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).casefold()


def _imports() -> list[Finding]:
    """Packages that are installed but do not load."""
    findings = []
    for name in IMPORTED:
        try:
            importlib.import_module(name)
        # A broken build raises whatever it likes, and a missing one was told with its version.
        except Exception as error:
            if not isinstance(error, ModuleNotFoundError) or error.name != name.split(".")[0]:
                findings.append(_broken_import(name, str(error)))
    if findings:
        return findings
    return [Finding("ok", "imports", ", ".join(IMPORTED))]


def _start_import(module: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", f"import {module}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def _finish_import(module: str, process: subprocess.Popen[str]) -> Finding:
    name = f"import {module}"
    try:
        _, told = process.communicate(timeout=IMPORT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return Finding("warning", name, f"still loading after {IMPORT_SECONDS} s", "Try it alone.")
    except BaseException:  # Ctrl-C must not leave it behind.
        process.kill()
        process.communicate()
        raise
    if process.returncode:
        last = (told.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        finding = _broken_import(module, last)
        told = " Training and evaluation from a store do not need it."
        return dataclasses.replace(finding, status="warning", advice=finding.advice + told)
    return Finding("ok", name, "with TensorFlow, in a process of its own")


def _broken_import(module: str, error: str) -> Finding:
    package = module.replace(".", "-")  # orbax.checkpoint comes with orbax-checkpoint
    advice = f"Run `pip install --force-reinstall {package} -c constraints.txt`."
    return Finding("problem", f"import {module}", one_line(error), advice)


def _vocabulary() -> Finding:
    from optiml_jax.data import vocabularies

    try:
        vocabulary = vocabularies.gpt2_vocabulary()
    except InputError as error:
        return Finding("problem", "vocabulary", one_line(str(error)))
    return Finding("ok", "vocabulary", f"{vocabulary.name}, {vocabulary.size:,} ids")


def _gin_files() -> Finding:
    from optiml_jax.main import gin_config

    try:
        names = gin_config.gin_files()
    except InputError as error:
        return Finding("problem", "gin files", one_line(str(error)))
    return Finding("ok", "gin files", f"{len(names)} in {gin_config.gin_folder()}")


def _benchmarks() -> Finding:
    # setup.py maps the folder tasks/ to this name, which pyright does not know.
    from optiml_jax import tasks  # pyright: ignore[reportAttributeAccessIssue]

    return Finding("ok", "benchmarks", ", ".join(tasks.BENCHMARKS))


def _optional() -> list[Finding]:
    findings = []
    for name, (module, purpose) in OPTIONAL.items():
        if importlib.util.find_spec(module) is None:
            findings.append(Finding("ok", name, f"not installed; only needed for {purpose}"))
            continue
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "present"
        findings.append(Finding("ok", name, version))
    return findings


def _browser() -> Finding:
    for name in BROWSERS:
        if path := shutil.which(name):
            return Finding("ok", "browser", path)
    return Finding("ok", "browser", "no Chromium; only needed for screenshots of reports")
