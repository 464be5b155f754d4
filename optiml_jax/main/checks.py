"""Whether a store, a checkpoint and a configured model belong together.

Neighbours: `train_job` and `eval_job` ask before a device computes or a file is written.
"""

import pathlib
from collections.abc import Mapping, Sequence

from optiml_jax import errors
from optiml_jax.data import vocabularies
from optiml_jax.errors import InputError
from optiml_jax.model.config import OptConfig
from optiml_jax.train import checkpoints


def model_dir_of(path: str) -> pathlib.Path:
    """MODEL_DIR of a path to it, or to one of its checkpoints."""
    folder = pathlib.Path(path).absolute()
    return folder.parent.parent if folder.parent.name == "checkpoints" else folder


def read_checkpoint(path: str) -> tuple[checkpoints.ModelCard, int]:
    """The card and the step of a checkpoint, without its arrays.

    Raises:
        InputError: no model directory there, or no such checkpoint in it.
    """
    folder = model_dir_of(path)
    card = checkpoints.read_card(folder)
    steps = checkpoints.saved_steps(folder)
    name = pathlib.Path(path).absolute().name
    wanted = int(name) if folder != pathlib.Path(path).absolute() and name.isdigit() else None
    if not steps or (wanted is not None and wanted not in steps):
        found = f"there are {', '.join(map(str, steps))}" if steps else "train first"
        raise InputError(
            f"checkpoint '{path}': no finished checkpoint"
            f"{'' if wanted is None else f' of step {wanted}'}; {found}."
        )
    return card, steps[-1] if wanted is None else wanted


def check_vocabulary(model: OptConfig, vocabulary: vocabularies.Vocabulary, where: str) -> None:
    """Raises InputError unless the model has one embedding row per id of the vocabulary."""
    if model.vocab_size != vocabulary.size:
        raise InputError(
            f"{where}: its vocabulary '{vocabulary.name}' has {vocabulary.size} ids, the model has "
            f"vocab_size {model.vocab_size}. Set --gin.VOCAB_SIZE={vocabulary.size}, or prepare "
            "the store with the model's vocabulary."
        )


def check_same_model(model: OptConfig, card: checkpoints.ModelCard, where: str) -> None:
    """Raises InputError unless the configured model is the one of a checkpoint."""
    ours, theirs = model.architecture(), card.config.architecture()
    differing = [name for name in ours if ours[name] != theirs[name]]
    if differing:
        told = "; ".join(
            f"{name} is {theirs[name]} there, {ours[name]} configured" for name in differing
        )
        raise InputError(
            f"checkpoint '{where}': holds another model: {told}. Give the --gin_file of the model "
            "that it was trained with, and its VOCAB_SIZE."
        )


def check_same_vocabulary(
    vocabulary: vocabularies.Vocabulary, card: checkpoints.ModelCard, where: str, store: str
) -> None:
    """Raises InputError unless the store's ids mean what the checkpoint learned."""
    if card.vocabulary_digest and card.vocabulary_digest != vocabulary.digest:
        raise InputError(
            f"checkpoint '{where}': was trained with another vocabulary (digest "
            f"{card.vocabulary_digest[:12]}) than store '{store}' holds "
            f"({vocabulary.name}, {vocabulary.digest[:12]}). Prepare a store with "
            f"--vocabulary={model_dir_of(where) / 'vocabulary'}."
        )


def check_paths(paths: Mapping[str, str | None]) -> None:
    """Raises InputError where a path is empty text, which would stand for the working directory.

    Args:
        paths: macro -> its value; None is none at all.
    """
    for macro, path in paths.items():
        if path is not None and not path.strip():
            raise InputError(f"{macro} is {path!r}, expected the name of a folder.")


def check_roles(roles: Sequence[str], known: Sequence[str]) -> None:
    """Raises InputError unless `roles` is a list of known roles."""
    if not isinstance(roles, list | tuple) or not roles:
        raise InputError(f"ROLES is {roles!r}, expected a list such as {list(known)}.")
    for role in roles:
        if role not in known:
            raise errors.unknown("role", str(role), known, "ROLES")


def check_rules(rules: object) -> None:
    """Raises InputError unless `rules` maps names to something; `use_rules` knows which names."""
    if rules is None or (isinstance(rules, Mapping) and all(isinstance(one, str) for one in rules)):
        return
    raise InputError(
        f"LOGICAL_AXIS_RULES is {rules!r}, expected {{logical axis: mesh axis}}, for example "
        "{'residual_length': 'model'}, or {} for the default rules."
    )
