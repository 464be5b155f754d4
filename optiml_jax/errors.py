"""What a user can do wrong, said in one form.

`InputError` is the only exception that the command line turns into one message and exit code 2.
Anything else is a fault of this package and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad usage or bad input: the message names what, what arrived, where, and the fix."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to `name`, or None when nothing is near."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.casefold(), list(by_folded), n=1, cutoff=0.5)
    return by_folded[matches[0]] if matches else None


def unknown(kind: str, name: str, known: Iterable[str], where: str = "") -> InputError:
    """An error for a name that does not exist, with the names that do.

    Example:
        unknown("split", "opt_imk", ["opt_iml", "mini"]) reads
        "unknown split 'opt_imk'. Did you mean 'opt_iml'? Known: mini, opt_iml."
    """
    known = sorted(known)
    guess = nearest(name, known)
    shown = ", ".join(known[:12]) + (f", ... ({len(known)} in all)" if len(known) > 12 else "")
    return InputError(
        (f"{where}: " if where else "")
        + f"unknown {kind} '{name}'."
        + (f" Did you mean '{guess}'?" if guess else "")
        + (f" Known: {shown}." if known else " None is known here.")
    )
