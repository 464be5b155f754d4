"""Tasks that are pairs and a sentence: tables, ExMix's and T5's plain files, what is refused.

The small files are written for these tests; T5's are in the official format, and ExMix, whose files
are not open, has the same.
"""

import json
import pathlib
import re

import pytest

from optiml_jax.bench import prompts, record
from optiml_jax.bench.sources import crossfit, plain_pairs, text_pairs, unifiedskg
from optiml_jax.errors import InputError

TABLES = pathlib.Path(__file__).parents[3] / "tasks" / "tables"
FORMATS = {
    "crossfit": (crossfit.FORMAT, 160),
    "exmix": (plain_pairs.EXMIX, 14),
    "t5": (plain_pairs.T5, 7),
    "unifiedskg": (unifiedskg.FORMAT, 21),
}
MAX_LABELS = 14
"""More than this do not go into a sentence."""


def read(folder, benchmark="exmix", **options):
    said = []
    tasks = text_pairs.read(
        folder,
        benchmark,
        TABLES / f"{benchmark}.tsv",
        FORMATS[benchmark][0],
        on_skip=said.append,
        **options,
    )
    return tasks, said


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("benchmark", FORMATS)
def test_every_task_has_a_sentence_of_its_own(benchmark):
    form, num = FORMATS[benchmark]
    table = text_pairs.read_table(TABLES / f"{benchmark}.tsv", form.more_columns)
    assert len(table) == num
    for task in table.values():
        sentence = task.instruction
        assert re.fullmatch(r"[A-Z].{20,240}[.?]", sentence), task.name
        # One sentence: no end of another inside.
        assert not re.search(r"[.?!] [A-Z]", sentence), task.name


@pytest.mark.parametrize("benchmark", FORMATS)
def test_sentences_say_the_labels(benchmark):
    form, _ = FORMATS[benchmark]
    table = text_pairs.read_table(TABLES / f"{benchmark}.tsv", form.more_columns)
    for task in table.values():
        # Said as ranges, or by asking a question.
        is_plain = task.options in (("1", "2", "3", "4", "5"), ("yes", "no"))
        if len(task.options) > MAX_LABELS or is_plain or task.name == "numer_sense":
            continue
        sentence = task.instruction.casefold()
        assert not [one for one in task.options if one.casefold() not in sentence], task.name


@pytest.mark.parametrize("benchmark", ["crossfit", "exmix", "t5"])
def test_every_task_of_a_table_reads(tmp_path, benchmark):
    form, num = FORMATS[benchmark]
    for task in text_pairs.read_table(TABLES / f"{benchmark}.tsv", form.more_columns).values():
        asked = "Who? (A) x (B) y" if task.kind == "choice" else "Who?"
        targets = task.options or ("x",)
        lines = [f"{asked} {i}\t{target}\n" for i, target in enumerate(targets)]
        write(tmp_path / task.name / "dev.tsv", "".join(lines))
    tasks, said = read(tmp_path, benchmark)
    assert (len(tasks), len({task.spec.name for task in tasks}), said) == (num, num, [])
    for task in tasks:
        content = task.load()
        config = prompts.PromptConfig()
        example = prompts.render(task.spec, content, content.records[0], config, 0, 0, ())
        assert example.source.startswith(content.definition + "\nWho?")
        # What is scored by its rank needs something to rank.
        assert all((task.spec.metric == "accuracy") == bool(r.options) for r in content.records)


def test_tables_hold_the_published_tasks(real_data):
    table = text_pairs.read_table(TABLES / "crossfit.tsv")
    published = json.loads((real_data / "crossfit" / "splits" / "random.json").read_text())
    assert set(table) == set(published["all"])
    table = text_pairs.read_table(TABLES / "unifiedskg.tsv", ("field",))
    path = real_data / "unifiedskg" / "meta_tuning_cfgs.json"
    assert set(table) <= set(json.loads(path.read_text()))


def test_labels_of_the_tables_are_those_of_the_release(real_data):
    configs = json.loads((real_data / "metaicl" / "tasks.json").read_text())
    # MetaICL lists what the few rows of its draws have, and reads two tasks in another way.
    other = {"paws", "poem_sentiment", "scitail", "tweet_eval-irony", "tweet_eval-offensive"}
    checked = 0
    for task in text_pairs.read_table(TABLES / "crossfit.tsv").values():
        config = configs.get(task.name, {})
        if config.get("task_type") == "classification" and task.options and task.name not in other:
            assert set(task.options) == set(config["options"]), task.name
            checked += 1
    assert checked > 50


