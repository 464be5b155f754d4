"""What the leakage check found, as one JSON object: pairs, verdicts, removals with reasons.

A verdict says what is known of a pair beyond its counts; the first that applies:

    left_out           the evaluated store's split does not train on the task (--against)
    same_task          the held-out part of a training task beside that task itself
    same_data_set      both name one data set, or data that `splits.SAME_DATA` knows as the same
    same_collection    both name a collection of unrelated data sets (`splits.COLLECTIONS`)
    instances          more bare instances overlap than the threshold allows: look at it
    too_short          so many instances are too short to compare that nobody knows
    wording            only instructions or templates overlap

Neighbours: `leakage` runs the check, `leakage_page` shows this object in a browser.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from optiml_jax.bench import leakage, leakage_minhash, splits
from optiml_jax.data import store as store_lib
from optiml_jax.data import vocabularies
from optiml_jax.main import show

VERDICTS = {
    "left_out": "not trained on under the evaluated store's split",
    "same_task": "held-out part of the training task itself",
    "same_data_set": "one data set",
    "same_collection": "one collection of unrelated data sets",
    "instances": "instances overlap: look at it",
    "too_short": "wording overlaps, instances are too short to compare",
    "wording": "only wording overlaps",
}
EVALUATED_ROLES = ("validation", "test")


@dataclasses.dataclass(frozen=True)
class Found:
    """What was compared and what came out.

    Attributes:
        store: that trains.
        against: that is evaluated; the same where nothing else was asked for.
        not_compared: evaluation tasks that were asked for and lack the view.
        settings: of the check, as they stand in the JSON.
        duplicates: None where they were not asked for.
    """

    store: store_lib.Store
    against: store_lib.Store
    train: Sequence[store_lib.StoredTask]
    evaluation: Sequence[store_lib.StoredTask]
    not_compared: Sequence[store_lib.StoredTask]
    settings: Mapping[str, Any]
    counted: leakage.Counted
    duplicates: Sequence[leakage_minhash.NearDuplicates] | None = None


def gather(found: Found) -> dict[str, Any]:
    """The content of leakage.json."""
    pairs = _pairs(found)
    listed = [pair for pair in pairs if _is_listed(pair, found.settings)]
    listed.sort(key=lambda p: (-p["bare_fraction"], -p["fraction"], p["train"], p["eval"]))
    excluded = [
        {"task": task.name, "category": task.spec.category, "reason": task.reason}
        for task in found.store.tasks
        if task.role == "excluded"
    ]
    return {
        "schema": 1,
        "store": str(found.store.path),
        "against": str(found.against.path),
        "split": found.store.meta["split"],
        **found.settings,
        "num_train_tasks": len(found.train),
        "num_eval_tasks": len(found.evaluation),
        "num_train_examples": found.counted.num_train,
        "num_eval_examples": sum(found.counted.num_eval.values()),
        "num_eval_grams": found.counted.num_grams,
        "num_false_hits": found.counted.num_false_hits,
        "num_pairs": len(found.train) * len(found.evaluation),
        "num_overlapping_pairs": sum(one.count > 0 for one in found.counted.overlaps),
        "num_whole": sum(found.counted.num_whole.values()),
        "num_too_short": sum(found.counted.num_too_short.values()),
        "short_eval_tasks": _short(found.counted),
        "not_compared": [
            {"task": task.name, "views": eval_views_of(task)} for task in found.not_compared
        ],
        "num_listed_pairs": len(listed),
        "verdicts": {name: sum(pair["verdict"] == name for pair in listed) for name in VERDICTS},
        "pairs": listed,
        "suggested": suggested(listed, found.settings),
        "excluded": excluded,
    }


def eval_views_of(task: store_lib.StoredTask) -> list[str]:
    """The evaluation views that have records of a task."""
    return sorted(view for view in task.places if view.startswith("eval_"))


def _short(counted: leakage.Counted) -> list[dict[str, Any]]:
    """Evaluation tasks with instances of fewer than n units, by name."""
    return [
        {
            "task": task,
            "num_eval": counted.num_eval[task],
            "num_whole": counted.num_whole[task],
            "num_too_short": counted.num_too_short[task],
        }
        for task in sorted(counted.num_eval)
        if counted.num_whole[task] or counted.num_too_short[task]
    ]


def _pairs(found: Found) -> list[dict[str, Any]]:
    """Every pair with any overlap, or with a near-duplicate."""
    near = {(one.train, one.eval): one for one in found.duplicates or ()}
    counted = {(one.train, one.eval): one for one in found.counted.overlaps}
    vocabulary = found.store.vocabulary() if found.settings["unit"] == "tokens" else None
    made = []
    for train, evaluation in sorted({*near, *counted}):
        one = counted.get((train, evaluation)) or leakage.Overlap(train, evaluation, 0, 0, 0)
        ours, theirs = found.store.by_name[train], found.against.by_name[evaluation]
        total = found.counted.num_eval[evaluation]
        pair = {
            "train": train,
            "eval": evaluation,
            "num_eval": total,
            "count": one.count,
            "fraction": one.count / total,
            "bare_count": one.bare_count,
            "bare_fraction": one.bare_count / total,
            "num_whole": found.counted.num_whole[evaluation],
            "num_too_short": found.counted.num_too_short[evaluation],
            "grams_per_example": one.num_grams / max(one.count, 1),
            "train_category": ours.spec.category,
            "eval_category": theirs.spec.category,
            "eval_level": theirs.level,
            "eval_role": theirs.role,
            "train_sources": list(ours.spec.sources),
            "eval_sources": list(theirs.spec.sources),
            "shared": _shared(one.shared, vocabulary),
        }
        if found.duplicates is not None:
            copy = near.get((train, evaluation))
            pair["near_duplicates"] = copy.count if copy else 0
            pair["near_duplicate_fraction"] = pair["near_duplicates"] / total
            pair["near_duplicate"] = copy and {
                "jaccard": copy.jaccard,
                "train_example": copy.train_label,
                "eval_example": copy.eval_label,
            }
        pair["verdict"] = _verdict(pair, ours, theirs, found)
        made.append(pair)
    return made


def _shared(
    one: leakage.Shared | None, vocabulary: vocabularies.Vocabulary | None
) -> dict[str, str] | None:
    """The shared gram as text; its units are token ids where a vocabulary is given."""
    if one is None:
        return None
    gram = " ".join(one.gram) if vocabulary is None else vocabulary.decode(one.gram).strip()
    return {"gram": gram, "train_example": one.train_label, "eval_example": one.eval_label}


def _is_listed(pair: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    # A whole short input may be shared where no gram is.
    most = max(pair["bare_fraction"], pair.get("near_duplicate_fraction", 0.0))
    if not settings["inputs_only"]:
        most = max(most, pair["fraction"])
    return most > settings["threshold"]


def _verdict(
    pair: Mapping[str, Any],
    ours: store_lib.StoredTask,
    theirs: store_lib.StoredTask,
    found: Found,
) -> str:
    there = found.against.by_name.get(ours.name)
    if there is not None and there.role != "train":
        return "left_out"
    if ours.name == theirs.name:
        return "same_task"
    common = data_of(ours) & data_of(theirs)
    if common - set(splits.COLLECTIONS):
        return "same_data_set"
    if common:
        return "same_collection"
    most = max(pair["bare_fraction"], pair.get("near_duplicate_fraction", 0.0))
    if most > found.settings["threshold"]:
        return "instances"
    unknown = pair["num_too_short"] / pair["num_eval"]
    return "too_short" if most + unknown > found.settings["threshold"] else "wording"


def data_of(task: store_lib.StoredTask) -> set[str]:
    """A task's data sets, by the names that stand for their data."""
    names = splits.source_names(task.spec)
    return {splits.SAME_DATA.get(name, (name, ""))[0] for name in names}


