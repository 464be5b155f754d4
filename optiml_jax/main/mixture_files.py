"""Mixture files beside other gin files, and mixtures beside the store that they meet.

    check   refuses files of which one would undo another's mixture in silence
    notes   what a mixture assumes that does not hold for these tasks

Neighbours: `train` and `inspect` call both; `inspect_mixture` reads one such file alone.
"""

from collections.abc import Collection, Iterable
from pathlib import Path

from optiml_jax.bench import catalog_table
from optiml_jax.data import mixing, subsets
from optiml_jax.errors import InputError
from optiml_jax.main import gin_config

ROOT = "MixtureSpec"
PARTS = FOLDER, RUN_FOLDER = "mixtures", "runs"
OTHER_SHARES = {"proportions": "ingredients", "ingredients": "proportions"}
"""A benchmark has a share in one of the two."""


def check(config: gin_config.Sources) -> None:
    """Refuses a mixture file whose settings a later mixture or run file binds otherwise.

    Files of mixtures/ combine where they agree: tasks_16 and clusters_4 are 16 tasks of 4 clusters.
    Only this package's files are looked at: flags and files of one's own may change what they like.

    Raises:
        InputError: names the setting and both places.
    """
    bound: dict[tuple[str, str, str], gin_config.Statement] = {}
    for name in config.files:
        parent = gin_config.find_file(name, config.search_paths).resolve().parent
        folder = parent.name
        if parent.parent != gin_config.gin_folder().resolve() or folder not in PARTS:
            continue
        read = gin_config.read(gin_config.Sources((name,), config.search_paths))
        own = {one.key: one for one in read if one.selector == ROOT}
        for key, one in own.items():
            before = bound.get(key)
            if before is not None and before.value != one.value:
                raise InputError(
                    f"{one.where}: {one.shown} = {one.value!r} would undo {before.where}, which"
                    f" binds {before.value!r}. "
                    + (
                        "Give the mixture file behind the run file."
                        if folder == RUN_FOLDER
                        else "Mixture files combine only where they agree: give one of them, and"
                        " what the other changes as --gin.MixtureSpec.NAME=VALUE."
                    )
                )
        for (scope, root, field), one in own.items():
            before = bound.get((scope, root, OTHER_SHARES.get(field, "")))
            if before is None:
                continue
            if twice := sorted({*(one.value or ())} & {*(before.value or ())}):
                raise InputError(
                    f"{one.where}: {one.shown} names '{twice[0]}', which stands in {before.shown}"
                    f" of {before.where}. Mixture files combine only where they agree: give one of"
                    " them."
                )
        if folder == FOLDER:
            bound |= own


def notes(
    files: Iterable[str],
    spec: mixing.MixtureSpec,
    split: str,
    names: Collection[str],
    categories: Collection[str],
) -> list[str]:
    """What a user should know before these tasks are mixed so.

    Args:
        files: gin files of the mixture, as given.
        split: that placed the tasks.
        names: of the tasks that are drawn.
        categories: of the same.

    Example:
        "mixtures/opt_iml_max.gin is the mixture of the split 'opt_iml_max', but these tasks are
        placed by 'opt_iml', which says what trains."
    """
    told = [
        f"{file} is the mixture of the split '{Path(file).stem}', but these tasks are placed by"
        f" '{split}', which says what trains."
        for file in files
        if Path(file).stem in catalog_table.SPLITS and Path(file).stem != split
    ]
    for number, kind, always, present in (
        (spec.num_tasks, "tasks", subsets.ALWAYS_TASKS, names),
        (spec.num_clusters, "clusters", subsets.ALWAYS_CATEGORIES, categories),
    ):
        if number is not None and (absent := sorted(always.keys() - set(present))):
            told.append(
                f"every subset of {kind} is to hold {len(always)} that the fully supervised"
                f" evaluation needs (OPT-IML Table 15); {len(absent)} of them cannot be drawn"
                f" here: {', '.join(absent)}."
            )
    return told
