"""The splits that others published, over the catalog and against their releases."""

import collections
import csv
import json
import pathlib

import pytest

from optiml_jax.bench import (
    catalog,
    catalog_table,
    crossfit_split,
    flan_split,
    splits,
    t0_split,
)
from optiml_jax.bench.sources import flan
from optiml_jax.errors import InputError
from optiml_jax.main import split_notes
from optiml_jax.tasks import build_catalog  # pyright: ignore[reportMissingImports]

ROOT = pathlib.Path(__file__).parent.parent.parent
BY_LISTS = [name for name in catalog_table.SPLITS if splits.SPLITS[name].track]
PUBLISHED = [n for n in catalog_table.SPLITS if n not in {*catalog_table.TABLED, *BY_LISTS}]
COUNTS = {
    # train, validation, test, excluded; held out, partially, fully.
    "t0": (38, 0, 9, 2131, 9, 0, 38),
    "t0p": (48, 0, 8, 2122, 6, 2, 48),
    "t0pp": (54, 0, 5, 2119, 3, 2, 54),
    "flan_summarization": (59, 0, 11, 2108, 11, 0, 59),
    "flan_structure_to_text": (66, 0, 4, 2108, 4, 0, 66),
    "flan_reading_comprehension": (62, 0, 6, 2110, 6, 0, 62),
    "flan_open_domain_qa": (66, 0, 4, 2108, 4, 0, 66),
    "flan_paraphrase": (56, 0, 4, 2118, 4, 0, 56),
    "flan_sentiment": (66, 0, 4, 2108, 4, 0, 66),
    "flan_text_formatting": (67, 0, 3, 2108, 3, 0, 67),
    "flan_common_sense": (64, 0, 4, 2110, 4, 0, 64),
    "flan_translation": (62, 0, 8, 2108, 8, 0, 62),
    "flan_coreference": (66, 0, 4, 2108, 4, 0, 66),
    "flan_entailment": (56, 0, 10, 2112, 10, 0, 56),
    "flan_math": (69, 0, 1, 2108, 1, 0, 69),
    "flan_conversational_qa": (68, 0, 2, 2108, 2, 0, 68),
    "flan_word_disambiguation": (69, 0, 1, 2108, 1, 0, 69),
    "flan_linguistic_acceptability": (69, 0, 1, 2108, 1, 0, 69),
    "flan_question_classification": (69, 0, 1, 2108, 1, 0, 69),
    "flan_read_comp_and_common_sense": (58, 0, 2, 2118, 2, 0, 58),
    "crossfit_random": (120, 20, 20, 2018, 8, 32, 120),
    "crossfit_train_classification_test_classification": (45, 10, 10, 2113, 1, 19, 45),
    "crossfit_train_nonclassification_test_classification": (45, 10, 10, 2113, 20, 0, 45),
    "crossfit_train_halfhalf_test_classification": (45, 10, 10, 2113, 3, 17, 45),
    "crossfit_train_non_nli_test_nli": (56, 8, 0, 2114, 8, 0, 56),
    "crossfit_train_nonparaphrase_classification_test_paraphrase": (61, 4, 0, 2113, 4, 0, 61),
    "crossfit_train_non_mrc_qa_test_mrc": (42, 9, 0, 2127, 9, 0, 42),
    "crossfit_train_non_multiple_choice_qa_test_multiple_choice": (29, 22, 0, 2127, 22, 0, 29),
}


@pytest.fixture(scope="module")
def rows():
    return catalog_table.read(build_catalog.CATALOG)


@pytest.fixture(scope="module")
def assigned(rows):
    return {n: catalog_table.assign(rows.values(), splits.find(n)) for n in catalog_table.SPLITS}


def names(assignments, role):
    return {name for name, one in assignments.items() if one.role == role}


def test_every_published_split_is_counted():
    assert sorted(COUNTS) == sorted(PUBLISHED)


@pytest.mark.parametrize("split", COUNTS)
def test_counts_over_the_catalog(assigned, split):
    roles = collections.Counter(one.role for one in assigned[split].values())
    levels = collections.Counter(one.level for one in assigned[split].values())
    found = (*(roles[r] for r in splits.ROLES), *(levels[level] for level in splits.LEVELS))
    assert found == COUNTS[split]


# The official split has categories of its own: Winobias is Coreference Resolution there.
@pytest.mark.parametrize("split", [*catalog_table.TABLED, *PUBLISHED])
def test_a_held_out_category_trains_nothing(assigned, split):
    trained = {one.category for one in assigned[split].values() if one.role == "train"}
    for name, one in assigned[split].items():
        assert one.role in splits.ROLES
        assert (one.level == "") == (one.role == "excluded"), name
        assert (one.level == "fully_supervised") == (one.role == "train"), name
        if one.level == "fully_held_out":
            assert one.category not in trained, name
        elif one.level == "partially_supervised":
            assert one.category in trained, name


