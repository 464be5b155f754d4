import collections
import dataclasses
import hashlib
import json
import re
import subprocess
import sys

import pytest

from optiml_jax.bench import catalog, prompts, record
from optiml_jax.errors import InputError

SPEC = catalog.TaskSpec(
    name="b__t",
    original_name="t",
    benchmark="b",
    category="Mathematics",
    instruction_kind="task",
    sources=("toy",),
    metric="rouge_l",
    input_languages=("English",),
    output_languages=("English",),
    licence="MIT",
    num_examples=3,
    path="",
)
CONTENT = catalog.TaskContent(
    "Add the numbers.",
    (record.Demonstration("1 + 1", "2 "), record.Demonstration("What is 1 + 2:", "3")),
    (),
)
RECORD = record.Record("r", " 2 + 2\n", ("4", "four"), ("3", "4"))


def render(example=RECORD, spec=SPEC, content=CONTENT, seed=0, rendering=0, pool=(), **config):
    return prompts.render(
        spec, content, example, prompts.PromptConfig(**config), seed, rendering, pool
    )


def test_the_eight_delimiters():
    assert prompts.DELIMITERS == (
        "\nAnswer:", " Answer:", "\nA:", " A:", "\nOutput:", " Output:", "\nanswer:", "\noutput:",
    )  # fmt: skip


def test_zero_shot_text():
    fixed = {"prefixes": ["Task: "], "input_prefixes": ["Input: "], "delimiters": ["\nOutput:"]}
    example = render(**fixed)
    assert example.source == "Task: Add the numbers.\nInput: 2 + 2\nOutput:"
    assert example.references == ("4", "four")
    assert example.options == ("3", "4")
    assert example.prompt_id == "0.0.0"


def test_demonstrations_stand_after_the_definition_in_the_same_form():
    fixed = {"prefixes": [""], "input_prefixes": ["Input: "], "delimiters": [" A:"], "shots": 2}
    example = render(separator="\n##\n", **fixed)
    assert example.source == (
        "Add the numbers.\nInput: 1 + 1 A: 2\n##\nInput: What is 1 + 2: 3\n##\nInput: 2 + 2 A:"
    )
    assert example.prompt_id == "0.0.0.2shot"
    assert "\n\n\n" in render(**fixed).source


def test_a_colon_at_the_end_needs_no_delimiter():
    example = render(record.Record("r", "What is 2 + 2: ", ("4",)))
    assert example.source.endswith("What is 2 + 2:")
    assert example.prompt_id.endswith(".-")


def test_instance_level_prompts_are_left_as_they_are():
    spec = dataclasses.replace(SPEC, instruction_kind="instance")
    content = catalog.TaskContent("", CONTENT.demonstrations, ())
    example = render(spec=spec, content=content, shots=1, delimiters=["\nA:"])
    assert example.source == "1 + 1\nA: 2\n\n\n2 + 2\nA:"
    assert example.prompt_id == "-.-.0.1shot"


def test_missing_demonstrations_show_in_the_prompt_id():
    assert render(shots=5).prompt_id.endswith(".2shot")
    pool = [record.Record(str(i), f"{i} + 0", (str(i),)) for i in range(9)]
    assert render(shots=5, pool=pool).prompt_id.endswith(".5shot")


def test_every_form_and_delimiter_is_drawn_about_equally():
    ids = [render(record.Record(str(i), "2 + 2", ("4",))).prompt_id for i in range(4800)]
    counts = collections.Counter(ids)
    # 3 x 2 x 8 wordings, 100 each; 5 standard deviations are 50.
    assert len(counts) == 48
    assert all(abs(count - 100) < 50 for count in counts.values())


def test_a_draw_by_hand():
    key = "\0".join(("7", "b__t", "r", "3", "delimiter"))
    expected = int(hashlib.sha256(key.encode()).hexdigest()[:16], 16) % 8
    assert render(seed=7, rendering=3).source.endswith("2 + 2" + prompts.DELIMITERS[expected])


