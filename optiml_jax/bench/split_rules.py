"""What a split is: rows that place tasks, read in one way for every split.

A `Split` is data: rows of which the first that matches a task counts, and what becomes of a task
that none matches. The rules are those of `Split.assign`; they read catalog rows only, never
instances. Each named split's rows stand in a module of their own (`opt_iml_split`, `t0_split`,
`flan_split`, `crossfit_split`, `mini_split`), a user's in a file (`split_file`); `splits` knows
them by name.

Levels (OPT-IML §2.3): a task of a category that training never sees is `fully_held_out`; a task
that is not trained on, of a category that is, `partially_supervised`; the held-out instances of a
training task, `fully_supervised`.

Source: OPT-IML (arXiv 2212.12017) §2.3.
"""

import dataclasses
import fnmatch
import functools
import hashlib
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence

from optiml_jax.bench import catalog
from optiml_jax.errors import InputError

ROLES = ("train", "validation", "test", "excluded")
EVALUATED = ("validation", "test")
"""Roles of tasks that are evaluated and not trained on."""

LEVELS = ("fully_held_out", "partially_supervised", "fully_supervised")
FIELDS = ("task", "name", "category", "source", "benchmark")
"""What a row may look at: the benchmark's own name of the task, `benchmark__task`, its category (by
both names where the split's `base` reports it under another), each of its data sets, its
benchmark."""

LEVELS_OF: Mapping[str, tuple[str, ...]] = {
    "train": ("fully_supervised",),
    "validation": ("fully_held_out", "partially_supervised"),
    "test": ("fully_held_out", "partially_supervised"),
    "excluded": ("",),
}
"""The levels that a role may have, the one that needs no saying first where there is only one."""


@dataclasses.dataclass(frozen=True)
class Assignment:
    """What a split makes of a task.

    Attributes:
        role: train, validation, test or excluded.
        level: of its evaluated instances, "" when excluded; a training task's held-out instances
            are `fully_supervised`.
        reason: why, for people.
        category: under which the split reports the task; the catalog's, save where the split
            says otherwise.
    """

    role: str
    level: str
    reason: str
    category: str = ""


TRAIN = Assignment("train", "fully_supervised", "trains; its held-out instances are evaluated", "")
TEXT = Assignment("train", "", "text without instructions: trains whole", "")


@dataclasses.dataclass(frozen=True)
class Placement:
    """One row of a split: the tasks that match get this role and level.

    Attributes:
        field: what is matched, one of `FIELDS`.
        pattern: shell pattern, all of the value, case aside.
        category: under which the split reports these tasks; "" for their own.
        line: of the file that has the row, for messages; 0 for a row of this package.
    """

    field: str
    pattern: str
    role: str
    level: str
    reason: str
    category: str = ""
    line: int = dataclasses.field(default=0, kw_only=True)

    @property
    def is_literal(self) -> bool:
        """True if the pattern is a name without wildcards."""
        return not any(sign in self.pattern for sign in "*?[")

    @property
    def outcome(self) -> str:
        """Role and level, for people."""
        return " and ".join(filter(None, (self.role, self.level)))

    def matches(self, categories: Sequence[str], spec: catalog.TaskSpec) -> bool:
        """True if the task, whose category has these names, is meant."""
        pattern = self.pattern.casefold()
        values = _values(self.field, categories, spec)
        return any(fnmatch.fnmatchcase(value, pattern) for value in values)


