"""The mini benchmark: what it promises about itself, checked on the files it writes."""

import collections
import hashlib
import json
import pathlib
import re
import subprocess
import sys

import pytest

from optiml_jax import tasks
from optiml_jax.bench import mini_split, splits, taxonomy
from optiml_jax.data import rendering
from optiml_jax.errors import InputError
from optiml_jax.tasks.mini import declaration, files, lexicon, scenes

# Of all bytes of all files for seed 0: the same on every machine. A change of the benchmark changes
# it, and with it every score that was published for it.
DIGEST = "031ce3de25b17181"


@pytest.fixture(scope="module")
def mini():
    found, assignments = tasks.read("mini", None)
    return {task.spec.name: (task, assignments[task.spec.name]) for task in found}


@pytest.fixture(scope="module")
def instructed(mini):
    return {name: pair for name, pair in mini.items() if pair[0].spec.benchmark == "mini"}


def test_size_and_levels(instructed):
    assert len(instructed) >= 160
    categories = collections.defaultdict(set)
    for task, assignment in instructed.values():
        categories[assignment.level].add(task.spec.category)
    assert categories["fully_held_out"] == set(mini_split.HELD_OUT_CATEGORIES)
    seen = categories["fully_supervised"]
    assert len(seen) >= 24
    assert not seen & categories["fully_held_out"]
    assert len(categories["partially_supervised"] & seen) >= 6
    assert categories["partially_supervised"] <= seen
    assert seen | categories["fully_held_out"] <= set(taxonomy.CATEGORIES)


def test_every_row_of_the_split_names_a_task(instructed):
    names = {task.spec.original_name for task, _ in instructed.values()}
    assert set(mini_split.HELD_OUT_TASKS) <= names
    assert len(set(mini_split.HELD_OUT_TASKS)) == len(mini_split.HELD_OUT_TASKS)


def test_kinds_of_tasks(mini):
    kinds = collections.Counter(task.spec.instruction_kind for task, _ in mini.values())
    assert kinds["instance"] >= 6
    assert kinds["text"] == 4
    metrics = {task.spec.metric for task, _ in mini.values()}
    assert metrics == {"rouge_l", "exact_match", "accuracy"}
    wordings = [len(task.load().wordings) for task, _ in mini.values()]
    assert sum(count >= 1 for count in wordings) > 150
    benchmarks = {task.spec.benchmark for task, _ in mini.values()}
    assert benchmarks == {"mini", "dialogue", "replay"}


def test_instances(instructed):
    for name, (task, _) in instructed.items():
        content = task.load()
        inputs = [one.input for one in content.records]
        assert len(inputs) >= 150, name
        assert len(set(inputs)) == len(inputs), name
        shown = {one.input for one in content.demonstrations}
        assert len(shown) == 3, name
        assert not shown & set(inputs), name
        for one in content.records:
            assert all(reference.strip() for reference in one.references), name
            if task.spec.metric == "accuracy":
                assert set(one.references) & set(one.options), name


def test_answers_are_balanced(instructed):
    """No answer of a task with a few labels is so frequent that guessing it is good enough."""
    for name, (task, _) in instructed.items():
        answers = collections.Counter(one.references[0] for one in task.load().records)
        (_, most), *_ = answers.most_common(1)
        limit = 0.6 if len(answers) == 2 else 0.5
        assert most <= limit * sum(answers.values()), (name, answers.most_common(3))


def test_held_out_inputs_are_not_trained_on(instructed):
    """Neither within a task nor by a task of the same category."""
    config = rendering.RenderConfig(split="mini")
    trained, evaluated = collections.defaultdict(set), []
    for task, assignment in instructed.values():
        content = task.load()
        parts = rendering.partition(task.spec, content, assignment, config)
        for one in parts.train:
            trained[one.input].add((task.spec.category, content.definition))
        evaluated += [(task.spec, content.definition, one.input) for one in parts.evaluation]
    shared = [
        (spec.name, text)
        for spec, definition, text in evaluated
        if (spec.category, definition) in trained[text]
    ]
    assert not shared


def test_text_without_instructions_trains_whole(mini):
    for task, assignment in mini.values():
        if task.spec.instruction_kind == "text":
            content = task.load()
            config = rendering.RenderConfig(split="mini")
            parts = rendering.partition(task.spec, content, assignment, config)
            assert (assignment.role, assignment.level) == ("train", "")
            assert len(parts.train) == len(content.records) >= 1000
            assert not parts.evaluation
            example = rendering.train_examples(task.spec, content, parts, config, 0)[5]
            assert (example.source, example.prompt_id) == ("", "text")
            assert example.target == content.records[5].references[0]


