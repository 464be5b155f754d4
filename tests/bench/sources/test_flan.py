import json
import pathlib
import re

import pytest

from optiml_jax.bench import catalog, record
from optiml_jax.bench.sources import flan, flan_templates, rows, tables
from optiml_jax.errors import InputError

TABLE_PATH = pathlib.Path(__file__).parents[3] / "tasks" / "tables" / "flan.tsv"
TABLE = flan.read_table(TABLE_PATH)
PATTERNS = {
    "rte": [
        ['{premise}\nSo "{hypothesis}"?\n{options_}', "{answer}"],
        ["{premise} Follows: {hypothesis}?", "{answer}"],
        ["Generate a context and a hypothesis.", "Context: {premise}\n{hypothesis}"],
    ],
    "aeslc": [["{body}\nSubject:", "{subject}"], ["Write an email: {subject}", "{body}"]],
}
RTE = [
    {
        "premise": f"It rained {i} times.",
        "hypothesis": "It was wet.",
        "options": ["yes", "no"],
        "answer": ("yes", "no")[i % 2],
    }
    for i in range(4)
]


class Folder:
    def __init__(self, path: pathlib.Path):
        self.path = path
        path.mkdir()
        self.templates(PATTERNS)

    def templates(self, value):
        (self.path / "templates.json").write_text(json.dumps(value), encoding="utf-8")

    def rows(self, task, rows, split="train"):
        file = self.path / "rows" / task / f"{split}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return file

    def read(self, **options):
        return flan.read(self.path, TABLE, **options)


@pytest.fixture
def data(tmp_path):
    return Folder(tmp_path / "flan")


def test_a_folder_becomes_a_task(data):
    data.rows("rte", RTE)
    data.rows("rte", RTE[:2], "validation")
    said = []
    (task,) = data.read(on_skip=said.append)
    assert task.spec == catalog.TaskSpec(
        name="flan__rte",
        original_name="rte",
        benchmark="flan",
        category="Textual Entailment",
        instruction_kind="instance",
        sources=("rte",),
        metric="accuracy",
        input_languages=("English",),
        output_languages=("English",),
        licence="Unknown",
        num_examples=6,
        path=str(data.path / "rows" / "rte"),
    )
    content = task.load()
    assert (content.definition, content.demonstrations) == ("", ())
    assert [one.id for one in content.records[3:5]] == ["train-3", "validation-0"]
    assert [record.HELD_OUT in one.metadata for one in content.records[3:5]] == [False, True]
    assert content.records[0].fields == RTE[0]
    assert [template.prompt_id for template in content.templates] == ["t0", "t1"]
    assert content.templates[0].fill(content.records[1]) == record.Filled(
        'It rained 1 times.\nSo "It was wet."?\nOPTIONS:\n- yes\n- no', ("no",), ("yes", "no")
    )
    assert content.templates[1].fill(content.records[1]) == record.Filled(
        "It rained 1 times. Follows: It was wet.?", ("no",), ("yes", "no")
    )
    assert len(said) == 1
    assert said[0].endswith("templates left out: 1 inverted.")


def test_both_forms_of_the_templates_read_alike(data):
    data.rows("rte", RTE)
    (first,) = data.read()
    data.templates({"PATTERNS": PATTERNS, "OPT_START_STRING_CANDIDATES": ["", "OPTIONS:"]})
    (second,) = data.read()
    assert first.digest == second.digest
    assert first.load() == second.load()


def test_tasks_may_share_templates(data):
    pair = ["{context} {hypothesis}\n{options_}", "{answer}"]
    data.templates({"anli": [pair]})
    row = {"context": "A", "hypothesis": "B", "options": ["Yes", "No"], "answer": "No"}
    for part in ("r2", "r1"):
        data.rows(f"anli_{part}", [row])
    assert [task.spec.name for task in data.read()] == ["flan__anli_r1", "flan__anli_r2"]


