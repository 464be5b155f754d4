"""MODEL_DIR: what a run leaves on disk so that another can go on from it or read it.

    MODEL_DIR/model.json           what the model is: sizes, prompt prefix, vocabulary digest
    MODEL_DIR/vocabulary/          written by the caller's function, so that text can be read back
    MODEL_DIR/checkpoints/<step>/  Orbax; the state of `train/state.py`, and the loop's metadata
    MODEL_DIR/.lock                held by the process that trains

Arrays are written in the background while training goes on. A save that was killed leaves a
`*.orbax-checkpoint-tmp` folder, which is never read. Arrays carry no mesh: a checkpoint opens on
another mesh or on one device. Choosing *when* to save is the loop's work.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

from optiml_jax import errors
from optiml_jax.data import vocabularies
from optiml_jax.infer import arrays
from optiml_jax.model import decoder, partitioning
from optiml_jax.model.config import OptConfig
from optiml_jax.train.state import State

FORMAT = 1
CARD_NAME = "model.json"
HF_CONFIG_NAME = "config.json"
PathLike = str | os.PathLike


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What `model.json` says.

    Attributes:
        config: the run's config; only `config.architecture()` must agree between runs.
        prompt_prefix: text before every prompt: "</s>" for base and Hugging Face models, "" for
            models tuned here with document masks.
        vocabulary_digest: of the vocabulary the model was trained with.
    """

    config: OptConfig
    prompt_prefix: str = ""
    vocabulary_digest: str = ""

    def identity(self) -> dict[str, Any]:
        """What two runs in one MODEL_DIR must share."""
        return {
            **self.config.architecture(),
            "prompt_prefix": self.prompt_prefix,
            "vocabulary": self.vocabulary_digest,
        }

    def to_json(self) -> dict[str, Any]:
        """The content of `model.json`."""
        return {
            "format": FORMAT,
            "architecture": self.config.to_json(),
            "prompt_prefix": self.prompt_prefix,
            "vocabulary": self.vocabulary_digest,
        }


def read_card(model_dir: PathLike) -> ModelCard:
    """The card of a MODEL_DIR.

    Raises:
        InputError: no card there, a broken one, or one of a later format.
    """
    path = pathlib.Path(model_dir) / CARD_NAME
    try:
        values = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        not_one = f"{model_dir}: no {CARD_NAME} there, so this is not a model directory."
        if (pathlib.Path(model_dir) / HF_CONFIG_NAME).is_file():
            raise errors.InputError(
                f"{not_one} Its {HF_CONFIG_NAME} is a Hugging Face model's: run `optiml convert "
                f"--from_hf={model_dir} --out=DIR` and give DIR."
            ) from None
        guess = "" if pathlib.Path(model_dir).exists() else errors.near_path(model_dir)
        raise errors.InputError(
            f"{not_one}{guess} Give the MODEL_DIR of a training run (the folder that "
            "holds 'checkpoints')."
        ) from None
    except (OSError, ValueError) as error:
        raise errors.InputError(f"{path}: cannot be read ({error}). Restore the file.") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else type(values).__name__
        raise errors.InputError(
            f"{path}: format {found!r}, this version reads format {FORMAT}. Use the version of "
            "optiml_jax that wrote it."
        )
    for field in ("architecture", "prompt_prefix", "vocabulary"):
        if field not in values:
            raise errors.InputError(f"{path}: field '{field}' is missing. Restore the file.")
    return ModelCard(
        config=OptConfig.from_json(values["architecture"], str(path)),
        prompt_prefix=values["prompt_prefix"],
        vocabulary_digest=values["vocabulary"],
    )


def prepare_model_dir(
    model_dir: PathLike,
    card: ModelCard,
    save_vocabulary: Callable[[pathlib.Path], Any] | None = None,
) -> pathlib.Path:
    """Makes MODEL_DIR hold this model, or checks that it does already.

    Args:
        save_vocabulary: writes the vocabulary's files into the folder it is given; called when
            none are there, or when those there do not have the card's digest.

    Raises:
        InputError: it holds another model (the differing fields are named) or cannot be written.
    """
    directory = pathlib.Path(model_dir).absolute()
    if (directory / CARD_NAME).exists():
        theirs, ours = read_card(directory).identity(), card.identity()
        differing = [name for name in ours if ours[name] != theirs[name]]
        if differing:
            told = "; ".join(
                f"{name} is {theirs[name]!r} there and {ours[name]!r} here" for name in differing
            )
            raise errors.InputError(
                f"{directory}: holds another model: {told}. Choose another MODEL_DIR, or the "
                "model and vocabulary that this one was trained with."
            )
    elif (directory / "checkpoints").is_dir() and any((directory / "checkpoints").iterdir()):
        raise errors.InputError(
            f"{directory}: holds checkpoints but no {CARD_NAME}, so their model is unknown. "
            "Choose another MODEL_DIR, or restore the file."
        )
    if jax.process_index() == 0:
        try:
            _write_model_dir(directory, card, save_vocabulary)
        except OSError as error:
            raise errors.InputError(
                f"{directory}: MODEL_DIR cannot be written ({error.strerror or error}). Choose a "
                "folder that you may write to, with space left."
            ) from None
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("model directory")
    return directory


