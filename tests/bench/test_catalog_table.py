"""The catalog's table: what must hold in any edition of it, and that it follows from its inputs."""

import collections
import fnmatch
import pathlib
import re
import shutil

import pytest

from optiml_jax.bench import catalog, catalog_table, opt_iml_split, splits, taxonomy
from optiml_jax.bench.sources import flan, reasoning, super_natural_instructions, tables, text_pairs
from optiml_jax.errors import InputError
from optiml_jax.tasks import build_catalog, build_lists

ROOT = pathlib.Path(__file__).parent.parent.parent
HELD_OUT = ("validation", "test")
PUBLISHED = {
    # Super-NaturalInstructions 2.6, PromptSource's files, CrossFit's list, FLAN by OPT-IML's count,
    # and OPT-IML A.1 (Table 1 counts 280 for PromptSource and 159 for CrossFit).
    "super_natural_instructions": 1613,
    "promptsource": 279,
    "crossfit": 160,
    "flan": 70,
    "exmix": 14,
    "t5": 7,
    "unifiedskg": 21,
    "reasoning": 14,
}
TABLE_15 = {
    # Task by its name or a pattern -> role, level, category, metric.
    "promptsource__wino_bias_*": (
        "validation",
        "fully_held_out",
        "Stereotype Detection",
        "rouge_l",
    ),
    "*__task1664_winobias_*": ("validation", "fully_held_out", "Stereotype Detection", "rouge_l"),
    "*__task115[2-9]_bard_*": ("validation", "fully_held_out", "Word Analogy", "rouge_l"),
    "promptsource__super_glue_copa": (
        *("validation", "fully_held_out", "Cause Effect Classification", "accuracy"),
    ),
    "flan__copa": ("validation", "fully_held_out", "Cause Effect Classification", "accuracy"),
    "*__task614_glucose_*": (
        *("validation", "fully_held_out", "Cause Effect Classification", "rouge_l"),
    ),
    "*__task1557_jfleg_*": ("validation", "fully_held_out", "Grammar Error Correction", "rouge_l"),
    "*__task172[0-5]_civil_comments_*": (
        *("validation", "partially_supervised", "Toxic Language Detection", "rouge_l"),
    ),
    "promptsource__jigsaw_unintended_bias": (
        *("validation", "partially_supervised", "Toxic Language Detection", "rouge_l"),
    ),
    "flan__newsroom": ("validation", "partially_supervised", "Summarization", "rouge_l"),
    "promptsource__race_[hm]i*": (
        *("validation", "partially_supervised", "Question Answering", "accuracy"),
    ),
    "*__task310_race_classification": (
        *("validation", "partially_supervised", "Question Answering", "rouge_l"),
    ),
    "reasoning__strategyqa": ("validation", "partially_supervised", "Reasoning", "rouge_l"),
    "reasoning__gsm8k": ("validation", "partially_supervised", "Reasoning", "rouge_l"),
    "flan__squad_v1": ("train", "fully_supervised", "Question Answering", "rouge_l"),
    "promptsource__squad": ("train", "fully_supervised", "Question Answering", "rouge_l"),
    "promptsource__blended_skill_talk": (
        *("train", "fully_supervised", "Dialogue Generation", "rouge_l"),
    ),
    "promptsource__cnn_dailymail_3.0.0": (
        *("train", "fully_supervised", "Summarization", "rouge_l"),
    ),
}
PROMPTSOURCE_PATH = re.compile(r"[\w.\-]+(/[\w.\-]+)?")
"""Data set, and configuration where it has any, as the folders of templates are named."""


@pytest.fixture(scope="module")
def rows():
    return catalog_table.read(build_catalog.CATALOG)


# --- counts --------------------------------------------------------------------------------------


def test_there_are_as_many_tasks_as_were_published(rows):
    assert collections.Counter(row.benchmark for row in rows.values()) == PUBLISHED
    assert len(rows) >= 1900


def test_there_are_more_than_a_hundred_categories(rows):
    used = {row.category for row in rows.values()}
    assert len(used) >= 100
    assert used <= set(taxonomy.CATEGORIES)
    assert used >= set(taxonomy.SUPER_NATURAL_INSTRUCTIONS_CATEGORIES)