def test_at_most_ten_templates_stay(data):
    data.templates({"rte": [[f"{i} {{premise}}", "{answer}"] for i in range(12)]})
    data.rows("rte", RTE)
    said = []
    (task,) = data.read(on_skip=said.append)
    assert [t.prompt_id for t in task.load().templates] == [f"t{i}" for i in range(10)]
    assert "2 beyond the first 10" in said[0]


def test_of_too_many_training_rows_those_with_the_lowest_hashes_stay(data, monkeypatch):
    many = [{**RTE[0], "premise": f"It rained {i} times."} for i in range(40)]
    data.rows("rte", many)
    data.rows("rte", RTE, "test")
    monkeypatch.setattr(flan, "MAX_TRAIN_EXAMPLES", 10)
    said = []
    (task,) = data.read(on_skip=said.append)
    assert (task.spec.num_examples, task.spec.num_dropped) == (14, 0)
    assert "left out 30 training rows beyond 10." in said[0]
    kept = [one.id for one in task.load().records]
    assert len(kept) == 14
    assert kept[10:] == [f"test-{i}" for i in range(4)]
    assert kept[:10] == sorted(kept[:10], key=lambda name: int(name[6:]))
    assert kept[:10] != [f"train-{i}" for i in range(10)]
    # Rows that come later change nothing but which of them are low enough themselves.
    data.rows("rte", [*many, *many])
    (task,) = data.read(on_skip=said.append)
    more = {one.id for one in task.load().records if record.HELD_OUT not in one.metadata}
    assert {name for name in more if int(name[6:]) < 40} <= set(kept)


def test_which_rows_stay_does_not_depend_on_their_order():
    records = [record.Record(f"r{i}") for i in range(50)]
    kept = rows.capped(records, 20, "rte")
    assert rows.capped(records[::-1], 20, "rte") == kept[::-1]
    assert rows.capped(records, 20, "cb") != kept
    assert rows.capped(records, 50, "rte") == tuple(records)
    assert rows.capped(records, 0, "rte") == ()


def test_rows_without_an_answer_are_dropped_and_counted(data):
    data.rows("rte", RTE)
    data.rows("rte", [{**RTE[0], "answer": a} for a in (None, " ", "yes")], "test")
    said = []
    (task,) = data.read(on_skip=said.append)
    assert (task.spec.num_examples, task.spec.num_dropped) == (5, 2)
    assert [one.id for one in task.load().records[4:]] == ["test-2"]
    assert "dropped 2 of 7 rows" in said[0]


def test_further_answers_are_references(data):
    (template,) = flan_templates.parse([["{q}", "{answer}"]], "x")
    one = record.Record("1", fields={"q": "Who?", "answer": "Al", "answers": ["Albert", "Al"]})
    assert template.fill(one) == record.Filled("Who?", ("Al", "Albert"))


def test_a_change_after_reading_is_noticed(data):
    data.rows("rte", RTE)
    (task,) = data.read()
    data.rows("rte", RTE[:3])
    with pytest.raises(InputError, match="changed while"):
        task.load()


# Fields.


@pytest.mark.parametrize(
    "text", ["{a}", "x {a}{b} y", "{{a}} {a}", "{{{a}}}", "}}{{ {b}\n", "no field", "", "{a}" * 3]
)
def test_fields_and_doubled_braces_are_as_in_python(text):
    values = {"a": "1 {b} }}", "b": "{0}"}
    assert flan_templates.Text.parse(text, "x").fill(values) == text.format(**values)


@pytest.mark.parametrize(
    "text",
    ["{a.b}", "{a[0]}", "{a!r}", "{a:>9}", "{}", "{ a }", "{a", "a}", "{{a}", "{a.__class__}"],
)
def test_anything_else_in_braces_is_refused(text):
    with pytest.raises(InputError, match=r"^x: .* is no field\. A field is a plain name"):
        flan_templates.Text.parse(text, "x")