def _write_model_dir(directory, card, save_vocabulary):
    (directory / "checkpoints").mkdir(parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(13, "Permission denied")
    vocabulary = directory / "vocabulary"
    if save_vocabulary is not None and not _is_whole(vocabulary, card.vocabulary_digest):
        staged, damaged = directory / "vocabulary.tmp", directory / "vocabulary.damaged"
        for leftover in (staged, damaged):
            _remove(leftover)
        staged.mkdir()
        save_vocabulary(staged)
        if vocabulary.exists():
            vocabulary.rename(damaged)
        staged.rename(vocabulary)
        _remove(damaged)
    if not (directory / CARD_NAME).exists():
        staged = directory / (CARD_NAME + ".tmp")
        staged.write_text(json.dumps(card.to_json(), indent=2) + "\n")
        staged.rename(directory / CARD_NAME)


def _is_whole(vocabulary: pathlib.Path, digest: str) -> bool:
    """Whether the folder holds the vocabulary of this digest; any folder will do without one."""
    if not digest or not vocabulary.exists():
        return vocabulary.exists()
    try:
        found = vocabularies.load_vocabulary(vocabulary).digest
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # A file is missing, cut or altered.
    return found == digest and (vocabulary / vocabularies.SETTINGS_FILE).exists()


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(model_dir: PathLike) -> Iterator[None]:
    """Holds MODEL_DIR's lock (on the first process), so that two runs never write into one.

    Raises:
        InputError: another process holds it, or the folder cannot be locked.
    """
    if jax.process_index() != 0:
        yield
        return
    path = pathlib.Path(model_dir) / ".lock"
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(path.open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise errors.InputError(
                f"MODEL_DIR '{model_dir}' is being trained by another process. Wait for it, or "
                "choose another MODEL_DIR."
            ) from None
        except OSError as error:
            raise errors.InputError(
                f"{path}: MODEL_DIR cannot be locked ({error.strerror or error}). Choose a folder "
                "that you may write to, on a file system with locks."
            ) from None
        yield


def saved_steps(model_dir: PathLike) -> list[int]:
    """Steps of the finished checkpoints, ascending."""
    directory = pathlib.Path(model_dir) / "checkpoints"
    if not directory.is_dir():
        return []
    return sorted(
        int(entry.name) for entry in directory.iterdir() if entry.name.isdigit() and entry.is_dir()
    )


class Checkpoints:
    """The checkpoints of one MODEL_DIR, for the run that writes them. Close it, or use `with`.

    Args:
        keep: how many of the latest stay; None keeps all.
        keep_period: a step that is a multiple of this stays always.
    """

    def __init__(
        self, model_dir: PathLike, *, keep: int | None = 3, keep_period: int | None = None
    ) -> None:
        for name, value in (("keep", keep), ("keep_period", keep_period)):
            if value is not None and value < 1:
                raise errors.InputError(
                    f"checkpoints: '{name}' is {value}, expected at least 1, or None."
                )
        self.directory = pathlib.Path(model_dir).absolute() / "checkpoints"
        policies = ocp.training.preservation_policies
        keeps: list[Any] = [policies.LatestN(keep)] if keep else [policies.PreserveAll()]
        if keep_period:
            keeps.append(policies.EveryNSteps(keep_period))
        # Orbax declares a narrower protocol than its own policies satisfy.
        policy: Any = policies.AnyPreservationPolicy(keeps)
        self._checkpointer = ocp.training.Checkpointer(
            str(self.directory), preservation_policy=policy
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def latest_step(self) -> int | None:
        """The last finished step, or None."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, step: int, state: State, metadata: Mapping[str, Any]) -> None:
        """Starts a save in the background; an earlier one that still runs is waited for.

        Args:
            metadata: values of JSON; read back by `metadata`.
        """
        self._checkpointer.save_async(step, state, force=True, custom_metadata=dict(metadata))

    def restore(self, abstract_state: State, step: int | None = None) -> State:
        """The state at `step` (default: the latest), each array with its abstract sharding.

        Raises:
            InputError: no such step, or its arrays are not those of this run.
        """
        step = self._known(step)
        try:
            return self._checkpointer.load(step, abstract_state)
        except Exception as error:
            raise _unreadable(self.directory / str(step), error) from error

    def metadata(self, step: int | None = None, *, required: Sequence[str] = ()) -> dict[str, Any]:
        """What was given to `save` beside the state.

        Args:
            required: names without which the checkpoint counts as damaged.

        Raises:
            InputError: no such step, or it is damaged.
        """
        step = self._known(step)
        where = self.directory / str(step)
        try:
            found: Any = self._checkpointer.metadata(step).custom_metadata
        except Exception as error:
            raise _damaged(where, f"{type(error).__name__}: {_one_line(error)}") from error
        metadata = dict(found or {})
        missing = [name for name in required if name not in metadata]
        if missing:
            raise _damaged(where, f"its metadata lack {', '.join(missing)}")
        return metadata

    def wait(self) -> None:
        """Returns when nothing is being written any more; raises what went wrong."""
        self._checkpointer.wait()

    def close(self) -> None:
        """Waits and releases the writer's threads."""
        self._checkpointer.close()

    def _known(self, step: int | None) -> int:
        latest = self.latest_step()
        if latest is None:
            raise errors.InputError(f"{self.directory}: holds no finished checkpoint.")
        return latest if step is None else step


def load_params(
    path: PathLike,
    mesh: Mesh | None = None,
    *,
    step: int | None = None,
    rules: partitioning.LogicalRules | None = None,
    inference_dtype: str | None = None,
) -> tuple[ModelCard, dict[str, Any], int]:
    """The model of a MODEL_DIR, without its optimizer: for evaluation and as a start.

    Args:
        path: MODEL_DIR, or MODEL_DIR/checkpoints/<step>.
        mesh: where the parameters go; default: the first device.
        step: default: the latest.
        inference_dtype: weight matrices come in this dtype, cast while they are read, so that no
            device holds them in float32 first.

    Returns:
        The card, the parameters (float32 but for `inference_dtype`), the step they are of.

    Raises:
        InputError: no model there, no such step, or damaged arrays.
    """
    directory = pathlib.Path(path).absolute()
    if directory.parent.name == "checkpoints" and directory.name.isdigit():
        step = int(directory.name) if step is None else step
        directory = directory.parent.parent
    card = read_card(directory)
    steps = saved_steps(directory)
    if not steps or (step is not None and step not in steps):
        raise errors.InputError(
            f"{directory}: no finished checkpoint"
            + (f" of step {step}" if step is not None else "")
            + (f"; there are {', '.join(map(str, steps))}." if steps else ". Train first.")
        )
    step = steps[-1] if step is None else step
    config = card.config
    shapes = jax.eval_shape(lambda rng: decoder.init_params(config, rng), jax.random.key(0))
    dtypes = jax.tree.map(lambda leaf: leaf.dtype, shapes)
    if inference_dtype is not None:
        dtypes = arrays.held_dtypes(dataclasses.replace(config, dtype=inference_dtype), shapes)
    if mesh is None:
        one = SingleDeviceSharding(jax.local_devices()[0])
        shardings = jax.tree.map(lambda _: one, shapes)
    else:
        shardings = partitioning.shardings(mesh, decoder.logical_axes(config), rules)
    abstract = jax.tree.map(
        lambda leaf, dtype, at: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=at),
        shapes,
        dtypes,
        shardings,
    )
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    where = directory / "checkpoints" / str(step)
    try:
        with context:
            state = ocp.load(str(where), {"policy": {"params": abstract}})
    except Exception as error:
        raise _unreadable(where, error) from error
    return card, state["policy"]["params"], step


def _unreadable(where: pathlib.Path, error: BaseException) -> errors.InputError:
    while error.__cause__ is not None:
        error = error.__cause__
    return errors.InputError(
        f"{where}: this checkpoint cannot be read ({type(error).__name__}: {_one_line(error)}). If "
        "it is damaged, remove the folder to go on from an earlier one; if the optimizer or model "
        "changed, choose another MODEL_DIR."
    )


def _damaged(where: pathlib.Path, reason: str) -> errors.InputError:
    return errors.InputError(
        f"{where}: this checkpoint is damaged ({reason}). Delete that folder to go on from the "
        "checkpoint before it."
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
