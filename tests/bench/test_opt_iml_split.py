"""What `opt_iml` evaluates, against the paper's lists; what it trains on, against the texts.

The lists are those of OPT-IML (arXiv 2212.12017), written out here once more. The comparison of
texts knows no names of data sets: it finds what wrong or missing names hide.
"""

import collections
import csv
import json
import re

import pytest

from optiml_jax.bench import catalog_table, splits
from optiml_jax.tasks import build_catalog

SNI = "super_natural_instructions"
KINDS = {"Textual Entailment": 24, "Coreference Resolution": 13, "Dialogue Act Recognition": 7}
"""§5.4: 44 tasks of these three categories. Of the official test tasks it is all but Winobias."""
TESTS = {
    # §5.2; Blended Skill Talk and Spider are evaluated on held-out instances (Table 15, §5.5).
    "promptsource": """
        anli super_glue_cb super_glue_rte story_cloze_2016 super_glue_wsc.fixed super_glue_wic
        winogrande_winogrande_xl super_glue_axg crows_pairs
        """,
    # §5.3: those of held-out categories, then the others.
    "flan": """
        anli_r1 anli_r2 anli_r3 cb mnli_matched mnli_mismatched rte snli wnli winogrande wsc
        bool_q openbookqa arc_easy arc_challenge
        """,
    "unifiedskg": "dart multiwoz",
}
PARTIAL_TESTS = {
    *("flan__bool_q", "flan__openbookqa", "flan__arc_easy", "flan__arc_challenge"),
    *("unifiedskg__dart", "unifiedskg__multiwoz"),
}
FULLY_SUPERVISED = "promptsource__blended_skill_talk", "unifiedskg__spider"
VALIDATION = {
    # Table 15; the tasks of Super-NaturalInstructions by their numbers.
    "promptsource": """
        wino_bias_type1_pro wino_bias_type1_anti wino_bias_type2_pro wino_bias_type2_anti
        super_glue_copa jigsaw_unintended_bias race_high race_middle
        """,
    "flan": "copa newsroom",
    "reasoning": "strategyqa gsm8k",
    SNI: """
        391 392 393 614 827 828 1393 1557 1664 1152 1153 1154 1155 1156 1157 1158 1159
        1720 1721 1722 1723 1724 1725 309 310
        """,
}
OPTS_TASKS = """
    story_cloze rocstories piqa arc openbookqa winograd_wsc winogrande boolq cb copa rte wic multirc
    """
"""Data sets of the 14 tasks of §5.1; WSC has Winograd's."""


@pytest.fixture(scope="module")
def rows():
    return catalog_table.read(build_catalog.CATALOG)


def told(listed):
    return {f"{name}__{task}" for name, tasks in listed.items() for task in tasks.split()}


def placed(rows, role):
    """Tasks with this role, those of Super-NaturalInstructions by number."""
    found = (row for row in rows.values() if row.opt_iml_role == role)
    return {re.sub(r"__task0*(\d+)_.*", r"__\1", row.name) for row in found}


# The paper's lists.


def test_the_validation_tasks_are_those_of_table_15(rows):
    assert placed(rows, "validation") == told(VALIDATION)


def test_the_test_tasks_are_those_of_section_5(rows):
    own = {name for name in placed(rows, "test") if name.startswith(SNI)}
    assert placed(rows, "test") - own == told(TESTS)
    for name in told(TESTS):
        partial = rows[name].opt_iml_level == "partially_supervised"
        assert partial == (name in PARTIAL_TESTS), name
    for name in FULLY_SUPERVISED:
        assert rows[name].opt_iml


def test_the_tests_of_super_natural_instructions_are_section_5_4s(rows):
    own = [row for row in rows.values() if row.benchmark == SNI and row.opt_iml_role == "test"]
    assert collections.Counter(row.category for row in own) == KINDS
    assert sum(KINDS.values()) == 44
    assert {row.languages for row in own} == {("English",)}
    official = {
        row.name
        for row in rows.values()
        if row.benchmark == SNI and row.official_role == "test" and row.category in KINDS
    }
    assert {row.name for row in own} == official


def test_no_task_of_section_5_1_is_trained_on(rows):
    data = set(OPTS_TASKS.split())
    seen = set()
    for row in rows.values():
        shared = data & set(splits.source_names(row.to_spec()))
        seen |= shared
        assert not (shared and row.opt_iml), row.name
    assert seen == data


def test_the_kinds_that_t0_holds_out_are_held_out_under_any_name(rows):
    kinds = re.compile(
        r"swag|codah|story.?cloze|rocstories|wino(grad|grande|why|gender|bias)|_wsc|mwsc|xl.?wic"
        r"|wic_|snli|_mnli|multi_nli|_anli|scitail|entailment|commitmentbank|pronoun|coref",
        re.IGNORECASE,
    )
    found = [row for row in rows.values() if kinds.search(row.original_name)]
    assert len(found) > 80
    assert not [row.name for row in found if row.opt_iml]


def test_bias_suites_are_not_trained_on(rows):
    suites = {"ethos", "crows_pairs", "stereoset", "wino_bias", "winogender", "detoxifying_lms"}
    found = [row for row in rows.values() if suites & set(splits.source_names(row.to_spec()))]
    assert len(found) > 20
    assert not [row.name for row in found if row.opt_iml]


def test_what_dart_is_made_of_is_not_trained_on(rows):
    parts = {"dart", "e2e", "web_nlg", "wikisql", "wiki_table_questions"}
    found = [row for row in rows.values() if parts & set(splits.source_names(row.to_spec()))]
    assert set().union(*(row.sources for row in found)) >= parts
    assert not [row.name for row in found if row.opt_iml]


