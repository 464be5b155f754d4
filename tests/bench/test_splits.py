import collections
import csv
import dataclasses
import hashlib

import pytest

from optiml_jax.bench import catalog, splits, taxonomy
from optiml_jax.bench.sources import super_natural_instructions
from optiml_jax.errors import InputError

VALIDATION = (
    "Cause Effect Classification",
    "Grammar Error Correction",
    "Stereotype Detection",
    "Word Analogy",
)
TOXIC = "Toxic Language Detection"
TEST = ("Textual Entailment", "Coreference Resolution", "Dialogue Act Recognition")


def spec(original, category="Text Matching", sources=("toy",)):
    return catalog.TaskSpec(
        name=catalog.task_name("super_natural_instructions", original),
        original_name=original,
        benchmark="super_natural_instructions",
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


def place(*specs, split="opt_iml", official=None):
    result = splits.assign(specs, split, official)
    assert list(result) == [s.name for s in specs]
    return [(a.role, a.level) for a in result.values()]


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("task827_copa_commonsense_reasoning", "Cause Effect Classification"),
        ("task1557_jfleg_answer_generation", "Grammar Error Correction"),
        ("task1664_winobias_text_generation", "Stereotype Detection"),
        ("task1159_bard_analogical_reasoning_containers", "Word Analogy"),
    ],
)
def test_validation_tasks_are_fully_held_out_and_the_rest_of_their_category_leaves(name, category):
    placed = place(spec(name, category), spec("task1_x", category))
    assert placed == [("validation", "fully_held_out"), ("excluded", "")]


@pytest.mark.parametrize("category", TEST)
def test_test_categories_are_fully_held_out(category):
    assert place(spec("task1_x", category)) == [("test", "fully_held_out")]


@pytest.mark.parametrize(
    ("name", "category", "source"),
    [
        ("task1720_civil_comments_toxicity_classification", TOXIC, "civil_comments"),
        ("task1725_civil_comments_severtoxicity_classification", TOXIC, "civil_comments"),
        ("task309_race_answer_generation", "Question Answering", "race"),
        ("task310_race_classification", "Question Answering", "race"),
    ],
)  # fmt: skip
def test_named_tasks_are_partially_supervised(name, category, source):
    assert place(spec(name, category, [source])) == [("validation", "partially_supervised")]


def test_winobias_is_reported_under_stereotype_detection():
    one = spec("task1664_winobias_text_generation", "Coreference Resolution", ["wino_bias"])
    (assignment,) = splits.assign([one], "opt_iml").values()
    assert (assignment.role, assignment.level) == ("validation", "fully_held_out")
    assert assignment.category == "Stereotype Detection"
    assert "Table 15" in assignment.reason


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("task664_mmmlu_x", "measuring_massive_multitask_language_understanding"),
        ("task062_bigbench_repeat_copy_logic", "big_bench"),
        ("task1_x", "bigbench"),
        ("task1732_bbh_boolean_expressions", "toy"),
    ],
)
def test_copies_of_evaluation_suites_leave_training(name, source):
    (assignment,) = splits.assign([spec(name, sources=[source])], "opt_iml").values()
    assert (assignment.role, assignment.level) == ("excluded", "")
    assert "copy of" in assignment.reason


@pytest.mark.parametrize(
    "source", ["race", "civil_comments", "jigsaw", "strategyqa", "winomt", "Wsc; Enhanced_wsc"]
)
def test_tasks_on_the_data_of_an_evaluation_task_leave_training(source):
    (assignment,) = splits.assign([spec("task1_x", sources=[source])], "opt_iml").values()
    assert assignment.role == "excluded"
    assert "shares the data of" in assignment.reason


def test_sources_of_evaluation_tasks_that_are_present_count_too():
    tested = spec("task1_nli", "Textual Entailment", ["new_corpus"])
    other = spec("task2_title", "Title Generation", ["New_Corpus"])
    assert place(tested, other)[1] == ("excluded", "")
    assert place(other) == [("train", "fully_supervised")]