def test_answers_are_right():
    """Answers found again by other means than those that made them."""
    by_name = {task.name: task for group in files.all_tasks().values() for task in group}

    def drawn(name):
        return declaration.draw_instances(by_name[name], 50, seed=3)

    for one in drawn("extract_animal"):
        words = one.input.rstrip(".").split()
        assert [w for w in words if w in lexicon.CLASSES["animal"]] == list(one.outputs)
    for one in drawn("count_drink"):
        found = sum(word in lexicon.CLASSES["drink"] for word in one.input.split())
        assert one.outputs == (lexicon.number_word(found),)
    for one in drawn("list_reverse"):
        assert one.outputs[0].split()[::-1] == one.input.split()
    for one in drawn("mentions_tool"):
        words = set(one.input.rstrip(".").split())
        assert (one.outputs == ("yes",)) == bool(words & set(lexicon.CLASSES["tool"]))
    for one in drawn("fact_detail_of_two"):
        told, claim = one.input.removeprefix("Text: ").split("\nStatement: ")
        assert (one.outputs == ("yes",)) == (claim in told)
    for one in drawn("pronoun_met"):
        pronoun = one.input.split("Then ")[1].split()[0]
        assert (one.outputs[0] in lexicon.WOMEN) == (pronoun == "she")
        assert one.outputs[0] in one.input
    for one in drawn("story_loss"):
        sum_, answer = one.outputs[0].rstrip(".").split(". The answer is ")
        left, right = sum_.split(" = ")
        assert str(eval(left)) == right == answer  # made by this package
    for one in drawn("odd_one_out_job"):
        (odd,) = [w for w in one.options if w not in lexicon.CLASSES["job"]]
        assert one.outputs == (odd,)


def test_words_stand_in_one_class():
    assert len(lexicon.CLASS_OF) == sum(len(words) for words in lexicon.CLASSES.values())
    assert not set(lexicon.CLASS_OF) & set(lexicon.NAMES)


def test_articles_follow_their_word():
    scene = scenes.fill(declaration.Draw(1), "{name} saw a {animal}.", animal="owl")
    assert scene.text.endswith(" saw an owl.")


def test_files_are_the_same_everywhere(tmp_path):
    assert files.write(tmp_path) > 160
    sha = hashlib.sha256()
    for path in sorted(tmp_path.rglob("*.json")):
        sha.update(path.relative_to(tmp_path).as_posix().encode() + path.read_bytes())
    assert sha.hexdigest()[:16] == DIGEST


def test_another_seed_gives_other_instances():
    task = files.all_tasks()["tasks"][0]
    assert files.task_file(task, 0)["Instances"] != files.task_file(task, 1)["Instances"]
    assert files.task_file(task, 0) == files.task_file(task, 0)


def test_files_are_of_the_official_schema(tmp_path):
    """The folder is a benchmark of its own kind for the reader of the official repository."""
    files.write(tmp_path)
    row = json.loads((tmp_path / "tasks" / "extract_animal.json").read_text())
    for field in ("Contributors", "Source", "Categories", "Definition", "Instances"):
        assert field in row
    found, assignments = tasks.read("super_natural_instructions", tmp_path, split="mini")
    assert {task.spec.benchmark for task in found} == {"super_natural_instructions"}
    assert len(found) == len(files.all_tasks()["tasks"])
    assert {one.level for one in assignments.values()} == set(splits.LEVELS)


def test_the_module_writes_files(tmp_path):
    command = [sys.executable, "-m", "optiml_jax.tasks.mini", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "task files below" in done.stdout
    found, _ = tasks.read("mini", tmp_path / "out")
    assert len(found) > 160


def test_foreign_files_are_not_mixed_in(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds 'mine\.json', which is no task of the mini"):
        files.write(tmp_path)


def test_split_is_known_by_name():
    assert "mini" in splits.split_names()


def test_a_benchmark_without_data_says_what_to_do():
    with pytest.raises(InputError, match="needs --data_dir=DIR"):
        tasks.read("super_natural_instructions", None)


def test_the_page_shows_real_samples_and_counts(mini):
    page = (pathlib.Path(__file__).parents[2] / "docs" / "mini_benchmark.md").read_text("utf-8")
    config = rendering.RenderConfig(split="mini")
    blocks = re.findall(r"`(\w+__\w+)` \((.+?), .+?\):\n\n```text\n(.*?)\n```", page, re.DOTALL)
    assert len(blocks) >= 10
    for name, category, text in blocks:
        task, assignment = mini[name]
        content = task.load()
        parts = rendering.partition(task.spec, content, assignment, config)
        source, answer = re.fullmatch(r"(.*?) ?\[\[(.*)\]\]", text, re.DOTALL).groups()
        rendered = [
            (e.source, e.references[0])
            for e in rendering.eval_records(task.spec, content, parts, config, shots=0)
        ]
        rendered += [
            (e.source, e.target)
            for e in rendering.train_examples(task.spec, content, parts, config, 0)
        ]
        assert (source, answer) in rendered, name
        assert category == task.spec.category
    rows = re.findall(r"^\| (.+?) \| (\S+) \| (\S+) \| (\S+) \|$", page, re.MULTILINE)
    counted = collections.Counter(
        (task.spec.category, assignment.level)
        for task, assignment in mini.values()
        if assignment.level
    )
    told = {
        (category, level): int(number)
        for category, *numbers in rows
        for level, number in zip(reversed(splits.LEVELS), numbers)
        if number.isdigit()
    }
    assert told == dict(counted)


def test_no_spec_names_the_temporary_folder(mini):
    """What a store keeps of a task is the same in every process."""
    paths = {task.spec.path for task, _ in mini.values()}
    assert "tasks/analogy_kind.json" in paths
    assert not any(path.startswith("/") for path in paths)
