"""Users' SeqIO tasks, written with SeqIO alone, as tasks of a store."""

import functools
import json

import numpy as np
import pytest

from optiml_jax.bench import splits
from optiml_jax.data import prepare, rendering, user_modules
from optiml_jax.data import store as store_lib
from optiml_jax.errors import InputError
from tests.data.conftest import assign, make_task

seqio = pytest.importorskip("seqio")
tf = pytest.importorskip("tensorflow")
foreign_tasks = pytest.importorskip("optiml_jax.data.foreign_tasks")
seqio_text = pytest.importorskip("optiml_jax.data.seqio_text")

BYTES = seqio.ByteVocabulary()
FEATURES = {name: seqio.Feature(BYTES, add_eos=name == "targets") for name in ("inputs", "targets")}
STEPS = (seqio.preprocessors.tokenize, seqio.preprocessors.append_eos)
ROWS = [(f"Say {n} again", f"{n} again") for n in range(30)]
ODD_ROWS = [
    ("Translate:\n  Grüße, \u4e16\u754c", "Hallo"),
    ("ends with a colon:", "x"),
    ("\n starts with blanks", "\tindented"),
    ("", "no question"),
    ("many   blanks inside", "a  b"),
]


@pytest.fixture(autouse=True)
def _registries():
    """What a test registers is gone after it."""
    known = {registry: set(registry.names()) for registry in REGISTRIES}
    yield
    for registry, names in known.items():
        for name in set(registry.names()) - names:
            registry.remove(name)


REGISTRIES = (seqio.TaskRegistry, seqio.MixtureRegistry)


def add(name="mine", rows=None, steps=STEPS, features=FEATURES, num=None, **extra):
    """Registers a task; `rows` is split -> (inputs, targets) pairs; `extra`, further columns."""
    rows = {"train": ROWS} if rows is None else rows

    def dataset(split, shuffle_files, seed=None):
        columns = {
            "inputs": tf.constant([source for source, _ in rows[split]], tf.string),
            "targets": tf.constant([target for _, target in rows[split]], tf.string),
            **{key: tf.constant(values) for key, values in extra.items()},
        }
        return tf.data.Dataset.from_tensor_slices(columns)

    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(dataset, splits=list(rows), num_input_examples=num),
        preprocessors=list(steps),
        output_features=features,
    )
    return seqio.TaskRegistry.get(name)


def read(task, skip_bad=False, **declared):
    return foreign_tasks.read(task, user_modules.Declaration(**declared), skip_bad)


def parts(found):
    config = rendering.RenderConfig()
    return rendering.partition(found.task.spec, found.task.load(), found.assignment, config)


def texts(found):
    part = parts(found)
    return [
        (e.source, e.target)
        for e in rendering.train_examples(
            found.task.spec, found.task.load(), part, rendering.RenderConfig(), 0
        )
    ]


def seqio_texts(name, split):
    dataset = seqio.get_mixture_or_task(name).get_dataset(None, split, shuffle=False)
    return [
        (row["inputs_pretokenized"].decode(), row["targets_pretokenized"].decode())
        for row in dataset.as_numpy_iterator()
    ]


def test_text_is_what_seqio_calls_pretokenized():
    """To the byte: no delimiter, no instruction, no blank gone."""
    task = add(rows={"train": ODD_ROWS, "validation": ROWS})
    found = read(task)
    assert texts(found) == seqio_texts("mine", "train") == ODD_ROWS
    records = rendering.eval_records(
        found.task.spec, found.task.load(), parts(found), rendering.RenderConfig(), 0
    )
    assert [(r.source, r.references[0]) for r in records] == seqio_texts("mine", "validation")
    assert {r.prompt_id for r in records} == {"-.-.-"}


def test_demonstrations_are_verbatim_too():
    found = read(add())
    (record, *_) = rendering.eval_records(
        found.task.spec, found.task.load(), parts(found), rendering.RenderConfig(), 2
    )
    first, second, asked = record.source.split("\n\n\n")
    pairs = {f"{source} {target}" for source, target in ROWS}
    assert {first, second} < pairs
    assert asked in dict(ROWS)


def test_preprocessors_before_the_tokenizer_run_and_later_ones_do_not():
    @seqio.map_over_dataset
    def shout(row):
        return {**row, "inputs": tf.strings.upper(row["inputs"])}

    def never(dataset):
        raise AssertionError("runs on ids")

    steps = [
        shout,
        seqio.CacheDatasetPlaceholder(required=True),
        functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
        never,
    ]
    assert texts(read(add(steps=steps)))[0] == ("SAY 0 AGAIN", "0 again")


