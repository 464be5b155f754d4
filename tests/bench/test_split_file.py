"""A user's own split: what a file may say, and what is refused."""

import dataclasses

import pytest

from optiml_jax.bench import catalog, split_file, splits
from optiml_jax.errors import InputError

HEAD = "role\tlevel\tfield\tpattern\treason\n"
LAST = "train\t\tdefault\t\tall others\n"
TEST = "test\tfully_held_out\tcategory\tTextual Entailment\tthe question\n"


def spec(name, category="Text Matching", sources=("toy",), benchmark="flan"):
    return catalog.TaskSpec(
        name=catalog.task_name(benchmark, name),
        original_name=name,
        benchmark=benchmark,
        category=category,
        instruction_kind="task",
        sources=tuple(sources),
        metric="rouge_l",
        input_languages=("English",),
        output_languages=("English",),
        licence="MIT",
        num_examples=10,
        path="",
    )


@pytest.fixture
def write(tmp_path):
    def make(text, name="mine.tsv"):
        path = tmp_path / name
        path.write_text(text, "utf-8")
        return str(path)

    return make


def test_rows_place_tasks_and_the_first_counts(write):
    path = write(
        "# What this study holds out.\n"
        + HEAD
        + "excluded\t\tsource\tbig*bench*\ta suite\n\n"
        + TEST
        + "validation\tpartially_supervised\tname\tflan__newsroom\t\n"
        + "excluded\t\tbenchmark\tt5\tnot read\n"
        + "train\t\ttask\tnews*\tshadowed in part\n"
        + "excluded\t\tdefault\n"
    )
    specs = [
        spec("a", sources=["Big_Bench"]),
        spec("rte", "Textual Entailment"),
        spec("newsroom"),
        spec("newsqa"),
        spec("newsqa", benchmark="t5"),
        spec("b"),
    ]
    found = splits.assign(specs, path)
    assert [(one.role, one.level, one.reason) for one in found.values()] == [
        ("excluded", "", "a suite"),
        ("test", "fully_held_out", "the question"),
        ("validation", "partially_supervised", "its name matches 'flan__newsroom'"),
        ("train", "fully_supervised", "shadowed in part"),
        ("excluded", "", "not read"),
        ("excluded", "", "all other tasks"),
    ]
    assert [one.category for one in found.values()][:2] == ["Text Matching", "Textual Entailment"]


def test_columns_come_in_any_order_and_some_may_lack(write):
    path = write("field\tpattern\trole\ntask\tx\texcluded\ndefault\t*\ttrain\n")
    found = splits.assign([spec("x"), spec("y")], path)
    assert [one.role for one in found.values()] == ["excluded", "train"]


def test_a_file_may_stand_on_a_named_split(write):
    path = write(HEAD + "excluded\t\tname\tflan__mine\tmine\n\t\tsplit\topt_iml\n")
    specs = [spec("mine"), spec("rte", "Textual Entailment"), spec("x", sources=["race"])]
    found = splits.assign(specs, path, elsewhere={"flan__x": "elsewhere"})
    named = splits.assign(specs, "opt_iml", elsewhere={"flan__x": "elsewhere"})
    assert found["flan__mine"].role == "excluded"
    assert {n: one for n, one in found.items() if n != "flan__mine"} == {
        n: one for n, one in named.items() if n != "flan__mine"
    }


