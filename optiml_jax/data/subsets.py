"""Which tasks an ablation trains on: nested random subsets, and the largest clusters.

OPT-IML trains on 16, 64, 256, 1,024 or all tasks, and on 4, 16, 64 or all clusters (§4.4). Both
kinds of subset are nested, and both always hold what the fully supervised part of the evaluation
needs: `ALWAYS_TASKS`, `ALWAYS_CATEGORIES`. These count towards the number that is asked for.

Neighbours: `mixing.MixtureSpec` says what is asked for, and gives the tasks left out the rate 0.
"""

import collections
import hashlib
from collections.abc import Sequence
from typing import Protocol

from optiml_jax.errors import InputError

ALWAYS_TASKS = {
    "flan__squad_v1": "SQuAD v1 of FLAN, fully supervised (Table 15)",
    "promptsource__squad": "SQuAD v1 of PromptSource, fully supervised (Table 15)",
    "promptsource__blended_skill_talk": "Blended Skill Talk, fully supervised (Table 15)",
    "promptsource__cnn_dailymail_3.0.0": "CNN/DailyMail of PromptSource, fully supervised"
    " (Table 15)",
}
"""Task -> why every subset of tasks holds it. A store without a task does without it, with a note
(`main.mixture_files`)."""

ALWAYS_CATEGORIES = {
    "Question Answering": "category of SQuAD v1 (§4.4)",
    "Summarization": "category of CNN/DailyMail (§4.4)",
    "Dialogue Generation": "category of Blended Skill Talk (§4.4)",
}
"""Category -> why every subset of clusters holds it."""


class Named(Protocol):
    """A task as far as a subset needs it: a `TaskSpec`, or a row of the catalog's table."""

    @property
    def name(self) -> str:
        """`benchmark__task`."""
        ...

    @property
    def benchmark(self) -> str:
        """E.g. "flan"."""
        ...

    @property
    def category(self) -> str:
        """E.g. "Question Answering"."""
        ...


def choose_tasks(tasks: Sequence[Named], num_tasks: int, seed: int = 0) -> set[str]:
    """Names of `num_tasks` random tasks, each smaller number a part of the larger one.

    A task's place in the order depends on its name and the seed alone.

    Raises:
        InputError: there are fewer tasks, or more of them are always in.

    Example:
        of all the catalog's tasks, 16 are the four of `ALWAYS_TASKS` and twelve others; 64 are
        these and 48 more.
    """
    if num_tasks > len(tasks):
        raise InputError(
            f"MixtureSpec.num_tasks is {num_tasks:,}, but the mixture has {len(tasks):,} tasks to"
            " choose from. Prepare more, or set None to train on all of them."
        )
    fixed = [task.name for task in tasks if task.name in ALWAYS_TASKS]
    if num_tasks < len(fixed):
        raise InputError(
            f"MixtureSpec.num_tasks is {num_tasks}, but {len(fixed)} tasks are in every subset:"
            f" {', '.join(sorted(fixed))}. Ask for at least {len(fixed)}."
        )

    def place(name: str) -> tuple[bool, bytes]:
        return name not in ALWAYS_TASKS, hashlib.sha256(f"{seed}:{name}".encode()).digest()

    return set(sorted((task.name for task in tasks), key=place)[:num_tasks])


def choose_categories(tasks: Sequence[Named], num_clusters: int) -> list[str]:
    """Categories of `num_clusters` clusters: those always in, then by falling number of tasks.

    Categories of as many tasks follow the alphabet.

    Raises:
        InputError: there are fewer categories, or more of them are always in.

    Example:
        of all the catalog's, 4 are Question Answering, Summarization, Dialogue Generation and the
        largest, Translation; `optiml inspect clusters_4` counts their tasks (673 in the paper,
        Table 17).
    """
    counts = collections.Counter(task.category for task in tasks)
    if num_clusters > len(counts):
        raise InputError(
            f"MixtureSpec.num_clusters is {num_clusters}, but the mixture has tasks of"
            f" {len(counts)} categories. Prepare more, or set None to train on all of them."
        )
    fixed = sorted(ALWAYS_CATEGORIES.keys() & counts.keys())
    if num_clusters < len(fixed):
        raise InputError(
            f"MixtureSpec.num_clusters is {num_clusters}, but {len(fixed)} categories are in every"
            f" subset: {', '.join(fixed)}. Ask for at least {len(fixed)}."
        )
    others = sorted(counts.keys() - set(fixed), key=lambda name: (-counts[name], name))
    return [*fixed, *others][:num_clusters]