def test_reasons_name_an_evaluation_that_takes_place(rows):
    assert "Table 15" in rows["promptsource__jfleg"].opt_iml_reason
    assert "§5.2 and §5.3" in rows["promptsource__hellaswag"].opt_iml_reason
    assert "WinoGender" in rows["promptsource__super_glue_axg"].opt_iml_reason
    assert "HellaSwag" not in "".join(row.opt_iml_reason for row in rows.values())


def test_what_is_kept_of_crossfit_and_exmix_is_in_no_other_benchmark(rows):
    named = {
        # §2.1 keeps it for its quality; A.1 names the others.
        *("t5__cnn_dailymail_v002", "t5__wmt14_enfr_v003", "t5__wmt16_enro_v003"),
        "exmix__dialoglue_banking77",
    }
    twice = {
        row.name
        for row in rows.values()
        if row.benchmark in ("crossfit", "exmix", "t5") and row.opt_iml_max and row.duplicate_of
        if rows[row.duplicate_of].benchmark != row.benchmark
    }
    assert twice == named


# The texts.

NUM_WORDS = 13
"""OPT-IML §2.3 compares 13-grams."""
MAX_INSTANCES = 2000
ACCEPTED = {
    # (training task, evaluated data) -> why the pair stays.
    ("task901_freebase_qa_category_question_generation", "bbh movie_recommendation"): (
        "the title of a film, 13 words long"
    ),
    ("task1340_msr_text_compression_compression", "multirc"): (
        "a sentence of one of the news articles that both took"
    ),
    ("task457_matres_conditional_classification", "mctaco"): (
        "a sentence of one of the news articles that both took; MC-TACO stands for MultiRC here"
    ),
}


def grams(text):
    """Hashes of the 13-grams: a set of numbers is small, and a run compares its own alone."""
    words = re.findall(r"\w+", text.lower())
    return set(map(hash, zip(*(words[i:] for i in range(NUM_WORDS)), strict=False)))


SUITES = (
    *("mmlu", "truthfulqa", "crows_pairs", "ethos", "bbh causal_judgement", "gsm8k"),
    *("example_prompts", "realtoxicityprompts", "COPA/COPA", "NLI/CB", "NLI/RTE", "WiC/WiC"),
)
"""Some of what `suites` yields; `example_prompts` are RAFT's."""


def suites(data):
    """Texts of the suites that are evaluated, each with the suite's name."""
    for name in ("mmlu", "truthfulqa", "crows_pairs", "ethos"):
        for path in (data / name).rglob("*.csv"):
            with path.open(encoding="utf-8", newline="") as file:
                yield from ((name, " ".join(row)) for row in csv.reader(file))
    for path in (data / "bbh").glob("*.json"):
        for one in json.loads(path.read_text("utf-8"))["examples"]:
            yield f"bbh {path.stem}", one["input"]
    for pattern in ("gsm8k/*.jsonl", "raft/*/*.txt", "realtoxicityprompts/*"):
        for path in data.glob(pattern):
            for line in path.read_text("utf-8").splitlines():
                yield path.parent.name, line
    for folder in ("COPA/COPA", "NLI/CB", "NLI/RTE", "WiC/WiC"):
        for part in ("train", "dev", "test"):
            path = data / "nlu_clbenchmark" / folder / f"{part}.json"
            if path.exists():
                for one in json.loads(path.read_text("utf-8")):
                    yield folder, one["sentence"]


@pytest.fixture(scope="module")
def texts(real_folder):
    """Task -> input and answers of its instances, of all where such a file is at hand."""
    found = {}
    for folder in ("tasks", "tasks_full"):
        for path in (real_folder / folder).glob("task*.json"):
            read = json.loads(path.read_text("utf-8"))["Instances"][:MAX_INSTANCES]
            found[path.stem] = [(one["input"], " ".join(one["output"])) for one in read]
    return found


@pytest.fixture(scope="module")
def evaluated(rows, texts, real_data):
    """Data that is evaluated, by a task with a role for it or by a suite -> 13-grams.

    Tasks that leave because they share the data of an evaluation task stand for that one, whose
    own file is not at hand.
    """
    found = collections.defaultdict(set)
    for name, text in suites(real_data):
        found[name] |= grams(text)
    for row in rows.values():
        if row.benchmark == SNI and row.opt_iml_role != "train" and row.opt_iml_max:
            for pair in texts.get(row.original_name, ()):
                found[", ".join(row.sources)] |= grams(pair[0]) | grams(pair[1])
    return found, frozenset().union(*found.values())


def overlaps(tasks, texts, evaluated):
    """(task, evaluated data) for every task that has an instance with a 13-gram of the data."""
    by_data, all_grams = evaluated
    found = set()
    for task in tasks:
        own = set().union(*(grams(text) for pair in texts.get(task, ()) for text in pair))
        if common := own & all_grams:
            found |= {(task, data) for data, theirs in by_data.items() if common & theirs}
    return found


def test_training_texts_are_not_evaluation_texts(rows, texts, evaluated):
    trained = [row.original_name for row in rows.values() if row.benchmark == SNI and row.opt_iml]
    assert sum(task in texts for task in trained) > 900
    assert len(evaluated[1]) > 500_000
    for name in SUITES:
        assert len(evaluated[0][name]) > 100, name
    assert overlaps(trained, texts, evaluated) == set(ACCEPTED)


@pytest.mark.parametrize(
    ("task", "data"),
    [
        ("task105_story_cloze-rocstories_sentence_generation", "roc_stories"),
        ("task047_miscellaneous_answering_science_questions", "arc"),
        ("task044_essential_terms_identifying_essential_words", "scitail"),
        ("task1604_ethos_text_classification", "ethos"),
    ],
)
def test_the_comparison_finds_what_names_hide(task, data, texts, evaluated):
    assert (task, data) in overlaps([task], texts, evaluated)