def test_name_and_digest_are_the_files(write, tmp_path):
    split = splits.find(write(HEAD + LAST))
    (tmp_path / "elsewhere").mkdir()
    moved = splits.find(write(HEAD + LAST, "elsewhere/mine.tsv"))
    changed = splits.find(write(HEAD + TEST + LAST))
    assert (split.name, len(split.digest)) == ("mine", 16)
    assert split.digest == moved.digest != changed.digest
    again = splits.find("mine", split.rules)
    assert (again.name, again.digest) == (split.name, split.digest)
    assert splits.find("opt_iml").digest == ""
    # A task's key holds its reason, so it must not change with the file's place.
    assert splits.assign([spec("a")], split) == splits.assign([spec("a")], moved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.tsv: no rows. The first line names the columns: role, level"),
        ("# only a comment\n\n", "mine.tsv: no rows."),
        ("role,level\n", "mine.tsv:1: the line has one column, 'role,level'. Part the columns by"),
        ("rolle\tfield\tpattern\n", "mine.tsv:1: unknown column 'rolle'. Did you mean 'role'?"),
        ("role\tfield\n", "mine.tsv:1: column 'pattern' is missing."),
        ("role\trole\tfield\tpattern\n", "mine.tsv:1: column 'role' is there twice."),
        (HEAD, "mine.tsv: the last row says what becomes of all other tasks"),
        (HEAD + TEST, "mine.tsv:2: the last row says what becomes of all other tasks, and field"),
        (HEAD + "tset\tfully_held_out\ttask\tx\n" + LAST, "mine.tsv:2: unknown role 'tset'. Did"),
        (HEAD + "test\theld_out\ttask\tx\n" + LAST, "mine.tsv:2: unknown level 'held_out'. Did"),
        (HEAD + "test\tfully_held_out\ttasks\tx\n" + LAST, "unknown field 'tasks'. Did you mean"),
        (HEAD + "test\t\ttask\tx\n" + LAST, "role 'test' needs a level: fully_held_out or part"),
        (
            HEAD + "test\tfully_supervised\ttask\tx\n" + LAST,
            "role 'test' has the level 'fully_supervised', which is for the role train; expected"
            " fully_held_out or partially_supervised.",
        ),
        (
            HEAD + "excluded\tfully_held_out\ttask\tx\n" + LAST,
            "role 'excluded' has the level 'fully_held_out', which is for the role validation and"
            " test; expected none: leave it blank.",
        ),
        (HEAD + "excluded\t\ttask\t\tx\n" + LAST, "mine.tsv:2: pattern is blank. Write a task"),
        (HEAD + "a\tb\tc\td\te\tf\n" + LAST, "mine.tsv:2: the row has 6 cells, expected 5"),
        (HEAD + LAST + TEST, "mine.tsv:2: field 'default' is for all other tasks, so its row is"),
        (HEAD + "test\t\tdefault\n", "mine.tsv:2: field 'default': unknown role 'test'."),
        (HEAD + "train\t\tdefault\tflan\n", "mine.tsv:2: field 'default' is for all other tasks"),
        (HEAD + "\t\tsplit\topt_im\n", "mine.tsv:2: unknown split 'opt_im'. Did you mean 'opt_iml"),
        (
            HEAD + "train\t\tsplit\topt_iml\n",
            "field 'split' lets the split 'opt_iml' give roles and levels. Leave both blank here.",
        ),
        (
            HEAD + "\t\tsplit\tsuper_natural_instructions_official\n",
            "mine.tsv:2: the split 'super_natural_instructions_official' cannot place the other"
            " tasks: its lists lie beside the tasks of one benchmark",
        ),
        (HEAD + "\t\tsplit\tmine\n", "mine.tsv:2: field 'split' names 'mine', which is this file"),
        (HEAD + "\t\tsplit\tother.tsv\n", "field 'split' names 'other.tsv', which is a file, and"),
        (
            HEAD + TEST + "excluded\t\tcategory\ttextual entailment\n" + LAST,
            "mine.tsv:3: category 'textual entailment' is excluded here and test and fully_held_out"
            " in ",
        ),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused(write, text, message):
    with pytest.raises(InputError) as error:
        splits.find(write(text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("opt_iml.tsv", "has the name of the split 'opt_iml' of this package"),
        ("my split.tsv", "SeqIO refuses 'my split'. Rename it, e.g. to 'my_split.tsv'."),
    ],
)
def test_a_bad_name_is_refused(write, name, message):
    with pytest.raises(InputError, match=message):
        splits.find(write(HEAD + LAST, name))


@pytest.mark.parametrize("name", ["mine.csv", "mine.TSV", "mine"])
def test_a_file_ends_in_tsv(write, name):
    path = write(HEAD + LAST, name)
    with pytest.raises(InputError, match=r"ends in \.tsv, .* Rename it to '.*/mine\.tsv', or give"):
        splits.find(path)
    # Beside the working folder there is no folder in front.
    if "." in name:
        with pytest.raises(InputError, match=r"ends in \.tsv, .* Rename it to 'mine\.tsv', or"):
            splits.find(name)


def test_an_unknown_split_shows_what_matters_first():
    with pytest.raises(InputError) as error:
        splits.find("opt")
    assert (
        "unknown split 'opt'. Did you mean 'opt_iml'? Known: opt_iml, opt_iml_max,"
        " super_natural_instructions_official, super_natural_instructions_xlingual, t0, t0p, t0pp,"
        " flan_* (17), crossfit_* (8), mini;" in str(error.value)
    )
    assert "A split file's name ends in .tsv." in str(error.value)


def test_a_file_that_is_not_there_offers_the_nearest(write):
    path = write(HEAD + LAST)
    with pytest.raises(InputError, match=r"does not exist\. Did you mean '.*/mine\.tsv'\?"):
        splits.find(path.replace("mine", "mime"))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"mine\.tsv' cannot be read .* UTF-8"):
        splits.find(str(path))