def test_a_field_with_a_weird_value_is_never_looked_into():
    (template,) = flan_templates.parse([["{options_}{q}", "{answer}"]], "x")
    one = record.Record("1", fields={"q": "{answer.x} {options[0]}", "answer": "a"})
    with pytest.raises(InputError, match="'q' is "):
        template.fill(record.Record("1", fields={"q": {"a": 1}, "answer": "a", "options": ["a"]}))
    filled = template.fill(record.Record("1", fields={**one.fields, "options": ["a"]}))
    assert filled is not None
    assert filled.input.endswith("- a{answer.x} {options[0]}")


# Inverted templates.


@pytest.mark.parametrize(
    ("pairs", "directions", "kept"),
    [
        ([("{t}", "{s}"), ("{t}!", "{s}"), ("{s}", "{t}")], (), "01"),
        ([("{t}", "{s}"), ("Write {s}", "{s} {t}"), ("Write two.", "{s}")], (), "0"),
        (
            [("{a}", "{b}"), ("{b}", "{a}"), ("Say {l}", "{b}"), ("{b}", "{l}")],
            ("a>b", "b>a"),
            "01",
        ),
        ([("{a}", "{b} {c}"), ("{a} {b}", "{c}"), ("{a} more", "{c} {b}")], (), "02"),
    ],
)
def test_the_rule_of_inverted_templates(pairs, directions, kept):
    templates = flan_templates.parse([list(pair) for pair in pairs], "x")
    ways = [tuple(way.split(">")) for way in directions]
    assert "".join(t.prompt_id[1:] for t in flan_templates.upright(templates, ways)) == kept


# Bad input.


def _without(name):
    return [RTE[0], {k: v for k, v in RTE[1].items() if k != name}]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            _without("premise"),
            r"train\.jsonl: row 2: field 'premise' is missing, which template t0 of .*templates\."
            r"json, 'rte' names; the row has \['answer', 'hypothesis', 'options'\]\. Add the field",
        ),
        (_without("answer"), r"row 2: field 'answer' is missing, which template t0 of "),
        (_without("options"), r"row 2: field 'options' is missing\. Prompts show it"),
        ([{**RTE[0], "options": "yes"}], r"row 1: .*field 'options' is 'yes', expected a list of"),
        ([{**RTE[0], "options": ["yes", " "]}], r"'options' is .* expected a list of texts, none"),
        ([{**RTE[0], "answer": "maybe"}], r"row 1: .*the answer 'maybe' is not among the options"),
        ([{**RTE[0], "options": ["yes"]}], r"row 1: field 'options' is \['yes'\], expected two or"),
        (
            [RTE[0], {**RTE[1], "options": [RTE[1]["answer"], f"{RTE[1]['answer']} "]}],
            r"train\.jsonl: row 2: field 'options' is .* '\], expected two or more different",
        ),
        ([{**RTE[0], "premise": None}], r"row 1: field 'premise' is None, expected text or a num"),
        ([{**RTE[0], "premise": float("nan")}], r"'premise' is nan, expected text"),
        ([{**RTE[0], "answer": True}], r"'answer' is True, expected text"),
        ([{**RTE[0], "answer": ""}], r"none of its 1 rows has an answer \(\['answer'\]\)"),
        ([], r"none of its 0 rows has an answer"),
        ([[1]], r"train\.jsonl:1: the line is \[1\], expected an object"),
    ],
)
def test_bad_rows_name_their_place(data, rows, message):
    data.rows("rte", rows)
    with pytest.raises(InputError, match=message):
        data.read()


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (
            {"rta": PATTERNS["rte"]},
            r"templates\.json, for .*rte: unknown task 'rte'\. Did you mean",
        ),
        ({"rte": "{a}"}, r"'rte': '\{a\}', expected a list of \[input, target\] pairs"),
        ({"rte": [["a"]]}, r"'rte', template 0: \['a'\], expected two texts"),
        ({"rte": [["{premise}", "yes"]]}, r"template 0: the target 'yes' has no field"),
        ({"rte": [["{premise.x}", "{answer}"]]}, r"template 0, input: '\{premise\.x\}' at char"),
        ({"rte": [["Write.", "{premise}"]]}, r"all 1 templates are inverted"),
        ([], r"templates\.json: holds \[\], expected"),
    ],
)
def test_bad_templates_name_their_place(data, patterns, message):
    data.templates(patterns)
    data.rows("rte", RTE)
    with pytest.raises(InputError, match=message):
        data.read()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"rte": [], "rte": []}', r"'rte' is there twice\. Rename or remove one"),
        (b'{"rte": ', r"not JSON at line 1, column 9"),
        (b'{"rte": "\xe9"}', r"not UTF-8 at byte 9 \(0xe9\)\. Save the file as UTF-8"),
        (
            b'{"rte": [["\\ud800", "a"]]}',
            r"templates\.json: field 'rte' holds half of a surrogate pair, .*d800",
        ),
        (b"[" * 100_000, r"templates\.json: its JSON is nested too deeply\. Flatten it"),
        (
            b"[" + b"1" * 5000 + b"]",
            r"templates\.json: its JSON has a whole number of more than 4,300 digits\. Shorten",
        ),
        (None, r"templates\.json: cannot be read .*FLAN needs its templates beside rows"),
    ],
)
def test_a_broken_file_of_templates_is_named(data, content, message):
    data.rows("rte", RTE)
    path = data.path / "templates.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        data.read()