def test_renderings_go_through_the_references():
    three = record.Record("r", "x", ("a ", "b", "c"))
    targets = [render(three, rendering=r).target for r in range(6)]
    assert sorted(targets[:3]) == ["a", "b", "c"]
    assert targets[3:] == targets[:3]
    first = {render(record.Record(str(i), "x", ("a", "b", "c"))).target for i in range(40)}
    assert first == {"a", "b", "c"}


def test_another_process_with_another_hash_seed_writes_the_same_text():
    code = (
        "from optiml_jax.bench import catalog, prompts, record\n"
        "import sys, json\n"
        "spec = catalog.TaskSpec.from_json(json.loads(sys.argv[1]))\n"
        "content = catalog.TaskContent('Add.', (), ())\n"
        "out = [prompts.render(spec, content, record.Record(str(i), 'x', ('1', '2')),\n"
        "       prompts.PromptConfig(), 5, i % 3).source for i in range(20)]\n"
        "print(json.dumps(out))"
    )
    spec = json.dumps(SPEC.to_json())
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code, spec],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_the_digest_follows_every_field_and_the_code(monkeypatch):
    base = prompts.PromptConfig()
    assert base.digest() == prompts.PromptConfig().digest()
    changes = [{"shots": 1}, {"separator": "\n"}, {"prefixes": [""]}, {"delimiters": [" A:"]}]
    changes.append({"input_prefixes": [""]})
    digests = {prompts.PromptConfig(**change).digest() for change in changes} | {base.digest()}
    monkeypatch.setattr(prompts, "CODE_VERSION", prompts.CODE_VERSION + 1)
    digests.add(base.digest())
    assert len(digests) == len(changes) + 2


def test_config_survives_json_and_checks_itself():
    config = prompts.PromptConfig(shots=2, prefixes=["Task: "])
    assert prompts.PromptConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    with pytest.raises(InputError, match=r"unknown field 'shot'\. Did you mean 'shots'"):
        prompts.PromptConfig.from_json({"shot": 1})
    for bad, message in [
        ({"shots": -1}, "PromptConfig.shots is -1, expected 0 or more"),
        ({"shots": "5"}, "PromptConfig.shots is '5'"),
        ({"separator": ""}, "PromptConfig.separator is ''"),
        ({"delimiters": []}, "PromptConfig.delimiters is []"),
        ({"prefixes": "Task: "}, "PromptConfig.prefixes is 'Task: '"),
    ]:
        with pytest.raises(InputError, match=re.escape(message)):
            prompts.PromptConfig(**bad)


def test_real_tasks_render(real_tasks):
    for task in real_tasks[0][::40]:
        content = task.load()
        for example in content.records[:5]:
            one = prompts.render(task.spec, content, example, prompts.PromptConfig(), 0, 0)
            assert content.definition in one.source
            assert example.input.strip() in one.source
            assert one.source.endswith(":")
            assert one.target in {r.strip() for r in example.references}


def test_wordings_are_drawn_and_named():
    content = dataclasses.replace(CONTENT, wordings=("Give the sum.", "Sum up."))
    counts = collections.Counter()
    for number in range(300):
        example = render(dataclasses.replace(RECORD, id=str(number)), content=content)
        name, rest = example.prompt_id.split(".", 1)
        wording = ("Add the numbers.", "Give the sum.", "Sum up.")[int(name.removeprefix("w"))]
        assert wording in example.source
        assert re.fullmatch(r"\d\.\d\.\d", rest)
        counts[wording] += 1
    # 300 draws of three: four deviations of 8 around 100.
    assert all(68 < count < 132 for count in counts.values())
    assert render(content=content) == render(content=content)


def test_text_without_instructions_is_its_own_target():
    spec = dataclasses.replace(SPEC, instruction_kind="text")
    example = render(record.Record("r", "", (" Once upon a time. ",)), spec=spec)
    assert (example.source, example.target) == ("", "Once upon a time.")
    assert example.prompt_id == "text"