def test_the_mixtures_are_as_large_as_the_papers(rows):
    assert 1400 <= sum(row.opt_iml for row in rows.values()) <= 1600
    assert 1900 <= sum(row.opt_iml_max for row in rows.values()) <= 2050


# --- invariants ----------------------------------------------------------------------------------


def test_held_out_categories_are_not_trained_on(rows):
    trained = {row.category for row in rows.values() if row.opt_iml}
    for row in rows.values():
        if row.opt_iml_level == "fully_held_out":
            assert row.category not in trained, row.name
        elif row.opt_iml_level == "partially_supervised":
            assert row.category in trained, row.name


def test_training_and_held_out_tasks_share_no_data(rows):
    held_out = {
        opt_iml_split.SHARED_DATA.data_of(source)
        for row in rows.values()
        if row.opt_iml_role in HELD_OUT
        for source in splits.source_names(row.to_spec())
        if source not in splits.COLLECTIONS
    }
    for row in rows.values():
        if row.opt_iml:
            data = set(map(opt_iml_split.SHARED_DATA.data_of, splits.source_names(row.to_spec())))
            assert not data & held_out, row.name


def test_a_role_does_not_depend_on_the_benchmarks_beside_it(rows):
    """What excludes a task for its data is a name that stands in the code, not another row."""
    data = set(map(opt_iml_split.SHARED_DATA.data_of, opt_iml_split.EVALUATED_SOURCES))
    for row in rows.values():
        if row.opt_iml_reason.startswith("shares the data of"):
            sources = splits.source_names(row.to_spec())
            assert data & set(map(opt_iml_split.SHARED_DATA.data_of, sources)), row.name


def test_the_official_split_holds_its_categories_out(rows):
    own = [row for row in rows.values() if row.benchmark == super_natural_instructions.BENCHMARK]
    by_role = collections.Counter(row.official_role for row in own)
    assert by_role == {"train": 756, "test": 119, "excluded": 738}
    by_role = collections.Counter(row.xlingual_role for row in own)
    assert by_role == {"train": 1270, "test": 35, "excluded": 308}
    assert not any(row.official_role or row.xlingual_role for row in set(rows.values()) - {*own})
    # By their own categories: Winobias is Coreference Resolution there.
    listed = tables.read(
        build_catalog.TABLES / "super_natural_instructions_list.tsv", build_lists.SNI_COLUMNS
    )
    for track in ("official", "xlingual"):
        trained, tested = (
            {cells["category"] for cells in listed.values() if cells[track] == role}
            for role in ("train", "test")
        )
        assert tested
        assert not trained & tested


def test_roles_levels_and_memberships_agree(rows):
    for row in rows.values():
        assert row.opt_iml == (row.opt_iml_role == "train"), row.name
        assert (row.opt_iml_level == "") == (row.opt_iml_role == "excluded"), row.name
        assert (row.opt_iml_level == "fully_supervised") == row.opt_iml, row.name
        assert row.opt_iml_max == (not row.dropped_because), row.name
        assert row.opt_iml_max or row.opt_iml_role == "excluded", row.name
        assert bool(row.opt_iml_reason) == (row.opt_iml_max and not row.opt_iml), row.name
        assert row.sources, row.name
        assert row.languages, row.name
        assert row.metric != "accuracy" or row.answer == "options", row.name


def test_each_task_is_a_task_of_its_reader(rows):
    known = {
        "flan": flan.read_table(build_catalog.TABLES / "flan.tsv"),
        "reasoning": reasoning.read_table(build_catalog.TABLES / "reasoning.tsv"),
    }
    for name in build_catalog.PAIRS:
        path = build_catalog.TABLES / f"{name}.tsv"
        columns = path.read_text("utf-8").splitlines()[0].split("\t")
        known[name] = text_pairs.read_table(path, columns[len(text_pairs.COLUMNS) :])
    for row in rows.values():
        spec = row.to_spec()
        assert spec == catalog.TaskSpec.from_json(spec.to_json())
        assert row.name == catalog.task_name(row.benchmark, row.original_name)
        if row.benchmark in known:
            assert known[row.benchmark][row.original_name].metric == row.metric
        elif row.benchmark == "promptsource":
            assert PROMPTSOURCE_PATH.fullmatch(row.original_name)
        else:
            assert re.fullmatch(r"task\d{3,4}_[\w.\-]+", row.original_name), row.name
            assert (row.metric, row.instruction_kind) == ("rouge_l", "task")
    for name, tasks in known.items():
        assert set(tasks) == {r.original_name for r in rows.values() if r.benchmark == name}


