"""CrossFit's few-shot files: several draws of one task, options inside inputs.

The rows are written for these tests, in the official format.
"""

import pathlib

import pytest

from optiml_jax.bench import record
from optiml_jax.bench.sources import crossfit, text_pairs
from optiml_jax.errors import InputError
from optiml_jax.tasks import crossfit as declared
from optiml_jax.tasks.declaration import Request

TABLES = pathlib.Path(__file__).parents[3] / "tasks" / "tables"


def read(folder):
    said = []
    table = TABLES / "crossfit.tsv"
    tasks = text_pairs.read(folder, "crossfit", table, crossfit.FORMAT, on_skip=said.append)
    return tasks, said


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def told(task):
    return [(r.id, r.input, r.metadata.get(record.HELD_OUT, "train")) for r in task.load().records]


def test_draws_of_a_task_are_pooled_and_what_one_holds_out_never_trains(tmp_path):
    folder = tmp_path / "data" / "glue-sst2"
    write(folder / "glue-sst2_16_13_train.tsv", "good\tpositive", "bad\tnegative", "ok\tpositive")
    write(folder / "glue-sst2_16_13_dev.tsv", "fine\tpositive")
    write(folder / "glue-sst2_16_13_test.tsv", "nice\tpositive", "awful\tnegative")
    write(folder / "glue-sst2_16_21_train.tsv", "good\tpositive", "fine\tpositive", "new\tpositive")
    write(folder / "glue-sst2_16_21_dev.tsv", "bad\tnegative")
    write(folder / "glue-sst2_16_21_test.tsv", "nice\tpositive", "awful\tnegative")
    ((task,), said) = read(tmp_path)
    assert told(task) == [
        ("16_13_test-0", "nice", "test"),
        ("16_13_test-1", "awful", "test"),
        ("16_13_validation-0", "fine", "validation"),
        ("16_21_validation-0", "bad", "validation"),
        ("16_13_train-0", "good", "train"),
        ("16_13_train-2", "ok", "train"),
        ("16_21_train-2", "new", "train"),
    ]
    assert (task.spec.num_examples, said) == (7, [])
    assert task.spec.metric == "accuracy"
    assert task.load().records[0].options == ("negative", "positive")


def test_one_file_a_split_and_several_right_outputs(tmp_path):
    write(tmp_path / "kilt_nq" / "train.tsv", "who?\ta man\tman \t ", "who?\tagain", "when?\tnow")
    write(tmp_path / "kilt_nq" / "dev.tsv", "where? \there")
    ((task,), _) = read(tmp_path)
    assert [(r.input, r.references) for r in task.load().records] == [
        ("where?", ("here",)),
        ("who?", ("a man", "man")),
        ("who?", ("again",)),
        ("when?", ("now",)),
    ]
    assert task.load().definition == (
        "Answer the following question that a user asked a search engine."
    )


@pytest.mark.parametrize(
    ("text", "output", "options"),
    [
        ("It fell. (A) Rain. (B) Wind.", "Rain.", ("Rain.", "Wind.")),
        ("Who? (A) a cat (B) a dog [SEP] passage", "a dog", ("a cat", "a dog")),
        ("Why? [SEP] Part (A) of it. [SEP]  (A) x (B) y (C) z", "y", ("x", "y", "z")),
        ("Who? (A) a (B) b [SEP] (C) c, (A) d", "a", ("a", "b")),
        ("How many? (A) 21 (B) 22 (C) 21", "22", ("21", "22")),
        ("Which? (1) one (2) two", "two", ("one", "two")),
        ("Who?(A)he(B)she [SEP] text", "he", ("he", "she")),
        ("Who? (A) a cat (B) a dog", "a bird", ()),
        ("Who? (A) a cat", "a cat", ()),
        ("Who?", "a cat", ()),
    ],
)
def test_options_in_the_input(text, output, options):
    assert crossfit.lettered_options(text, (output,)) == options


def test_rows_whose_answer_is_no_option_are_dropped(tmp_path):
    path = write(
        tmp_path / "superglue-copa" / "superglue-copa_32_100_train.tsv",
        "It fell. (A) Rain. (B) Wind.\tRain.",
        "It fell. (A) Rain. (B) Wind.\tSnow.",
    )
    ((task,), said) = read(tmp_path)
    assert task.spec.num_dropped == 1
    assert [r.options for r in task.load().records] == [("Rain.", "Wind.")]
    assert f"the first is {path}:2, where 'Snow.' is none of the options in the input." in said[0]


def test_file_names_that_are_no_split(tmp_path):
    write(tmp_path / "aeslc" / "aeslc_32_train.tsv", "a\tb")
    with pytest.raises(InputError, match=r"Expected aeslc_<k>_<seed>_train\.tsv, _dev\.tsv"):
        read(tmp_path)
    (tmp_path / "aeslc" / "aeslc_32_train.tsv").unlink()
    write(tmp_path / "aeslc" / "dev.tsv", "a\tb")
    write(tmp_path / "aeslc" / "validation.tsv", "a\tb")
    with pytest.raises(InputError, match="'dev' and 'validation' are one split"):
        read(tmp_path)


def test_a_broken_row_names_its_line(tmp_path):
    write(tmp_path / "aeslc" / "aeslc_32_13_dev.tsv", "a\tb")
    path = write(tmp_path / "aeslc" / "aeslc_32_13_train.tsv", "a\tb", "c", "d\te")
    with pytest.raises(InputError, match=f"{path}:2: the line c has no tab"):
        read(tmp_path)


def test_declaration(tmp_path):
    write(tmp_path / "aeslc" / "train.tsv", "text\ttitle")
    found = declared.BENCHMARK.read(Request(tmp_path))
    assert [task.spec.name for task in found.tasks] == ["crossfit__aeslc"]
