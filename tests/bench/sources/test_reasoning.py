import json
import pathlib
import re

import pytest

from optiml_jax.bench import catalog, prompts, record
from optiml_jax.bench.sources import reasoning, reasoning_forms
from optiml_jax.errors import InputError
from optiml_jax.tasks.declaration import Request

TABLE_PATH = pathlib.Path(__file__).parents[3] / "tasks" / "tables" / "reasoning.tsv"
TABLE = reasoning.read_table(TABLE_PATH)
TSV = (
    'Could a "fish" drown?\tno\tFish have gills. Gills take oxygen from water.\n'
    "Pick one.\\nOptions:\\n- wet\\n- dry, or so\twet\tIt rained\n"
)
PLAIN = {"question": "Q?", "answer": "A", "rationale": "R."}


class Folder:
    def __init__(self, path: pathlib.Path):
        self.path = path
        path.mkdir()

    def write(self, name, content):
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            content = content.encode()
        elif isinstance(content, list) and name.endswith(".jsonl"):
            content = "".join(json.dumps(row) + "\n" for row in content).encode()
        elif not isinstance(content, bytes):
            content = json.dumps(content).encode()
        file.write_bytes(content)
        return file

    def read(self, **options):
        return reasoning.read(self.path, TABLE, **options)


@pytest.fixture
def data(tmp_path):
    return Folder(tmp_path / "reasoning")


def test_a_tsv_file_becomes_a_task(data):
    path = data.write("strategyqa_train.tsv", TSV)
    said = []
    (task,) = data.read(on_skip=said.append)
    assert said == []
    assert task.spec == catalog.TaskSpec(
        name="reasoning__strategyqa",
        original_name="strategyqa",
        benchmark="reasoning",
        category="Reasoning",
        instruction_kind="task",
        sources=("strategyqa",),
        metric="rouge_l",
        input_languages=("English",),
        output_languages=("English",),
        licence="MIT",
        num_examples=2,
        path=str(path),
    )
    content = task.load()
    assert content.definition == "Answer the following question by reasoning step by step."
    assert (content.demonstrations, content.templates) == ((), ())
    assert content.records == (
        record.Record(
            "train-0",
            'Could a "fish" drown?',
            ("Fish have gills. Gills take oxygen from water. The answer is no.",),
            metadata={"answer": "no"},
        ),
        record.Record(
            "train-1",
            "Pick one.\nwet, dry, or so",
            ("It rained. The answer is wet.",),
            metadata={"answer": "wet"},
        ),
    )


def test_the_prompt_is_the_papers(data):
    data.write("gsm8k_train.tsv", "How many?\t2\tOne and one.\n")
    (task,) = data.read()
    content = task.load()
    config = prompts.PromptConfig(prefixes=("",), input_prefixes=("",), delimiters=(" Output:",))
    example = prompts.render(task.spec, content, content.records[0], config, seed=0, rendering=0)
    assert f"{example.source} {example.target}" == (
        "Answer the following question by reasoning step by step.\nHow many? Output:"
        " One and one. The answer is 2."
    )


def test_json_forms_read_like_cells(data):
    rows = [
        {
            "id": "a7",
            "question": 'Could a "fish" drown?',
            "answer": False,
            "rationale": ["1.", "2."],
        },
        {"question": "Pick one.", "answer": "wet", "rationale": "R", "options": ["wet", "dry"]},
    ]
    data.write("creak.jsonl", rows)
    data.write("ecqa_train.json", rows)
    (first, second) = (task.load().records for task in data.read())
    assert first == second
    assert [one.id for one in first] == ["train-a7", "train-1"]
    assert first[0].references == ("1. 2. The answer is no.",)
    assert first[1].input == "Pick one.\nwet, dry"


def test_validation_and_test_are_held_out(data):
    data.write("gsm8k_train.tsv", TSV)
    data.write("gsm8k_dev.jsonl", [PLAIN])
    data.write("gsm8k_test.json", [PLAIN])
    data.write("math/train.jsonl", [PLAIN])
    data.write("math/validation.jsonl", [PLAIN])
    (data.path / "README.md").write_text("x")
    (data.path / ".cache").mkdir()
    gsm8k, math = data.read()
    assert gsm8k.spec.path == str(data.path)
    assert [one.id for one in gsm8k.load().records] == [
        "train-0",
        "train-1",
        "validation-0",
        "test-0",
    ]
    held_out = [one.metadata.get(record.HELD_OUT) for one in gsm8k.load().records]
    assert held_out == [None, None, "validation", "test"]
    assert [one.id for one in math.load().records] == ["train-0", "validation-0"]


