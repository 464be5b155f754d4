"""Named splits: the role and the level of generalization of every task.

`assign` reads catalog rows only, never instances; `data` then divides a training task's instances
with `heldout_ids`. A split is data: `PLACEMENTS`, `CATEGORY_EXCEPTIONS`, `EVALUATED_SOURCES`,
`SAME_DATA` and `COLLECTIONS` hold each decision with its reason, and the code below only reads
them.

Levels (OPT-IML §2.3): a task of a category that training never sees is `fully_held_out`; a task
that is not trained on, of a category that is, `partially_supervised`; the held-out instances of a
training task, `fully_supervised`.

How `opt_iml` decides, first match wins:
1. `PLACEMENTS`, in their order: copies of evaluation suites leave; then the tasks that the paper
   names; then whole categories.
2. A task that shares its data with an evaluation task leaves training (the paper's first rule
   against leakage). Overlap of texts is not looked for here.
3. All other tasks train, and their held-out instances are evaluated.

`opt_iml_max` trains on everything but the copies of evaluation suites. What concerns benchmarks
other than Super-NaturalInstructions stands in `opt_iml_split`.

Source: OPT-IML (arXiv 2212.12017) §2.3, §4.1, §5.4, Table 15; Super-NaturalInstructions
(arXiv 2204.07705), splits/.
"""

import dataclasses
import fnmatch
import hashlib
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence

from optiml_jax.bench import catalog, mini_split, opt_iml_split
from optiml_jax.errors import InputError, unknown

ROLES = ("train", "validation", "test", "excluded")
LEVELS = ("fully_held_out", "partially_supervised", "fully_supervised")

HELDOUT_ONE_IN = 10
MAX_HELDOUT = 100


@dataclasses.dataclass(frozen=True)
class Assignment:
    """What a split makes of a task.

    Attributes:
        role: train, validation, test or excluded.
        level: of its evaluated instances, "" when excluded; a training task's held-out instances
            are `fully_supervised`.
        reason: why, for people.
        category: under which the split reports the task; the catalog's, save for
            `CATEGORY_EXCEPTIONS`.
    """

    role: str
    level: str
    reason: str
    category: str = ""


@dataclasses.dataclass(frozen=True)
class OfficialLists:
    """The task lists that a benchmark publishes, by the benchmark's own task names.

    Attributes:
        where: folder of the lists, for messages.
        dev: part of `test` that the benchmark tunes on; it stays test here.
    """

    where: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    excluded: tuple[str, ...] = ()
    dev: tuple[str, ...] = ()

    def __post_init__(self):
        place: dict[str, str] = {}
        for name in ("train", "test", "excluded"):
            for task in getattr(self, name):
                if place.setdefault(task, name) != name:
                    raise InputError(
                        f"{self.where}: task '{task}' is in the {place[task]} and the {name} list."
                        " Take it out of one."
                    )


@dataclasses.dataclass(frozen=True)
class Placement:
    """One row of a split: the tasks that match get this role and level.

    Attributes:
        field: what is matched: "source", "category", "task" (the benchmark's own name) or "name"
            (`benchmark__task`).
        pattern: shell pattern, all of the value, case aside.
    """

    field: str
    pattern: str
    role: str
    level: str
    reason: str

    def matches(self, category: str, spec: catalog.TaskSpec) -> bool:
        """True if the task, reported under `category`, is meant."""
        values = {
            "source": source_names(spec),
            "category": (category,),
            "task": (spec.original_name,),
            "name": (spec.name,),
        }[self.field]
        pattern = self.pattern.casefold()
        return any(fnmatch.fnmatchcase(value.casefold(), pattern) for value in values)


_TABLE_15_CATEGORY = "validation category, absent from training (OPT-IML Table 15)"
_TABLE_15_TASK = "named task of a category that is trained on (OPT-IML Table 15)"
_TEST_CATEGORY = "test category, absent from training (OPT-IML §5.4)"
_BIG_BENCH = "copy of BIG-bench, whose hard tasks are an evaluation suite (OPT-IML Table 14)"