@pytest.mark.parametrize("copies", [True, False])
def test_a_tokenizer_of_ones_own(copies):
    """Its copies of the text are taken, or its ids are decoded with the task's vocabulary."""

    def own(dataset, output_features):
        def encode(row):
            ids = {k: output_features[k].vocabulary.encode_tf(row[k]) for k in FEATURES}
            return {**ids, **({f"{k}_pretokenized": row[k] for k in FEATURES} if copies else {})}

        return dataset.map(encode)

    rows = {"train": ODD_ROWS, "validation": ROWS}
    assert texts(read(add(rows=rows, steps=[own]))) == ODD_ROWS


def test_seeded_preprocessors_give_the_same_text_each_time():
    @seqio.map_over_dataset(num_seeds=1)
    def draw(row, seed):
        number = tf.random.stateless_uniform([], seed, 0, 1000, tf.int32)
        return {**row, "inputs": row["inputs"] + " " + tf.strings.as_string(number)}

    task = add(steps=[draw, *STEPS])
    assert len({source.split()[-1] for source, _ in texts(read(task))}) > 15
    assert read(task).task.digest == read(task).task.digest


@pytest.mark.parametrize(
    ("names", "declared", "role", "num_train", "num_eval"),
    [
        (("train", "validation", "test"), {}, "train", 30, 5),
        (("train", "test"), {}, "train", 30, 5),
        (("train", "dev"), {"eval_split": "dev"}, "train", 30, 5),
        (("validation",), {}, "validation", 0, 5),
        (("test",), {}, "test", 0, 5),
        (("dev",), {"eval_split": "dev"}, "test", 0, 5),
        (("test",), {"role": "validation"}, "validation", 0, 5),
        (("train", "test"), {"role": "test"}, "test", 0, 5),
        (("train",), {"role": "test"}, "test", 0, 30),
    ],
)
def test_splits_decide_the_role(names, declared, role, num_train, num_eval):
    rows = {name: ROWS if name == "train" else ODD_ROWS for name in names}
    found = read(add(rows=rows), **declared)
    part = parts(found)
    assert (found.assignment.role, len(part.train), len(part.evaluation)) == (
        role,
        num_train,
        num_eval,
    )


def test_without_another_split_one_input_in_ten_is_held_out():
    """By input: an input with two answers does not train under one and evaluate under the other."""
    rows = [(f"input {n % 100}", f"answer {n}") for n in range(300)]
    found = read(add(rows={"train": rows}))
    part = parts(found)
    trained, held_out = ({r.input for r in some} for some in (part.train, part.evaluation))
    assert held_out == splits.heldout_ids([source for source, _ in rows])
    assert not trained & held_out
    assert len(part.train) + len(part.evaluation) == 300


def test_names_of_records_follow_their_content():
    whole = read(add("one")).task.load().records
    less = read(add("two", rows={"train": ROWS[5:]})).task.load().records
    assert [r.id for r in whole][5:] == [r.id for r in less]
    doubled = read(add("three", rows={"train": [ROWS[0], ROWS[0]]})).task.load().records
    assert doubled[1].id == f"{doubled[0].id}-2"


def test_what_changes_the_digest():
    rows = {"train": ROWS}
    digest = read(add("mine")).task.digest

    def again(rows=rows, **declared):
        seqio.TaskRegistry.remove("mine")
        return read(add("mine", rows=rows), **declared).task.digest

    assert again() == digest
    others = [
        again({"train": [*ROWS[:-1], ("Say 29 again", "30 again")]}),
        again({"train": ROWS[:-3], "validation": ROWS[-3:]}),
        again(version="2"),
        again(category="Translation"),
    ]
    assert len({digest, *others}) == 5


def test_options():
    rows = {"test": [("red or blue?", "red"), ("up or down?", "down")]}
    options = [["red", "blue"], ["up", "down"]]
    records = read(add("field", rows, options=options), metric="accuracy").task.load().records
    assert [r.options for r in records] == [("red", "blue"), ("up", "down")]
    declared = read(add("table", rows), metric="accuracy", options=("red", "down"))
    assert {r.options for r in declared.task.load().records} == {("red", "down")}


