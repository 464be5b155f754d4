"""tasks/tables/tfds.tsv against TFDS's own builders; no data set is made, nothing is downloaded."""

import collections
import inspect
import os
import pathlib
import sys
from unittest import mock

import jinja2.meta
import numpy as np
import pytest

from optiml_jax.bench import record
from optiml_jax.bench.sources import (
    flan,
    flan_templates,
    plain_pairs,
    promptsource_sandbox,
    promptsource_templates,
    reasoning,
    reasoning_forms,
    row_fields,
    rows,
    text_pairs,
)

TABLES = pathlib.Path(__file__).parents[2] / "tasks" / "tables"
TABLE = TABLES / "tfds.tsv"
COLUMNS = ["benchmark", "task", "builder", "splits", "fields", "notes"]
LINES = [line.split("\t") for line in TABLE.read_text("utf-8").splitlines()]
ROWS = [dict(zip(COLUMNS, cells, strict=True)) for cells in LINES[1:]]
FLAN = flan.read_table(TABLES / "flan.tsv")


def of(benchmark):
    return [
        pytest.param(row, id=f"{row['benchmark']}-{row['task']}")
        for row in ROWS
        if row["benchmark"] == benchmark
    ]


EVERY = [
    param for name in ("flan", "promptsource", "t5", "exmix", "reasoning") for param in of(name)
]


def fields_of(row):
    return row_fields.parse(row["fields"], f"{TABLE}: {row['benchmark']} {row['task']}")


def splits_of(row):
    return dict(part.strip().split("=") for part in row["splits"].split(";") if part.strip())


# Without TFDS.


def test_the_table_is_one():
    assert LINES[0] == COLUMNS
    assert len(EVERY) == len(ROWS)
    count = collections.Counter((row["benchmark"], row["task"]) for row in ROWS)
    assert max(count.values()) == 1


def test_tasks_are_those_of_the_benchmarks():
    known = {
        "flan": FLAN,
        "t5": text_pairs.read_table(TABLES / "t5.tsv", plain_pairs.T5.more_columns),
        "exmix": text_pairs.read_table(TABLES / "exmix.tsv"),
        "reasoning": reasoning.read_table(TABLES / "reasoning.tsv"),
    }
    for row in ROWS:
        assert row["benchmark"] == "promptsource" or row["task"] in known[row["benchmark"]]


def test_flan_is_all_there():
    found = {row["task"] for row in ROWS if row["benchmark"] == "flan"}
    # Its prompts cut the text at the pronoun's place, which no form of `row_fields` does.
    assert set(FLAN) - found == {"wsc273"}


# With TFDS.


class Builders:
    """TFDS's builders, each made once."""

    def __init__(self, tfds, folder):
        self.tfds, self.folder = tfds, folder
        self.names = set(tfds.list_builders(with_community_datasets=False))
        self.made = {}

    def get(self, name):
        if name not in self.made:
            self.made[name] = self.tfds.builder(name, data_dir=self.folder, try_gcs=False)
        return self.made[name]

    def splits(self, name):
        """Names of its splits, as far as they show before anything is downloaded; [] if not."""
        builder = self.get(name)
        if hasattr(builder, "subsets"):
            return list(map(str, builder.subsets))
        fetch = mock.Mock(side_effect=_nowhere)
        manager = mock.MagicMock(download=fetch, extract=fetch, download_and_extract=fetch)
        try:
            found = builder._split_generators(manager)
        except Exception as error:
            # A builder that has to read what it downloads before it knows.
            if "/nowhere" in str(error) or isinstance(error, AssertionError):
                return []
            raise
        return [str(one) for one in found] if isinstance(found, dict) else [s.name for s in found]

    def row(self, name):
        """A row of the builder's features, from nothing."""
        return self._value(self.get(name).info.features, "text")

    def _value(self, feature, name):
        features = self.tfds.features
        if isinstance(feature, features.TranslationVariableLanguages):
            languages = sorted(feature.languages)
            return {
                "language": languages,
                "translation": [f"A {language} sentence." for language in languages],
            }
        if isinstance(feature, features.FeaturesDict):
            return {key: self._value(one, key) for key, one in feature.items()}
        if isinstance(feature, features.Sequence):
            inner = feature.feature
            if isinstance(inner, features.FeaturesDict):
                return {key: self._items(one, key) for key, one in inner.items()}
            return self._items(inner, name)
        if isinstance(feature, features.ClassLabel):
            return 0
        samples = {"b": False, "i": 0, "f": 1.0}
        text = f"The {name} in which _ and @placeholder are."
        return samples.get(np.dtype(feature.np_dtype).kind, text)

    def _items(self, feature, name):
        made = [self._value(feature, name) for _ in range(4)]
        # The same in all lists: some data sets have the answers among other lists.
        return [f"item {i}" if isinstance(one, str) else one for i, one in enumerate(made)]


