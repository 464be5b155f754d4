"""The order of packages, read from the source: a package imports only from its left."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
ORDER = ("errors", "types", "bench", "data", "model", "infer", "train", "ahead", "eval", "main")
ALLOWED = {
    name: set(ORDER[: position + 1]) - ({"data"} if name == "model" else set())
    for position, name in enumerate(ORDER)
}
# Beside the row: interop bridges models and files, tasks declare benchmarks.
ALLOWED["interop"] = {"errors", "types", "bench", "data", "model", "infer", "interop"}
ALLOWED["tasks"] = {"errors", "types", "bench", "data", "tasks"}
# Commands may read the declarations.
ALLOWED["main"] = ALLOWED["main"] | {"tasks", "interop"}

SEQIO_DOORS = ("data/seqio_tasks.py", "data/seqio_text.py", "data/foreign_tasks.py")
# Rows of TFDS, which imports it in functions; builders for TFDS, which nothing of ours imports.
TFDS_DOORS = (
    "data/tfds_rows.py",
    "tasks/tfds_builders/__main__.py",
    "tasks/tfds_builders/super_natural_instructions/super_natural_instructions_dataset_builder.py",
)
SEQIO_MODULES = tuple(f"optiml_jax.{door[:-3].replace('/', '.')}" for door in SEQIO_DOORS)
ONLY_IN = {
    "gin": ("main/gin_config.py",),
    # The doors to SeqIO: our tasks for it, the text and the roles of users' tasks from it.
    "tensorflow": SEQIO_DOORS,
    "tensorflow_datasets": (*SEQIO_DOORS, *TFDS_DOORS),
    "seqio": (*SEQIO_DOORS, "data/tfds_rows.py"),
}
NO_JAX = ("bench", "data", "tasks")
TEST_ONLY = ("torch", "transformers", "pytest")


def source_files():
    """(package, path relative to it, absolute path) of every module of the package."""
    for folder, prefix in ((ROOT / "optiml_jax", ""), (ROOT / "tasks", "tasks/")):
        for path in sorted(folder.rglob("*.py")):
            yield prefix + path.relative_to(folder).as_posix(), path


def package_of(name):
    first = name.split("/")[0]
    return first.removesuffix(".py")


def imports(path):
    """(module, line, inside a function) of every import, `from a import b` as a.b and a."""
    tree = ast.parse(path.read_text("utf-8"))
    inner = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, node in inner
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or ""), node.lineno, node in inner
                continue
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno, node in inner


FILES = [pytest.param(name, path, id=name) for name, path in source_files()]


@pytest.mark.parametrize(("name", "path"), FILES)
def test_imports_only_from_the_left(name, path):
    package = package_of(name)
    if package in ("__init__", "__main__"):
        pytest.skip("the package's face imports nothing, its entry only main")
    for module, line, _ in imports(path):
        if module.startswith("."):
            assert package == "tasks", f"{name}:{line}: relative import"
            continue
        parts = module.split(".")
        if parts[0] != "optiml_jax" or len(parts) < 2 or parts[1] == "__version__":
            continue
        assert parts[1] in ALLOWED[package], f"{name}:{line}: {package} imports {module}"


@pytest.mark.parametrize(("name", "path"), FILES)
def test_heavy_libraries_stay_at_their_door(name, path):
    for module, line, inside in imports(path):
        library = module.split(".")[0]
        if library in ONLY_IN:
            assert name in ONLY_IN[library], f"{name}:{line}: imports {library}"
        if name not in SEQIO_DOORS and module.startswith(SEQIO_MODULES):
            assert inside, f"{name}:{line}: loads SeqIO while it loads; import it in the function"
        if library in ("jax", "flax", "optax", "orbax"):
            assert package_of(name) not in NO_JAX, f"{name}:{line}: imports {library}"
        assert library not in TEST_ONLY, f"{name}:{line}: imports {library}"


def test_gin_folder_has_no_init():
    assert not list((ROOT / "gin").rglob("*.py")), "a package gin/ would hide the gin library"


def loaded_modules(code):
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in done.stdout.splitlines()}


def test_training_stacks_load_neither_tensorflow_nor_seqio():
    loaded = loaded_modules(
        "import pkgutil, importlib, optiml_jax\n"
        "for package in ('bench', 'data', 'model', 'infer', 'train', 'ahead', 'eval', 'main'):\n"
        "    module = importlib.import_module(f'optiml_jax.{package}')\n"
        "    for found in pkgutil.walk_packages(module.__path__, module.__name__ + '.'):\n"
        f"        if found.name not in {SEQIO_MODULES}:\n"
        "            importlib.import_module(found.name)\n"
        "import optiml_jax.tasks"
    )
    assert "jax" in loaded
    assert "optiml_jax" in loaded
    assert not loaded & {"tensorflow", "seqio", "tensorflow_datasets", "tensorflow_text"}


def test_the_command_line_loads_nothing_heavy():
    loaded = loaded_modules("from optiml_jax.main import cli\ncli.make_parser()")
    assert not loaded & {"jax", "gin", "numpy", "grain", "tensorflow", "seqio", "orbax", "rich"}


def test_the_package_itself_imports_nothing():
    assert "numpy" not in loaded_modules("import optiml_jax")