def test_a_task_that_the_table_lacks_is_named(data):
    data.rows("rtee", RTE)
    with pytest.raises(InputError, match=r"unknown FLAN task 'rtee'\. Did you mean 'rte'\?"):
        data.read()


def test_a_folder_without_rows_is_named(data):
    with pytest.raises(InputError, match=r"rows: does not exist.*rows/<task>/"):
        data.read()
    (data.path / "rows").mkdir()
    with pytest.raises(InputError, match="holds no folder"):
        data.read()
    (data.path / "rows" / "rte").mkdir()
    with pytest.raises(InputError, match=r"rte: holds no rows"):
        data.read()


def test_skip_bad_leaves_bad_tasks_out(data):
    data.rows("rte", RTE)
    data.rows("aeslc", [{"body": "x"}])
    data.rows("unheard_of", RTE)
    said = []
    assert [t.spec.original_name for t in data.read(skip_bad=True, on_skip=said.append)] == ["rte"]
    assert [line.startswith("skipped: ") for line in said] == [True, True, False]
    data.rows("rte", [])
    with pytest.raises(InputError, match=r"every task is bad\. The first: .*aeslc"):
        data.read(skip_bad=True, on_skip=said.append)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tb\n1\t2\n1\t3\n", r"t\.tsv:3: column 'a': '1' is there twice"),
        ("a\tb\n1\n", r"t\.tsv:2: the row has 1 cells, expected 2 \(a, b\)"),
        ("a\tb\n\t2\n", r"t\.tsv:2: column 'a': it is blank"),
        ("a\tc\n", r"t\.tsv:1: the columns are \['a', 'c'\], expected \['a', 'b'\]"),
        ("", r"t\.tsv:1: the columns are \[\]"),
    ],
)
def test_a_bad_table_is_named(tmp_path, text, message):
    path = tmp_path / "t.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        tables.read(path, ("a", "b"))


def test_bad_cells_of_the_table_are_named(tmp_path):
    good = TABLE_PATH.read_text("utf-8")
    path = tmp_path / "t.tsv"
    for old, new, message in (
        ("\taccuracy\t", "\tacuracy\t", "unknown metric 'acuracy'. Did you mean 'accuracy'"),
        ("\tTranslation\t", "\tTranslating\t", "unknown category 'Translating'"),
        ("sent1>sent2,", "sent1,", "column 'directions' is 'sent1, sent2>sent1', expected"),
    ):
        path.write_text(good.replace(old, new, 1), "utf-8")
        with pytest.raises(InputError, match=re.escape(message)):
            flan.read_table(path)


# The table, and the real templates.