def test_a_catalogue_of_data_sets_is_not_shared_data():
    tested = spec("task1_nli", "Textual Entailment", ["indicnlp"])
    assert place(tested, spec("task2_x", sources=["indicnlp"]))[1] == ("train", "fully_supervised")


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("task105_story_cloze-rocstories_sentence_generation", "pib", "names another source"),
        ("task047_miscellaneous_answering_science_questions", "miscellaneous", "questions of ARC"),
        ("task045_miscellaneous_sentence_paraphrasing", "miscellaneous", "SciTail"),
        ("task044_essential_terms_identifying_essential_words", "essential", "science exams"),
        ("task1598_nyc_long_text_generation", "nyc", "restaurants"),
        ("task156_codah_classification_adversarial", "codah", "Sentence Completion"),
        ("task1389_hellaswag_completion", "hellaswag", "Sentence Completion"),
        ("task1604_ethos_text_classification", "ethos", "a bias suite (OPT §4)"),
        ("task137_detoxifying-lms_classification_toxicity", "detoxifying_lms", "RealToxicityPr"),
        ("task1196_atomic_classification_oeffect", "atomic", "Defeasible NLI"),
    ],
)
def test_what_a_source_hides_leaves_training(name, source, reason):
    (assignment,) = splits.assign([spec(name, sources=[source])], "opt_iml").values()
    assert (assignment.role, assignment.level) == ("excluded", "")
    assert reason in assignment.reason


@pytest.mark.parametrize(
    "name",
    [
        "task463_parsinlu_entailment_classification",
        "task464_parsinlu_entailment_sentence_generation",
        "task534_farstail_entailment",
    ],
)
def test_entailment_in_persian_is_not_evaluated(name):
    assert place(spec(name, "Textual Entailment")) == [("excluded", "")]


def test_everything_else_trains():
    assert place(spec("task1_x")) == [("train", "fully_supervised")]


def test_the_tables_hold_known_words():
    for placement in splits.PLACEMENTS:
        assert placement.role in splits.ROLES
        assert placement.level in splits.LEVELS or placement.role == "excluded"
        assert placement.reason
        if placement.field == "category":
            assert taxonomy.canonical_category(placement.pattern) == placement.pattern
    for category, reason in splits.CATEGORY_EXCEPTIONS.values():
        assert taxonomy.canonical_category(category) == category
        assert reason
    for data, reason in splits.SAME_DATA.values():
        assert data in splits.EVALUATED_SOURCES
        assert reason


def test_an_unknown_split_offers_the_nearest():
    with pytest.raises(InputError, match=r"unknown split 'optiml'\. Did you mean 'opt_iml'\?"):
        splits.assign([], "optiml")
    assert splits.split_names()[0] == "opt_iml"


# The official split.

LISTS = splits.OfficialLists("splits/default", train=("a",), test=("b",), excluded=("c",))


def test_official_lists_decide():
    specs = [spec("a"), spec("b", "Title Generation"), spec("c", "Title Generation"), spec("d")]
    assert place(*specs, split="super_natural_instructions_official", official=LISTS) == [
        ("train", "fully_supervised"),
        ("test", "fully_held_out"),
        ("excluded", ""),
        ("excluded", ""),
    ]


def test_official_split_needs_its_lists():
    with pytest.raises(InputError, match="needs the benchmark's split lists"):
        splits.assign([spec("a")], "super_natural_instructions_official")
    with pytest.raises(InputError, match="none of the 1 tasks is in these lists"):
        splits.assign([spec("z")], "super_natural_instructions_official", LISTS)


def test_a_test_category_that_is_trained_on_is_refused():
    with pytest.raises(
        InputError, match=r"'Text Matching' is trained on \('a'\) and tested \('b'\)"
    ):
        splits.assign([spec("a"), spec("b")], "super_natural_instructions_official", LISTS)


def test_a_task_in_two_lists_is_refused():
    with pytest.raises(InputError, match="task 'a' is in the train and the test list"):
        splits.OfficialLists("w", train=("a",), test=("a",))


# Held-out instances.


def brute_force(ids):
    """The rule, said once more: sha256, one in ten, 1 to 100, one stays."""
    hashed = {i: int.from_bytes(hashlib.sha256(i.encode()).digest()[:8], "big") for i in ids}
    chosen = [i for i in ids if hashed[i] % 10 == 0] or [min(ids, key=hashed.get)]
    while len(chosen) > 100 or len(chosen) == len(ids):
        chosen.remove(max(chosen, key=hashed.get))
    return frozenset(chosen)


@pytest.mark.parametrize("number", [1, 2, 3, 5, 9, 40, 300, 1500])
@pytest.mark.parametrize("prefix", ["a", "task1-", "ü"])
def test_heldout_ids_against_brute_force(number, prefix):
    ids = [f"{prefix}{i}" for i in range(number)]
    held = splits.heldout_ids(ids)
    assert held == brute_force(ids)
    assert held == splits.heldout_ids(ids[::-1])
    assert len(held) <= 100
    assert bool(held) == (number > 1)
    assert len(held) < number


