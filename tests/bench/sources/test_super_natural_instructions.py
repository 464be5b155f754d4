import csv
import hashlib
import json
import re
import time

import pytest

from optiml_jax.bench import catalog, record
from optiml_jax.bench.sources import super_natural_instructions as reader
from optiml_jax.errors import InputError


def test_a_file_becomes_a_task(folder):
    file = folder.add("task001_toy-words")
    (task,) = reader.read(folder.path)
    assert task.spec == catalog.TaskSpec(
        name="super_natural_instructions__task001_toy_words",
        original_name="task001_toy-words",
        benchmark="super_natural_instructions",
        category="Text Matching",
        instruction_kind="task",
        sources=("toy",),
        metric="rouge_l",
        input_languages=("English",),
        output_languages=("English",),
        licence="MIT",
        num_examples=20,
        path=str(file),
    )
    assert task.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    content = task.load()
    assert content.definition == "Say whether the sentences match."
    assert content.demonstrations[1] == record.Demonstration("cat / dog", "No", "Other.")
    assert content.records[3] == record.Record("toy-3", "word 3 / word 3", ("No",), ("No", "Yes"))
    assert len(content.records) == 20


def test_the_official_layout_and_a_folder_of_files_read_alike(folder):
    file = folder.add("task001_a")
    flat = reader.read(folder.path)
    flat_content = flat[0].load()
    (folder.path / "tasks").mkdir()
    file.rename(folder.path / "tasks" / file.name)
    # Beside tasks/ nothing else is a task.
    (folder.path / "package.json").write_text("{}")
    (folder.path / "tasks" / "README.md").write_text("text")
    (folder.path / "tasks" / "._task001_a.json").write_bytes(b"\x00")
    nested = reader.read(folder.path)
    assert [t.digest for t in nested] == [t.digest for t in flat]
    assert nested[0].load() == flat_content


def test_a_task_that_lies_in_two_places(folder):
    file = folder.add("task001_a")
    (folder.path / "tasks").mkdir()
    (folder.path / "tasks" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InputError, match=r"'task001_a.json' lies there and in tasks/"):
        reader.read(folder.path)


def test_tasks_come_in_the_order_of_their_names(folder):
    for name in ("task002_b", "task001_a", "task010_c"):
        folder.add(name)
    names = [t.spec.original_name for t in reader.read(folder.path)]
    assert names == ["task001_a", "task002_b", "task010_c"]


def test_a_file_that_changed_is_noticed(folder):
    folder.add("task001_a")
    (task,) = reader.read(folder.path)
    folder.add("task001_a", Definition=["Another one."])
    with pytest.raises(InputError, match="changed while it was being used"):
        task.load()


# Options.


def with_outputs(outputs, **fields):
    rows = [{"id": str(i), "input": "x", "output": o} for i, o in enumerate(outputs)]
    return {"Instances": rows, **fields}


@pytest.mark.parametrize(
    ("outputs", "fields", "options"),
    [
        ([["1"], ["2"]] * 5, {}, ("1", "2")),
        ([["b "], ["a"], ["b"]] * 4, {}, ("a", "b")),
        ([["Yes"]] * 9, {}, ()),
        ([["Yes"], ["No"]] * 2, {}, ()),
        ([["Yes"], ["No"]] * 5 + [["Yes", "yes"]], {}, ()),
        ([[str(i)] for i in range(30)], {}, ()),
        ([["a b c d e f"], ["g"]] * 9, {}, ()),
        ([["1"], ["2"]] * 9, {"Categories": ["Program Execution"]}, ()),
        ([["A"], ["B"]] * 15 + [["C"]], {}, ("A", "B", "C")),
        ([["A"]] * 6 + [["B"], ["C"]], {}, ()),
    ],
)
def test_labels_are_told_from_open_answers(folder, outputs, fields, options):
    folder.add("task001_a", **with_outputs(outputs, **fields))
    (task,) = reader.read(folder.path)
    assert {r.options for r in task.load().records} == {options}


# What is dropped.


def test_blank_answers_are_dropped_and_reported(folder):
    def change(task):
        task["Instances"][4]["output"] = ["  "]
        task["Instances"][5]["input"] = "\n"
        task["Instances"][6]["output"] = ["", "Yes"]

    folder.add("task001_a", change)
    said = []
    (task,) = reader.read(folder.path, on_skip=said.append)
    assert (task.spec.num_examples, task.spec.num_dropped) == (18, 2)
    assert len(task.load().records) == 18
    assert "toy-4" not in {r.id for r in task.load().records}
    assert next(r for r in task.load().records if r.id == "toy-6").references == ("Yes",)
    (message,) = said
    assert re.search(r"task001_a\.json: dropped 2 of 20 instances .* \(first: 'toy-4'\)", message)