def test_a_task_in_two_levels_is_refused(write):
    path = write(
        HEAD
        + "test\tfully_held_out\ttask\trte\t\n"
        + "validation\tpartially_supervised\tname\tflan__rte\t\n"
        + LAST
    )
    with pytest.raises(InputError) as error:
        splits.assign([spec("rte", "Textual Entailment")], path)
    assert "task 'flan__rte' is test and fully_held_out by the row task 'rte' and" in str(
        error.value
    )
    assert "by the row name 'flan__rte'. Take one of the two rows out." in str(error.value)


def test_a_held_out_category_that_trains_is_refused(write):
    path = write(HEAD + "test\tfully_held_out\ttask\trte\t\n" + LAST)
    specs = [spec("rte", "Textual Entailment"), spec("snli", "Textual Entailment")]
    with pytest.raises(InputError) as error:
        splits.assign(specs, path)
    assert "mine.tsv: category 'Textual Entailment' is trained on ('snli') and" in str(error.value)
    assert "give 'rte' the level partially_supervised" in str(error.value)


FLAN = (
    spec("rte", "Textual Entailment"),
    spec("cb", "Textual Entailment"),
    spec("xsum", "Summarization"),
    spec("ag_news_subset", "Title Generation"),
    spec("squad_v1", "Question Answering"),
    spec("trivia_qa", "Question Answering"),
)
CROSSFIT = (
    spec("glue-rte", "Textual Entailment", benchmark="crossfit"),
    spec("anli", "Textual Entailment", benchmark="crossfit"),
)


def on(split):
    return f"\t\tsplit\t{split}\n"


@pytest.mark.parametrize(
    ("rows", "base", "specs", "message"),
    [
        (
            "test\tfully_held_out\tname\tflan__xsum\n",
            *("flan_entailment", FLAN),
            "category 'summarization' is trained on ('ag_news_subset') and tested ('xsum')",
        ),
        (
            "train\t\tname\tflan__cb\n",
            *("flan_entailment", FLAN),
            "category 'entailment' is trained on ('cb') and tested ('rte')",
        ),
        (
            "train\t\tname\tcrossfit__glue_rte\n",
            *("crossfit_train_non_nli_test_nli", CROSSFIT),
            "category 'Natural Language Inference' is trained on ('glue-rte') and validated on ('a",
        ),
        # Tasks that the base reports under no kind of its own have the catalog's name.
        (
            "test\tfully_held_out\ttask\tother\n",
            *("flan_entailment", (*FLAN, spec("other", "Summarization", benchmark="t5"))),
            "category 'Summarization' is trained on ('flan__xsum') and tested ('t5__other')",
        ),
        (
            "train\t\ttask\tother\n",
            *("flan_entailment", (*FLAN, spec("other", "Textual Entailment", benchmark="t5"))),
            "category 'Textual Entailment' is trained on ('t5__other') and tested ('flan__rte')",
        ),
    ],
)
def test_a_category_has_the_bases_name_too(write, rows, base, specs, message):
    with pytest.raises(InputError) as error:
        splits.assign(specs, write(HEAD + rows + on(base)))
    assert message in str(error.value)