SUITE_COPIES = (
    Placement(
        "source",
        "measuring_massive_multitask_language_understanding",
        "excluded",
        "",
        "copy of MMLU, which is an evaluation suite (OPT-IML Tables 14, 15)",
    ),
    Placement("source", "big*bench*", "excluded", "", _BIG_BENCH),
    Placement("source", "bbh*", "excluded", "", _BIG_BENCH),
    Placement("task", "task*_bbh_*", "excluded", "", _BIG_BENCH),
    Placement("task", "task*_bigbench_*", "excluded", "", _BIG_BENCH),
)
"""What trains in no mixture."""

PLACEMENTS = (
    *SUITE_COPIES,
    *(Placement(*row) for row in opt_iml_split.PLACEMENTS),
    Placement(
        "task",
        "task172[0-5]_civil_comments_*",
        "validation",
        "partially_supervised",
        _TABLE_15_TASK,
    ),
    # The two tasks of RACE whose category is Question Answering.
    Placement(
        "task",
        "task309_race_answer_generation",
        "validation",
        "partially_supervised",
        _TABLE_15_TASK,
    ),
    Placement(
        "task", "task310_race_classification", "validation", "partially_supervised", _TABLE_15_TASK
    ),
    *(
        Placement("category", category, "validation", "fully_held_out", _TABLE_15_CATEGORY)
        for category in (
            "Cause Effect Classification",
            "Grammar Error Correction",
            "Stereotype Detection",
            "Word Analogy",
        )
    ),
    *(
        Placement("category", category, "test", "fully_held_out", _TEST_CATEGORY)
        for category in ("Textual Entailment", "Coreference Resolution", "Dialogue Act Recognition")
    ),
)
"""The `opt_iml` split, first match wins."""

MINI_PLACEMENTS = (
    *(
        Placement(
            "task", name, "validation", "partially_supervised", "unseen task of the mini split"
        )
        for name in mini_split.HELD_OUT_TASKS
    ),
    *(
        Placement("category", name, "test", "fully_held_out", "unseen category of the mini split")
        for name in mini_split.HELD_OUT_CATEGORIES
    ),
)
"""The `mini` split; all other tasks train."""

CATEGORY_EXCEPTIONS: Mapping[str, tuple[str, str]] = {
    "task1664_winobias_text_generation": (
        "Stereotype Detection",
        "Table 15 lists Super-NI's Winobias under Stereotype Detection; its file says Coreference"
        " Resolution. Of the 24 + 14 + 7 official test tasks of the three test categories §5.4"
        " evaluates 44: all but this one.",
    ),
}
"""Own task name -> (category under which `opt_iml` reports it, reason)."""

EVALUATED_SOURCES: Mapping[str, str] = {
    "race": "Race, Question Answering (Table 15)",
    "civil_comments": "Civil Comments, Toxic Language Detection (Table 15)",
    "jigsaw": "Jigsaw of PromptSource, Toxic Language Detection (Table 15)",
    "newsroom": "Newsroom of FLAN, Summarization (Table 15)",
    "strategyqa": "StrategyQA, Reasoning (Table 15)",
    "gsm8k": "GSM8K, Reasoning (Table 15)",
    "copa": "COPA, Cause Effect Classification (Table 15)",
    "glucose": "Glucose, Cause Effect Classification (Table 15)",
    "jfleg": "Jfleg, Grammar Error Correction (Table 15)",
    "bard": "Bard Analogical Reasoning, Word Analogy (Table 15)",
    "wino_bias": "Winobias, Stereotype Detection (Table 15)",
    "stereoset": "StereoSet, Stereotype Detection (validation category)",
    "crows_pairs": "CrowS-Pairs, Stereotype Detection (validation category)",
    "anli": "ANLI, Textual Entailment (§5.2-5.4)",
    "snli": "SNLI, Textual Entailment (§5.3, §5.4)",
    "multinli": "MNLI, Textual Entailment (§5.3, §5.4)",
    "scitail": "SciTail, Textual Entailment (§5.4)",
    "sick": "SICK, Textual Entailment (§5.4)",
    "imppres": "IMPPRES, Textual Entailment (§5.4)",
    "winograd_wsc": "Winograd schemas, Coreference Resolution (§5.2-5.4)",
    "winogrande": "Winogrande, Coreference Resolution (§5.2-5.4)",
    "winowhy": "WinoWhy, Coreference Resolution (§5.4)",
    "gap": "GAP, Coreference Resolution (§5.4)",
    "dailydialog": "DailyDialog, Dialogue Act Recognition (§5.4)",
    "schema_guided_dstc8": "Schema-Guided Dialogue, Dialogue Act Recognition (§5.4)",
    "spolin": "SPOLIN, Dialogue Act Recognition (§5.4)",
    **opt_iml_split.EVALUATED_SOURCES,
}
"""Data sets of evaluation tasks -> which. They count even where the evaluation task's own file is
missing from the folder, so that a task's role does not depend on the files beside it. Data sets of
evaluation tasks that are present are added to these."""