def test_what_is_dropped_is_logged_where_nobody_listens(folder, caplog):
    folder.add("task001_a", lambda task: task["Instances"][0].update(output=[""]))
    reader.read(folder.path)
    assert "dropped 1 of 20 instances" in caplog.text


# Bad input.


def delete(name):
    return lambda task: task.pop(name)


def instance(index, **fields):
    return lambda task: task["Instances"][index].update(fields)


BAD_FILES = [
    (delete("Definition"), "field 'Definition' is missing (the file has: Categories, "),
    (delete("Instances"), "field 'Instances' is missing"),
    (delete("Categories"), "field 'Categories' is missing"),
    (delete("Source"), "field 'Source' is missing"),
    (delete("Output_language"), "field 'Output_language' is missing"),
    (delete("Positive Examples"), "field 'Positive Examples' is missing"),
    (lambda t: t.update(Definition=[]), "field 'Definition' is [], expected a list with one or"),
    (lambda t: t.update(Definition=[" "]), "field 'Definition' is [\" \"], expected a list with"),
    (lambda t: t.update(Definition=3), "field 'Definition' is 3, expected a list with one or"),
    (lambda t: t.update(Categories=[]), "field 'Categories' is [], expected a list with at least"),
    (lambda t: t.update(Categories="A"), "field 'Categories' is \"A\", expected a list of texts"),
    (
        lambda t: t.update(Categories=["Text Matchin"]),
        "field 'Categories': unknown category 'Text Matchin'. Did you mean 'Text Matching'?",
    ),
    (lambda t: t.update(Instances=[]), "field 'Instances' is [], expected at least one instance"),
    (lambda t: t.update(Instances={}), "field 'Instances' is {}, expected a list of objects"),
    (lambda t: t["Instances"].insert(2, "x"), "field 'Instances[2]' is \"x\", expected an object"),
    (instance(3, output=[]), "field 'Instances[3].output' is [], expected at least one reference"),
    (instance(3, output="Yes"), "field 'Instances[3].output' is \"Yes\", expected a list of texts"),
    (instance(3, output=[4]), "field 'Instances[3].output' is [4], expected a list of texts"),
    (instance(3, input=None), "field 'Instances[3].input' is null, expected a text"),
    (lambda t: t["Instances"][1].pop("id"), "field 'Instances[1].id' is missing; add a text"),
    (instance(7, id="toy-2"), "field 'Instances[7].id' is 'toy-2', the id of Instances[2] too"),
    (instance(7, id=" "), "field 'Instances[7].id' is \" \", expected a text that is not blank"),
    (
        lambda t: [i.update(output=[" "]) for i in t["Instances"]],
        "field 'Instances' has no instance that can be used (20 in all",
    ),
    (
        lambda t: t["Positive Examples"][1].pop("output"),
        "field 'Positive Examples[1].output' is missing",
    ),
]


@pytest.mark.parametrize(("change", "message"), BAD_FILES, ids=[m[:40] for _, m in BAD_FILES])
def test_bad_files_name_file_and_field(folder, change, message):
    file = folder.add("task001_a", change)
    with pytest.raises(InputError, match=re.escape(f"{file}: {message}")):
        reader.read(folder.path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b'{\n "Definition": ["x",]\n}', "not JSON at line 2, column"),
        (b'{"Definition": ["x"', "not JSON at line 1, column 20"),
        (b"[1]", "the file is [1], expected an object"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7 (0xff)"),
        (b"[" * 200_000, "its JSON is nested too deeply. Flatten"),
        (
            b'{"Reasoning": ' + b"1" * 5000 + b"}",
            "its JSON has a whole number of more than 4,300",
        ),
    ],
)
def test_files_that_are_no_tasks(folder, data, message):
    file = folder.add("task001_a")
    file.write_bytes(data)
    with pytest.raises(InputError, match=re.escape(f"{file}: {message}")):
        reader.read(folder.path)


def test_half_a_surrogate_pair_is_no_text(folder):
    folder.add("task001_a")
    path = folder.path / "task001_a.json"
    task = json.loads(path.read_text())
    task["Instances"][0]["input"] = "smile \U0001f600"
    path.write_text(json.dumps(task))
    reader.read(folder.path)
    path.write_text(path.read_text().replace("\\ude00", ""))
    with pytest.raises(InputError, match=r"field 'Instances' holds half of a surrogate pair"):
        reader.read(folder.path)


