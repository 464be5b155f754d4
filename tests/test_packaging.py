"""A wheel and an editable install both work from any folder, gin files and tasks included."""

import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest

import optiml_jax
from optiml_jax.main import gin_config

ROOT = pathlib.Path(__file__).parent.parent
SOURCES = ("optiml_jax", "tasks", "gin", "setup.py", "pyproject.toml", "README.md")

PROBE = """
import optiml_jax, optiml_jax.tasks, gin
from optiml_jax.eval import report_page
from optiml_jax.main import gin_config
print(optiml_jax.__file__)
print(optiml_jax.tasks.__file__)
print(gin_config.gin_folder())
print(len(gin_config.gin_files()))
assert (report_page.FOLDER / "page.html").is_file(), "the report's template is not installed"
assert hasattr(gin, "parse_config"), "gin is not the library"
assert "super_natural_instructions" in optiml_jax.tasks.BENCHMARKS
"""


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what a release is made from."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    return folder


def make_environment(folder):
    """A virtual environment that sees this one's dependencies, but not this one's optiml_jax."""
    run(sys.executable, "-m", "venv", "--without-pip", str(folder), cwd=folder.parent)
    (site,) = folder.glob("lib/python*/site-packages")
    # Folders that a .pth file adds have their own .pth files ignored, the editable install's too.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin"


def install(binaries, *arguments, cwd):
    run(
        *(sys.executable, "-m", "pip", "--python", str(binaries / "python"), "install"),
        *("--quiet", "--no-deps", "--no-index", "--no-build-isolation", *arguments),
        cwd=cwd,
    )


@pytest.fixture(scope="module")
def wheel_environment(checkout, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
        *("--outdir", str(folder), str(checkout)),
        cwd=folder,
    )
    (wheel,) = folder.glob("*.whl")
    binaries = make_environment(folder / "environment")
    install(binaries, "--ignore-installed", str(wheel), cwd=folder)
    return binaries


@pytest.mark.slow
def test_wheel_from_another_folder(wheel_environment, tmp_path):
    binaries = wheel_environment
    assert "optiml train" in run(binaries / "optiml", "--help", cwd=tmp_path)
    assert run(binaries / "optiml", "--version", cwd=tmp_path).strip() == optiml_jax.__version__
    package, tasks, gin_folder, count = run(
        binaries / "python", "-c", PROBE, cwd=tmp_path
    ).splitlines()
    site = pathlib.Path(package).parent
    assert site.parent.name == "site-packages"
    assert pathlib.Path(tasks).parent == site / "tasks"
    assert pathlib.Path(gin_folder) == site / "gin_files"
    assert int(count) == len(gin_config.gin_files())


@pytest.mark.slow
def test_wheel_with_the_checkout_as_working_directory(wheel_environment, checkout):
    """`python -c` puts the working directory first, whose package has tasks/ beside it."""
    package, tasks, gin_folder, _ = run(
        wheel_environment / "python", "-c", PROBE, cwd=checkout
    ).splitlines()
    assert pathlib.Path(package).parent == checkout / "optiml_jax"
    assert pathlib.Path(tasks).parent == checkout / "tasks"
    assert pathlib.Path(gin_folder) == checkout / "gin"
    assert "optiml train" in run(wheel_environment / "optiml", "--help", cwd=checkout)


@pytest.mark.slow
def test_editable_install_from_another_folder(checkout, tmp_path):
    binaries = make_environment(tmp_path / "environment")
    install(binaries, "--ignore-installed", "--editable", str(checkout), cwd=tmp_path)
    for folder in (tmp_path, checkout):
        package, tasks, gin_folder, _ = run(
            binaries / "python", "-c", PROBE, cwd=folder
        ).splitlines()
        assert pathlib.Path(package).parent == checkout / "optiml_jax"
        assert pathlib.Path(tasks).parent == checkout / "tasks"
        assert pathlib.Path(gin_folder) == checkout / "gin"
    assert "optiml train" in run(binaries / "optiml", "--help", cwd=tmp_path)


def test_constraints_are_exact_and_name_no_host():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    for line in lines:
        name, separator, version = line.partition("==")
        assert separator, line
        assert name, line
        assert version, line
        assert "/" not in line, line
        assert "+" not in version, f"{line}: a local build is on no index"
    assert "torch==2.13.0" in lines
    names = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    for needed in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "seqio"):
        assert needed in names


def test_help_is_quick(tmp_path):
    """A generous bound on a shared machine; alone it takes a twentieth of it."""
    code = (
        "import sys, time; began = time.monotonic(); from optiml_jax.main import cli;"
        " cli.main(['--help']); sys.exit(time.monotonic() - began > 1.5)"
    )
    run(sys.executable, "-c", code, cwd=tmp_path)