def test_pairs_become_records_under_the_sentence(tmp_path):
    folder = tmp_path / "gpt2_output_dataset"
    write(folder / "train.tsv", '\ufeffinputs\ttargets\nA "b" c.\tyes\r\n\nd\tno\n')
    write(folder / "validation.jsonl", '{"inputs": "e", "targets": ["no"], "id": 7}\n')
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist([{"inputs": "f", "targets": "yes"}])
    parquet.write_table(table, folder / "test.parquet")
    ((task,), said) = read(tmp_path)
    assert (task.spec.name, task.spec.instruction_kind) == (
        "exmix__gpt2_output_dataset",
        "instance",
    )
    assert (task.spec.num_examples, task.spec.num_dropped, said) == (4, 0, [])
    content = task.load()
    assert content.definition == "Is the following text produced by GPT-2?"
    both = ("yes", "no")
    assert content.records == (
        record.Record("train-0", 'A "b" c.', ("yes",), both),
        record.Record("train-1", "d", ("no",), both),
        record.Record("validation-7", "e", ("no",), both, {record.HELD_OUT: "validation"}),
        record.Record("test-0", "f", ("yes",), both, {record.HELD_OUT: "test"}),
    )
    config = prompts.PromptConfig()
    example = prompts.render(task.spec, content, content.records[0], config, 0, 0, ())
    assert example.source.startswith('Is the following text produced by GPT-2?\nA "b" c.')
    assert example.target == "yes"


def test_t5s_own_words_are_taken_off(tmp_path):
    text = "translate English to German: Hello.\tHallo.\nBye.\tTschüss.\n"
    write(tmp_path / "wmt14_ende_v003" / "train.tsv", text)
    ((task,), _) = read(tmp_path, "t5")
    content = task.load()
    assert [one.input for one in content.records] == ["Hello.", "Bye."]
    assert task.spec.output_languages == ("German",)
    assert content.definition == "Translate the following sentence from English to German."


def test_unusable_rows_are_dropped_and_told(tmp_path):
    path = write(tmp_path / "cogs" / "train.tsv", "\tx\na\tb\n\t\nc\t \n")
    ((task,), said) = read(tmp_path)
    assert (task.spec.num_examples, task.spec.num_dropped) == (1, 3)
    assert said == [
        f"{path.parent}: dropped 3 of 4 rows, which cannot be used; the first is {path}:1, with a"
        " blank input."
    ]


def test_a_digest_tells_every_change_and_load_notices(tmp_path):
    path = write(tmp_path / "cogs" / "train.tsv", "a\tb\n")
    ((task,), _) = read(tmp_path)
    write(path, "a\tc\n")
    ((changed,), _) = read(tmp_path)
    assert task.digest != changed.digest
    with pytest.raises(InputError, match="changed while it was being used"):
        task.load()