def test_a_folder_named_like_a_task_file(folder):
    folder.add("task001_a")
    (folder.path / "task002_b.json").mkdir()
    with pytest.raises(InputError, match=r"task002_b\.json: cannot be read"):
        reader.read(folder.path)


def test_skip_bad_goes_on_and_says_so(folder):
    folder.add("task001_a")
    folder.add("task002_b", delete("Instances"))
    (folder.path / "task003_c.json").write_text("{")
    said = []
    tasks = reader.read(folder.path, skip_bad=True, on_skip=said.append)
    assert [t.spec.original_name for t in tasks] == ["task001_a"]
    assert len(said) == 2
    assert "task002_b.json: field 'Instances' is missing" in said[0]
    assert "task003_c.json: not JSON at line 1" in said[1]


def test_skip_bad_does_not_turn_nothing_into_success(folder):
    folder.add("task001_a", delete("Instances"))
    with pytest.raises(InputError, match=r"every task file is bad. The first: .*'Instances'"):
        reader.read(folder.path, skip_bad=True, on_skip=lambda message: None)


def test_no_folder_no_files(tmp_path):
    with pytest.raises(InputError, match=r"absent' does not exist. Expected the official"):
        reader.read(tmp_path / "absent")
    with pytest.raises(InputError, match=r"has no task file: it is empty. Expected the official"):
        reader.read(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"it holds 1 other entries \('notes.txt', ...\)"):
        reader.read(tmp_path)
    with pytest.raises(InputError, match="is a file, not a folder"):
        reader.read(tmp_path / "notes.txt")


def test_two_files_with_one_task_name(folder):
    folder.add("task001_a-b")
    folder.add("task001_a_b")
    with pytest.raises(InputError, match=r"two tasks are named '.*task001_a_b'"):
        reader.read(folder.path)


# Split lists.


def test_split_lists(folder):
    folder.add("task001_a")
    assert reader.read_official_lists(folder.path) is None
    with pytest.raises(InputError, match="unknown track 'defaults'"):
        reader.read_official_lists(folder.path, "defaults")
    lists = folder.path / "splits" / "default"
    lists.mkdir(parents=True)
    with pytest.raises(InputError, match=r"train_tasks\.txt: cannot be read"):
        reader.read_official_lists(folder.path)
    (lists / "train_tasks.txt").write_text("task001_a\n\ntask002_b")
    (lists / "test_tasks.txt").write_text("\n")
    with pytest.raises(InputError, match=r"test_tasks\.txt: the list is empty"):
        reader.read_official_lists(folder.path)
    (lists / "test_tasks.txt").write_text("task003_c\n")
    official = reader.read_official_lists(folder.path)
    assert official is not None
    assert (official.train, official.test) == (("task001_a", "task002_b"), ("task003_c",))


# The real files.


def test_all_real_files_are_read(real_tasks, real_folder):
    tasks, said = real_tasks
    files = sorted((real_folder / "tasks").glob("*.json"))
    assert [t.spec.path for t in tasks] == [str(f) for f in files]
    assert len(tasks) == 1282
    assert sum(t.spec.num_examples for t in tasks) == 42_081
    assert len({t.spec.category for t in tasks}) == 74
    assert {t.spec.original_name for t in tasks if t.spec.num_dropped} == {
        "task1726_mathqa_correct_answer_generation",
        "task365_synthetic_remove_vowels",
        "task488_extract_all_alphabetical_elements_from_list_in_order",
    }
    assert len(said) == 3
    with open(real_folder / "index.tsv", encoding="utf-8") as file:
        index = {row["task"]: row for row in csv.DictReader(file, delimiter="\t")}
    for task in tasks:
        row = index[task.spec.original_name]
        assert task.spec.category == row["categories"]
        assert "|".join(task.spec.sources) == row["sources"]
        assert task.spec.num_examples + task.spec.num_dropped == int(row["instances_kept"])


def test_real_files_are_read_in_seconds(real_folder):
    start = time.perf_counter()
    reader.read(real_folder, on_skip=lambda message: None)
    # 0.4 s on two cores; the bound leaves room for a busy machine.
    assert time.perf_counter() - start < 10


