"""What a user can do wrong, said in one form.

`InputError` is the only exception that the command line turns into one message and exit code 2.
Anything else is a fault of this package and keeps its traceback.
"""

import difflib
import itertools
import os
import pathlib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad usage or bad input: the message names what, what arrived, where, and the fix."""


SHOWN_NAMES = 12
SHOWN_CHARACTERS = 300


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name closest to `name`, or None when nothing is near or `name` is no string.

    A whole name that is close comes first, then one that `name` is a part of (a task without its
    benchmark), then one that begins like `name`.
    """
    if not isinstance(name, str):
        return None
    by_folded = {candidate.casefold(): candidate for candidate in known}
    folded = name.casefold()
    if matches := difflib.get_close_matches(folded, by_folded, n=1, cutoff=0.7):
        return by_folded[matches[0]]
    if len(folded) > 3 and (holding := [one for one in by_folded if folded in one]):
        return by_folded[min(holding, key=len)]
    heads = {one[: len(folded) + 1]: one for one in reversed(by_folded)}
    if len(folded) > 3 and (matches := difflib.get_close_matches(folded, heads, n=1, cutoff=0.7)):
        return by_folded[heads[matches[0]]]
    matches = difflib.get_close_matches(folded, by_folded, n=1, cutoff=0.5)
    return by_folded[matches[0]] if matches else None


def unknown(kind: str, name: object, known: Iterable[str], where: str = "") -> InputError:
    """An error for a name that does not exist, with the names that do.

    Example:
        unknown("split", "opt_imk", ["opt_iml", "mini"]) reads
        "unknown split 'opt_imk'. Did you mean 'opt_iml'? Known: mini, opt_iml."
    """
    known = sorted(known)
    guess = nearest(name, known)
    told = f"'{name}'" if isinstance(name, str) else repr(name)
    ends = itertools.accumulate(len(one) + 2 for one in known[:SHOWN_NAMES])
    count = max(1, sum(end <= SHOWN_CHARACTERS for end in ends))
    rest = f", ... ({len(known)} in all)" if len(known) > count else ""
    shown = ", ".join(known[:count]) + rest
    return InputError(
        (f"{where}: " if where else "")
        + f"unknown {kind} {told}."
        + (f" Did you mean '{guess}'?" if guess else "")
        + (f" Known: {shown}." if known else " None is known here.")
    )


def near_path(path: str | os.PathLike[str]) -> str:
    """A question that names the nearest file or folder beside a path that is not there, or "".

    Example:
        "stores/snii" where stores/sni is gives " Did you mean 'stores/sni'?"
    """
    wanted = pathlib.Path(path)
    try:
        names = [one.name for one in wanted.parent.iterdir()]
    except OSError:
        return ""
    matches = difflib.get_close_matches(wanted.name, names, n=1, cutoff=0.7)
    return f" Did you mean '{wanted.with_name(matches[0])}'?" if matches else ""
