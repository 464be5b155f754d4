"""What evaluation needs to know of a task: its metric, and where its score is counted."""

import dataclasses
import functools
from collections.abc import Iterable

from optiml_jax import errors
from optiml_jax.bench import catalog, splits
from optiml_jax.data import store, vocabularies
from optiml_jax.eval import metrics


@dataclasses.dataclass(frozen=True)
class EvalTask:
    """One row of an evaluation.

    Attributes:
        name: `benchmark__task`.
        level: one of `bench.splits.LEVELS`.
        parent: the task that this one is a part of, or that it is one benchmark's version of; ""
            where the task stands for itself. Parts of one parent are averaged before the category
            is (MMLU's subjects; RTE in FLAN and PromptSource).
        output_languages: Rouge-L of outputs that are not English uses other tokens.
    """

    name: str
    benchmark: str
    category: str
    metric: str
    level: str
    parent: str = ""
    output_languages: tuple[str, ...] = ("English",)

    def __post_init__(self) -> None:
        where = f"task '{self.name}'"
        if self.level not in splits.LEVELS:
            raise errors.unknown("level", self.level, splits.LEVELS, where)
        if self.metric not in catalog.METRIC_NAMES:
            raise errors.unknown("metric", self.metric, catalog.METRIC_NAMES, where)

    def make_metric(self, name: str) -> metrics.Metric:
        """The metric of this name, as outputs in this task's languages need it."""
        if name == "rouge_l" and metrics.needs_xlingual_tokens(self.output_languages):
            return metrics.make_metric(name, self.output_languages, _xlingual_tokenizer())
        return metrics.make_metric(name, ("English",))


def from_store(stored: Iterable[store.StoredTask]) -> dict[str, EvalTask]:
    """The rows of a store's tasks that have an evaluation part, by name."""
    return {
        task.name: EvalTask(
            name=task.name,
            benchmark=task.spec.benchmark,
            category=task.spec.category,
            metric=task.spec.metric,
            level=task.level,
            output_languages=task.spec.output_languages,
        )
        for task in stored
        if task.num_eval and task.level
    }


@functools.cache
def _xlingual_tokenizer() -> metrics.XlingualTokenizer:
    """GPT-2's tokens whatever the model's vocabulary: a score must not depend on the latter."""
    return metrics.XlingualTokenizer(vocabularies.gpt2_vocabulary().tokenize)