def suggested(
    pairs: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Training tasks that a person should look at, those that touch most first, with reasons.

    Those whose instances, not only wording, overlap with a validation or test task. The paper
    keeps pairs that share no more than a broad source such as Wikipedia, which no count tells.
    """
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for pair in pairs:
        most = max(pair["bare_fraction"], pair.get("near_duplicate_fraction", 0.0))
        is_known = pair["verdict"] in ("same_task", "left_out")
        if most > settings["threshold"] and pair["eval_role"] in EVALUATED_ROLES and not is_known:
            by_task.setdefault(pair["train"], []).append(pair)
    made = [
        {"task": task, "evaluation_tasks": [p["eval"] for p in own], "reason": _reason(own)}
        for task, own in by_task.items()
    ]
    return sorted(made, key=lambda row: (-len(row["evaluation_tasks"]), row["task"]))


def _reason(pairs: Sequence[Mapping[str, Any]]) -> str:
    worst = max(pairs, key=lambda p: (p["bare_fraction"], p.get("near_duplicate_fraction", 0.0)))
    count, is_one = worst["bare_count"], worst["bare_count"] == 1
    told = f"{count:,} of {worst['num_eval']:,} instances of {worst['eval']}"
    told += f" share{'s' * is_one} a gram"
    if worst["num_whole"]:
        told += f" or {'its' if is_one else 'their'} whole short input"
    told += " with it"
    if near := worst.get("near_duplicates"):
        told += f", {near:,} {'is a near-duplicate' if near == 1 else 'are near-duplicates'}"
    if worst["verdict"] == "same_data_set":
        told += f"; both are made of {', '.join(worst['eval_sources'])}"
    more = len(pairs) - 1
    return told + (f"; and {show.count_of(more, 'more evaluation task')}" if more else "")
