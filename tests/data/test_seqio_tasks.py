"""SeqIO's own functions on our tasks and mixtures, compared with the store."""

import numpy as np
import pytest

from optiml_jax.data import mixing, prepare, rendering, vocabularies
from optiml_jax.data import store as store_lib
from tests.data.conftest import assign, make_task

seqio = pytest.importorskip("seqio")
seqio_tasks = pytest.importorskip("optiml_jax.data.seqio_tasks")

MIXTURE = "made_mixture"
CONFIG = rendering.RenderConfig()


@pytest.fixture(scope="module")
def made():
    return [make_task(i, 25 + i, benchmark="made") for i in range(4)]


@pytest.fixture(scope="module")
def registered(made, vocabulary):
    assignments = assign(made, held_out={made[0].spec.name})
    names = seqio_tasks.register_tasks(made, assignments, vocabulary, CONFIG)
    spec = mixing.MixtureSpec(eps=24)
    seqio_tasks.register_mixture(MIXTURE, made, assignments, spec, CONFIG)
    yield names
    for name in names:
        seqio.TaskRegistry.remove(name)
    seqio.MixtureRegistry.remove(MIXTURE)


@pytest.fixture(scope="module")
def store(made, vocabulary, tmp_path_factory):
    out = tmp_path_factory.mktemp("made")
    assignments = assign(made, held_out={made[0].spec.name})
    prepare.prepare_store(made, assignments, out, vocabulary, prepare.PrepareConfig(CONFIG))
    return store_lib.open_store(out)


def read(name, split, lengths=None):
    dataset = seqio.get_mixture_or_task(name).get_dataset(
        lengths or {"inputs": 512, "targets": 512}, split, shuffle=False, num_epochs=1
    )
    return list(dataset.as_numpy_iterator())


def test_a_seqio_task_holds_what_the_store_holds(registered, store):
    for name in registered[1:]:
        task = store.by_name[name]
        rows = read(name, "train")
        assert len(rows) == task.num_train
        for number, row in enumerate(rows):
            joined = np.concatenate([row["inputs"], row["targets"]])
            np.testing.assert_array_equal(joined, store.train_tokens(0, name, number))
            assert len(row["inputs"]) == store.loss_starts[0, task.first_example + number]


def test_the_evaluation_part(registered, store):
    for name in registered:
        rows = read(name, "validation")
        records = list(store.eval_records("eval_0shot", [name]))
        assert [row["id"].decode() for row in rows] == [r.id for r in records]
        assert [row["inputs_pretokenized"].decode() for row in rows] == [r.source for r in records]


def test_a_held_out_task_has_no_training_split(registered):
    assert "train" not in seqio.get_mixture_or_task(registered[0]).splits


def test_the_mixture_has_our_rates(registered, made):
    mixture = seqio.get_mixture_or_task(MIXTURE)
    assert {task.name for task in mixture.tasks} == set(registered[1:])
    got = np.array([mixture.get_rate(task) for task in mixture.tasks])
    by_name = {task.spec.name: task for task in made}
    sizes = [
        len(
            rendering.partition(
                by_name[t.name].spec,
                by_name[t.name].load(),
                assign(made)[t.name],
                CONFIG,
            ).train
        )
        for t in mixture.tasks
    ]
    capped = np.minimum(sizes, 24)
    np.testing.assert_allclose(got, capped / capped.sum())


def test_the_same_registration_twice_is_one(registered, made, vocabulary):
    """Two modules of a user may both ask for a benchmark; another text under a name is refused."""
    held_out = {made[0].spec.name}
    before = {name: seqio.TaskRegistry.get(name) for name in registered}
    assignments = assign(made, held_out)
    assert seqio_tasks.register_tasks(made, assignments, vocabulary, CONFIG) == registered
    assert {name: seqio.TaskRegistry.get(name) for name in registered} == before
    seqio_tasks.register_mixture(MIXTURE, made, assignments, mixing.MixtureSpec(eps=24), CONFIG)
    with pytest.raises(ValueError, match="duplicate"):
        seqio_tasks.register_mixture(MIXTURE, made, assignments, mixing.MixtureSpec(), CONFIG)
    for tasks, placed in (
        ([make_task(0, 25, benchmark="made", version=1)], assignments),
        (made[:1], assign(made)),
    ):
        with pytest.raises(ValueError, match="duplicate"):
            seqio_tasks.register_tasks(tasks, placed, vocabulary, CONFIG)


def test_the_mixture_streams(registered):
    dataset = seqio.get_mixture_or_task(MIXTURE).get_dataset(
        {"inputs": 64, "targets": 64}, "train", shuffle=True, seed=1
    )
    rows = list(dataset.take(30).as_numpy_iterator())
    assert len(rows) == 30
    assert all(len(row["inputs"]) <= 64 for row in rows)


def test_long_inputs_lose_their_left_end(registered):
    full = read(registered[1], "train")
    cut = read(registered[1], "train", {"inputs": 9, "targets": 512})
    for whole, short in zip(full, cut):
        np.testing.assert_array_equal(whole["inputs"][-9:], short["inputs"])
        np.testing.assert_array_equal(whole["targets"], short["targets"])


def test_the_vocabulary_behind_seqios_interface():
    import tensorflow as tf

    base = vocabularies.gpt2_vocabulary()
    wrapped = seqio_tasks.SeqioVocabulary(base)
    text = "Hello wörld </s>"
    assert wrapped.encode(text) == base.encode(text)
    assert wrapped.decode([*base.encode(text), 2, 17]) == text
    assert wrapped.encode_tf(tf.constant(text)).numpy().tolist() == base.encode(text)
    batch = wrapped.encode_tf(tf.constant([text, "a"]))
    assert batch.to_list() == [base.encode(text), base.encode("a")]
    ids = tf.constant([base.encode("a b"), base.encode("c d")])
    assert [t.decode() for t in wrapped.decode_tf(ids).numpy()] == ["a b", "c d"]
    assert (wrapped.vocab_size, wrapped.pad_id, wrapped.eos_id) == (50272, 0, 2)


def test_seqios_evaluator_scores_references(registered):
    task = seqio.get_mixture_or_task(registered[1])
    (metric,) = task.metric_fns
    references = [["alpha beta"], ["gamma", "delta"]]
    assert metric(references, ["alpha beta", "delta"]) == {"rouge_l": 100.0}
    assert metric(references, ["alpha beta", "zeta"]) == {"rouge_l": 50.0}