def test_no_task_has_two_names_unless_it_says_so(rows):
    assert len({name.casefold() for name in rows}) == len(rows)
    alike = collections.defaultdict(list)
    for row in rows.values():
        if row.instruction_kind == "instance" and not row.dropped_because:
            alike[row.category, frozenset(row.sources), frozenset(row.languages)].append(row)
    for group in alike.values():
        unmarked = {row.benchmark for row in group if not row.duplicate_of}
        assert len(unmarked) <= 1, [row.name for row in group]
    for row in rows.values():
        if row.duplicate_of:
            original = rows[row.duplicate_of]
            assert not original.duplicate_of, row.name
            assert original.opt_iml_max or not row.opt_iml_max, row.name
            shared = set(map(opt_iml_split.SHARED_DATA.data_of, row.sources)) & set(
                map(opt_iml_split.SHARED_DATA.data_of, original.sources)
            )
            assert shared, row.name


@pytest.mark.parametrize("pattern", TABLE_15)
def test_table_15(rows, pattern):
    found = [row for row in rows.values() if fnmatch.fnmatchcase(row.name, pattern)]
    assert found
    for row in found:
        got = (row.opt_iml_role, row.opt_iml_level, row.category, row.metric)
        assert got == TABLE_15[pattern]


def test_copies_of_evaluation_suites_are_in_no_mixture(rows):
    copies = [row for row in rows.values() if "evaluation suite" in row.dropped_because]
    assert sum("mmmlu" in row.name for row in copies) == 57
    assert any("big_bench" in row.sources for row in copies)


# --- rebuilding ----------------------------------------------------------------------------------


def test_the_table_follows_from_the_tables_beside_it():
    assert build_catalog.build() == build_catalog.CATALOG.read_text("utf-8")


@pytest.mark.parametrize("name", build_catalog.LISTS)
def test_the_lists_follow_from_the_releases(real_data, name):
    made = build_catalog.build_list(name, real_data)
    assert made == (build_catalog.TABLES / name).read_text("utf-8")


def test_the_table_agrees_with_the_reader_of_real_files(rows, real_tasks):
    tasks, _ = real_tasks
    for task in tasks:
        own, row = task.spec, rows[task.spec.name].to_spec()
        exception = splits.CATEGORY_EXCEPTIONS.get(own.original_name, (own.category, ""))
        assert row.category == exception[0]
        assert splits.source_names(row) == splits.source_names(own)
        languages = (*own.input_languages, *own.output_languages)
        assert row.input_languages == tuple(dict.fromkeys(languages))
        assert row.licence == own.licence


def test_no_rule_is_idle():
    """A row that matches nothing is a slip of its pattern, or a leftover."""
    own = collections.defaultdict(lambda: collections.defaultdict(set))
    for row in catalog_table.read(build_catalog.CATALOG).values():
        own[row.benchmark]["task"].add(row.original_name)
    for benchmark, columns in {
        "super_natural_instructions": (build_lists.SNI_COLUMNS, "category"),
        "promptsource": (build_lists.PROMPTSOURCE_COLUMNS, "cluster"),
        "crossfit": (build_lists.CROSSFIT_COLUMNS, "cluster"),
    }.items():
        listed = tables.read(build_catalog.TABLES / f"{benchmark}_list.tsv", columns[0])
        own[benchmark]["cluster"] = {cells[columns[1]] for cells in listed.values()}
    read = flan.read_table(build_catalog.TABLES / "flan.tsv")
    own["flan"]["cluster"] = {row.cluster for row in read.values()}
    for name in ("categories.tsv", "sources.tsv"):
        path = build_catalog.TABLES / name
        columns = path.read_text("utf-8").splitlines()[0].split("\t")
        for rule in build_catalog.read_rows(path, columns):
            values = own[rule["benchmark"]][rule.get("field", "task")]
            assert any(fnmatch.fnmatchcase(v, rule["pattern"]) for v in values), rule
            assert rule["reason"], rule