def test_a_field_options_that_is_not_ours():
    """Ids under that name do not matter to a task that is not ranked."""
    rows = {"test": ROWS[:2]}
    records = read(add(rows=rows, options=[[1, 2], [3, 4]])).task.load().records
    assert {r.options for r in records} == {()}


def test_text_alone_trains_whole(vocabulary, tmp_path):
    """`targets` alone, as language models have: all of it carries loss, nothing is evaluated."""
    task = add(features={"targets": FEATURES["targets"]}, rows={"train": ROWS, "validation": ROWS})
    found = read(task)
    store = prepared([found], vocabulary, tmp_path)
    stored = store.by_name["mine"]
    assert (stored.num_train, stored.num_eval, stored.level) == (30, 0, "")
    assert store.loss_starts.max() == 0
    assert vocabulary.decode(store.train_tokens(0, "mine", 3)[:-1]) == ROWS[3][1]


def prepared(found, vocabulary, out, **more):
    prepare.prepare_store(
        [f.task for f in found],
        {f.task.spec.name: f.assignment for f in found},
        out,
        vocabulary,
        prepare.PrepareConfig(num_shards=2),
        **more,
    )
    return store_lib.open_store(out, verify=True)


def test_the_store_holds_the_text_and_takes_over_what_is_unchanged(vocabulary, tmp_path):
    rows = {"train": ROWS, "validation": ODD_ROWS}
    first = [read(add("a", rows)), read(add("b", rows))]
    store = prepared(first, vocabulary, tmp_path)
    for number, (source, target) in enumerate(seqio_texts("a", "train")):
        ids = store.train_tokens(0, "a", number)
        assert vocabulary.decode(ids[:-1]) == f"{source} {target}"
        assert ids[-1] == vocabulary.eos_id
        assert store.loss_starts[0, number] == len(vocabulary.encode(source))
    records = list(store.eval_records("eval_0shot", ["a"]))
    assert [(r.source, r.references[0]) for r in records] == ODD_ROWS
    result = prepare.prepare_store(
        [f.task for f in (first[0], read(add("c", rows)))],
        dict.fromkeys("ac", first[0].assignment),
        tmp_path,
        vocabulary,
        prepare.PrepareConfig(num_shards=2),
    )
    assert (result.num_tasks, result.tasks_rendered, result.tasks_reused) == (3, 1, 2)
    # SeqIO's own tools still see the task.
    assert len(seqio_texts("a", "train")) == len(ROWS)


def test_rates_are_flattened_over_mixtures_in_mixtures():
    for name in ("a", "b", "c", "d"):
        add(name, num={"train": 30})
    seqio.MixtureRegistry.add("inner", [("a", 3), ("b", 1)])
    by_size = functools.partial(seqio.mixing_rate_num_examples, maximum=10)
    seqio.MixtureRegistry.add("outer", [("inner", 8), ("c", by_size), ("a", 2), ("d", 0)])
    resolved = foreign_tasks.resolve("outer")
    expected = {"a": 8 * 3 / 4 + 2, "b": 8 / 4, "c": 10.0, "d": 0.0}
    assert resolved.rates == pytest.approx({n: rate / 20 for n, rate in expected.items()})
    mixture = seqio.get_mixture_or_task("outer")
    total = sum(mixture.get_rate(task) for task in mixture.tasks)
    for task in mixture.tasks:
        assert resolved.rates[task.name] == pytest.approx(mixture.get_rate(task) / total)


def test_a_task_stands_for_itself():
    add()
    resolved = foreign_tasks.resolve("mine")
    assert (resolved.rates, resolved.is_mixture) == ({"mine": 1.0}, False)


def broken(dataset):
    raise ValueError("first line\nsecond line")