def test_the_table_has_the_seventy_tasks():
    assert len(TABLE) == 70
    assert len({row.templates for row in TABLE.values()}) == 61
    assert len({row.cluster for row in TABLE.values()}) == 17
    for row in TABLE.values():
        assert catalog.legal_name(row.task) == row.task
        assert row.sources
        assert row.languages


def test_the_table_is_the_releases_clusters(real_data):
    clusters = json.loads((real_data / "flan" / "flan_clusters.json").read_text("utf-8"))
    ours = {name: row.cluster for name, row in TABLE.items()}
    # WSC273 has templates, but as an evaluation set of its time no cluster.
    assert ours.pop("wsc273") == "coreference"
    assert ours == {task: name for name, tasks in clusters.items() for task in tasks}


def release(real_data, version):
    return flan.read_patterns(real_data / "flan" / f"flan_v{version}_templates.json")


@pytest.mark.parametrize(("version", "kept"), [(1, 594), (2, 597)])
def test_inverted_templates_of_the_release_leave_eight_and_a_half_a_task(real_data, version, kept):
    # OPT-IML's Table 1 has 8.5 prompts a task for FLAN.
    patterns = release(real_data, version)
    every = {row.task: flan_templates.parse(patterns[row.templates], "x") for row in TABLE.values()}
    stay = {task: flan_templates.upright(t, TABLE[task].directions) for task, t in every.items()}
    assert sum(map(len, every.values())) == 700
    assert sum(map(len, stay.values())) == kept
    assert all(5 < len(templates) <= 10 for templates in stay.values())
    asks = ("Write an article", "Ask a question", "Write a sentence in", "Please ask me")
    for task, templates in stay.items():
        for template in templates:
            text = patterns[TABLE[task].templates][int(template.prompt_id[1:])][0]
            assert not text.startswith(asks), (task, text)


def test_only_tasks_whose_templates_show_options_are_scored_on_them(real_data):
    patterns = release(real_data, 1)
    for row in TABLE.values():
        fields = frozenset().union(
            *(t.fields for t in flan_templates.parse(patterns[row.templates], "x"))
        )
        assert (row.metric == "accuracy") == bool(fields & {"options_", "options_str"}), row.task


FIELD = re.compile(r"\{(\w+)\}")


def by_hand(text, row):
    """What a template should give: Python's own formatting, for these plain fields."""
    block = "OPTIONS:"
    for option in row.get("options", []):
        block += "\n- " + option
    return text.format_map({"options_": block, "options_str": block, **row})


def holds_in_order(text, literals):
    place = 0
    for literal in literals:
        found = text.find(literal, place)
        if found < 0:
            return False
        place = found + len(literal)
    return True


def row_for(pairs, number):
    """A row with text in each field that the templates name; options hold the answer."""
    fields = {name for pair in pairs for text in pair for name in FIELD.findall(text)}
    row = {name: f"<{name} {number}> {{x}} é\n" for name in sorted(fields)}
    if fields & {"options_", "options_str"}:
        answer = "answer_str" if "answer_str" in fields else "answer"
        row = {name: v for name, v in row.items() if not name.startswith("options_")}
        row |= {answer: f"choice {number % 3}", "options": [f"choice {i}" for i in range(3)]}
    return row


@pytest.mark.parametrize("version", [1, 2])
def test_every_template_of_every_task_renders(real_data, version):
    patterns = release(real_data, version)
    count = 0
    for key, pairs in patterns.items():
        templates = flan_templates.parse(pairs, key)
        for number in range(3):
            row = row_for(pairs, number)
            one = record.Record("1", fields=row)
            for template, (input_, target) in zip(templates, pairs, strict=True):
                filled = template.fill(one)
                assert filled is not None
                assert filled.input == by_hand(input_, row)
                assert filled.references == (by_hand(target, row).strip(),)
                assert holds_in_order(filled.input, FIELD.split(input_)[::2])
                assert holds_in_order(filled.references[0], FIELD.split(target.strip())[::2])
                count += 1
    assert count == 3 * {1: 610, 2: 988}[version]