@dataclasses.dataclass(frozen=True)
class SharedData:
    """The rule that a task on the data of an evaluation task leaves training (OPT-IML §2.3).

    Attributes:
        evaluated: data sets of evaluation tasks -> which. They count even where the evaluation
            task's own file is missing from the folder, so that a role does not depend on the files
            beside it. Data sets of evaluation tasks that are present are added.
        same_data: data set as a benchmark names it -> (the name that stands for its data, reason).
        collections: sources that several tasks name without sharing data -> reason.
    """

    evaluated: Mapping[str, str]
    same_data: Mapping[str, tuple[str, str]]
    collections: Mapping[str, str]

    def data_of(self, source: str) -> str:
        """The one name that stands for a data set's data."""
        return self.same_data.get(source, (source, ""))[0]

    def leave(
        self, specs: Sequence[catalog.TaskSpec], placed: Mapping[str, Assignment]
    ) -> dict[str, Assignment]:
        """The tasks without a place that leave for their data, with the reason."""
        present = [
            spec for spec in specs if spec.name in placed and placed[spec.name].role in EVALUATED
        ]
        others = [spec for spec in specs if spec.name not in placed]
        left = {}
        for spec, source, task in self.adding(present).shared(others):
            alias = self.same_data.get(source)
            reason = (
                f"shares the data of '{source}' with an evaluation task: {task}"
                + (f"; {alias[1]}" if alias else "")
                + " (OPT-IML §2.3)"
            )
            left[spec.name] = Assignment("excluded", "", reason, spec.category)
        return left

    def adding(self, specs: Iterable[catalog.TaskSpec]) -> "SharedData":
        """The rule with more evaluation tasks."""
        evaluated = dict(self.evaluated)
        for spec in specs:
            for source in source_names(spec):
                evaluated.setdefault(source, spec.original_name)
        return dataclasses.replace(self, evaluated=evaluated)

    def shared(
        self, specs: Iterable[catalog.TaskSpec]
    ) -> Iterator[tuple[catalog.TaskSpec, str, str]]:
        """The tasks on evaluated data, each with its data set and the evaluation task."""
        by_data: dict[str, str] = {}
        for source, task in self.evaluated.items():
            if source not in self.collections:
                by_data.setdefault(self.data_of(source), task)
        for spec in specs:
            for source in source_names(spec):
                if (task := by_data.get(self.data_of(source))) is not None:
                    yield spec, source, task
                    break


@dataclasses.dataclass(frozen=True)
class OfficialLists:
    """The task lists of a track that a benchmark publishes, by the benchmark's own task names.

    Attributes:
        where: folder of the lists, for messages.
        dev: part of `test` that the benchmark tunes on; it stays test here.
        problem: why they cannot be used, "" if they can; only a split by these lists minds.
    """

    where: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    excluded: tuple[str, ...] = ()
    dev: tuple[str, ...] = ()
    problem: str = dataclasses.field(default="", kw_only=True)

    def __post_init__(self):
        place: dict[str, str] = {}
        for name in ("train", "test", "excluded"):
            for task in getattr(self, name):
                if place.setdefault(task, name) != name:
                    raise InputError(
                        f"{self.where}: task '{task}' is in the {place[task]} and the {name} list."
                        " Take it out of one."
                    )

    def placements(self) -> tuple[Placement, ...]:
        """The lists as rows of a split."""
        rows = (
            (self.excluded, "excluded", "", "in the official excluded list"),
            (
                *(self.train, "train", "fully_supervised"),
                "in the official training list; its held-out instances are evaluated",
            ),
            (self.test, "test", "fully_held_out", "in the official test list"),
        )
        return tuple(Placement("task", task, *row) for tasks, *row in rows for task in tasks)


