"""Users' modules: found by name and by path, imported once, and their `OPTIML` tables."""

import sys

import pytest

from optiml_jax.data import user_modules
from optiml_jax.errors import InputError


@pytest.fixture(autouse=True)
def _imports(tmp_path, monkeypatch):
    """A working directory of its own; modules and paths of a test are gone after it."""
    monkeypatch.chdir(tmp_path)
    modules, paths = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:] = paths


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


COUNTS = "import builtins\nbuiltins.num_imports = getattr(builtins, 'num_imports', 0) + 1\n"


@pytest.fixture
def num_imports(monkeypatch):
    import builtins

    monkeypatch.setattr(builtins, "num_imports", 0, raising=False)
    return lambda: builtins.num_imports  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    "order",
    [
        ["own_module", "own_module.py", "./own_module.py", "own_module"],
        ["./own_module", "own_module", "own_module.py"],
    ],
)
def test_a_module_is_imported_once_however_it_is_named(tmp_path, num_imports, order):
    write(tmp_path / "own_module.py", COUNTS)
    loaded = {user_modules.load_modules(name)[0] for name in order}
    assert (len(loaded), num_imports()) == (1, 1)


def test_packages_and_modules_in_folders(tmp_path, num_imports):
    write(tmp_path / "deep" / "own_package" / "__init__.py", COUNTS + "from . import part")
    write(tmp_path / "deep" / "own_package" / "part.py", "NAME = 'part'")
    write(tmp_path / "deep" / "beside.py", "import own_package\n")
    names = ["deep/own_package", "deep/beside.py", "deep.own_package"]
    first, second, third = user_modules.load_modules(names)
    assert first.part.NAME == "part"
    assert second.own_package is first is third
    assert num_imports() == 1


def test_several_modules_with_commas_or_as_a_list(tmp_path):
    for name in ("own_a", "own_b"):
        write(tmp_path / f"{name}.py")
    for names in ("own_a, own_b", ["own_a", "own_b"], ("own_a", "own_b")):
        assert [m.__name__ for m in user_modules.load_modules(names)] == ["own_a", "own_b"]


def test_a_file_with_the_name_of_another_module_hides_nothing(tmp_path):
    import json

    path = write(tmp_path / "json.py", "MINE = True")
    (mine,) = user_modules.load_modules(str(path))
    assert mine.MINE
    assert sys.modules["json"] is json


def test_a_file_whose_name_has_a_dot(tmp_path):
    write(tmp_path / "own.tasks.py", "MINE = True")
    first, second = user_modules.load_modules("own.tasks.py,./own.tasks.py")
    assert first.MINE
    assert first is second


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("~no_such_user/own_module.py", "module file '~no_such_user/own_module.py' does not exist"),
        ("own_modul", "was found neither in the working directory '"),
        ("own_modul", "Did you mean 'own_module'? Give a name that Python can import, or a path"),
        (
            "./own_modul.py",
            "module file 'own_modul.py' does not exist. Did you mean 'own_module.py'?",
        ),
        ("own_module.inner", "module 'own_module.inner' was found neither"),
        ("no-name", "module 'no-name' was found neither"),
        ("", "module '': a name is empty."),
        ("own_module,", "module 'own_module,': a name is empty."),
        (7, "module 7: expected a name such as 'my_tasks', or a list of them."),
        ([None], "module [None]: expected a name"),
    ],
)
def test_modules_that_are_not_there(tmp_path, names, message):
    write(tmp_path / "own_module.py")
    with pytest.raises(InputError) as error:
        user_modules.load_modules(names)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nraise KeyError('lost')\n", "own_bad.py:2: KeyError: 'lost'"),
        ("import no_such_module_x\n", "own_bad.py:1: ModuleNotFoundError: No module named"),
        ("def f(:\n", "own_bad.py:1: SyntaxError: "),
        ("import sys\n\nsys.exit(3)\n", "own_bad.py:3: SystemExit: 3"),
        # The user's line, not the line of this package that raised.
        (
            "from optiml_jax.bench import taxonomy\ntaxonomy.canonical_category('x')\n",
            "own_bad.py:2: InputError: unknown category 'x'",
        ),
        ("import json\njson.loads('{')\n", "own_bad.py:2: JSONDecodeError: "),
    ],
)
@pytest.mark.parametrize("name", ["own_bad", "./own_bad.py"])
def test_modules_that_fail_name_file_and_line(tmp_path, text, message, name):
    write(tmp_path / "own_bad.py", text)
    with pytest.raises(InputError) as error:
        user_modules.load_modules(name)
    assert str(error.value).startswith(f"module '{name}' cannot be imported: ")
    assert message in str(error.value)
    assert "own_bad" not in sys.modules


def declared(tmp_path, table, name="own_table"):
    write(tmp_path / f"{name}.py", f"OPTIML = {table!r}")
    return user_modules.declarations(user_modules.load_modules(name))


def test_the_table(tmp_path):
    found = declared(
        tmp_path,
        {
            "a": {"category": "question answering", "options": ["x", "y"], "version": 3},
            "b": {"category": " Letter Counting ", "metric": "accuracy", "role": None},
            "c": {},
        },
    )
    assert found["a"].category == "Question Answering"
    assert (found["a"].options, found["a"].version) == (("x", "y"), "3")
    assert (found["b"].category, found["b"].role) == ("Letter Counting", None)
    assert found["c"] == user_modules.Declaration()
    write(tmp_path / "own_plain.py")
    assert user_modules.declarations(user_modules.load_modules("own_plain")) == {}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "own_table.py: OPTIML is [], expected {'task name': {...}}."),
        ({"a": "Misc."}, "OPTIML['a'] is 'Misc.', expected {'category': ..."),
        ({"a": {"categry": "x"}}, "unknown field 'categry'. Did you mean 'category'?"),
        ({"a": {"category": " "}}, "OPTIML['a']['category'] is ' ', expected some text."),
        ({"a": {"metric": "rouge"}}, "unknown metric 'rouge'. Did you mean 'rouge_l'?"),
        ({"a": {"role": "held_out"}}, "unknown role 'held_out'."),
        ({"a": {"role": "excluded"}}, "unknown role 'excluded'."),
        ({"a": {"options": "xy"}}, "OPTIML['a']['options'] is 'xy', expected a list of texts."),
        ({"a": {"version": 1.5}}, "OPTIML['a']['version'] is 1.5, expected some text."),
        ({1: {}}, "own_table.py: OPTIML has the key 1, expected the name of a task."),
        ({"a": {1: "x"}}, "OPTIML['a'] has the key 1, expected the name of a field."),
        ({"a": {"benchmark": "my own"}}, "expected letters, digits and underscores: 'my_own'."),
    ],
)
def test_bad_tables(tmp_path, table, message):
    with pytest.raises(InputError) as error:
        declared(tmp_path, table)
    assert message in str(error.value)


def test_modules_that_disagree(tmp_path):
    write(tmp_path / "own_one.py", "OPTIML = {'a': {'metric': 'accuracy'}}")
    write(tmp_path / "own_two.py", "OPTIML = {'a': {}}")
    with pytest.raises(InputError, match=r"own_two.py: OPTIML\['a'\]: another module declares"):
        user_modules.declarations(user_modules.load_modules("own_one,own_two"))