BAD = {
    "no tab": (
        {"train.tsv": "a\tb\nbroken row\n"},
        r"train\.tsv:2: the line broken row has no tab",
    ),
    "three cells": ({"train.tsv": "a\tb\tc\n"}, r"train\.tsv:1: 3 cells, expected two"),
    "encoding": ({"train.tsv": b"a\tb\nc\t\xff\n"}, r"train\.tsv:2: not UTF-8 at byte 2 \(0xff\)"),
    "empty": ({"train.tsv": "\n\n"}, r"train\.tsv: the file is empty"),
    "empty rows": ({"train.jsonl": ""}, r"train\.jsonl: the file is empty"),
    "header only": ({"train.tsv": "inputs\ttargets\n"}, r"cogs: no row\. Correct or remove"),
    "all blank": ({"train.tsv": "a\t \n"}, r"no row that can be used \(1 in all; .*blank target"),
    "missing": (
        {"dev.jsonl": '{"inputs": "a"}\n'},
        r"row 1: field 'targets' is missing \(it has: i",
    ),
    "number": (
        {"dev.jsonl": '{"inputs": "a", "targets": 3}\n'},
        r"row 1: field 'targets' is 3, expected a text",
    ),
    "broken json": ({"dev.jsonl": '{"inputs"\n'}, r"dev\.jsonl:1: not JSON"),
    "blank id": (
        {"dev.jsonl": '{"inputs": "a", "targets": "b", "id": " "}\n'},
        r"row 1: field 'id' is ' '",
    ),
    "same id": (
        {"dev.jsonl": '{"inputs": "a", "targets": "b", "id": "x"}\n' * 2},
        r"row 2: the id is 'validation-x', the id of .*row 1 too",
    ),
    "split": ({"trian.tsv": "a\tb\n"}, r"unknown split 'trian'.*Did you mean 'train'"),
    "two files": (
        {"dev.tsv": "a\tb\n", "validation.jsonl": "{}\n"},
        r"both hold the split 'validation'\. Remove one",
    ),
    "no file": ({"README.md": "x"}, r"no file of the task\. Expected \{train,validation,test\}"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_say_where_and_what_to_do(tmp_path, case):
    files, message = BAD[case]
    for name, text in files.items():
        write(tmp_path / "cogs" / name, text)
    with pytest.raises(InputError, match=message):
        read(tmp_path)
    write(tmp_path / "newsquizqa" / "train.tsv", "a\tb\n")
    (tasks, said) = read(tmp_path, skip_bad=True)
    assert [task.spec.original_name for task in tasks] == ["newsquizqa"]
    assert [bool(re.search(message, one)) for one in said] == [True]


def test_labels_that_the_table_does_not_know(tmp_path):
    write(tmp_path / "gpt2_output_dataset" / "train.tsv", "a\tyes\nb\tyess\n")
    with pytest.raises(InputError, match=r"train\.tsv:2: the row: unknown target 'yess'.*'yes'"):
        read(tmp_path)


def test_folders_that_are_no_task(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "none")
    with pytest.raises(InputError, match="has no folder of a task"):
        read(tmp_path)
    write(tmp_path / "newsquiz" / "train.tsv", "a\tb\n")
    message = "its name: unknown exmix task 'newsquiz'.*Did you mean 'newsquizqa'"
    with pytest.raises(InputError, match=message):
        read(tmp_path)
    with pytest.raises(InputError, match=f"every task is bad. The first: .*{message}"):
        read(tmp_path, skip_bad=True)


GOOD_ROW = {
    "task": "a",
    "category": "Summarization",
    "instruction": "Do it to the text.",
    "kind": "text",
    "options": "",
    "sources": "s",
    "metric": "rouge_l",
    "input_language": "English",
    "output_language": "English",
    "kept": "yes",
    "elsewhere": "",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category": "Sumarization"}, "Did you mean 'Summarization'"),
        ({"kind": "open"}, "unknown kind 'open'"),
        ({"metric": "bleu"}, "unknown metric 'bleu'"),
        ({"instruction": ""}, "column 'instruction' is blank"),
        ({"kind": "classification", "options": "x"}, "needs two or more different ones"),
        ({"options": "x | y"}, "a text task has the options"),
        ({"kept": "no"}, "'elsewhere' names no other benchmark"),
        ({"task": "b"}, "has the instruction of 'a'"),
    ],
)
def test_tables_are_checked(tmp_path, change, message):
    table = [GOOD_ROW, GOOD_ROW | change] if "task" in change else [GOOD_ROW | change]
    lines = ["\t".join(text_pairs.COLUMNS), *("\t".join(row.values()) for row in table)]
    path = write(tmp_path / "table.tsv", "\n".join(lines) + "\n")
    with pytest.raises(InputError, match=message):
        text_pairs.read_table(path)


def test_a_task_that_lies_in_two_places(tmp_path):
    for folder in ("cogs", "data/cogs"):
        write(tmp_path / folder / "train.tsv", "a\tb\n")
    with pytest.raises(InputError, match=r"'cogs' lies there and in data/"):
        read(tmp_path)


@pytest.mark.parametrize("first", ["input\ttarget", "Inputs\tOutput", "question\tanswer"])
def test_a_header_of_other_words_is_no_row(tmp_path, first):
    write(tmp_path / "cogs" / "train.tsv", f"{first}\nA dog ran .\trun ( dog )\n")
    with pytest.raises(InputError, match=r"train.tsv:1: .*looks like a header"):
        read(tmp_path)