def test_the_whole_release_reads_and_loads(data, real_data):
    patterns = release(real_data, 1)
    data.templates(patterns)
    for row in TABLE.values():
        data.rows(row.task, [row_for(patterns[row.templates], i) for i in range(3)])
    said = []
    tasks = data.read(on_skip=said.append)
    assert len(tasks) == 70
    assert len(said) == 1
    assert "templates left out: 106 inverted" in said[0]
    for task in tasks:
        content = task.load()
        pairs = patterns[TABLE[task.spec.original_name].templates]
        for template in content.templates:
            for one in content.records:
                filled = template.fill(one)
                input_, target = pairs[int(template.prompt_id[1:])]
                assert filled is not None
                assert filled.input == by_hand(input_, one.fields)
                assert filled.references == (by_hand(target, one.fields).strip(),)
                if task.spec.metric == "accuracy":
                    assert filled.references[0] in filled.options


# Real rows: the test data has six of the data sets, with the fields written into one text.

ENTAILMENT = r"sentence 1: (?P<premise>.*)\nsentence 2: (?P<hypothesis>.*)"
YES_NO = {"True": "yes", "False": "no"}
REAL = {
    # task: (folder, how the text is parted, label -> answer)
    "rte": ("NLI/RTE", ENTAILMENT, {"entailment": "yes", "contradiction": "no"}),
    "cb": (
        "NLI/CB",
        ENTAILMENT,
        {"entailment": "Yes", "contradiction": "No", "neutral": "It's impossible to say"},
    ),
    "wic": ("WiC/WiC", r"word: (?P<word>.*)\n(?P<sentence1>.*)\n(?P<sentence2>.*)", YES_NO),
    "sst2": ("SC/SST-2", r"Text: (?P<sentence>.*)", {"Good": "positive", "Bad": "negative"}),
    "glue_qqp": (
        "QQP/QQP",
        r"first sentence: (?P<question1>.*)\nsecond sentence: (?P<question2>.*)",
        YES_NO,
    ),
    "copa": (
        "COPA/COPA",
        r'Which sentence is the (?P<question>\w+) of "(?P<premise>.*)"\? .*\n'
        r"A: (?P<A>.*)\nB: (?P<B>.*)",
        None,
    ),
}


def real_rows(folder, pattern, answers):
    for file in sorted(folder.glob("[dt]*.json")):
        for row in json.loads(file.read_text("utf-8"))[:100]:
            match = re.fullmatch(pattern, row["sentence"], re.DOTALL)
            assert match, row
            fields = match.groupdict()
            choices = answers or {name: fields.pop(name) for name in ("A", "B")}
            yield {
                **fields,
                "options": list(choices.values()),
                "answer": choices[row["label"]],
            }


def test_real_rows_render_as_by_hand(data, real_data):
    patterns = release(real_data, 1)
    data.templates(patterns)
    for task, (folder, pattern, answers) in REAL.items():
        found = list(real_rows(real_data / "nlu_clbenchmark" / folder, pattern, answers))
        assert len(found) >= 100
        data.rows(task, found)
    tasks = data.read()
    assert len(tasks) == len(REAL)
    for task in tasks:
        content = task.load()
        pairs = patterns[task.spec.original_name]
        assert task.spec.num_dropped == 0
        for one in content.records:
            for template in content.templates:
                filled = template.fill(one)
                assert filled is not None
                input_, target = pairs[int(template.prompt_id[1:])]
                assert filled.input == by_hand(input_, one.fields)
                assert filled.references == (by_hand(target, one.fields).strip(),)
                assert filled.options == tuple(text.strip() for text in one.fields["options"])


def test_the_benchmark_is_declared():
    from optiml_jax.tasks import flan as declared

    assert declared.BENCHMARK.name == "flan"
    assert declared.BENCHMARK.max_train_examples == 30_000
    assert flan.read_table(declared.TABLE) == TABLE
