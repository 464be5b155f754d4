"""A small folder of official-schema files, and the way to the real one."""

import copy
import json
import os
import pathlib

import pytest

TASK = {
    "Contributors": ["A. Author"],
    "Source": ["toy"],
    "URL": ["https://example.org"],
    "Categories": ["Text Matching"],
    "Reasoning": [],
    "Definition": ["Say whether the sentences match. ", "A second wording."],
    "Input_language": ["English"],
    "Output_language": ["English"],
    "Instruction_language": ["English"],
    "Domains": ["News"],
    "Positive Examples": [
        {"input": "cat / cat", "output": "Yes", "explanation": "Same."},
        {"input": "cat / dog", "output": "No", "explanation": "Other."},
    ],
    "Negative Examples": [{"input": "a / b", "output": "Yes", "explanation": "Wrong."}],
    "Instances": [
        {"id": f"toy-{i}", "input": f"word {i} / word {i % 7}", "output": [("Yes", "No")[i % 2]]}
        for i in range(20)
    ],
    "Instance License": ["MIT"],
}


class TaskFolder:
    """Writes task files; `change` is applied to a fresh copy of TASK."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def add(self, name, change=lambda task: None, **fields):
        task = copy.deepcopy(TASK) | fields
        change(task)
        file = self.path / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(task), encoding="utf-8")
        return file


@pytest.fixture
def folder(tmp_path):
    return TaskFolder(tmp_path / "data")


@pytest.fixture(scope="session")
def real_data():
    root = os.environ.get("OPTIML_TEST_DATA")
    if not root:
        pytest.skip("OPTIML_TEST_DATA is not set: no real data here")
    return pathlib.Path(root)


@pytest.fixture(scope="session")
def real_folder(real_data):
    return real_data / "super_natural_instructions"


@pytest.fixture(scope="session")
def real_tasks(real_folder):
    """All real tasks and what the reader said."""
    from optiml_jax.bench.sources import super_natural_instructions

    said = []
    return super_natural_instructions.read(real_folder, on_skip=said.append), said
