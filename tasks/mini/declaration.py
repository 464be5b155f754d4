"""What one task of the mini benchmark declares, and how its instances are drawn."""

import dataclasses
import hashlib
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

YES_NO = ("yes", "no")


class Draw:
    """Random choices that depend on the seed alone, on every machine and Python version.

    Only `Random.random` is used: of Python's generator, that is what stays the same.
    """

    def __init__(self, *seed: object):
        digest = hashlib.sha256("\0".join(map(str, seed)).encode()).digest()
        self._random = random.Random(int.from_bytes(digest, "big")).random

    def below(self, limit: int) -> int:
        """A whole number from 0 to `limit` - 1."""
        return int(self._random() * limit)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._random() < probability

    def pick(self, choices: Sequence[T]) -> T:
        """One of the choices."""
        return choices[self.below(len(choices))]

    def sample(self, choices: Sequence[T], num: int) -> list[T]:
        """`num` different choices in a random order."""
        rest = list(choices)
        return [rest.pop(self.below(len(rest))) for _ in range(num)]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All items in a random order."""
        return self.sample(items, len(items))


@dataclasses.dataclass(frozen=True)
class Instance:
    """One instance: what is asked and what is accepted.

    Attributes:
        options: the instance's own closed set, () for none.
    """

    input: str
    outputs: tuple[str, ...]
    options: tuple[str, ...] = ()


def answer(text: str, output: str, options: Sequence[str] = ()) -> Instance:
    """An instance with one accepted answer."""
    return Instance(text, (output,), tuple(options))


@dataclasses.dataclass(frozen=True)
class MiniTask:
    """One task: its instructions and a way to draw instances.

    Attributes:
        name: file name, legal for SeqIO.
        category: one of `bench.taxonomy.CATEGORIES`.
        wordings: of the instructions; none where every input is a complete prompt.
        make: (draw, number of the instance) -> an instance; the number balances answers.
        kind: "task", "instance" or "text", see `bench.catalog`.
        metric: "rouge_l" generates and compares; "accuracy" ranks the options.
        labels: the options of every instance that has none of its own.
    """

    name: str
    category: str
    wordings: tuple[str, ...]
    make: Callable[[Draw, int], Instance]
    kind: str = "task"
    metric: str = "rouge_l"
    labels: tuple[str, ...] = ()
    input_language: str = "English"
    output_language: str = "English"


def draw_instances(task: MiniTask, num: int, seed: int) -> list[Instance]:
    """Up to `num` instances with different inputs; fewer where the task has no more of them."""
    draw = Draw(seed, task.name)
    found: dict[str, Instance] = {}
    for number in range(4 * num):
        one = task.make(draw, number)
        # Texts without instructions have no input: they differ in what they say.
        found.setdefault(one.input or one.outputs[0], one)
        if len(found) == num:
            break
    return list(found.values())