def test_a_row_that_says_what_the_base_says_changes_nothing(write):
    """squad_v1 is held out and trivia_qa trains, both Question Answering in the catalog."""
    base = "flan_reading_comprehension"
    path = write(HEAD + "train\t\tname\tflan__trivia_qa\tas published\n" + on(base))
    ours, named = splits.assign(FLAN, path), splits.assign(FLAN, base)
    for name, one in ours.items():
        other = named[name]
        assert (one.role, one.level, one.category) == (other.role, other.level, other.category)


@pytest.mark.parametrize("category", ["summarization", "Summarization"])
def test_a_category_row_means_both_names(write, category):
    path = write(HEAD + f"test\tfully_held_out\tcategory\t{category}\n" + on("flan_entailment"))
    other = spec("other", "Summarization", benchmark="t5")
    found = splits.assign([*FLAN, other], path)
    tested = {name: one.category for name, one in found.items() if one.role == "test"}
    assert tested == {
        "flan__rte": "entailment",
        "flan__cb": "entailment",
        "flan__xsum": "summarization",
        "flan__ag_news_subset": "summarization",
        "t5__other": "Summarization",
    }
    split = splits.find(path)
    assert split_file.notes(split, FLAN) == []
    slip = write(HEAD + "excluded\t\tcategory\treading_comprehensoin\n" + on("flan_entailment"))
    with pytest.raises(InputError, match="Did you mean 'reading_comprehension'"):
        split_file.notes(splits.find(slip), FLAN)


def test_notes_on_idle_rows_end_somewhere(write):
    rows = "".join(f"excluded\t\tname\tflan__x{n}*\n" for n in range(30))
    told = split_file.notes(splits.find(write(HEAD + rows + LAST)), FLAN)
    assert len(told) == 21
    assert told[0].endswith("no task has name 'flan__x0*'. Did you mean 'flan__xsum'?")
    assert told[-1].endswith("mine.tsv: and 10 more rows that place no task.")
    # A slip is refused wherever it stands.
    slip = "excluded\t\tname\tflan__ag_news_subst\n"
    with pytest.raises(InputError, match=r"mine\.tsv:32: no task has name 'flan__ag_news_subst'"):
        split_file.notes(splits.find(write(HEAD + rows + slip + LAST)), FLAN)


def evaluated(name):
    return f"test\tpartially_supervised\tname\t{name}\t\n"


ON_OPT_IML = "\t\tsplit\topt_iml\n"


def test_a_files_evaluation_tasks_count_for_the_bases_rule_on_data(write):
    path = write(
        HEAD
        + "train\t\tname\tflan__wanted\tan exception\n"
        + evaluated("flan__gigaword")
        + evaluated("flan__mwoz")
        + ON_OPT_IML
    )
    specs = [
        spec("gigaword", sources=["Gigaword"]),
        spec("task288", sources=["other; gigaword"], benchmark="super_natural_instructions"),
        spec("wanted", sources=["gigaword"]),
        spec("mwoz", sources=["multi_woz"]),
        spec("dialogue", sources=["multi_woz_v22"]),
        spec("x"),
    ]
    found = splits.assign(specs, path)
    assert [one.role for one in found.values()] == [
        "test", "excluded", "train", "test", "excluded", "train",
    ]  # fmt: skip
    reason = found["super_natural_instructions__task288"].reason
    assert reason.startswith("shares the data of 'gigaword' with an evaluation task: gigaword")
    # The evaluation task may be of a benchmark that is not read now.
    (alone,) = splits.assign(specs[1:2], path, known=specs).values()
    assert alone.role == "excluded"
    # Without the row, gigaword and what shares its data train.
    (alone,) = splits.assign(specs[1:2], "opt_iml", known=specs).values()
    assert alone.role == "train"


