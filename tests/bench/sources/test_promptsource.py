"""A folder of templates and rows becomes tasks; what each kind of bad folder says."""

import json
import pathlib

import pytest

from optiml_jax.bench import catalog, record
from optiml_jax.bench.sources import promptsource
from optiml_jax.errors import InputError
from optiml_jax.tasks import promptsource as declaration
from optiml_jax.tasks.declaration import Request

TABLE = {
    "super_glue/copa": promptsource.DataSet(
        "cause effect classification", "accuracy", ("copa",), ("English",), "BSD"
    ),
    "turk": promptsource.DataSet("Text Simplification"),
    "Zaid/coqa": promptsource.DataSet("Question Answering", "accuracy"),
}
TEMPLATE = """\
  {id}: !Template
    answer_choices: {choices}
    id: {id}
    jinja: {jinja}
    metadata: !TemplateMetadata {{original_task: {original}, metrics: [], languages: [en]}}
    name: {name}
    reference: ''
"""
ROWS = [
    {"text": f"It rained {i} times.", "label": i % 2, "question": ("cause", "effect")[i % 2]}
    for i in range(6)
]


class Folder:
    def __init__(self, path):
        self.path = path

    def templates(self, name, *templates):
        dataset, _, subset = name.partition("/")
        if name.startswith("Zaid"):
            dataset, subset = name, ""
        path = self.path / "templates" / name / "templates.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        head = f"dataset: {dataset}\n" + (f"subset: {subset}\n" if subset else "") + "templates:\n"
        path.write_text(head + "".join(templates), encoding="utf-8")
        return path

    def rows(self, name, rows, split="train"):
        path = self.path / "rows" / name / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    def read(self, **options):
        said = []
        tasks = promptsource.read(self.path, TABLE, on_skip=said.append, **options)
        return tasks, said


def template(id_, jinja, choices: str | None = "No ||| Yes", original="true"):
    return TEMPLATE.format(
        id=id_,
        jinja=json.dumps(jinja),
        choices=json.dumps(choices) if choices is not None else "null",
        original=original,
        name=f"name-{id_}",
    )


ASK = template("a", "{{ text }} Right? ||| {{ answer_choices[label] }}")
EFFECT = template(
    "b", "{% if question == 'effect' %}{{ text }} So? ||| {{ answer_choices[label] }}{% endif %}"
)
INVERTED = template("c", "{{ answer_choices[label] }} ||| {{ text }}", None, "false")


@pytest.fixture
def data(tmp_path):
    made = Folder(tmp_path)
    made.templates("super_glue/copa", ASK, EFFECT, INVERTED)
    return made


def test_a_folder_becomes_a_task(data):
    data.rows("super_glue/copa", ROWS)
    data.rows("super_glue/copa", ROWS[:2], "validation")
    # A data set without templates of its original task keeps those that it has.
    data.templates(
        "turk", template("c", "{{ text }} ||| {{ answer_choices[label] }}", "a ||| b", "false")
    )
    (task,), said = data.read()
    assert said == []
    assert task.spec == catalog.TaskSpec(
        name="promptsource__super_glue_copa",
        original_name="super_glue/copa",
        benchmark="promptsource",
        category="Cause Effect Classification",
        instruction_kind="instance",
        sources=("copa",),
        metric="accuracy",
        input_languages=("English",),
        output_languages=("English",),
        licence="BSD",
        num_examples=8,
        path=str(data.path / "rows" / "super_glue" / "copa"),
    )
    content = task.load()
    assert (content.definition, content.demonstrations) == ("", ())
    assert [one.prompt_id for one in content.templates] == ["name_a", "name_b"]
    assert [one.id for one in content.records[5:]] == ["train-5", "validation-0", "validation-1"]
    assert [record.HELD_OUT in one.metadata for one in content.records[5:]] == [False, True, True]
    assert content.records[0].fields == ROWS[0]
    ask, effect = content.templates
    assert ask.fill(content.records[1]) == record.Filled(
        "It rained 1 times. Right?", ("Yes",), ("No", "Yes")
    )
    assert effect.fill(content.records[0]) is None
    assert effect.fill(content.records[1]).input == "It rained 1 times. So?"


def test_templates_that_turn_the_task_around_leave(data, monkeypatch):
    """Of a data set whose release marks none as the original task: those that the table names."""
    asked = template("d", "{{ text }} Right? ||| {{ answer_choices[label] }}", original="false")
    data.templates("turk", asked, INVERTED)
    data.rows("turk", ROWS)
    monkeypatch.setitem(TABLE, "turk", promptsource.DataSet("Misc.", inverted=("name-c",)))
    (task,), _ = data.read()
    assert [one.name for one in task.load().templates] == ["name-d"]
    both = promptsource.DataSet("Misc.", inverted=("name-c", "name-d"))
    monkeypatch.setitem(TABLE, "turk", both)
    with pytest.raises(InputError, match=r"turk/templates\.yaml: all 2 templates turn the task"):
        data.read()
    # What the release marks as the original task stays, whatever the table says.
    data.templates("turk", ASK, asked)
    monkeypatch.setitem(TABLE, "turk", promptsource.DataSet("Misc.", inverted=("name-a",)))
    (task,), _ = data.read()
    assert [one.name for one in task.load().templates] == ["name-a"]


def test_many_data_sets(data):
    data.templates("Zaid/coqa", ASK, template("d", "{{ text }} ||| {{ text }}", None))
    # A data set without templates of its original task keeps those that it has.
    data.templates(
        "turk", template("c", "{{ text }} ||| {{ answer_choices[label] }}", "a ||| b", "false")
    )
    for name in ("Zaid/coqa", "turk", "super_glue/copa"):
        data.rows(name, ROWS)
    tasks, said = data.read()
    assert [task.spec.name for task in tasks] == [
        "promptsource__Zaid_coqa",
        "promptsource__super_glue_copa",
        "promptsource__turk",
    ]
    # One of its templates has no choices to rank.
    assert tasks[0].spec.metric == "rouge_l"
    assert tasks[0].spec.sources == ("Zaid/coqa",)
    assert said == []
    assert [len(task.load().templates) for task in tasks] == [2, 2, 1]