SAME_DATA: Mapping[str, tuple[str, str]] = {
    "jigsaw": (
        "civil_comments",
        "Jigsaw's Unintended Bias data are Civil Comments with more labels",
    ),
    "winomt": ("wino_bias", "WinoMT is WinoGender and WinoBias together (arXiv 1906.00591)"),
    "wsc": ("winograd_wsc", "the Winograd schemas under another name"),
    "wsc_fiexed": ("winograd_wsc", "the Winograd schemas under another name"),
    "mwsc": ("winograd_wsc", "the Winograd schemas as questions (arXiv 1806.08730)"),
    "enhanced_wsc": ("winograd_wsc", "perturbed Winograd schemas (arXiv 2005.01348)"),
    "e_snli": ("snli", "SNLI with explanations (arXiv 1812.01193)"),
    "scitailv1.1": ("scitail", "a release of SciTail"),
    **opt_iml_split.SAME_DATA,
}
"""Data set as a benchmark names it -> (the name that stands for its data, reason)."""

COLLECTIONS: Mapping[str, str] = {
    "indicnlp": "a catalogue of unrelated data sets; its other tasks are not COPA",
    "pasinlu": "ParsiNLU is six unrelated data sets; only its entailment set is evaluated",
    "parsinlu": "ParsiNLU is six unrelated data sets; only its entailment set is evaluated",
}
"""Sources that several tasks name without sharing data -> reason. §2.3 keeps pairs that share
only a broad origin."""


def split_names() -> tuple[str, ...]:
    """Names that `assign` knows, the default first."""
    return tuple(SPLITS)


def assign(
    specs: Iterable[catalog.TaskSpec],
    split: str,
    official: OfficialLists | None = None,
    elsewhere: Mapping[str, str] = types.MappingProxyType({}),
) -> dict[str, Assignment]:
    """Role and level of every task under a named split.

    Args:
        official: the benchmark's own lists; needed by `super_natural_instructions_official`.
        elsewhere: task -> reason, of tasks that OPT-IML has from another benchmark already; they
            leave its splits.

    Raises:
        InputError: unknown split, no official lists where they are needed, or official lists
            whose test categories are trained on.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    assigned = SPLITS[split](list(specs), official)
    if split in OPT_IML_SPLITS:
        for name, reason in elsewhere.items():
            one = assigned[name]
            assigned[name] = dataclasses.replace(one, role="excluded", level="", reason=reason)
    return assigned


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


def source_names(spec: catalog.TaskSpec) -> tuple[str, ...]:
    """A task's data sets one by one; some files write two into one string ("wsc; enhanced_wsc")."""
    parts = (part.strip() for source in spec.sources for part in re.split(r"[;,]", source))
    return tuple(part.casefold() for part in parts if part)


def _place(
    specs: Iterable[catalog.TaskSpec],
    placements: Sequence[Placement],
    exceptions: Mapping[str, tuple[str, str]],
) -> dict[str, Assignment]:
    """The tasks that a table places; the others are absent, text without instructions too."""
    result: dict[str, Assignment] = {}
    for spec in specs:
        if spec.instruction_kind == "text":
            continue
        category, exception = exceptions.get(spec.original_name, (spec.category, ""))
        for placement in placements:
            if placement.matches(category, spec):
                reason = placement.reason + (f"; {exception}" if exception else "")
                result[spec.name] = Assignment(placement.role, placement.level, reason, category)
                break
    return result


def _train(spec: catalog.TaskSpec) -> Assignment:
    if spec.instruction_kind == "text":
        return Assignment("train", "", "text without instructions: trains whole", spec.category)
    reason = "trains; its held-out instances are evaluated"
    return Assignment("train", "fully_supervised", reason, spec.category)


