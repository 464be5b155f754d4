"""Tasks of FLAN, PromptSource, T5 and Reasoning whose rows TensorFlow Datasets has.

The data sets are written for this test, with TFDS's own names, versions and features: what a
download would leave in its folder.
"""

import json

import pytest

from optiml_jax import tasks
from optiml_jax.data import prepare, rendering, tfds_rows, vocabularies
from optiml_jax.data import store as store_lib
from optiml_jax.errors import InputError

tfds = pytest.importorskip("tensorflow_datasets")

PAIRS = [
    {"premise": f"It rained {n} times.", "hypothesis": f"Wet, é {n}.", "idx": n, "label": n % 2}
    for n in range(12)
]
SUMS = [
    {"question": f"How much is {n} + 1?", "answer": f"One more is {n + 1}.\n#### {n + 1}"}
    for n in range(8)
]
TEMPLATES = """dataset: super_glue
subset: rte
templates:
  3f6: !Template
    answer_choices: Yes ||| No
    id: 3f6
    jinja: "{{premise}} So: {{hypothesis}}? ||| {{ answer_choices[label] }}"
    metadata: !TemplateMetadata
      {choices_in_prompt: false, languages: [en], metrics: [Accuracy], original_task: true}
    name: so
    reference: ''
"""


def store(name, config, rows, folder):
    builder = tfds.builder(f"{name}/{config}" if config else name, data_dir=folder)
    features = {key: feature for key, feature in builder.info.features.items() if key in rows[0]}
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        config=config,
        version=builder.version,
        features=tfds.features.FeaturesDict(features),
        split_datasets={
            split: [(n, row) for n, row in enumerate(part)]
            for split, part in (("train", rows[2:]), ("validation", rows[:2]), ("test", rows[:2]))
        },
        data_dir=folder,
        disable_shuffling=True,
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    store("super_glue", "rte", PAIRS, folder)
    store("gsm8k", None, SUMS, folder)
    return folder


@pytest.fixture
def flan(tmp_path):
    """FLAN's folder without rows."""
    templates = {
        name: [["{premise}\nSo: {hypothesis}\n{options_}", "{answer}"]] for name in ("rte", "cb")
    }
    (tmp_path / "templates.json").write_text(json.dumps(templates))
    return tmp_path


def test_flan_by_tfds_equals_flan_by_files(flan, prepared):
    said = []
    (one,), _ = tasks.read("flan", flan, tfds_data_dir=prepared, on_skip=said.append)
    (flan / "rows" / "rte").mkdir(parents=True)
    for split, rows in (("train", PAIRS[2:]), ("validation", PAIRS[:2])):
        lines = [
            json.dumps({**row, "options": ["yes", "no"], "answer": ["yes", "no"][row["label"]]})
            for row in rows
        ]
        (flan / "rows" / "rte" / f"{split}.jsonl").write_text("\n".join(lines))
    (other,), _ = tasks.read("flan", flan)
    for key in ("num_examples", "name", "metric", "category"):
        assert getattr(one.spec, key) == getattr(other.spec, key)
    for made, wanted in zip(one.load().records, other.load().records, strict=True):
        assert made.id == wanted.id
        assert made.metadata == wanted.metadata
        filled = [content.templates[0].fill(row) for content, row in
                  ((one.load(), made), (other.load(), wanted))]  # fmt: skip
        assert filled[0] == filled[1]
    assert any("are not prepared there" in text and "tfds_builders" in text for text in said)
    assert "TFDS super_glue/rte:1.0.2" in one.spec.path
    # Rows of the folder go before TFDS's.
    assert tasks.read("flan", flan, tfds_data_dir=prepared)[0][0].digest == other.digest


def test_promptsource_by_tfds(tmp_path, prepared):
    folder = tmp_path / "templates" / "super_glue" / "rte"
    folder.mkdir(parents=True)
    (folder / "templates.yaml").write_text(TEMPLATES)
    found, _ = tasks.read("promptsource", tmp_path, tfds_data_dir=prepared, only=["super_glue/rte"])
    content = found[0].load()
    filled = content.templates[0].fill(content.records[0])
    assert filled.input == "It rained 2 times. So: Wet, é 2.?"
    assert filled.references == ("Yes",)
    # The test split has no labels in the release, and the table leaves it out.
    assert {one.id.split("-")[0] for one in content.records} == {"train", "validation"}