def test_the_digest_follows_templates_rows_and_table(data):
    path = data.rows("super_glue/copa", ROWS)
    (task,), _ = data.read()
    digests = {task.digest}
    data.rows("super_glue/copa", ROWS[::-1])
    digests.add(data.read()[0][0].digest)
    with pytest.raises(InputError, match="changed while it was being used"):
        task.load()
    data.templates("super_glue/copa", ASK)
    digests.add(data.read()[0][0].digest)
    path.rename(path.with_name("validation.jsonl"))
    digests.add(data.read()[0][0].digest)
    assert len(digests) == 4


def test_splits_without_answers_are_left_out(data):
    data.rows("super_glue/copa", ROWS)
    test = data.rows("super_glue/copa", [{**row, "label": -1} for row in ROWS], "test")
    (task,), said = data.read()
    assert (task.spec.num_examples, task.spec.num_dropped) == (6, 6)
    assert {one.id.partition("-")[0] for one in task.load().records} == {"train"}
    (message,) = said
    assert message == (
        f"{test}: left out, its first 6 rows have no answer in any of the 2 templates."
    )
    (data.path / "rows" / "super_glue" / "copa" / "train.jsonl").unlink()
    with pytest.raises(InputError, match="no row has both a prompt and an answer"):
        data.read()


def test_parquet(data):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = data.rows("super_glue/copa", []).with_suffix(".parquet")
    path.with_suffix(".jsonl").unlink()
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    (task,), _ = data.read()
    assert task.spec.num_examples == 6
    assert task.load().records[3].fields == ROWS[3]


def test_a_row_without_a_field(data):
    data.rows("super_glue/copa", [{"text": "a", "label": 1}])
    with pytest.raises(
        InputError,
        match=r"templates\.yaml:\d+: template 'name-b' \(jinja, line 1\) on .*train\.jsonl: row 1:"
        r" the template uses the field 'question', which the row lacks",
    ):
        data.read()
    guarded = template("b", "{% if question is defined %}a{% endif %} ||| b")
    data.templates("super_glue/copa", ASK, guarded)
    assert len(data.read()[0]) == 1


def test_skip_bad(data):
    data.rows("super_glue/copa", ROWS)
    data.templates("turk", template("a", "{% include 'x' %} ||| b"))
    data.rows("turk", ROWS)
    with pytest.raises(InputError, match="statement 'Include'"):
        data.read()
    tasks, said = data.read(skip_bad=True)
    assert [task.spec.original_name for task in tasks] == ["super_glue/copa"]
    (message,) = said
    assert message.startswith("skipped: ")
    data.rows("super_glue/copa", [])
    with pytest.raises(InputError, match=r"every data set is bad\. The first: .*holds no row"):
        data.read(skip_bad=True)


def test_bad_folders(data, tmp_path):
    with pytest.raises(InputError, match=r"none: does not exist\. Expected templates/"):
        promptsource.read(tmp_path / "none", TABLE)
    with pytest.raises(InputError, match=r"rows: does not exist\. Expected templates/"):
        data.read()
    (data.path / "rows").mkdir()
    with pytest.raises(InputError, match=r"rows: holds no rows\. .*copa/train\.jsonl"):
        data.read()
    stray = data.rows(".", ROWS)
    with pytest.raises(InputError, match="rows must lie in the folder of their data set"):
        data.read()
    stray.unlink()
    data.rows("super_glue/cop", ROWS)
    with pytest.raises(InputError, match=r"unknown data set 'super_glue/cop'\. Did you mean"):
        data.read()


def test_data_sets_that_the_table_lacks(data):
    data.templates("mine", ASK)
    data.rows("mine", ROWS)
    with pytest.raises(InputError, match="unknown PromptSource data set 'mine'"):
        data.read()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no row"),
        (b"\n\n", "holds no row"),
        ('{"text": "é"}\n'.encode("latin-1"), r"train\.jsonl:1: not UTF-8"),
        (b'{"text": "a", "label": 0, "question": "cause"}\n{"text"\n', None),
        (b"[1]\n", r"train\.jsonl:1: the line is \[1\]"),
    ],
)
def test_bad_rows(data, content, message):
    data.rows("super_glue/copa", []).write_bytes(content)
    if message is None:
        # Beyond the first rows, a broken one is found when the task is loaded.
        (task,), _ = data.read()
        with pytest.raises(InputError, match=r"train\.jsonl:2: not JSON"):
            task.load()
        return
    with pytest.raises(InputError, match=message):
        data.read()


def test_two_files_for_a_split(data):
    path = data.rows("super_glue/copa", ROWS, "dev")
    path.with_name("validation.jsonl").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="both hold the split 'validation'"):
        data.read()


def test_declaration(data, monkeypatch):
    data.rows("super_glue/copa", ROWS)
    monkeypatch.setattr(declaration, "data_sets", lambda: TABLE)
    found = declaration.BENCHMARK.read(Request(data.path))
    assert [task.spec.benchmark for task in found.tasks] == [declaration.BENCHMARK.name]
    assert not found.official


def test_the_catalog_knows_the_release():
    table = declaration.data_sets()
    assert len(table) > 200
    copa = table["super_glue/copa"]
    assert (copa.category, copa.metric) == ("Cause Effect Classification", "accuracy")
    assert pathlib.Path(declaration.CATALOG).is_file()