def _assign_mini(
    specs: Sequence[catalog.TaskSpec], official: OfficialLists | None
) -> dict[str, Assignment]:
    del official
    placed = _place(specs, MINI_PLACEMENTS, {})
    return {spec.name: placed.get(spec.name) or _train(spec) for spec in specs}


def _assign_opt_iml(
    specs: Sequence[catalog.TaskSpec], official: OfficialLists | None
) -> dict[str, Assignment]:
    del official
    result = _place(specs, PLACEMENTS, CATEGORY_EXCEPTIONS)
    evaluated = dict(EVALUATED_SOURCES)
    for spec in specs:
        if spec.name in result and result[spec.name].role != "excluded":
            for source in source_names(spec):
                evaluated.setdefault(source, spec.original_name)
    by_data: dict[str, str] = {}
    for source, task in evaluated.items():
        if source not in COLLECTIONS:
            by_data.setdefault(_data_of(source), task)
    return {spec.name: result.get(spec.name) or _train_or_leave(spec, by_data) for spec in specs}


def _assign_opt_iml_max(
    specs: Sequence[catalog.TaskSpec], official: OfficialLists | None
) -> dict[str, Assignment]:
    del official
    placed = _place(specs, SUITE_COPIES, {})
    return {spec.name: placed.get(spec.name) or _train(spec) for spec in specs}


def _train_or_leave(spec: catalog.TaskSpec, evaluated: Mapping[str, str]) -> Assignment:
    for source in source_names(spec):
        if (task := evaluated.get(_data_of(source))) is not None:
            alias = SAME_DATA.get(source)
            return Assignment(
                "excluded",
                "",
                f"shares the data of '{source}' with an evaluation task: {task}"
                + (f"; {alias[1]}" if alias else "")
                + " (OPT-IML §2.3)",
                spec.category,
            )
    return _train(spec)


def _data_of(source: str) -> str:
    return SAME_DATA.get(source, (source, ""))[0]


def _assign_official(
    specs: Sequence[catalog.TaskSpec], official: OfficialLists | None
) -> dict[str, Assignment]:
    """The benchmark's own lists; `partially_supervised` is empty, test categories are new ones."""
    if official is None:
        raise InputError(
            "split 'super_natural_instructions_official' needs the benchmark's split lists, and"
            " none were found. Give a data_dir with splits/default/{train,test}_tasks.txt, as in"
            " the official repository, or use split 'opt_iml'."
        )
    test = Assignment("test", "fully_held_out", "in the official test list")
    train = Assignment(
        "train",
        "fully_supervised",
        "in the official training list; its held-out instances are evaluated",
    )
    excluded = Assignment("excluded", "", "in the official excluded list")
    absent = Assignment("excluded", "", "in none of the official lists")
    lists = {
        **dict.fromkeys(official.excluded, excluded),
        **dict.fromkeys(official.train, train),
        **dict.fromkeys(official.test, test),
    }
    if specs and not any(spec.original_name in lists for spec in specs):
        raise InputError(
            f"{official.where}: none of the {len(specs)} tasks is in these lists (first task:"
            f" '{specs[0].original_name}'). Use the lists of the same release."
        )
    result = {
        spec.name: dataclasses.replace(
            lists.get(spec.original_name, absent), category=spec.category
        )
        for spec in specs
    }
    _check_disjoint_categories(specs, result, official.where)
    return result


def _check_disjoint_categories(
    specs: Sequence[catalog.TaskSpec], assignments: Mapping[str, Assignment], where: str
) -> None:
    """A test category that is trained on is not fully held out; the official one has none."""
    trained = {s.category: s for s in specs if assignments[s.name].role == "train"}
    for spec in specs:
        if assignments[spec.name].role == "test" and spec.category in trained:
            raise InputError(
                f"{where}: category '{spec.category}' is trained on"
                f" ('{trained[spec.category].original_name}') and tested"
                f" ('{spec.original_name}'), so the test task is not fully held out."
                " Move one of the two to excluded_tasks.txt."
            )


OPT_IML_SPLITS = ("opt_iml", "opt_iml_max")

SPLITS: Mapping[
    str, Callable[[Sequence[catalog.TaskSpec], OfficialLists | None], dict[str, Assignment]]
] = {
    "opt_iml": _assign_opt_iml,
    "opt_iml_max": _assign_opt_iml_max,
    "super_natural_instructions_official": _assign_official,
    "mini": _assign_mini,
}