@dataclasses.dataclass(frozen=True)
class Split:
    """A split, as data.

    Attributes:
        name: as `--split` and results spell it.
        summary: what it is, in one sentence.
        placements: rows, the first that matches counts.
        default: of a task that no row matches, unless `base` is set.
        base: the split that places those.
        benchmarks: whose tasks it places; empty for any.
        categories: own task name -> (category under which it is reported, reason).
        shared_data: which tasks leave for their data; None for none.
        track: the rows come from a benchmark's `OfficialLists` of this track, which lie beside its
            tasks (`splits/TRACK/`); "" if not.
        skips_elsewhere: leave out what OPT-IML has from another benchmark already.
        empty_levels: levels that it leaves empty by its nature -> why.
        where: the file it was read from, for messages.
        rules: text of that file; "" for a split of this package.
    """

    name: str
    summary: str
    placements: tuple[Placement, ...] = ()
    default: Assignment = TRAIN
    base: "Split | None" = None
    benchmarks: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    shared_data: SharedData | None = None
    track: str = ""
    skips_elsewhere: bool = False
    empty_levels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    where: str = ""
    rules: str = ""

    @property
    def digest(self) -> str:
        """Names the rules of a user's file, 16 hexadecimal digits; "" for a split of ours."""
        return hashlib.sha256(self.rules.encode()).hexdigest()[:16] if self.rules else ""

    def assign(
        self,
        specs: Sequence[catalog.TaskSpec],
        official: OfficialLists | None = None,
        elsewhere: Mapping[str, str] = types.MappingProxyType({}),
        known: Sequence[catalog.TaskSpec] = (),
    ) -> dict[str, Assignment]:
        """Role and level of every task.

        1. A task gets what the first row says that matches it, under the category by which `base`
           reports it.
        2. A task on the data of an evaluation task leaves, where `shared_data` says so.
        3. All others get `base`'s or the default. To the rule of `base` on shared data, the tasks
           that rows make validation or test tasks are evaluation tasks too.
        4. What OPT-IML has from elsewhere leaves, where the split says so.

        Text without instructions trains whole or leaves: by a row that evaluates or excludes what
        it is named after, or for its data (see `splits.assign`); no default takes it out.

        Args:
            official: the benchmark's own lists of the split's `track`.
            elsewhere: task -> reason, of tasks that OPT-IML has from another benchmark already.
            known: further tasks that rows may evaluate, of this split or of `base`, so that a role
                does not depend on which benchmark is read; they get no role here.

        Raises:
            InputError: the split is not for these tasks, lacks its lists, places a task twice, or
                trains on a category that it holds out fully.
        """
        placed = self.roles(specs, official, elsewhere, known)
        where = official.where if self.track and official is not None else self.where
        dataclasses.replace(self, where=where).check_held_out(specs, placed)
        return placed

    def roles(
        self,
        specs: Sequence[catalog.TaskSpec],
        official: OfficialLists | None = None,
        elsewhere: Mapping[str, str] = types.MappingProxyType({}),
        known: Sequence[catalog.TaskSpec] = (),
    ) -> dict[str, Assignment]:
        """`assign` without the check on fully held-out categories.

        Raises:
            InputError: the split is not for these tasks, lacks its lists, or places a task twice.
        """
        split = self.with_lists(specs, official)
        split._check_benchmarks(specs)
        return split._roles(specs, elsewhere, known)

    def _roles(
        self,
        specs: Sequence[catalog.TaskSpec],
        elsewhere: Mapping[str, str],
        known: Sequence[catalog.TaskSpec],
    ) -> dict[str, Assignment]:
        placed = {spec.name: row for spec in specs if (row := self._placed(spec)) is not None}
        elsewhere_evaluated = [s for s in known if (row := self.find(s)) and row.role in EVALUATED]
        if self.shared_data is not None:
            placed |= self.shared_data.adding(elsewhere_evaluated).leave(specs, placed)
        rest = {}
        if (base := self.base) is not None:
            if base.shared_data is not None:
                ours = [s for s in specs if s.name in placed and placed[s.name].role in EVALUATED]
                ours += elsewhere_evaluated
                base = dataclasses.replace(base, shared_data=base.shared_data.adding(ours))
            rest = base._roles(specs, elsewhere, known)
        for spec in specs:
            if spec.name not in placed:
                default = TEXT if spec.instruction_kind == "text" else self.default
                default = dataclasses.replace(default, category=spec.category)
                placed[spec.name] = rest.get(spec.name, default)
        if self.skips_elsewhere:
            for name, reason in elsewhere.items():
                placed[name] = dataclasses.replace(
                    placed[name], role="excluded", level="", reason=reason
                )
        return {spec.name: placed[spec.name] for spec in specs}

    def evaluates(self, spec: catalog.TaskSpec) -> bool:
        """True if a row, of this split or else of `base`, has the task evaluated."""
        row = self.find(spec)
        if row is None and self.base is not None:
            row = self.base.find(spec)
        return row is not None and row.role in EVALUATED

    def find(self, spec: catalog.TaskSpec) -> Placement | None:
        """The first row that matches the task.

        Raises:
            InputError: one row names the task, another its full name, and they differ.
        """
        rows = [self.placements[number] for number in self.matching(spec)]
        exact = [row for row in rows if row.is_literal and row.field in ("task", "name")]
        for row in exact[1:]:
            if row.outcome != exact[0].outcome:
                raise InputError(
                    f"{self._place()}: task '{spec.name}' is {exact[0].outcome} by the row"
                    f" {exact[0].field} '{exact[0].pattern}' and {row.outcome} by the row"
                    f" {row.field} '{row.pattern}'. Take one of the two rows out."
                )
        return rows[0] if rows else None

    def matching(self, spec: catalog.TaskSpec) -> list[int]:
        """The numbers of all rows that match the task, in their order."""
        literal, patterns = self._index
        names = self.category_names(spec)
        found: set[int] = set()
        for field in FIELDS:
            any_of, numbers = patterns.get(field, (None, ()))
            for value in _values(field, names, spec):
                found.update(literal.get((field, value), ()))
                if any_of is not None and any_of.match(value):
                    found.update(n for n in numbers if self.placements[n].matches(names, spec))
        return sorted(found)

    def category_names(self, spec: catalog.TaskSpec) -> tuple[str, ...]:
        """The names of a task's category: that under which `base` reports it first, its own last.

        Example:
            On flan_entailment: CB's are ("entailment", "Textual Entailment").
        """
        own = self._category(spec)[0]
        row = None if self.base is None else self.base.find(spec)
        return (own,) if row is None or row.category in ("", own) else (row.category, own)

    @functools.cached_property
    def _index(
        self,
    ) -> tuple[dict[tuple[str, str], list[int]], dict[str, tuple[re.Pattern[str], list[int]]]]:
        """Rows by the one value that they name; of each field, all patterns as one and their rows.

        Few tasks match any of a file's thousands of patterns, and one expression tells which.
        """
        literal: dict[tuple[str, str], list[int]] = {}
        patterns: dict[str, list[int]] = {}
        for number, row in enumerate(self.placements):
            if row.is_literal:
                literal.setdefault((row.field, row.pattern.casefold()), []).append(number)
            else:
                patterns.setdefault(row.field, []).append(number)
        joint = {}
        for field, numbers in patterns.items():
            texts = (fnmatch.translate(self.placements[n].pattern.casefold()) for n in numbers)
            joint[field] = (re.compile("|".join(texts)), numbers)
        return literal, joint

    def _place(self) -> str:
        return self.where or f"split '{self.name}'"

    def _category(self, spec: catalog.TaskSpec) -> tuple[str, str]:
        exceptions = (self.base or self).categories
        return exceptions.get(spec.original_name, (spec.category, ""))

    def _placed(self, spec: catalog.TaskSpec) -> Assignment | None:
        row = self.find(spec)
        if row is None:
            return None
        category, exception = self.category_names(spec)[0], self._category(spec)[1]
        if spec.instruction_kind == "text":
            if row.role == "train":
                return dataclasses.replace(TEXT, reason=row.reason, category=category)
            why = "evaluated data: " if row.role in EVALUATED else ""
            return Assignment("excluded", "", why + row.reason, category)
        return Assignment(
            row.role,
            row.level,
            row.reason + (f"; {exception}" if exception else ""),
            row.category or category,
        )

    def with_lists(
        self, specs: Sequence[catalog.TaskSpec], official: OfficialLists | None
    ) -> "Split":
        """This split with the rows of a benchmark's lists, where it goes by lists.

        Raises:
            InputError: the lists are not there or do not fit the tasks; text alone needs none.
        """
        if not self.track:
            return self
        asking = _asking(specs)
        if official is None and asking:
            raise InputError(
                f"split '{self.name}' needs the benchmark's split lists, and none were found. Give"
                f" a data_dir with splits/{self.track}/{{train,test}}_tasks.txt, as in the official"
                " repository, or use split 'opt_iml'."
            )
        if official is None:
            return self
        if official.problem:
            raise InputError(official.problem)
        split = dataclasses.replace(self, placements=official.placements())
        if asking and all(split.find(spec) is None for spec in asking):
            raise InputError(
                f"{official.where}: none of the {len(asking)} tasks is in these lists (first task:"
                f" '{asking[0].original_name}'). Use the lists of the same release."
            )
        return split

    def _check_benchmarks(self, specs: Sequence[catalog.TaskSpec]) -> None:
        """A split that leaves out all tasks of another benchmark was not meant for it.

        A file may place such tasks itself: what its rows leave to `base` may then be left out.
        """
        own = (self.base or self).benchmarks
        rows = [(spec.benchmark, self.find(spec)) for spec in _asking(specs)] if own else []
        rest = {benchmark for benchmark, row in rows if row is None}
        if not rest or rest & set(own) or any(row and row.role != "excluded" for _, row in rows):
            return
        found = ", ".join(sorted(rest))
        if self.base is None:
            raise InputError(
                f"split '{self.name}' places the tasks of {', '.join(own)} alone; those of {found}"
                " would all be left out. Use opt_iml, or a split file of your own (docs/splits.md)."
            )
        raise InputError(
            f"{self._place()}: no row trains or evaluates a task of {found}, and the split"
            f" '{self.base.name}' of the last row places the tasks of {', '.join(own)} alone, so"
            " all would be left out. Add rows for them, or end the file with the split opt_iml."
        )

    def check_held_out(
        self,
        specs: Sequence[catalog.TaskSpec],
        placed: Mapping[str, Assignment],
    ) -> None:
        """A category that is trained on is not fully held out.

        A task that our rows place counts under both names of its category, and so does what it is
        compared with: `base` may report one of the two under a kind of its own. Two tasks that
        `base` places count as it reports them, and so do those that a row places by such a kind.

        Raises:
            InputError: a category is trained on and held out fully.
        """
        trained = [s for s in specs if (one := placed[s.name]).role == "train" and one.level]
        ours = [spec for spec in trained if self._is_ours(spec)]
        reported = {placed[spec.name].category: spec for spec in reversed(trained)}
        by_name, by_our_name = (
            {name: spec for spec in reversed(some) for name in self._folded(spec, placed)}
            for some in (trained, ours)
        )
        for spec in specs:
            category, level = placed[spec.name].category, placed[spec.name].level
            if level != "fully_held_out":
                continue
            if (other := reported.get(category)) is not None:
                raise self._trained_on(category, spec, placed[spec.name].role, other)
            others = by_name if self._is_ours(spec) else by_our_name
            for folded, name in self._folded(spec, placed).items():
                if (other := others.get(folded)) is not None:
                    raise self._trained_on(name, spec, placed[spec.name].role, other)

    def _trained_on(
        self, category: str, spec: catalog.TaskSpec, role: str, other: catalog.TaskSpec
    ) -> InputError:
        tested = "tested" if role == "test" else "validated on"
        alone = spec.benchmark == other.benchmark
        name, trained = (s.original_name if alone else s.name for s in (spec, other))
        fix = (
            "Move one of the two to excluded_tasks.txt."
            if self.track
            else f"Hold the whole category out (a row with field 'category' above the row"
            f" that trains it), or give '{name}' the level partially_supervised."
        )
        return InputError(
            f"{self._place()}: category '{category}' is trained on ('{trained}') and"
            f" {tested} ('{name}'), so the {role} task is not fully held out. {fix}"
        )

    def _folded(self, spec: catalog.TaskSpec, placed: Mapping[str, Assignment]) -> dict[str, str]:
        """The names of a task's category, case aside -> as written."""
        names = (placed[spec.name].category, *self.category_names(spec))
        return {name.casefold(): name for name in names}

    def _is_ours(self, spec: catalog.TaskSpec) -> bool:
        """True if our row places the task otherwise than `base` does, not by a kind of `base`'s."""
        if self.base is None or (row := self.find(spec)) is None:
            return False
        own = self.category_names(spec)[1:]
        if row.field == "category" and own and not row.matches(own, spec):
            return False
        other = self.base.find(spec)
        return other is None or other.outcome != row.outcome


def _asking(specs: Iterable[catalog.TaskSpec]) -> list[catalog.TaskSpec]:
    """The tasks that ask something: all but text."""
    return [spec for spec in specs if spec.instruction_kind != "text"]


def source_names(spec: catalog.TaskSpec) -> tuple[str, ...]:
    """A task's data sets one by one; some files write two into one string ("wsc; enhanced_wsc")."""
    parts = (part.strip() for source in spec.sources for part in re.split(r"[;,]", source))
    return tuple(part.casefold() for part in parts if part)


def _values(field: str, categories: Sequence[str], spec: catalog.TaskSpec) -> tuple[str, ...]:
    if field == "source":
        return source_names(spec)
    if field == "category":
        return tuple(name.casefold() for name in categories)
    value = {
        "task": spec.original_name,
        "name": spec.name,
        "benchmark": spec.benchmark,
    }[field]
    return (value.casefold(),)
