"""A small benchmark made of task objects, without files."""

import hashlib
import random

import pytest

from optiml_jax.bench import catalog, record, splits
from optiml_jax.data import prepare, vocabularies

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]


def make_task(number, num_records, benchmark="super_natural_instructions", version=0, words=12):
    rng = random.Random(f"{benchmark}-{number}-{version}")

    def text(most):
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))

    records = tuple(
        record.Record(
            id=f"{number}-{i}",
            input=text(words),
            references=(text(3),),
            options=(),
            metadata={},
        )
        for i in range(num_records)
    )
    shown = tuple(record.Demonstration(text(5), text(2), "") for _ in range(2))
    content = catalog.TaskContent(f"Definition {number}: {text(6)}.", shown, records)
    original = f"task{number:03d}_made"
    spec = catalog.TaskSpec(
        name=catalog.task_name(benchmark, original),
        original_name=original,
        benchmark=benchmark,
        category="Question Answering" if number % 2 else "Translation",
        instruction_kind="task",
        sources=("made",),
        metric="rouge_l",
        input_languages=("English",),
        output_languages=("English",),
        licence="MIT",
        num_examples=num_records,
        path="",
    )
    digest = hashlib.sha256(repr(content).encode()).hexdigest()
    return catalog.BenchTask(spec=spec, load=lambda: content, digest=digest)


def assign(tasks, held_out=()):
    return {
        t.spec.name: splits.Assignment("test", "fully_held_out", "a test")
        if t.spec.name in held_out
        else splits.Assignment("train", "fully_supervised", "a test")
        for t in tasks
    }


@pytest.fixture(scope="session")
def vocabulary():
    return vocabularies.train_vocabulary([" ".join(WORDS), "Definition Input Output Answer"], 320)


@pytest.fixture(scope="session")
def tasks():
    return [make_task(i, 20 + 7 * i) for i in range(9)]


@pytest.fixture(scope="session")
def store_path(tasks, vocabulary, tmp_path_factory):
    out = tmp_path_factory.mktemp("store")
    assignments = assign(tasks, held_out={tasks[0].spec.name})
    config = prepare.PrepareConfig(num_shards=3)
    prepare.prepare_store(tasks, assignments, out, vocabulary, config)
    return out