def test_parquet_reads_like_jsonl(data):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (data.path / "qasc").mkdir()
    table = pyarrow.Table.from_pylist([PLAIN, PLAIN])
    parquet.write_table(table, data.path / "qasc" / "train.parquet")
    (task,) = data.read()
    assert task.load().records[1].references == ("R. The answer is A.",)


def test_rows_that_lack_something_are_dropped_and_counted(data):
    data.write("aqua.jsonl", [PLAIN, {**PLAIN, "rationale": " "}, {**PLAIN, "answer": None}])
    said = []
    (task,) = data.read(on_skip=said.append)
    assert (task.spec.num_examples, task.spec.num_dropped) == (1, 2)
    assert "dropped 2 of 3 rows of 'aqua'" in said[0]
    assert len(task.load().records) == 1


def test_a_change_after_reading_is_noticed(data):
    data.write("aqua_train.tsv", TSV)
    (task,) = data.read()
    data.write("aqua_train.tsv", TSV * 2)
    with pytest.raises(InputError, match=r"aqua_train\.tsv: changed while"):
        task.load()


def test_the_digest_is_of_bytes_and_instructions(data):
    data.write("aqua_train.tsv", TSV)
    (task,) = data.read()
    (again,) = data.read()
    assert task.digest == again.digest
    table = {**TABLE, "aqua": TABLE["gsm8k"]}
    (other,) = reasoning.read(data.path, table)
    assert other.digest != task.digest


def test_blank_lines_line_ends_and_a_byte_order_mark_do_not_matter(data):
    data.write("aqua_train.tsv", TSV)
    (task,) = data.read()
    content = task.load()
    data.write("aqua_train.tsv", "\ufeff" + TSV.replace("\n", "\r\n") + "\n\n")
    (other,) = data.read()
    assert other.load() == content


# Targets and questions.


@pytest.mark.parametrize(
    ("rationale", "answer", "target"),
    [
        ("It is so.", "yes", "It is so. The answer is yes."),
        ("It is so", " yes. ", "It is so. The answer is yes."),
        ("Is it?", "yes", "Is it? The answer is yes."),
        ('He said "no."', "no", 'He said "no." The answer is no.'),
        ("1 + 1 = 2\n2 + 1 = 3", "(C)", "1 + 1 = 2\n2 + 1 = 3. The answer is (C)."),
        ("That makes 8. The answer is 8.", "8", "That makes 8. The answer is 8."),
        ("That makes 8. The answer is 8", "8", "That makes 8. The answer is 8."),
        ("The answer is 18.", "8", "The answer is 18. The answer is 8."),
        ("So the answer is 5.", "5", "So the answer is 5. The answer is 5."),
        ("The answer is 5.", "5", "The answer is 5."),
    ],
)
def test_the_rationale_comes_before_the_answer(rationale, answer, target):
    assert reasoning_forms.Solved("Q", answer, rationale).target == target


@pytest.mark.parametrize(
    ("question", "made"),
    [
        ("Q?\\nOptions:\\n(A) 1\\n(B) 2", "Q?\n(A) 1, (B) 2"),
        ("Q?\\nOptions:\\n- (A) x\\n- (B) y", "Q?\n(A) x, (B) y"),
        ("a\\nOptions:\\nb\\nOptions:\\n- c\\n- d", "a\nOptions:\nb\nc, d"),
        ("Q?\\nOptions:\\n- a\\nor another", "Q?\nOptions:\n- a\nor another"),
        ("Q?\\nOptions:", "Q?\nOptions:"),
        ("Q? Options: - a", "Q? Options: - a"),
    ],
)
def test_a_block_of_options_goes_below_the_question(question, made):
    assert reasoning_forms.from_cells([question, "a", "r"], "x").input == made


# The forms of the releases.