def test_a_task_without_a_category_is_named(tmp_path):
    folder = tmp_path / "tables"
    shutil.copytree(build_catalog.TABLES, folder)
    path = folder / "categories.tsv"
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("t5\ttask\twmt")))
    with pytest.raises(InputError, match=r"no row gives 't5__wmt14_ende_v003' .* a category"):
        build_catalog.build(folder)


def test_a_reader_can_take_over_the_categories():
    for benchmark in ("flan", *build_catalog.PAIRS, "reasoning"):
        before = (build_catalog.TABLES / f"{benchmark}.tsv").read_text("utf-8").splitlines()
        after = build_catalog.synced(benchmark).splitlines()
        column = before[0].split("\t").index("category")
        for old, new in zip(before, after, strict=True):
            cells = new.split("\t")
            cells[column] = old.split("\t")[column]
            assert "\t".join(cells) == old


# --- reading -------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path, rows):
    """The first rows of the table, one cell changed."""
    kept = list(rows.values())[:3]

    def write(column="", value=""):
        lines = [line.split("\t") for line in catalog_table.write(kept).splitlines()]
        if column:
            lines[1][catalog_table.COLUMNS.index(column)] = value
        path = tmp_path / "catalog.tsv"
        path.write_text("".join("\t".join(line) + "\n" for line in lines), "utf-8")
        return path

    return write


def test_what_is_written_is_read(small, rows):
    assert catalog_table.read(small()) == dict(list(rows.items())[:3])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("benchmark", "crosfit", "unknown benchmark 'crosfit'. Did you mean 'crossfit'?"),
        ("category", "Translater", "unknown category 'Translater'. Did you mean 'Translation'?"),
        ("opt_iml_role", "training", "unknown opt_iml_role 'training'. Did you mean 'train'?"),
        ("metric", "rouge", "unknown metric 'rouge'. Did you mean 'rouge_l'?"),
        ("opt_iml", "yes", "opt_iml is 'yes', expected 0 or 1"),
    ],
)
def test_a_bad_cell_is_named(small, column, value, message):
    path = small(column, value)
    with pytest.raises(InputError) as error:
        catalog_table.read(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_an_unknown_split_offers_the_nearest(rows):
    with pytest.raises(InputError, match="Did you mean 'opt_iml_max'"):
        rows["flan__rte"].role_and_level("opt_iml_mx")


# --- what the documentation says -----------------------------------------------------------------


def test_the_document_has_the_tables_counts(rows):
    told = (ROOT / "docs" / "taxonomy.md").read_text("utf-8")
    for name in PUBLISHED:
        own = [row for row in rows.values() if row.benchmark == name]
        roles = collections.Counter(row.opt_iml_role for row in own)
        counts = (
            len(own),
            *(roles[role] for role in splits.ROLES),
            sum(r.opt_iml_max for r in own),
        )
        assert f"| {name} | {' | '.join(f'{count:,}' for count in counts)} |" in told
    roles = collections.Counter(row.opt_iml_role for row in rows.values())
    numbers = (len(rows), *(roles[role] for role in splits.ROLES))
    total = (*numbers, sum(row.opt_iml_max for row in rows.values()))
    assert f"| all | {' | '.join(f'{count:,}' for count in total)} |" in told
    assert f"{len({row.category for row in rows.values()})} categories" in told
    assert f"{sum(bool(row.duplicate_of) for row in rows.values())} tasks" in told


@pytest.mark.parametrize("benchmark", ["flan", *build_catalog.PAIRS, "reasoning"])
def test_the_readers_have_the_catalogs_categories(benchmark):
    """`python -m optiml_jax.tasks.build_catalog --sync` brings them there."""
    path = build_catalog.TABLES / f"{benchmark}.tsv"
    assert build_catalog.synced(benchmark) == path.read_text("utf-8")


@pytest.mark.parametrize("split", catalog_table.SPLITS[:2])
def test_the_splits_say_what_the_table_says(rows, split):
    """Of a folder that has one benchmark, `prepare` makes what the whole table says."""
    for benchmark in PUBLISHED:
        specs = [row.to_spec() for row in rows.values() if row.benchmark == benchmark]
        for name, one in splits.assign(specs, split).items():
            if "also in" not in rows[name].dropped_because:
                assert (one.role, one.level) == rows[name].role_and_level(split), name
