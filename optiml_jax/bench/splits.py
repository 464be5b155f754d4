"""The named splits: the role and the level of generalization of every task.

`assign` places tasks under a split of `SPLITS` or of a user's own file; `data` then divides a
training task's instances with `heldout_ids`. How a split is read stands in `split_rules`, what each
of them says in its own module, with a reason for every row; docs/splits.md shows their counts.

Source: OPT-IML (arXiv 2212.12017) §2.3, §4.1, §5; Super-NaturalInstructions (arXiv 2204.07705),
splits/; T0 (arXiv 2110.08207) §4; FLAN (arXiv 2109.01652) §2.2; CrossFit (arXiv 2104.08835) §3.
"""

import dataclasses
import hashlib
import types
from collections.abc import Iterable, Mapping, Sequence

from optiml_jax.bench import (
    catalog,
    crossfit_split,
    flan_split,
    mini_split,
    opt_iml_split,
    split_file,
    t0_split,
)
from optiml_jax.bench.split_rules import (
    EVALUATED,
    LEVELS,
    ROLES,
    Assignment,
    OfficialLists,
    Placement,
    Split,
    source_names,
)

__all__ = [
    "CATEGORY_EXCEPTIONS",
    "COLLECTIONS",
    "EVALUATED",
    "EVALUATED_SOURCES",
    "LEVELS",
    "PLACEMENTS",
    "ROLES",
    "SAME_DATA",
    "SHARED_DATA",
    "SPLITS",
    "Assignment",
    "OfficialLists",
    "Placement",
    "Split",
    "assign",
    "find",
    "heldout_ids",
    "source_names",
    "split_names",
    "stable_hash",
]

# Of the default split, for the catalog and the leakage check.
PLACEMENTS = opt_iml_split.PLACEMENTS
CATEGORY_EXCEPTIONS = opt_iml_split.CATEGORY_EXCEPTIONS
EVALUATED_SOURCES = opt_iml_split.EVALUATED_SOURCES
SAME_DATA = opt_iml_split.SAME_DATA
COLLECTIONS = opt_iml_split.COLLECTIONS
SHARED_DATA = opt_iml_split.SHARED_DATA

HELDOUT_ONE_IN = 10
MAX_HELDOUT = 100

_IN_NONE = Assignment("excluded", "", "in none of the official lists")
_NEW_CATEGORIES = {
    "partially_supervised": "its test categories are none of its training categories"
}

OFFICIAL = Split(
    name="super_natural_instructions_official",
    summary="Super-NaturalInstructions' own lists: 756 tasks train, 119 are tested",
    default=_IN_NONE,
    track="default",
    empty_levels=_NEW_CATEGORIES,
)

XLINGUAL = Split(
    name="super_natural_instructions_xlingual",
    summary="Super-NaturalInstructions' lists across languages: 1,270 tasks train, 35 in other"
    " languages than English are tested",
    default=_IN_NONE,
    track="xlingual",
    empty_levels=_NEW_CATEGORIES,
)

SPLITS: Mapping[str, Split] = types.MappingProxyType(
    {
        split.name: split
        for split in (
            opt_iml_split.OPT_IML,
            opt_iml_split.OPT_IML_MAX,
            OFFICIAL,
            XLINGUAL,
            *t0_split.SPLITS,
            *flan_split.SPLITS,
            *crossfit_split.SPLITS,
            mini_split.MINI,
        )
    }
)
"""By name, the default first."""


def split_names() -> tuple[str, ...]:
    """Names that `find` knows, the default first."""
    return tuple(SPLITS)


def find(split: str, rules: str = "") -> Split:
    """The split of this name, or of the user's file of this path.

    Args:
        split: a name, or the path of a file, which ends in .tsv.
        rules: text of a user's file that was read before, as a store keeps it; `split` is its name
            then and no file is opened.

    Raises:
        InputError: unknown split, or the file cannot be read or used.
    """
    if rules:
        return split_file.parse(rules, split, SPLITS)
    if split in SPLITS:
        return SPLITS[split]
    if split_file.is_path(split):
        return split_file.read(split, SPLITS)
    raise split_file.unknown_split(split, SPLITS)


def assign(
    specs: Iterable[catalog.TaskSpec],
    split: str | Split,
    official: OfficialLists | None = None,
    elsewhere: Mapping[str, str] = types.MappingProxyType({}),
    known: Sequence[catalog.TaskSpec] = (),
) -> dict[str, Assignment]:
    """Role and level of every task under a split, by its name; see `Split.assign`.

    Text without instructions that is named after data that the split evaluates, or after an
    evaluation suite, leaves under every split; a row of the user's that trains it is an exception.

    Args:
        split: as `find` takes it, or the split itself.
        official: the benchmark's own lists of the split's `track`, if it has one.
        elsewhere: task -> reason, of tasks that OPT-IML has from another benchmark already; they
            leave its splits.
        known: further tasks that a split may evaluate, read here or not.

    Raises:
        InputError: unknown split, one that is not for these tasks, no official lists where they
            are needed, or a fully held-out category that is trained on.
    """
    split = find(split) if isinstance(split, str) else split
    specs = list(specs)
    placed = split.assign(specs, official, elsewhere, known)
    split = split.with_lists(specs, official)
    return placed | _texts_that_leave(split, specs, placed, known)


def _texts_that_leave(
    split: Split,
    specs: Sequence[catalog.TaskSpec],
    placed: Mapping[str, Assignment],
    known: Sequence[catalog.TaskSpec],
) -> dict[str, Assignment]:
    texts = [
        spec
        for spec in specs
        if spec.instruction_kind == "text"
        and placed[spec.name].role == "train"
        and not (split.rules and split.find(spec))
    ]
    if not texts:
        return {}
    evaluated = [
        spec
        for spec in (*known, *specs)
        if spec.instruction_kind != "text" and split.evaluates(spec)
    ]
    left = dataclasses.replace(SHARED_DATA, evaluated={}).adding(evaluated).leave(texts, {})
    suites = opt_iml_split.OPT_IML_MAX
    for spec in texts:
        if (row := suites.find(spec)) is not None:
            left[spec.name] = Assignment("excluded", "", row.reason, spec.category)
    return left


def heldout_ids(ids: Sequence[str]) -> frozenset[str]:
    """The instances of a training task that are evaluated and never trained on.

    Those whose stable hash divides by 10; if none does, the one with the smallest hash; never more
    than the 100 smallest hashes. At least one instance stays for training: a task with one
    instance holds out nothing, because a training task without training text would be an error.
    Depends on the set of ids alone, not on their order.

    Source: OPT-IML §2.3 holds out the original releases' own test sets; where there is none, as in
    Super-NI, this rule is ours.
    """
    order = sorted(set(ids), key=lambda id_: (stable_hash(id_), id_))
    divisible = [id_ for id_ in order if stable_hash(id_) % HELDOUT_ONE_IN == 0]
    most = min(MAX_HELDOUT, len(order) - 1)
    return frozenset((divisible or order[:1])[: max(most, 0)])


def stable_hash(text: str) -> int:
    """64 bits of sha256: the same in every process and release, unlike Python's `hash`."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
