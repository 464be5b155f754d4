"""Tasks of all levels, records, and a fake engine that counts what it is asked."""

import collections
import dataclasses
import types

import pytest

from optiml_jax.bench.record import EvalRecord
from optiml_jax.eval.tasks import EvalTask
from optiml_jax.infer import engine


@dataclasses.dataclass
class FakeEngine:
    """Answers as a pure function of the text; can be killed after some calls."""

    fingerprint: str = "f1"
    calls_left: int = 1_000_000
    generate_batch_size: int = 2
    rank_batch_size: int = 2
    prompt_prefix: tuple = ()
    config: object = dataclasses.field(
        default_factory=lambda: types.SimpleNamespace(max_positions=512)
    )

    def __post_init__(self):
        self.asked = collections.Counter()

    def _call(self, texts):
        if not self.calls_left:
            raise KeyboardInterrupt
        self.calls_left -= 1
        self.asked.update(texts)

    def generate(self, sources, max_new_tokens=256, batch_size=None):
        self._call(sources)
        return [
            engine.Generation(" ".join(s.split()[-2:]), 2, len(s) > 60, stopped=True)
            for s in sources
        ]

    def rank(self, prompts, normalization="none", score_eos=False, batch_size=None):
        self._call([source for source, _ in prompts])
        return [
            engine.Ranking(
                tuple(-float(len(o)) for o in options),
                len(source) % len(options),
                tuple(1 for _ in options),
            )
            for source, options in prompts
        ]


@pytest.fixture
def fake_engine():
    return FakeEngine()


@pytest.fixture
def make_engine():
    return FakeEngine


@pytest.fixture(scope="session")
def tasks():
    rows = [
        EvalTask("sni__te1", "sni", "Textual Entailment", "exact_match", "fully_held_out"),
        EvalTask("sni__te2", "sni", "Textual Entailment", "rouge_l", "fully_held_out"),
        EvalTask("sni__wa", "sni", "Word Analogy", "rouge_l", "fully_held_out"),
        EvalTask("flan__boolq", "flan", "Question Answering", "accuracy", "fully_supervised"),
    ]
    return {row.name: row for row in rows}


@pytest.fixture(scope="session")
def records():
    made = []
    for task, count in (("sni__te1", 9), ("sni__te2", 5), ("sni__wa", 1), ("flan__boolq", 8)):
        for number in range(count):
            ranked = task.startswith("flan")
            made.append(
                EvalRecord(
                    id=f"{task}-{number}",
                    source=f"{'Say it again. ' * (number % 5)}word{number} word{number % 3}",
                    references=("yes",) if ranked else (f"word{number} word{number % 2}",),
                    options=("yes", "no") if ranked else (),
                    task=task,
                    prompt_id="p",
                )
            )
    return made