BAD_TASKS = [
    (
        {"steps": [functools.partial(seqio.preprocessors.rekey, key_map={"targets": "targets"})]},
        {},
        "task 'mine', split 'train': its examples have no feature 'inputs' (they have ['targets'])."
        " Make 'inputs' and 'targets' in a preprocessor, e.g. with seqio.preprocessors.rekey.",
    ),
    ({"rows": {"train": []}}, {}, "task 'mine', split 'train' has no examples. Check its source"),
    (
        {"rows": {"train": [("a", "b"), ("c", " ")]}},
        {},
        "task 'mine', split 'train', example 1: 'targets' is empty. Filter such examples",
    ),
    (
        {"rows": {"dev": ROWS}},
        {},
        "task 'mine': its splits are ['dev']; expected 'train', 'validation' or 'test'. Name the"
        " one to evaluate in OPTIML: {'mine': {'eval_split': ...}}.",
    ),
    (
        {"rows": {"dev": ROWS}},
        {"eval_split": "Dev"},
        "task 'mine', OPTIML 'eval_split': unknown split 'Dev'. Did you mean 'dev'?",
    ),
    (
        {"rows": {"test": ROWS}},
        {"role": "train"},
        "task 'mine': OPTIML gives it the role 'train', but its splits are ['test'].",
    ),
    (
        {"rows": {"test": ROWS}},
        {"metric": "accuracy"},
        "example 0: the answer '0 again' is without options. The metric accuracy needs a field"
        " 'options' in every example, or OPTIML's 'options', with the answer among them.",
    ),
    (
        {"rows": {"test": ROWS}},
        {"metric": "accuracy", "options": ("yes", "no")},
        "the answer '0 again' is not among the options ['yes', 'no'].",
    ),
    (
        {"rows": {"test": [("q", "yes")]}},
        {"metric": "accuracy", "options": ("yes", " ")},
        "task 'mine', split 'test', example 0: an option has no text: ['yes', ' '].",
    ),
    (
        {"steps": [broken]},
        {},
        "task 'mine', split 'train': SeqIO cannot read it: ValueError: first",
    ),
    (
        {"steps": [seqio.map_over_dataset(lambda row: {**row, "inputs": [row["inputs"]]})]},
        {},
        "task 'mine', split 'train': feature 'inputs' is string of rank 1, expected one text",
    ),
    (
        {"steps": [seqio.map_over_dataset(lambda row: {**row, "targets": {"text": "x"}})]},
        {},
        "task 'mine', split 'train': feature 'targets' is {'text': TensorSpec(",
    ),
    (
        {"rows": {"test": ROWS}, "features": {"targets": FEATURES["targets"]}},
        {},
        "task 'mine' has no 'inputs' among its output_features: there is nothing to ask",
    ),
    (
        {"rows": {"train": [(b"\xff", b"x")]}},
        {},
        "task 'mine', split 'train': a text is not UTF-8",
    ),
]


@pytest.mark.parametrize(("made", "declared", "message"), BAD_TASKS)
def test_bad_tasks(made, declared, message):
    with pytest.raises(InputError) as error:
        read(add(**made), **declared)
    assert message in str(error.value)
    assert "second line" not in str(error.value)


def test_skip_bad_counts_what_it_leaves_out():
    found = read(add(rows={"train": [*ROWS, ("a", "")]}), skip_bad=True)
    assert len(found.task.load().records) == 30
    assert found.task.spec.num_dropped == 1
    assert found.notes == ["task 'mine': 1 examples without an answer are left out."]


def test_inputs_on_both_sides_are_told():
    (note,) = read(add(rows={"train": ROWS, "test": ROWS[:4]})).notes
    assert note.startswith("task 'mine': 4 inputs of its split 'test' are also in 'train'")


def test_a_mixture_that_holds_itself():
    """Names are resolved when a mixture is made, so SeqIO's registry refuses a cycle by itself."""
    add()
    with pytest.raises(ValueError, match="not registered: selfish"):
        seqio.MixtureRegistry.add("selfish", [("mine", 1), ("selfish", 1)])
    one = seqio.MixtureRegistry.add("one", [("mine", 1)])
    two = seqio.MixtureRegistry.add("two", [("one", 1), ("mine", 1)])
    one._sub_mixtures.append(two)
    for name, way in (("two", "two -> one -> two"), ("one", "one -> two -> one")):
        with pytest.raises(InputError, match=f"mixture '{name}' leads back to '{name}': {way}"):
            foreign_tasks.resolve(name)
    one._sub_mixtures.clear()
    assert foreign_tasks.resolve("two").rates == {"mine": 1.0}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mone", "m: unknown SeqIO task or mixture 'mone'. Did you mean 'mine'?"),
        ("zeros", "mixture 'zeros': the rates of all its 1 tasks are 0."),
        (
            "nested",
            "the rate of 'mine' cannot be computed: ZeroDivisionError: float division by zero. Are"
            " the rates of a mixture inside it all 0?",
        ),
        ("negative", "mixture 'negative': the rate of 'mine' is -1.0, expected a finite number"),
        ("undefined", "mixture 'undefined': the rate of 'mine' is nan, expected a finite number"),
        ("uncounted", "mixture 'uncounted': the rate of 'mine' cannot be computed: "),
    ],
)
def test_bad_names_and_rates(name, message):
    add()
    seqio.MixtureRegistry.add("zeros", [("mine", 0)])
    seqio.MixtureRegistry.add("nested", [("zeros", 1)])
    seqio.MixtureRegistry.add("negative", [("mine", -1)])
    seqio.MixtureRegistry.add("undefined", [("mine", float("nan"))])
    uncounted = functools.partial(seqio.mixing_rate_num_examples, maximum=10)
    seqio.MixtureRegistry.add("uncounted", [("mine", uncounted)])
    with pytest.raises(InputError) as error:
        foreign_tasks.resolve(name, "m")
    assert message in str(error.value)