def test_data_that_a_named_split_evaluates_elsewhere_does_not_train():
    """The catalog's Perspectrum is evaluated, and stands in no table of data sets."""
    perspectrum = spec("task1385", "Textual Entailment", ["perspectrum"])
    own = spec("mine", sources=["Perspectrum"], benchmark="super_natural_instructions")
    for split, role in (("opt_iml", "excluded"), ("opt_iml_max", "train")):
        (one,) = splits.assign([own], split, known=[perspectrum]).values()
        assert one.role == role
    (one,) = splits.assign([own], "opt_iml").values()
    assert one.role == "train"


def test_a_file_on_its_own_has_no_rule_on_data(write):
    path = write(HEAD + evaluated("flan__a") + LAST)
    found = splits.assign([spec("a"), spec("b")], path)
    assert [one.role for one in found.values()] == ["test", "train"]


def test_only_line_ends_part_rows(write):
    text = HEAD + "excluded\t\ttask\tx\ta\x0bb\u2028c\x85d\x0ce\r\n" + " \t# words\r" + LAST
    for split in (splits.find("mine", text), splits.find(write(text))):
        found = splits.assign([spec("x"), spec("y")], split)
        assert [one.role for one in found.values()] == ["excluded", "train"]
        assert found["flan__x"].reason == "a\x0bb\u2028c\x85d\x0ce"


def test_a_row_that_nearly_names_a_task_is_refused(write):
    specs = [spec("rte", "Textual Entailment", ["glue"]), spec("x")]
    for row, message in (
        ("test\tfully_held_out\tcategory\tTextual Entailmnt", "Did you mean 'Textual Entailment'?"),
        ("excluded\t\tname\tflan__rtee", "Did you mean 'flan__rte'?"),
        ("excluded\t\tname\tfaln__rte", "Did you mean 'flan__rte'?"),
        ("validation\tpartially_supervised\tsource\tgleu", "no task has source 'gleu'"),
    ):  # fmt: skip
        split = splits.find(write(HEAD + TEST + row + "\n" + LAST))
        if "gleu" in row:
            assert message in split_file.notes(split, specs)[0]
            continue
        with pytest.raises(InputError) as error:
            split_file.notes(split, specs)
        assert f"{split.where}:3: no task has" in str(error.value)
        assert message in str(error.value)


@pytest.mark.parametrize(
    "row",
    [
        "train\t\tcategory\tTextual Entailmnt",
        "excluded\t\tcategory\tTextual Entailmnt*",
        # Perhaps of a benchmark, or of files, that are not read now.
        "excluded\t\tname\tflan__task12_a",
        "excluded\t\tname\tmine__another",
        "excluded\t\tcategory\tDialogue Generation",
    ],
)
def test_other_idle_rows_are_notes(write, row):
    split = splits.find(write(HEAD + row + "\n" + LAST))
    specs = [spec("rte", "Textual Entailment"), spec("task11_a")]
    (note,) = split_file.notes(split, specs)
    assert "no task has" in note


def test_a_row_on_another_name_of_a_data_set_is_told(write):
    split = splits.find(write(HEAD + "excluded\t\tsource\tSGD\t\n" + LAST))
    dialogue = spec("dialogue", sources=["schema_guided_dstc8"])
    (note,) = split_file.notes(split, [dialogue, spec("x", sources=["sgdx"])])
    assert "no task has source 'SGD'. Did you mean 'schema_guided_dstc8'?" in note
    assert split_file.notes(split, [dialogue, spec("x", sources=["sgd"])]) == []


def test_rows_may_place_tasks_of_another_benchmark_than_the_bases(write):
    sst2 = spec("glue_sst2", benchmark="promptsource")
    qqp = spec("glue_qqp", benchmark="promptsource")
    train = "train\t\tname\tpromptsource__glue_sst2\t\n"
    out = "excluded\t\tname\tpromptsource__glue_sst2\t\n"
    found = splits.assign([sst2, qqp], write(HEAD + train + on("flan_entailment")))
    assert [one.role for one in found.values()] == ["train", "excluded"]
    # None is placed, or some are taken out: the rest would be left out unasked.
    for rows in ("", out):
        split = splits.find(write(HEAD + rows + on("flan_entailment")))
        with pytest.raises(InputError) as error:
            splits.assign([sst2, qqp], split)
        assert str(error.value).startswith(
            f"{split.where}: no row trains or evaluates a task of promptsource, and the split"
            " 'flan_entailment' of the last row places the tasks of flan alone"
        )
    # All are meant.
    rows = "excluded\t\tbenchmark\tpromptsource\t\n"
    found = splits.assign([sst2, qqp], write(HEAD + rows + on("flan_entailment")))
    assert [one.role for one in found.values()] == ["excluded", "excluded"]


