"""What every reader of a benchmark does: one task after another, and no text that has changed."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from optiml_jax.bench import catalog
from optiml_jax.errors import InputError

Place = TypeVar("Place")


def read_each(
    places: Iterable[Place],
    read_one: Callable[[Place], catalog.BenchTask],
    whole: str,
    skip_bad: bool,
    on_skip: Callable[[str], None],
) -> list[catalog.BenchTask]:
    """The task of each place, in their order.

    Args:
        whole: what a message is about if all are bad, such as "DIR: every task".
        skip_bad: leave out bad ones and tell `on_skip` of each, instead of stopping.

    Raises:
        InputError: a bad one, nothing but bad ones under `skip_bad`, or two tasks of one name.
    """
    tasks: list[catalog.BenchTask] = []
    first_error: InputError | None = None
    for place in places:
        try:
            tasks.append(read_one(place))
        except InputError as error:
            if not skip_bad:
                raise
            first_error = first_error or error
            on_skip(f"skipped: {error}")
    if not tasks and first_error is not None:
        raise InputError(f"{whole} is bad. The first: {first_error}")
    catalog.Catalog(task.spec for task in tasks)
    return tasks


def check_unchanged(where: str, digest: str, now: str) -> None:
    """Raises unless a task's data still have the digest that they had when they were checked."""
    if now != digest:
        raise InputError(
            f"{where}: changed while it was being used (sha256 {now[:12]}, was {digest[:12]})."
            " Run the command again."
        )
