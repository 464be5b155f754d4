"""What one rendering of a template may still do: a budget that is spent by everything it makes.

`promptsource_sandbox` asks here before it lets a template's operation run. The budget counts
characters, items and turns of loops, never seconds: a text is the same on every machine, or an
error on every machine. Operations that make something large at one blow (`*`, `%`, `join`,
`replace`, ...) are asked for the size of their result first.

`Work` also holds the draws of `choice` and `random`, which hash what is rendered: no chance.
"""

import hashlib
import re
from collections.abc import ItemsView, KeysView, ValuesView
from typing import Any

from jinja2 import utils

MAX_WORK = 20_000_000
"""Units for one rendering: about a second of a core. Real templates on real rows need 100,000."""

ITEM_COST = 8
"""An item of a list costs as much as the memory of its pointer."""

CALL_COST = 10
MAX_BITS = 4096
MAX_WIDTH = 1000

_VIEWS = KeysView | ValuesView | ItemsView


class StoppedError(Exception):
    """A template did what it may not, or too much; says what, to follow "the template ".

    Args:
        line: of the template, where it is known before it runs.
    """

    def __init__(self, problem: str, line: int | None = None):
        super().__init__(problem)
        self.line = line


class Work:
    """What one rendering may still do, and its draws.

    Args:
        key: names what is rendered; the n-th draw is a function of (key, n).
        truncate: whether inserted texts are cut, see `promptsource_sandbox.TRUNCATED`.
    """

    def __init__(self, key: str, truncate: bool = True):
        self.left = MAX_WORK
        self.truncate = truncate
        self._key = key
        self._num_draws = 0

    def spend(self, amount: int) -> None:
        """Stops the template when nothing is left."""
        self.left -= amount
        if self.left < 0:
            raise StoppedError(
                f"does more than {MAX_WORK:,} units of work (characters and items that it makes or"
                " looks at, turns of its loops)"
            )

    def weigh(self, value: Any) -> int:
        """Spends what it costs to look at all of a value, and gives that number."""
        if type(value) is str:
            self.spend(len(value))
            return len(value)
        stack, total = [value], 0
        while stack:
            one = stack.pop()
            total += 1
            if isinstance(one, str | bytes):
                total += len(one)
            elif isinstance(one, range):
                # Far too long ones have no length at all.
                total += ITEM_COST * max(0, (one.stop - one.start) // one.step)
            elif isinstance(one, int):
                total += one.bit_length() >> 3
            elif isinstance(one, dict):
                total += 2 * ITEM_COST * len(one)
                stack.extend(one)
                stack.extend(one.values())
            elif isinstance(one, list | tuple | set | frozenset | _VIEWS):
                total += ITEM_COST * len(one)
                stack.extend(one)
            elif isinstance(one, utils.Namespace):
                stack.extend(object.__getattribute__(one, "_Namespace__attrs").values())
            if total > self.left:
                break
        self.spend(total)
        return total

    def draw(self, count: int) -> int:
        """A number below `count`."""
        self._num_draws += 1
        data = f"{self._key}\0{self._num_draws}".encode()
        return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") % count

    def ask_power(self, base: Any, exponent: Any) -> None:
        """Before `base ** exponent`."""
        if not all(isinstance(one, int | float) for one in (base, exponent)):
            raise StoppedError("raises what is no number to a power")
        if isinstance(base, int) and isinstance(exponent, int):
            check_bits(base.bit_length() * abs(exponent))

    def ask_product(self, left: Any, right: Any) -> None:
        """Before `left * right`."""
        if isinstance(left, int) and isinstance(right, int):
            check_bits(left.bit_length() + right.bit_length())
        for many, times in ((left, right), (right, left)):
            if isinstance(many, str | bytes | list | tuple) and isinstance(times, int):
                one = 1 if isinstance(many, str | bytes) else ITEM_COST
                self.spend(max(0, times) * (len(many) + 1) * one)

    def ask_format(self, text: str, values: Any) -> None:
        """Before `text % values`."""
        self.spend(len(text))
        weight = self.weigh(values)
        specs = re.findall(r"%(?:\([^)]*\))?([^A-Za-z%]*)", text)
        for spec in specs:
            if "*" in spec or any(int(n[:9]) > MAX_WIDTH for n in re.findall(r"\d+", spec)):
                raise StoppedError(f"formats to a width above {MAX_WIDTH}")
            self.spend(sum(int(n) for n in re.findall(r"\d+", spec)))
        if isinstance(values, dict) or (isinstance(values, tuple) and len(values) < len(specs)):
            # By name, one value may be put in again and again.
            self.spend(weight * len(specs))

    def ask_replace(self, text: Any, old: Any = "", new: Any = "") -> None:
        """Before `text.replace(old, new)`."""
        text, old, new = str(text), str(old), str(new)
        self.spend((text.count(old) if old else len(text) + 1) * len(new))

    def ask_join(self, items: Any, separator: str) -> list[Any]:
        """Before `separator.join(items)`; gives the items as a list."""
        made = list(items)
        self.weigh(made)
        self.spend(len(made) * len(separator))
        return made


def check_bits(bits: int) -> None:
    """Stops a template that makes a number of more bits than `MAX_BITS`."""
    if bits > MAX_BITS:
        raise StoppedError(f"makes a number of more than {MAX_BITS} bits")