@pytest.mark.parametrize("kind", ["reading_comprehension", "open_domain_qa"])
def test_a_row_may_hold_out_another_of_the_bases_kinds(write, kind):
    """Both are Question Answering in the catalog; FLAN parts them."""
    qa = "Question Answering"
    specs = [spec(name, qa) for name in ("bool_q", "squad_v1", "arc_easy", "trivia_qa")]
    row = f"test\tfully_held_out\tcategory\t{kind}\t\n"
    found = splits.assign(specs, write(HEAD + row + on("flan_entailment")))
    tested = {one.category for one in found.values() if one.level == "fully_held_out"}
    assert tested == {kind}
    assert [one.role for one in found.values()].count("train") == 2
    # What other rows train still counts under both names.
    other = spec("own", qa, benchmark="t5")
    with pytest.raises(InputError, match="category 'Question Answering' is trained on"):
        splits.assign(
            [*specs, other], write(HEAD + "train\t\ttask\town\t\n" + row + on("flan_entailment"))
        )
    # A task alone is of both, and the advice that the error gives can be followed.
    row = "test\tfully_held_out\tname\tflan__bool_q\t\n"
    with pytest.raises(InputError, match="category 'reading_comprehension' is trained on"):
        splits.assign(specs, write(HEAD + row + on("flan_entailment")))


def test_text_leaves_under_any_file_that_evaluates_its_data(write):
    rte, cb = spec("rte", sources=["rte"]), spec("cb", sources=["cb"])
    rte_text, mmlu, other = (
        dataclasses.replace(spec(name, sources=[name], benchmark="replay"), instruction_kind="text")
        for name in ("rte", "mmlu", "other")
    )
    texts = [rte_text, mmlu, other]

    def roles(rows):
        found = splits.assign(texts, write(HEAD + rows), known=[rte, cb])
        return [one.role for one in found.values()]

    row = "test\tpartially_supervised\tname\tflan__rte\t\n"
    out = ["excluded", "excluded", "train"]
    assert roles(row + LAST) == out
    assert roles(row + on("t0")) == out
    assert roles(LAST) == ["train", "excluded", "train"]
    assert roles(on("flan_entailment")) == out
    # A row that trains the task, or the text.
    assert roles("train\t\tname\tflan__rte\t\n" + on("flan_entailment"))[0] == "train"
    assert roles("train\t\tname\treplay__*\t\n" + on("flan_entailment")) == ["train"] * 3


def test_a_row_behind_others_is_told(write):
    rte = [spec("rte", "Textual Entailment"), spec("x")]
    split = splits.find(write(HEAD + TEST + "test\tfully_held_out\ttask\trte\t\n" + LAST))
    assert [note.partition(": ")[2] for note in split_file.notes(split, rte)] == [
        "the row task 'rte' (test and fully_held_out) has no effect: rows above it place its"
        " one task."
    ]
    assert split_file.notes(splits.find(write(HEAD + TEST + LAST)), rte) == []


def test_a_row_behind_others_that_differ_is_told(write):
    rows = "test\tpartially_supervised\tname\tflan__rte*\t\nexcluded\t\tname\tflan__rte\t\n"
    split = splits.find(write("# why\n" + HEAD + rows + LAST))
    (note,) = split_file.notes(split, [spec("rte"), spec("x")])
    assert "(excluded) has no effect: rows above it place its one task, otherwise: 'flan__r" in note
    assert "'flan__rte' stays test and partially_supervised by row 3 (name 'flan__rte*')" in note