def test_two_ids_that_both_divide_leave_one_for_training():
    divisible = [f"x{i}" for i in range(100) if splits.stable_hash(f"x{i}") % 10 == 0][:2]
    assert len(splits.heldout_ids(divisible)) == 1


def test_about_a_tenth_is_held_out():
    assert 50 < len(splits.heldout_ids([str(i) for i in range(800)])) < 110
    assert len(splits.heldout_ids([str(i) for i in range(5000)])) == 100
    assert splits.heldout_ids([]) == frozenset()


# The real tasks.


@pytest.fixture(scope="module")
def real(real_tasks):
    return [task.spec for task in real_tasks[0]]


def test_opt_iml_on_the_real_tasks(real, real_folder):
    assigned = splits.assign(real, "opt_iml")
    roles = collections.Counter((a.role, a.level) for a in assigned.values())
    assert roles == {
        ("train", "fully_supervised"): 956,
        ("excluded", ""): 268,
        ("validation", "fully_held_out"): 14,
        ("validation", "partially_supervised"): 6,
        ("test", "fully_held_out"): 38,
    }
    # The same from the index, which was not written by this reader.
    with open(real_folder / "index.tsv", encoding="utf-8") as file:
        index = {row["task"]: row for row in csv.DictReader(file, delimiter="\t")}
    for one in real:
        row, assignment = index[one.original_name], assigned[one.name]
        winobias = one.original_name == "task1664_winobias_text_generation"
        held_out = row["categories"] in (*VALIDATION, *TEST)
        if held_out and row["input_language"] != "English":
            expected = "excluded"
        elif winobias or row["categories"] == "Word Analogy":
            expected = "validation"
        elif row["categories"] == "Stereotype Detection":
            expected = "excluded"
        elif row["categories"] == "Cause Effect Classification":
            expected = "validation"
        elif row["categories"] in TEST:
            expected = "test"
        elif "civil_comments" in row["sources"]:
            expected = "validation"
        else:
            assert assignment.role in ("train", "excluded")
            continue
        assert assignment.role == expected, one.name
    trained = {a.category for a in assigned.values() if a.role == "train"}
    held = {a.category for a in assigned.values() if a.level == "fully_held_out"}
    part = {a.category for a in assigned.values() if a.level == "partially_supervised"}
    assert not trained & held
    assert part <= trained


def test_copies_and_shared_sources_on_the_real_tasks(real):
    assigned = splits.assign(real, "opt_iml")
    by_role = collections.defaultdict(set)
    for one in real:
        by_role[assigned[one.name].role].update(splits.source_names(one))
    evaluated = by_role["validation"] | by_role["test"]
    assert not by_role["train"] & evaluated
    copies = [o for o in real if "mmmlu" in o.original_name or "bigbench" in o.original_name]
    assert len(copies) == 54
    assert {assigned[o.name].role for o in copies} == {"excluded"}


@pytest.mark.parametrize(
    ("split", "sizes"),
    [
        ("super_natural_instructions_official", [756, 119, 738, 3]),
        ("super_natural_instructions_xlingual", [1270, 35, 308, 0]),
    ],
)
def test_official_splits_on_the_real_tasks(real, real_folder, split, sizes):
    track = splits.find(split).track
    lists = super_natural_instructions.read_official_lists(real_folder, track)
    assert lists is not None
    assert [len(x) for x in (lists.train, lists.test, lists.excluded, lists.dev)] == sizes
    assert set(lists.dev) <= set(lists.test)
    assigned = splits.assign(real, split, lists)
    tested = [one for one in real if assigned[one.name].role == "test"]
    english = {one.name for one in tested if "English" in one.input_languages}
    assert english == ({one.name for one in tested} if track == "default" else set())
    names = {one.name: one.original_name for one in real}
    for role, listed in (
        ("train", lists.train),
        ("test", lists.test),
        ("excluded", lists.excluded),
    ):
        mine = {names[n] for n, a in assigned.items() if a.role == role}
        assert mine == set(listed) & set(names.values())
    assert "partially_supervised" not in {a.level for a in assigned.values()}


def test_a_role_does_not_depend_on_the_other_files_for_named_data(real):
    whole = splits.assign(real, "opt_iml")
    for one in real:
        if whole[one.name].role == "train":
            assert splits.assign([one], "opt_iml")[one.name].role == "train"
    assert dataclasses.astuple(whole[real[0].name])[0] in splits.ROLES