QASC = {
    "id": "3E7",
    "question": {
        "stem": "What makes rain?",
        "choices": [{"text": "sun", "label": "A"}, {"text": "clouds", "label": "B"}],
    },
    "answerKey": "B",
    "fact1": "clouds are water",
    "fact2": "Water falls as rain.",
    "combinedfact": "clouds make rain",
}
FLAT_QASC = {
    **QASC,
    "question": "What makes rain?",
    "choices": {"text": ["sun", "clouds"], "label": ["A", "B"]},
}
QASC_TARGET = "Clouds are water. Water falls as rain. Clouds make rain. The answer is (B)."
ESNLI = {"premise": "It rains.", "hypothesis": "It is wet.", "explanation_1": "Rain wets."}
ESNLI_INPUT = "Premise: It rains.\nHypothesis: It is wet.\nyes, it is not possible to tell, no"
FORMS = [
    (
        {"question": "How many?", "answer": "1+1=<<1+1=2>>2\nso 2.\n#### 2"},
        ("How many?", "1+1=2\nso 2. The answer is 2."),
    ),
    (
        {"problem": "What is $1/2$?", "solution": "We have $\\boxed{\\frac{1}{2}}$.", "level": "1"},
        ("What is $1/2$?", "We have $\\boxed{\\frac{1}{2}}$. The answer is \\frac{1}{2}."),
    ),
    (
        {"question": "x?", "options": ["A)21", "B) 22"], "rationale": "It is 22", "correct": "B"},
        ("x?\n(A) 21, (B) 22", "It is 22. The answer is (B)."),
    ),
    (
        {"qid": "1", "question": "Is it?", "answer": True, "facts": ["One.", "Two."]},
        ("Is it?", "One. Two. The answer is yes."),
    ),
    (QASC, ("What makes rain?\n(A) sun, (B) clouds", QASC_TARGET)),
    (FLAT_QASC, ("What makes rain?\n(A) sun, (B) clouds", QASC_TARGET)),
    (
        {"ex_id": "t1", "sentence": "Fish fly.", "label": "false", "explanation": "They swim."},
        ("Fish fly.\nyes, no", "They swim. The answer is no."),
    ),
    ({**ESNLI, "label": 0}, (ESNLI_INPUT, "Rain wets. The answer is yes.")),
    ({**ESNLI, "label": "contradiction"}, (ESNLI_INPUT, "Rain wets. The answer is no.")),
    (
        {"question": "Q?", "choices": ["a", "b"], "answer": "b", "abstractive_explanation": "r"},
        ("Q?\na, b", "r. The answer is b."),
    ),
]


@pytest.mark.parametrize(("row", "expected"), FORMS)
def test_the_releases_own_rows(row, expected):
    solved = reasoning_forms.from_row(row, "x")
    assert (solved.input, solved.target) == expected
    assert solved.is_usable


def test_every_form_has_a_row_here():
    plain = {*PLAIN}
    rows = [plain, *(set(row) for row, _ in FORMS)]
    for form in reasoning_forms.FORMS:
        assert any(set(form.fields) <= row for row in rows), form.name


def test_a_row_without_its_answer_cannot_be_used():
    for row in (
        {**ESNLI, "label": -1},
        {"question": "x?", "options": ["A)21"], "rationale": "r", "correct": None},
        {"problem": "x?", "solution": "No box."},
        {"problem": "x?", "solution": "An open \\boxed{1."},
        {**QASC, "answerKey": None},
    ):
        assert not reasoning_forms.from_row(row, "x").is_usable


