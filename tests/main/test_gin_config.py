"""gin, checked: what is refused, with which words, and what is built."""

import dataclasses
import subprocess
import sys

import gin
import pytest

from optiml_jax.errors import InputError
from optiml_jax.main import gin_config


@dataclasses.dataclass(frozen=True)
class Engine:
    power: int
    fuel: str | None = None
    ratio: float = 1.0

    def __post_init__(self):
        if self.power < 1:
            raise InputError(f"engine: power is {self.power}, expected 1 or more.")


@dataclasses.dataclass(frozen=True)
class Wheel:
    size: int = 17


@dataclasses.dataclass(frozen=True)
class Car:
    engine: Engine
    name: str
    sizes: dict = dataclasses.field(default_factory=dict)
    wheels: tuple[Wheel, ...] = ()


CONFIGURABLES = {"drive": Car, "Engine": Engine, "Wheel": Wheel}

MODEL = """
MODEL = @Engine()
POWER = 90
SPORT_POWER = 200
Engine.power = %POWER
"""

RUN = """
NAME = %gin.REQUIRED
FUEL = None
drive.engine = %MODEL
drive.name = %NAME
Engine.fuel = %FUEL
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "small.gin").write_text(MODEL)
    (tmp_path / "run.gin").write_text(RUN)
    return tmp_path


def build(*bindings, files=("models/small.gin", "run.gin"), name="'a'"):
    flags = [("--gin.NAME", f"NAME = {name}")] if name else []
    flags += [(f"--gin.{text.partition(' = ')[0]}", text) for text in bindings]
    sources = gin_config.Sources(tuple(files), (), tuple(flags))
    return gin_config.build(sources, "drive", CONFIGURABLES)


def refusal(*bindings, **kwargs):
    with pytest.raises(InputError) as caught:
        build(*bindings, **kwargs)
    return str(caught.value)


def test_files_stack_and_flags_win(folder):
    car = build("POWER = 120").value
    assert car == Car(engine=Engine(power=120), name="a")
    assert type(car.engine) is Engine


def test_order_of_files_does_not_matter_for_references(folder):
    assert build(files=("run.gin", "models/small.gin")).value.engine.power == 90


def test_effective_config_builds_the_same_again(folder):
    first = build("POWER = 120", "drive.sizes = {'targets': 5}", "FUEL = 'diesel'")
    (folder / "config.gin").write_text(first.text)
    sources = gin_config.Sources(("config.gin",))
    second = gin_config.build(sources, "drive", CONFIGURABLES)
    assert second.value == first.value
    assert gin_config.same(second.text, first.text)
    for line in ("POWER = 120", "Engine.power = %POWER", "Engine.ratio = 1.0", "NAME = 'a'"):
        assert line in first.text.splitlines()


def test_effective_config_can_be_overridden(folder):
    (folder / "config.gin").write_text(build().text)
    sources = gin_config.Sources(("config.gin",), (), (("--gin.POWER", "POWER = 7"),))
    assert gin_config.build(sources, "drive", CONFIGURABLES).value.engine.power == 7


def test_unused_macro_of_a_model_file_is_no_error(folder):
    assert "SPORT_POWER" not in build().text


def test_misspelt_macro_names_the_nearest(folder):
    message = refusal("POWR = 3")
    assert message.startswith("--gin.POWR: unknown macro 'POWR'. Did you mean 'POWER'?")


def test_misspelt_required_macro_names_the_nearest(folder):
    assert "Did you mean 'NAME'?" in refusal("NAMES = 'b'", name=None)


def test_macro_in_a_user_file_has_to_be_used(folder):
    (folder / "mine.gin").write_text("\n\nPOWRE = 3\n")
    message = refusal(files=("models/small.gin", "run.gin", "mine.gin"))
    assert message.startswith("mine.gin:3: unknown macro 'POWRE'. Did you mean 'POWER'?")


def test_declared_macro_that_this_run_does_not_use(folder):
    message = refusal("SPORT_POWER = 3")
    assert "--gin.SPORT_POWER: macro 'SPORT_POWER' has no effect" in message


def test_undefined_macro_names_its_place(folder):
    (folder / "run.gin").write_text(RUN.replace("FUEL = None\n", ""))
    message = refusal()
    assert message == ("run.gin:5: macro 'FUEL' is not defined. Set it with --gin.FUEL=VALUE.")


def test_undefined_macro_that_was_misspelt(folder):
    (folder / "run.gin").write_text(RUN.replace("FUEL = None\n", ""))
    assert "Did you mean it by 'FUELL' (--gin.FUELL)?" in refusal("FUELL = 'gas'")


def test_forgotten_model_file_is_named(folder):
    message = refusal(files=("run.gin",))
    assert "run.gin:4: macro 'MODEL' is not defined: it comes with the model." in message
    assert "--gin_file=models/opt_125m.gin" in message


def test_macro_cycle(folder):
    message = refusal("POWER = %FUEL", "FUEL = %POWER")
    assert "refers to itself" in message
    assert "POWER" in message


def test_required_values_are_listed_together(folder):
    (folder / "models" / "small.gin").write_text("MODEL = @Engine()\n")
    message = refusal(name=None)
    assert message.startswith("2 required values not set: ")
    assert "--gin.NAME=VALUE (asked for in run.gin:2)" in message
    assert "--gin.Engine.power=VALUE" in message


def test_unknown_configurable(folder):
    assert "--gin.Engin.power: unknown configurable 'Engin'. Did you mean 'Engine'?" in refusal(
        "Engin.power = 3"
    )


def test_unknown_configurable_that_is_referred_to(folder):
    assert "unknown configurable 'Whel'. Did you mean 'Wheel'?" in refusal(
        "drive.wheels = (@Whel(),)"
    )


def test_unknown_parameter(folder):
    assert "unknown parameter of Engine 'powr'. Did you mean 'power'?" in refusal("Engine.powr = 3")


def test_binding_that_nothing_reaches(folder):
    message = refusal("Wheel.size = 3")
    assert "--gin.Wheel.size: 'Wheel.size' has no effect: `drive` never builds Wheel" in message


def test_binding_in_a_reached_container(folder):
    assert build("drive.wheels = (@Wheel(), @Wheel())", "Wheel.size = 3").value.wheels == (
        Wheel(3),
        Wheel(3),
    )


def test_scopes_work_and_unknown_ones_are_refused(folder):
    wheels = "drive.wheels = (@front/Wheel(), @Wheel())"
    assert build(wheels, "front/Wheel.size = 3").value.wheels == (Wheel(3), Wheel(17))
    assert "unknown scope 'frnt'. Did you mean 'front'?" in refusal(wheels, "frnt/Wheel.size = 3")


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("POWER = '90'", "--gin.POWER: Engine.power is '90' (str), expected int."),
        ("POWER = 1e2", "--gin.POWER: Engine.power is 100.0 (float), expected int."),
        ("POWER = True", "--gin.POWER: Engine.power is True (bool), expected int."),
        ("FUEL = 3", "--gin.FUEL: Engine.fuel is 3 (int), expected str or None."),
        ("Engine.ratio = 'x'", "--gin.Engine.ratio: Engine.ratio is 'x' (str), expected float."),
        ("POWER = 0", "engine: power is 0, expected 1 or more."),
    ],
)
def test_wrong_values(folder, binding, message):
    assert refusal(binding) == message


def test_whole_number_for_a_float(folder):
    assert build("Engine.ratio = 2").value.engine.ratio == 2


def test_string_without_quotes(folder):
    message = refusal(name="some/path")
    assert message.startswith("--gin.NAME: some/path is not a Python literal.")
    assert "--gin.NAME=\"'some/path'\"" in message


def test_unbalanced_value(folder):
    assert "{'a': is not a Python literal" in refusal("drive.sizes = {'a':")


def test_syntax_error_names_file_and_line(folder):
    (folder / "run.gin").write_text("NAME = 3\nFUEL = no quotes\n")
    assert refusal().startswith("run.gin:2: not gin: ")


def test_unknown_file_names_the_nearest(folder):
    message = refusal(files=("models/opt_tinny.gin", "run.gin"))
    assert "unknown gin file 'models/opt_tinny.gin'. Did you mean 'models/opt_tiny.gin'?" in message
    assert f"Searched: '{folder}'" in message


def test_search_path_comes_before_the_working_directory(folder):
    (folder / "mine").mkdir()
    (folder / "mine" / "run.gin").write_text(RUN + "Engine.ratio = 3.0\n")
    sources = gin_config.Sources(
        ("models/small.gin", "run.gin"), ("mine",), (("--gin.NAME", "NAME = 'a'"),)
    )
    assert gin_config.build(sources, "drive", CONFIGURABLES).value.engine.ratio == 3.0


def test_include_and_its_loop(folder):
    (folder / "more.gin").write_text("include 'run.gin'\nPOWER = 5\n")
    assert build(files=("models/small.gin", "more.gin")).value.engine.power == 5
    (folder / "run.gin").write_text("include 'more.gin'\n")
    assert "leads back to a file being read" in refusal(files=("models/small.gin", "more.gin"))


def test_imported_module_registers_its_own_configurable(folder, monkeypatch):
    (folder / "my_rates.py").write_text(
        "import gin\n@gin.configurable\ndef fast_engine(boost=2):\n    return boost\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    (folder / "mine.gin").write_text("import my_rates\nNAME = 'x'\ndrive.sizes = @fast_engine()\n")
    files = ("models/small.gin", "run.gin", "mine.gin")
    assert build("fast_engine.boost = 4", files=files).value.sizes == 4


def test_function_that_is_handed_over_needs_no_arguments(folder, monkeypatch):
    """As a user's mixing rate is: called later, with arguments that gin does not know."""
    (folder / "my_own_rates.py").write_text(
        "import gin\n@gin.configurable\ndef my_rate(task, size, cap=9): return min(size, cap)\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    (folder / "mine.gin").write_text(
        "import my_own_rates\nNAME = 'x'\ndrive.sizes = {'rate': @my_rate}\nmy_rate.cap = 5\n"
    )
    built = build(files=("models/small.gin", "run.gin", "mine.gin"))
    assert built.value.sizes["rate"]("task", 7) == 5


def test_import_that_fails(folder):
    (folder / "mine.gin").write_text("import no_such_module_here\n")
    assert "mine.gin:1: import no_such_module_here: No module named" in refusal(files=("mine.gin",))


def test_dynamic_registration_is_refused(folder):
    (folder / "mine.gin").write_text("from __gin__ import dynamic_registration\n")
    assert "every configurable is registered already" in refusal(files=("mine.gin",))


def test_package_files_are_found_from_anywhere(folder):
    assert gin_config.find_file("runs/finetune.gin").is_file()
    assert "runs/finetune.gin" in gin_config.gin_files()


def test_gin_is_the_library_from_a_folder_with_our_names(tmp_path):
    """gin 0.5.0's own reader fails where the working directory has a folder `models`."""
    (tmp_path / "models").mkdir()
    (tmp_path / "recipes").mkdir()
    code = (
        "from optiml_jax.main import gin_config; import gin; print(gin.__version__ if hasattr(gin,"
        " '__version__') else gin.config.__name__); gin_config.find_file('models/opt_tiny.gin')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "not found" not in done.stdout + done.stderr
    assert hasattr(gin, "parse_config")