def test_reasoning_by_tfds_needs_no_folder(prepared):
    (one,), placed = tasks.read("reasoning", None, tfds_data_dir=prepared)
    assert one.spec.name == "reasoning__gsm8k"
    assert placed[one.spec.name].role == "validation"
    first = one.load().records[0]
    assert first.references == ("One more is 3. The answer is 3.",)


def test_a_store_and_a_mixture_from_tfds(flan, prepared, tmp_path):
    seqio = pytest.importorskip("seqio")
    vocabulary = vocabularies.train_vocabulary([json.dumps(PAIRS)], 400)
    config = rendering.RenderConfig(split="opt_iml_max")
    found, placed = tasks.read("flan", flan, config.split, tfds_data_dir=prepared)
    prepare.prepare_store(
        found, placed, tmp_path / "store", vocabulary, prepare.PrepareConfig(config)
    )
    opened = store_lib.open_store(tmp_path / "store")
    (stored,) = opened.tasks
    texts = {
        vocabulary.decode(opened.train_tokens(0, stored.name, n)) for n in range(stored.num_train)
    }
    names = tasks.register("flan", flan, vocabulary, config=config, tfds_data_dir=prepared)
    try:
        dataset = seqio.get_mixture_or_task("flan").get_dataset(
            {"inputs": 256, "targets": 64}, "train", shuffle=False, num_epochs=1
        )
        streamed = [[*row["inputs"], *row["targets"]] for row in dataset.as_numpy_iterator()]
        assert {vocabulary.decode(ids) for ids in streamed} == texts
        assert len(streamed) == len(texts) == 10
    finally:
        seqio.MixtureRegistry.remove("flan")
        for name in names:
            seqio.TaskRegistry.remove(name)


def test_a_task_named_and_not_prepared_is_an_error(flan, prepared):
    with pytest.raises(InputError, match=r"task 'cb': .*super_glue/cb.*--tfds_data_dir"):
        tasks.read("flan", flan, tfds_data_dir=prepared, only=["cb"])


def test_nothing_at_all_is_an_error(flan, tmp_path):
    with pytest.raises(InputError, match=r"rows: does not exist.*--tfds_data_dir"):
        tasks.read("flan", flan, tfds_data_dir=tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"t5.*no rows"):
        tasks.read("t5", None, tfds_data_dir=tmp_path / "nowhere")


def test_a_download_that_fails_is_one_message(flan, tmp_path, monkeypatch):
    def fail(self, *args, **more):
        raise ConnectionError("no network here\nand more lines")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(InputError, match=r"'super_glue/cb' cannot be made .*no network here"):
        tasks.read("flan", flan, tfds_data_dir=tmp_path, tfds_download=True, only=["cb"])


def test_a_split_that_is_not_there_is_named(prepared):
    with pytest.raises(InputError, match="unknown split 'dev'"):
        tfds_rows.open_rows("super_glue/rte", prepared, {"validation": "dev"})


def test_files_go_before_downloads(flan, tmp_path, monkeypatch):
    def fail(self, *args, **more):
        raise AssertionError("downloads what lies in the folder")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    (flan / "rows" / "rte").mkdir(parents=True)
    row = {"premise": "a", "hypothesis": "b", "options": ["yes", "no"], "answer": "no"}
    (flan / "rows" / "rte" / "train.jsonl").write_text(json.dumps(row))
    found, _ = tasks.read("flan", flan, tfds_data_dir=tmp_path, tfds_download=True, only=["rte"])
    assert [one.spec.original_name for one in found] == ["rte"]
    sets = tmp_path / "sets"
    sets.mkdir()
    (sets / "gsm8k_train.tsv").write_text("How much?\t4\tTwo and two.\n")
    found, _ = tasks.read("reasoning", sets, tfds_data_dir=tmp_path, only=["gsm8k"])
    assert [one.spec.original_name for one in found] == ["gsm8k"]