# Bad input.


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "gsm8k_train.tsv",
            TSV + "only\ttwo\n",
            r"gsm8k_train\.tsv:3: the line has 2 columns, expected 3 \(question, answer, ration"
            r"ale\), parted by tabs\. It begins with 'only'\. Write line breaks",
        ),
        ("gsm8k_train.tsv", "a\tb\tc\td\n", r"gsm8k_train\.tsv:1: the line has 4 columns"),
        (
            "gsm8k_train.tsv",
            "question\tanswer\trationale\n" + TSV,
            r"tsv:1: the line has the names",
        ),
        ("gsm8k_train.tsv", "", r"none of the 0 rows of 'gsm8k' has all of question, answer"),
        ("gsm8k_train.tsv", "a\t\tc\n", r"none of the 1 rows of 'gsm8k'"),
        (
            "gsm8k_train.tsv",
            TSV.encode() + "né\tb\tc\n".encode("latin-1"),
            r"gsm8k_train\.tsv:3: not UTF-8 at byte 1 \(0xe9\) of the line\. Save the file",
        ),
        ("gsm8k.jsonl", b"{", r"gsm8k\.jsonl:1: not JSON at column"),
        ("gsm8k.jsonl", b'{"a": "\xe9"}', r"gsm8k\.jsonl:1: not UTF-8 at byte"),
        ("gsm8k.jsonl", [PLAIN, [1]], r"gsm8k\.jsonl:2: the line is \[1\], expected an object"),
        (
            "gsm8k.jsonl",
            [PLAIN, {"q": 1}],
            r"gsm8k\.jsonl: row 2: the row has the fields \['q'\], which are no form of a question"
            r" with its rationale\. Known: question, answer, rationale \(plain\); .* \(GSM8K\)\.",
        ),
        ("gsm8k.jsonl", [{**PLAIN, "answer": [1]}], r"row 1: field 'answer' is \[1\], expected te"),
        (
            "gsm8k.jsonl",
            [{**PLAIN, "options": "a"}],
            r"row 1: field 'options' is 'a', expected a l",
        ),
        ("gsm8k.jsonl", [{**PLAIN, "rationale": [1]}], r"field 'rationale' is \[1\], expected a l"),
        (
            "gsm8k.jsonl",
            [{"question": "Q", "answer": "2"}],
            r"row 1: field 'answer' is '2', expected GSM8K's steps and then a line '#### <answer>'",
        ),
        (
            "gsm8k.jsonl",
            [{**PLAIN, "id": "x"}, PLAIN, {**PLAIN, "id": "x"}],
            r"gsm8k\.jsonl: row 3: the id 'x' is that of row 1 too\. Ids must be unique",
        ),
        (
            "aqua.jsonl",
            [{**FORMS[2][0], "options": ["21"]}],
            r"row 1: the option '21' has no letter",
        ),
        (
            "aqua.jsonl",
            [{**FORMS[2][0], "correct": "C"}],
            r"the answer '\(C\)' is none of \['\(A\)'",
        ),
        (
            "qasc.jsonl",
            [{**QASC, "question": "Q"}],
            r"field 'choices' is None, expected a list of l",
        ),
        (
            "qasc.jsonl",
            [{**FLAT_QASC, "choices": {"text": ["a"], "label": ["A", "B"]}}],
            r"field 'choices' is \{'text': \['a'\], .*, expected a list of labels with texts",
        ),
        ("esnli.jsonl", [{**ESNLI, "label": 3}], r"row 1: the answer '3' is none of"),
        (
            "math.json",
            {"data": []},
            r"math\.json: holds \{'data': \[\]\}, expected a list of objects",
        ),
        ("math.json", b"{}\n{}\n", r"math\.json: not JSON at line 2, column 1: .* named \.jsonl"),
        ("math.json", b'["\xff"]', r"math\.json: not UTF-8 at byte 2 \(0xff\)\. Save the file"),
        ("math.json", b"[" * 100_000, r"math\.json: its JSON is nested too deeply\. Flatten it"),
        (
            "math.json",
            b"[" + b"1" * 5000 + b"]",
            r"math\.json: its JSON has a whole number of more than 4,300 digits\. Shorten",
        ),
        ("math.json", b'[{"a": "\\ud800"}]', r"half of a surrogate pair, .* \(\\ud800\)"),
        (
            "gsm8_train.tsv",
            TSV,
            r"gsm8_train\.tsv: its name: unknown set 'gsm8'\. Did you mean 'gsm8k'\?",
        ),
        ("gsm8/train.jsonl", [PLAIN], r"gsm8: its name: unknown set 'gsm8'"),
        ("gsm8k/notes.txt", "x", r"gsm8k: holds no train\.jsonl, validation\.jsonl or test\.jsonl"),
        ("gsm8k/tran.jsonl", [PLAIN], r"unknown split 'tran'\. Did you mean 'train'"),
        ("notes.txt", "x", r"holds no chain-of-thought set\. Expected files like gsm8k_train\.tsv"),
    ],
)
def test_bad_input_names_its_place(data, name, content, message):
    data.write(name, content)
    with pytest.raises(InputError, match=message):
        data.read()


def test_two_files_for_a_split_are_refused(data):
    data.write("gsm8k.jsonl", [PLAIN])
    data.write("gsm8k_train.tsv", TSV)
    with pytest.raises(
        InputError, match=r"tsv: '.*gsm8k\.jsonl' has the train rows of 'gsm8k' too"
    ):
        data.read()


def test_a_folder_that_is_not_there_is_named(data):
    with pytest.raises(InputError, match=r"nowhere: the folder cannot be read \(No such file"):
        reasoning.read(data.path / "nowhere", TABLE)


def test_bad_sets_can_be_left_out(data):
    data.write("gsm8k_train.tsv", "a\tb\n")
    data.write("aqua.jsonl", [PLAIN])
    data.write("aqua_train.tsv", TSV)
    data.write("what.tsv", TSV)
    said = []
    with pytest.raises(InputError, match=r"every set is bad\. The first: .*aqua_train\.tsv: "):
        data.read(skip_bad=True, on_skip=said.append)
    data.write("qasc_train.tsv", TSV)
    said.clear()
    (task,) = data.read(skip_bad=True, on_skip=said.append)
    assert task.spec.name == "reasoning__qasc"
    assert len(said) == 3
    assert all(sentence.startswith("skipped: ") for sentence in said)