def _nowhere(asked):
    if isinstance(asked, dict):
        return {key: _nowhere(one) for key, one in asked.items()}
    if isinstance(asked, list | tuple):
        return [_nowhere(one) for one in asked]
    return pathlib.Path("/nowhere")


@pytest.fixture(scope="module")
def builders(tmp_path_factory):
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs TensorFlow Datasets")
    return Builders(tfds, tmp_path_factory.mktemp("tfds"))


@pytest.mark.parametrize("row", EVERY)
def test_tfds_has_the_builder_and_its_config(builders, row):
    name, _, config = row["builder"].partition("/")
    assert name in builders.names
    known = builders.tfds.builder_cls(name).builder_configs
    assert config in known if known else not config, list(known)


@pytest.mark.parametrize("row", EVERY)
def test_tfds_has_the_splits(builders, row):
    named = splits_of(row)
    assert set(named) <= set(rows.SPLITS)
    found = builders.splits(row["builder"])
    if not found:
        source = inspect.getsource(sys.modules[type(builders.get(row["builder"])).__module__])
        for split in named.values():
            assert f"Split.{split.upper()}" in source or f"'{split}'" in source
    elif named:
        assert set(named.values()) <= set(found)
    else:
        assert set(rows.SPLITS) & set(found)


RAW = {
    # What the readers need beyond the features.
    "promptsource-tydiqa/secondary_task": {"id": "english-1"},
    "promptsource-qasc": {"answerKey": "item 0"},
    "promptsource-cos_e/v1.11": {"answer": "item 0"},
    "promptsource-math_dataset/algebra__linear_1d_composed": {"question": "Solve 1 = c for c."},
    "promptsource-math_dataset/algebra__linear_2d_composed": {"question": "Solve 1 = c for c."},
    "reasoning-qasc": {"answerKey": "item 0"},
    "reasoning-gsm8k": {"answer": "It is one.\n#### 1"},
    "reasoning-cose": {"answer": "item 0"},
    "flan-story_cloze": {"label": 1},
}


def mapped(builders, row):
    """A row from nothing, through the mapping."""
    raw = builders.row(row["builder"]) | RAW.get(f"{row['benchmark']}-{row['task']}", {})
    return fields_of(row).apply(raw, row["builder"])


@pytest.mark.parametrize("row", EVERY)
def test_every_path_is_a_feature(builders, row):
    raw = builders.row(row["builder"])
    for path in fields_of(row).paths:
        at = row_fields.parse(f'{{"x": "{path}"}}', "x").apply(raw, row["builder"])
        assert at["x"] is not None, path