def test_our_own_tasks_are_told_apart(vocabulary):
    seqio_tasks = pytest.importorskip("optiml_jax.data.seqio_tasks")
    made = [make_task(n, 30, benchmark="ours") for n in range(2)]
    assignments = assign(made, held_out={made[0].spec.name})
    seqio_tasks.register_tasks(made, assignments, vocabulary, rendering.RenderConfig())
    add()
    sources = seqio_tasks.registered_sources({"ours"})
    assert [source.task for source in sources] == made
    assert [source.assignment for source in sources] == [assignments[t.spec.name] for t in made]
    assert np.all([t.name != "mine" for t in (source.task.spec for source in sources)])


def cache(folder, name, rows, split="train", shards=2):
    """Examples on disk as SeqIO's caching job leaves them; the job itself needs Apache Beam."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    for number in range(shards):
        path = place / f"{split}.tfrecord-{number:05d}-of-{shards:05d}"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for source, target in rows[number::shards]:
                texts = {"inputs": source, "targets": target}
                feature = {
                    key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))
                    for key, text in texts.items()
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
    features = {key: {"shape": [], "dtype": "string"} for key in ("inputs", "targets")}
    info = {"num_shards": shards, "features": features, "seqio_version": seqio.__version__}
    (place / f"info.{split}.json").write_text(json.dumps(info))
    (place / f"stats.{split}.json").write_text(json.dumps({"examples": len(rows)}))
    (place / "COMPLETED").touch()


@pytest.fixture
def cache_dir(tmp_path):
    known = seqio.utils.get_global_cache_dirs()
    seqio_text.add_cache_dirs([str(tmp_path)])
    yield tmp_path
    seqio.set_global_cache_dirs(known)


def never(dataset):
    raise AssertionError("ran, though the examples were cached behind it")


def shout(dataset):
    return dataset.map(lambda row: {**row, "targets": tf.strings.upper(row["targets"])})


def test_an_offline_cache_is_read_and_only_later_steps_run(cache_dir):
    cache(cache_dir, "cached_mine", ROWS)
    steps = (never, seqio.CacheDatasetPlaceholder(required=True), shout, *STEPS)
    add("cached_mine", steps=steps)
    rows = list(seqio_text.read_rows(seqio.TaskRegistry.get("cached_mine"), "train", "here"))
    expected = {(source, target.upper()) for source, target in ROWS}
    assert {(row.inputs, row.targets) for row in rows} == expected
    assert len(rows) == len(ROWS)


def test_without_a_cache_the_source_is_read(cache_dir):
    cache(cache_dir, "another_task", ROWS[:2])
    add("not_cached", steps=(shout, seqio.CacheDatasetPlaceholder(), *STEPS))
    rows = list(seqio_text.read_rows(seqio.TaskRegistry.get("not_cached"), "train", "here"))
    assert [row.targets for row in rows] == [target.upper() for _, target in ROWS]


def test_a_split_that_the_cache_lacks_is_an_error(cache_dir):
    cache(cache_dir, "half_cached", ROWS)
    add("half_cached", {"train": ROWS, "validation": ROWS},
        steps=(seqio.CacheDatasetPlaceholder(), *STEPS))  # fmt: skip
    with pytest.raises(InputError, match=r"no split 'validation'"):
        list(seqio_text.read_rows(seqio.TaskRegistry.get("half_cached"), "validation", "here"))


def test_a_cache_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"does not exist"):
        seqio_text.add_cache_dirs([str(tmp_path / "nowhere")])