# The table.


def test_the_table_has_the_fourteen_sets():
    # OPT-IML, appendix A.1.
    names = (
        "gsm8k strategyqa aqua coqa cose creak ecqa esnli math proofwriter qasc qed sensemaking"
        " winowhy"
    )
    assert " ".join(TABLE) == names
    for row in TABLE.values():
        assert re.fullmatch(r"[A-Z][^.]*\.", row.instruction), row.instruction
        assert "by reasoning step by step" in row.instruction
        assert (row.category, row.metric) == ("Reasoning", "rouge_l")
        assert row.sources
        assert row.languages == ("English",)
        assert catalog.legal_name(row.task) == row.task


def test_bad_cells_of_the_table_are_named(tmp_path):
    good = TABLE_PATH.read_text("utf-8")
    path = tmp_path / "t.tsv"
    for old, new, message in (
        ("\trouge_l\t", "\trouge\t", "task 'gsm8k': unknown metric 'rouge'"),
        ("\tReasoning\t", "\tReasonin\t", "unknown category 'Reasonin'. Did you mean 'Reasoning'"),
        (TABLE["gsm8k"].instruction, "", "task 'gsm8k': column 'instruction' is blank"),
    ):
        path.write_text(good.replace(old, new, 1), "utf-8")
        with pytest.raises(InputError, match=re.escape(message)):
            reasoning.read_table(path)


def test_the_benchmark_is_declared(data):
    from optiml_jax.tasks import reasoning as declared

    data.write("gsm8k_train.tsv", TSV)
    found = declared.BENCHMARK.read(Request(data.path))
    assert [task.spec.name for task in found.tasks] == ["reasoning__gsm8k"]
    assert declared.BENCHMARK.name == "reasoning"


# Real sets.

REAL = {
    "aqua": 2728,
    "creak": 6915,
    "ecqa": 7112,
    "gsm8k": 7473,
    "qasc": 1084,
    "strategyqa": 2061,
}


def test_the_real_sets_read(real_data):
    folder = real_data / "flan" / "cot_data"
    said = []
    tasks = {
        task.spec.original_name: task for task in reasoning.read(folder, TABLE, False, said.append)
    }
    assert said == []
    assert {name: task.spec.num_examples for name, task in tasks.items()} == REAL
    for name, task in tasks.items():
        records = task.load().records
        lines = (folder / f"{name}_train.tsv").read_text("utf-8").split("\n")[:-1]
        assert len(records) == len(lines)
        for one, line in zip(records, lines, strict=True):
            question, answer, rationale = line.replace("\\n", "\n").split("\t")
            (target,) = one.references
            assert target.endswith(f" The answer is {answer}."), target
            assert "Options:" not in one.input.rsplit("\n", 1)[-1]
            assert one.metadata == {"answer": answer}
            # Nothing is lost but the closing sentence that a few rationales have already.
            assert target.startswith(rationale.strip().removesuffix(f" The answer is {answer}."))
            head, mark, block = question.partition("\nOptions:\n")
            assert one.input.startswith(head.strip())
            if name != "aqua" and mark:
                options = [option.removeprefix("- ") for option in block.split("\n")]
                assert one.input == f"{head.strip()}\n{', '.join(options)}"


def test_the_real_gsm8k_release_agrees_with_flans_file(real_data, data):
    (data.path / "gsm8k").mkdir()
    for split in ("train", "test"):
        (data.path / "gsm8k" / f"{split}.jsonl").symlink_to(real_data / "gsm8k" / f"{split}.jsonl")
    (task,) = data.read()
    records = task.load().records
    train = [one for one in records if record.HELD_OUT not in one.metadata]
    assert (len(train), len(records)) == (7473, 7473 + 1319)
    assert not any("<<" in one.references[0] or "####" in one.references[0] for one in records)
    (flan,) = (
        one
        for one in reasoning.read(real_data / "flan" / "cot_data", TABLE)
        if one.spec.original_name == "gsm8k"
    )
    flans = {one.input: one.metadata["answer"] for one in flan.load().records}
    # FLAN's file has single blanks and no commas in numbers, and a few questions edited.
    ours = {" ".join(one.input.split()): one.metadata["answer"].replace(",", "") for one in train}
    shared = ours.keys() & flans.keys()
    assert len(shared) == 7420
    assert sum(ours[one] == flans[one].replace(",", "") for one in shared) > 0.99 * len(shared)