@pytest.mark.parametrize("split", splits.SPLITS)
def test_every_row_has_a_reason_and_known_words(rows, split):
    specs = [row.to_spec() for row in rows.values()]
    for row in splits.find(split).placements:
        assert row.reason
        assert row.role in splits.ROLES
        assert row.level in splits.LEVELS or row.role == "excluded"
        if split in PUBLISHED:
            assert any(row.matches((spec.category,), spec) for spec in specs), row


@pytest.mark.parametrize("split", PUBLISHED)
def test_a_role_does_not_depend_on_the_tasks_beside_it(rows, assigned, split):
    specs = [
        row.to_spec() for row in rows.values() if row.benchmark in splits.find(split).benchmarks
    ]
    for spec in specs[::7]:
        assert splits.assign([spec], split)[spec.name] == assigned[split][spec.name]


# T0.


def test_t0_is_the_releases_table(real_data, assigned):
    with open(real_data / "promptsource" / "t0_datasets.csv", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    name = {id(r): "/".join(filter(None, (r["HF_name"], r["subset"]))) for r in table}
    sources = {"t0": {"BASE"}, "t0p": {"BASE", "GPT_EVAL"}, "t0pp": {"BASE", "GPT_EVAL", "SGLUE"}}
    for variant, trained in sources.items():
        wanted = {name[id(r)] for r in table if r["do_train"] in trained}
        tested = {name[id(r)] for r in table if r["do_eval"] == "BASE"} - wanted
        for tasks, role in ((wanted, "train"), (tested, "test")):
            ours = {catalog.task_name("promptsource", task) for task in tasks}
            assert names(assigned[variant], role) == ours, (variant, role)


def test_t0_tests_what_it_has_templates_for(real_data, assigned):
    path = real_data / "promptsource" / "t0_heldout_eval_templates.json"
    tested = {"/".join(filter(None, one["dataset"])) for one in json.loads(path.read_text("utf-8"))}
    tested = {catalog.task_name("promptsource", task) for task in tested}
    assert names(assigned["t0"], "test") == tested


def test_copa_is_sentence_completion_in_t0(assigned):
    one = assigned["t0"]["promptsource__super_glue_copa"]
    assert (one.category, one.level) == ("Sentence Completion", "fully_held_out")
    other = assigned["t0p"]["promptsource__super_glue_copa"]
    assert other.level == "partially_supervised"
    assert "hellaswag" in other.reason
    assert assigned["t0pp"]["promptsource__super_glue_copa"].role == "train"


def test_t0_leaves_bias_sets_out_and_says_so(assigned):
    for task in t0_split.BIAS.split():
        one = assigned["t0pp"][catalog.task_name("promptsource", task)]
        assert one.role == "excluded"
        assert "bias and fairness" in one.reason


# FLAN.


def test_the_clusters_are_those_of_the_table():
    table = flan.read_table(build_catalog.TABLES / "flan.tsv")
    found = collections.defaultdict(list)
    for task, row in table.items():
        found[row.cluster].append(task)
    assert {c: tasks.split() for c, tasks in flan_split.CLUSTERS.items()} == found


def test_the_clusters_are_the_releases(real_data):
    published = json.loads((real_data / "flan" / "flan_clusters.json").read_text("utf-8"))
    ours = {cluster: tasks.split() for cluster, tasks in flan_split.CLUSTERS.items()}
    assert ours["coreference"].pop() == "wsc273"
    assert ours == published


@pytest.mark.parametrize("cluster", flan_split.CLUSTERS)
def test_related_clusters_leave_together(assigned, cluster):
    gone = {
        "entailment": {"paraphrase"},
        "paraphrase": {"entailment"},
        "read_comp_and_common_sense": {"reading_comprehension", "common_sense"},
        "reading_comprehension": {"read_comp_and_common_sense"},
        "common_sense": {"read_comp_and_common_sense"},
    }.get(cluster, set())
    own = {n: one for n, one in assigned[f"flan_{cluster}"].items() if n.startswith("flan__")}
    assert {one.category for one in own.values() if one.role == "test"} == {cluster}
    assert {one.category for one in own.values() if one.role == "excluded"} == gone
    trained = {one.category for one in own.values() if one.role == "train"}
    assert trained == set(flan_split.CLUSTERS) - gone - {cluster}


# CrossFit.


@pytest.mark.parametrize("partition", crossfit_split.PARTITIONS)
def test_crossfit_is_as_published(real_data, assigned, partition):
    path = real_data / "crossfit" / "splits" / f"{partition}.json"
    published = json.loads(path.read_text("utf-8"))
    assert set(crossfit_split.PARTITIONS[partition]) <= {"train", "dev", "test"}
    twice = set(published["train"]) & {*published["dev"], *published["test"]}
    assert twice == ({"sick"} if partition == "train_non_nli_test_nli" else set())
    for listed, role in (("train", "train"), ("dev", "validation"), ("test", "test")):
        tasks = set(published[listed]) - (twice if listed == "train" else set())
        ours = {catalog.task_name("crossfit", task) for task in tasks}
        assert names(assigned[f"crossfit_{partition}"], role) == ours


def test_there_is_a_split_for_every_published_partition(real_data):
    found = {path.stem for path in (real_data / "crossfit" / "splits").glob("*.json")}
    assert found == set(crossfit_split.PARTITIONS)


# What a split is not for.


def test_a_split_of_another_benchmark_is_refused(rows):
    with pytest.raises(InputError, match=r"split 't0' places the tasks of promptsource alone; th"):
        splits.assign([rows["flan__rte"].to_spec()], "t0")


def text(name):
    return catalog.TaskSpec(
        name=catalog.task_name("replay", name),
        original_name=name,
        benchmark="replay",
        category="Plain Text",
        instruction_kind="text",
        sources=(name,),
        metric="rouge_l",
        input_languages=(),
        output_languages=(),
        licence="Unknown",
        num_examples=1,
        path="",
    )


@pytest.mark.parametrize("split", splits.SPLITS)
def test_text_trains_unless_it_is_named_after_evaluated_data(rows, assigned, split):
    known = [row.to_spec() for row in rows.values()]
    track = splits.find(split).track
    official = catalog_table.official_lists(rows.values(), track) if track else None
    roles = assigned.get(split) or splits.assign(known, split)
    tested = [spec for spec in known if roles[spec.name].role in splits.EVALUATED]
    evaluated = {name for spec in tested for name in splits.source_names(spec)}
    suites = {"bbh", "bigbench", "big_bench_hard", "mmlu", "mmlu_stem", "raft"}
    # Sources that several tasks name without sharing data.
    named = sorted((evaluated | suites) - set(splits.COLLECTIONS))
    found = splits.assign(map(text, ("text", *named)), split, official, known=known)
    assert (found["replay__text"].role, found["replay__text"].level) == ("train", "")
    assert bool(evaluated) == (split != "opt_iml_max")
    for name in named:
        one = found[text(name).name]
        assert (one.role, one.level) == ("excluded", ""), name
        assert one.reason


def test_the_document_has_the_tools_counts(assigned):
    told = (ROOT / "docs" / "splits.md").read_text("utf-8")
    for split in catalog_table.SPLITS:
        roles = collections.Counter(one.role for one in assigned[split].values())
        levels = collections.Counter(one.level for one in assigned[split].values())
        counts = (*(roles[r] for r in splits.ROLES), *(levels[x] for x in splits.LEVELS))
        assert f"| `{split}` | {' | '.join(f'{count:,}' for count in counts)} |" in told


NOTES = {
    # Training tasks on the data of an evaluated one, copies of evaluation suites that train.
    "super_natural_instructions_official": (19, 58),
    "super_natural_instructions_xlingual": (0, 58),
    "flan_reading_comprehension": (1, 0),
    "flan_text_formatting": (1, 0),
    "flan_translation": (3, 0),
    "flan_coreference": (1, 0),
    "flan_entailment": (4, 0),
    "crossfit_random": (21, 0),
    "crossfit_train_classification_test_classification": (4, 0),
    "crossfit_train_halfhalf_test_classification": (2, 0),
    "crossfit_train_non_nli_test_nli": (1, 0),
    "crossfit_train_non_mrc_qa_test_mrc": (3, 0),
}


@pytest.mark.parametrize("split", catalog_table.SPLITS)
def test_what_a_published_split_trains_on_is_told(rows, assigned, split):
    """Faithful to the publication, and not left to be found out."""
    told = split_notes.table_notes(splits.find(split), assigned[split], rows.values())
    shared, copies = NOTES.get(split, (0, 0))
    for count, what in ((shared, "the data of an evaluated task"), (copies, "evaluation suites")):
        found = [note for note in told if what in note]
        assert len(found) == (count > 0)
        assert all(note.startswith(f"split '{split}': {count} training task") for note in found)
    page = (ROOT / "docs" / "splits.md").read_text("utf-8")
    assert (f"| `{split}` | {shared} | {copies} |" in page) == (split in NOTES)


@pytest.mark.parametrize("split", BY_LISTS)
def test_the_lists_give_the_reasons(assigned, split):
    reasons = collections.Counter(one.reason for one in assigned[split].values())
    roles = collections.Counter(one.role for one in assigned[split].values())
    listed = {
        "train": "in the official training list; its held-out instances are evaluated",
        "test": "in the official test list",
    }
    for role, reason in listed.items():
        assert reasons.pop(reason) == roles[role]
    assert set(reasons) == {"in the official excluded list", "in none of the official lists"}
    assert reasons["in none of the official lists"] == 565  # All tasks of other benchmarks.