def test_real_text_is_the_files_text(real_tasks):
    for task in real_tasks[0][::60]:
        with open(task.spec.path, encoding="utf-8") as file:
            raw = json.load(file)
        content = task.load()
        assert content.definition == raw["Definition"][0].strip()
        assert [r.input for r in content.records] == [i["input"] for i in raw["Instances"]]
        assert [list(r.references) for r in content.records] == [
            i["output"] for i in raw["Instances"]
        ]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("task828_copa_commonsense_cause_effect", {"cause", "effect"}),
        ("task827_copa_commonsense_reasoning", {"1", "2"}),
        ("task1385_anli_r1_entailment", {"Contradiction", "Entailment", "Neutral"}),
        ("task1502_hatexplain_classification", {"Hate Speech", "Normal", "Offensive"}),
        ("task158_count_frequency_of_words", set()),
        ("task288_gigaword_summarization", set()),
    ],
)
def test_options_of_real_tasks(real_tasks, name, options):
    (task,) = (t for t in real_tasks[0] if t.spec.original_name == name)
    records = task.load().records
    assert {o for r in records for o in r.options} == options
    assert all(r.references[0].strip() in r.options for r in records) or not options


def test_categories_of_labels_are_nearly_all_closed(real_tasks):
    closed, total = {}, {}
    for task in real_tasks[0]:
        category = task.spec.category
        total[category] = total.get(category, 0) + 1
        closed[category] = closed.get(category, 0) + bool(task.load().records[0].options)
    for category in ("Textual Entailment", "Stereotype Detection", "Toxic Language Detection"):
        assert closed[category] >= 0.9 * total[category], category
    for category in ("Translation", "Question Generation", "Title Generation", "Paraphrasing"):
        assert closed[category] == 0, category


def test_a_file_that_is_not_of_this_schema_is_named(real_folder):
    with pytest.raises(InputError, match=r"subtask001.*field 'Source' is missing"):
        reader.read(real_folder / "tasks_extra_niv1_bigbench")


# --- files that extend the schema ----------------------------------------------------------------


def test_an_extended_file(folder):
    folder.add(
        "mine",
        **{
            "Instruction level": "task",
            "Metric": "exact_match",
            "Definition": ["Say it.", "Repeat the word."],
            "Instances": [
                {"id": "a", "input": "x", "output": ["x"], "options": ["x", "y"]},
                {"id": "b", "input": "y", "output": ["y"]},
            ],
        },
    )
    (task,) = reader.read(folder.path, benchmark="mine")
    assert (task.spec.name, task.spec.metric) == ("mine__mine", "exact_match")
    content = task.load()
    assert (content.definition, content.wordings) == ("Say it.", ("Repeat the word.",))
    assert [one.options for one in content.records] == [("x", "y"), ()]


def test_without_the_field_nothing_is_extended(folder):
    folder.add("mine", Metric="exact_match", Definition=["Say it.", "Repeat the word."])
    (task,) = reader.read(folder.path)
    assert task.spec.metric == "rouge_l"
    assert task.load().wordings == ()


def test_text_without_instructions(folder):
    folder.add(
        "text",
        **{
            "Instruction level": "text",
            "Definition": [""],
            "Positive Examples": [],
            "Instances": [{"id": "a", "input": "", "output": ["Once upon a time."]}],
        },
    )
    (task,) = reader.read(folder.path)
    assert task.spec.instruction_kind == "text"
    assert task.load().records[0] == record.Record("a", "", ("Once upon a time.",))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"Instruction level": "taks"}, r"field 'Instruction level': unknown value 'taks'.*'task'"),
        ({"Instruction level": 3}, r"field 'Instruction level': unknown value '3'"),
        (
            {"Instruction level": "task", "Metric": "exact"},
            r"field 'Metric': unknown value 'exact'.*'exact_match'",
        ),
        ({"Instruction level": "task", "Definition": [""]}, r"field 'Definition' is \[\"\"\]"),
        (
            {
                "Instruction level": "task",
                "Instances": [{"id": "a", "input": "x", "output": ["x"], "options": ["y", "z"]}],
            },
            r"field 'Instances\[0\]\.options' is \[\"y\", \"z\"\], expected one of the references",
        ),
        (
            {
                "Instruction level": "task",
                "Instances": [{"id": "a", "input": "x", "output": ["x"], "options": "x"}],
            },
            r"field 'Instances\[0\]\.options' is \"x\", expected a list of texts",
        ),
    ],
)
def test_what_is_wrong_in_an_extended_file(folder, fields, message):
    folder.add("mine", **fields)
    with pytest.raises(InputError, match=message):
        reader.read(folder.path)