MEANINGS = {
    # TFDS's class -> FLAN's words for it.
    "yes": "entailment True equivalent duplicate paraphrase e",
    "no": "not_entailment False not_equivalent not_duplicate different_meaning contradiction c",
    "it is not possible to tell": "neutral n",
    "it's impossible to say": "neutral n",
    "different meanings": "False",
    "the same meaning": "True",
    "negative": "neg negative 1",
    "positive": "pos positive 2",
    "Science/Tech": "Sci/Tech",
    "description": "DESC",
    "entity": "ENTY",
    "abbreviation": "ABBR",
    "human": "HUM",
    "numeric": "NUM",
    "location": "LOC",
}


def test_answers_are_what_the_classes_mean(builders):
    count = 0
    for row in (row for row in ROWS if row["benchmark"] == "flan"):
        answer = fields_of(row).values.get("answer")
        if not isinstance(answer, dict) or "constant" not in answer.get("of", {}):
            continue
        feature = builders.get(row["builder"]).info.features[answer["pick"]]
        if isinstance(feature, builders.tfds.features.ClassLabel):
            count += 1
            for word, name in zip(answer["of"]["constant"], feature.names, strict=True):
                key: str = word if word in MEANINGS else word.lower()
                assert name in MEANINGS.get(key, str(word)).split(), (row["task"], word, name)
    assert count == 22


@pytest.fixture(scope="module")
def data():
    folder = os.environ.get("OPTIML_TEST_DATA")
    if not folder:
        pytest.skip("needs templates of the releases: set OPTIML_TEST_DATA to their folder")
    return pathlib.Path(folder)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("row", of("flan"))
def test_flan_templates_take_the_rows(builders, data, row, version):
    task = FLAN[row["task"]]
    patterns = _patterns(data / "flan" / f"flan_{version}_templates.json")
    templates = flan_templates.upright(
        flan_templates.parse(patterns[task.templates], task.templates), task.directions
    )
    made = mapped(builders, row)
    assert flan_templates.is_usable(templates, made, task.metric == "accuracy", row["task"])
    for template in templates:
        filled = template.fill(record.Record("train-0", fields=made))
        assert filled is not None
        assert filled.input.strip()
        assert filled.references[0]
        assert bool(filled.options) == (task.metric == "accuracy")
    if fields_of(row).names:
        needed = set().union(*(template.fields for template in templates))
        more = {"options", "answers", "answer", "answer_str", *flan_templates.OPTION_BLOCKS}
        assert needed - more <= set(made) <= needed | more


_read = {}


def _patterns(path):
    if path not in _read:
        _read[path] = flan.read_patterns(path)
    return _read[path]


@pytest.mark.parametrize("row", of("promptsource"))
def test_promptsource_templates_take_the_rows(builders, data, row):
    made = mapped(builders, row)
    path = data / "promptsource" / "templates" / row["task"] / "templates.yaml"
    templates = promptsource_templates.read(path, row["task"])
    needed = set()
    for template in templates:
        for source in filter(None, (template.jinja, template.answer_choices)):
            tree = promptsource_sandbox.parse(source)
            needed |= jinja2.meta.find_undeclared_variables(tree)
    needed -= {promptsource_templates.CHOICES}
    assert needed <= set(made)
    if fields_of(row).names:
        assert set(made) == needed
    filled = [template.fill(record.Record("train-0", fields=made)) for template in templates]
    assert any(one is not None and one.input and one.references for one in filled)


@pytest.mark.parametrize("row", [*of("t5"), *of("exmix")])
def test_pairs_are_texts(builders, row):
    made = mapped(builders, row)
    assert set(made) == {"inputs", "targets"}
    assert all(isinstance(text, str) and text for text in made.values())


@pytest.mark.parametrize("row", of("reasoning"))
def test_rows_of_reasoning_are_in_a_known_form(builders, row):
    assert reasoning_forms.from_row(mapped(builders, row), row["task"]).is_usable


def test_the_languages_of_xnli_are_sorted(builders):
    feature = builders.get("xnli").info.features["hypothesis"]
    encoded = feature.encode_example({name: name for name in reversed(feature.languages)})
    assert encoded["translation"][4] == "en"
