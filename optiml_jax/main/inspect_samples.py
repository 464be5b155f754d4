"""Stored texts for `optiml inspect --samples`: which ones, and which part of them carries loss."""

from collections.abc import Sequence
from typing import Any, TypeVar

from optiml_jax import errors
from optiml_jax.data import store as store_lib
from optiml_jax.data import vocabularies
from optiml_jax.errors import InputError
from optiml_jax.main.inspect_content import Filters, chosen_tasks

T = TypeVar("T")


def samples_content(
    store: store_lib.Store,
    filters: Filters,
    num_samples: int,
    task: str | None = None,
    view: str | None = None,
) -> dict[str, Any]:
    """Stored texts of a view: one of each of `num_samples` tasks, or all of one task.

    Tasks, and the examples within a task, are spread evenly over what there is, so the same
    command shows the same samples.
    """
    if num_samples < 1:
        raise InputError(f"--samples is {num_samples}, expected 1 or more.")
    if task is not None and task not in store.by_name:
        raise errors.unknown("task", task, store.by_name, f"store '{store.path}'")
    chosen = [t for t in chosen_tasks(store, filters) if task in (None, t.name)]
    tasks = [one for one in chosen if one.places]
    if not tasks:
        raise _nothing_stored(store, chosen, task, filters)
    view = _chosen_view(store, tasks, view)
    tasks = [one for one in tasks if view in one.places]
    chosen = _spread(tasks, min(num_samples, len(tasks)))
    samples = []
    for position, one in enumerate(chosen):
        # The first tasks take one more where the samples do not divide.
        own = num_samples // len(chosen) + (position < num_samples % len(chosen))
        numbers = range(one.places[view].count)
        samples += _task_samples(store, one, view, _spread(numbers, min(own, len(numbers))))
    return {"view": view, "samples": samples}


def _chosen_view(
    store: store_lib.Store, tasks: Sequence[store_lib.StoredTask], view: str | None
) -> str:
    """The view asked for, or the first that one of the tasks has: training before evaluation."""
    trained = sorted(set(store.shards) - set(store.eval_views))
    present = [
        one for one in (*trained, *store.eval_views) if any(one in task.places for task in tasks)
    ]
    if view is None and present:
        return present[0]
    if view is not None and view not in store.shards:
        raise errors.unknown("view", view, store.shards, f"store '{store.path}'")
    if view not in present:
        told = f"task '{tasks[0].name}' has" if len(tasks) == 1 else "the chosen tasks have"
        raise InputError(
            f"store '{store.path}': {told} no records in the view '{view}'"
            f" (role {', '.join(sorted({task.role for task in tasks}))}). There are:"
            f" {', '.join(present) or 'none'}."
        )
    return view


def _nothing_stored(
    store: store_lib.Store,
    chosen: Sequence[store_lib.StoredTask],
    task: str | None,
    filters: Filters,
) -> InputError:
    if not chosen:
        told = ", ".join(f"--{name}" for name in filters.given)
        return InputError(f"--task={task} does not pass {told}. Leave one of the two out.")
    if present := [one for one in chosen if one.role != "excluded"]:
        return InputError(
            f"store '{store.path}': there is no text of {len(present)} chosen task(s) (e.g."
            f" '{present[0].name}', role {present[0].role}) in its views"
            f" {', '.join(sorted(store.shards))}. Prepare them again with the --shots you want."
        )
    return InputError(
        f"store '{store.path}': there is no text of {len(chosen)} chosen task(s), which the split"
        f" '{store.meta['split']}' excludes (e.g. '{chosen[0].name}': {chosen[0].reason})."
    )


def _spread(items: Sequence[T], count: int) -> list[T]:
    """`count` items at even distances, the first one included."""
    return [items[number * len(items) // count] for number in range(count)]


def _task_samples(
    store: store_lib.Store, task: store_lib.StoredTask, view: str, numbers: Sequence[int]
) -> list[dict[str, Any]]:
    about = {"task": task.name, "category": task.spec.category, "level": task.level}
    if view in store.eval_views:
        records = list(store.eval_records(view, [task.name]))
        return [{**about, "number": number, **records[number].to_json()} for number in numbers]
    rendering = int(view.removeprefix(store_lib.train_view(0)[:-1]))
    vocabulary = store.vocabulary()
    return [
        {**about, "number": number, **_training_sample(store, vocabulary, task, rendering, number)}
        for number in numbers
    ]


def _training_sample(
    store: store_lib.Store,
    vocabulary: vocabularies.Vocabulary,
    task: store_lib.StoredTask,
    rendering: int,
    number: int,
) -> dict[str, Any]:
    ids = store.train_tokens(rendering, task.name, number).tolist()
    start = int(store.loss_starts[rendering, task.first_example + number])
    first = max(start, 1)  # a first token never carries loss
    source, target = split_text(vocabulary, ids, first)
    if ids[-1] == vocabulary.eos_id:
        target += vocabularies.SPECIAL_PIECES[vocabulary.eos_id]
    return {
        "source": source,
        "target": target,
        "num_tokens": len(ids),
        "num_target_tokens": len(ids) - first,
    }


def split_text(
    vocabulary: vocabularies.Vocabulary, ids: Sequence[int], start: int
) -> tuple[str, str]:
    """The text of `ids` before and from token `start` on; the two joined are the whole text.

    Where `start` cuts a character in two (a token is bytes), the character goes to the second part.
    """
    text = vocabulary.decode(ids)
    head = vocabulary.decode(ids[:start])
    while not text.startswith(head):
        start -= 1
        head = vocabulary.decode(ids[:start])
    return head, text[len(head) :]
