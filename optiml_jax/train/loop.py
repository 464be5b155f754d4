"""The training loop: reads batches by position, steps, logs, saves, resumes, stops cleanly.

Everything that is not a pure function lives here: clock, files, signals, host indices. The loop
reads the device only when it logs, evaluates or saves. A run resumes by itself from the latest
checkpoint of its MODEL_DIR and goes on bit for bit: state, batch position and dropout are
functions of (seed, step). Reacting to a divergence other than by stopping is a guard's work.
"""

import contextlib
import dataclasses
import io
import math
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TextIO

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from optiml_jax import errors, types
from optiml_jax.model import partitioning
from optiml_jax.model.config import OptConfig
from optiml_jax.train import checkpoints as checkpointing
from optiml_jax.train import metrics_writer, progress
from optiml_jax.train import state as states
from optiml_jax.train import step as steps
from optiml_jax.train.checkpoints import Checkpoints, ModelCard
from optiml_jax.train.optimizer import OptimizerConfig

# How many steps may be under way on the device before the host waits.
MAX_STEPS_AHEAD = 2
# Seeds are 32 bits wide on the device.
MAX_SEED = 2**32


class Source(Protocol):
    """What the loop reads from.

    `batch(position)` gives this process's rows of the global batch `position` as NumPy arrays; it
    is a pure function. Two methods may be there too: `state(position)`, a JSON value saved with a
    checkpoint, and `restore(value)`, which is given it on resume (a cache: `batch` must not depend
    on it).
    """

    def batch(self, position: int, /) -> types.Batch:
        """The rows of one batch."""
        ...


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """A score taken now and then: `evaluate(params, step)` gives names and numbers."""

    name: str
    evaluate: Callable[[Any, int], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long a run is and how often it does what.

    Attributes:
        steps: updates from the run's beginning, resumed ones included.
        batch_size: rows of the global batch.
        seed: of parameters and dropout (data order is the source's); below 2**32.
        log_period: steps between lines; the first and last step are always logged.
        save_period: steps between checkpoints; 0 saves at the end only.
        eval_period: steps between evaluations; 0 evaluates at the end only.
        keep: checkpoints that stay; None keeps all.
        keep_period: multiples of this stay always.
    """

    steps: int
    batch_size: int
    seed: int = 0
    log_period: int = 10
    save_period: int = 1000
    eval_period: int = 0
    num_microbatches: int = 1
    keep: int | None = 3
    keep_period: int | None = None

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 1),
            ("batch_size", 1),
            ("seed", 0),
            ("log_period", 1),
            ("save_period", 0),
            ("eval_period", 0),
            ("num_microbatches", 1),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise errors.InputError(
                    f"training config: '{name}' is {value!r}, expected a whole number of at "
                    f"least {least}."
                )
        for name in ("keep", "keep_period"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and not (whole and value >= 1):
                raise errors.InputError(
                    f"training config: '{name}' is {value!r}, expected a whole number of at "
                    "least 1, or None."
                )
        if self.seed >= MAX_SEED:
            raise errors.InputError(
                f"training config: 'seed' is {self.seed}, expected less than 2**32 = {MAX_SEED}."
            )


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """Where a run ended, and the metrics of its last logged step."""

    step: int
    metrics: dict[str, float]
    model_dir: pathlib.Path


class Stopped(Exception):
    """A run that ended before its last step; `exit_code` is what the command line returns."""

    exit_code = 1

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class Preempted(Stopped):
    """SIGTERM arrived; a checkpoint of the current step is saved."""

    exit_code = 75


class Interrupted(Stopped):
    """Ctrl-C was pressed; a checkpoint of the current step is saved."""

    exit_code = 130


class Diverged(Stopped):
    """Loss or gradient is not finite; nothing was saved since."""

    exit_code = 3


def train(
    config: TrainConfig,
    model_config: OptConfig,
    optimizer_config: OptimizerConfig,
    mesh: Mesh,
    source: Source | Callable[[int], types.Batch],
    model_dir: str | os.PathLike,
    *,
    prompt_prefix: str = "",
    vocabulary_digest: str = "",
    save_vocabulary: Callable[[pathlib.Path], Any] | None = None,
    initial_params: Callable[[], Any] | None = None,
    evaluators: Sequence[Evaluator] = (),
    stream: TextIO | None = None,
) -> TrainResult:
    """Trains from the latest checkpoint of `model_dir`, or from the start, to `config.steps`.

    Args:
        source: has `batch(position)`, or is that function.
        initial_params: gives the parameters to start from (fine-tuning); not called on resume.
        stream: where progress is shown (default: standard error).

    Raises:
        InputError: config, mesh, MODEL_DIR or batch do not fit each other, or another process
            trains in MODEL_DIR.
        Preempted, Interrupted: stopped by a signal, after a checkpoint.
        Diverged: loss or gradient became NaN or infinite.
    """
    partitioning.check_divides(model_config, mesh, config.batch_size, config.num_microbatches)
    directory = checkpointing.prepare_model_dir(
        model_dir, ModelCard(model_config, prompt_prefix, vocabulary_digest), save_vocabulary
    )
    show = progress.Progress(config.steps, stream if jax.process_index() == 0 else _Nowhere())
    with (
        checkpointing.writing(directory),
        Checkpoints(directory, keep=config.keep, keep_period=config.keep_period) as saved,
        jax.set_mesh(mesh),
        _signals(show) as stop,
        contextlib.closing(show),
    ):
        state, position = _start(
            config, model_config, optimizer_config, mesh, source, saved, initial_params, show
        )
        run = _Run(config, mesh, source, directory, saved, evaluators, show, stop)
        train_step = steps.compile_train_step(
            model_config, optimizer_config, mesh, num_microbatches=config.num_microbatches
        )
        return run.go(train_step, state, position)


def _start(config, model_config, optimizer_config, mesh, source, saved, initial_params, show):
    """The state to go on from and its step."""
    step = saved.latest_step()
    rng = jax.random.fold_in(jax.random.key(config.seed), 0)
    if step is None:
        params = None if initial_params is None else initial_params()
        return states.make_state(model_config, optimizer_config, mesh, rng, params), 0
    metadata = saved.metadata(step, required=("seed", "batch_size"))
    for name in ("seed", "batch_size"):
        if metadata.get(name) != getattr(config, name):
            raise errors.InputError(
                f"{saved.directory}: step {step} was saved with {name}={metadata.get(name)}, this "
                f"run asks for {getattr(config, name)}; it would not be the same run. Use the "
                "saved value, or another MODEL_DIR."
            )
    state = saved.restore(states.abstract_state(model_config, optimizer_config, mesh), step)
    if metadata.get("source") is not None and hasattr(source, "restore"):
        source.restore(metadata["source"])
    show.message(f"resumed from step {step} ({saved.directory / str(step)})")
    clip_norm = float(state["controls"]["clip_norm"])
    if not math.isclose(clip_norm, optimizer_config.clip_norm, rel_tol=1e-6):
        show.message(
            f"clip norm {clip_norm:g} of the checkpoint stays (the config says "
            f"{optimizer_config.clip_norm:g}): controls belong to the run's state"
        )
    return state, step


class _Run:
    """One call of `train`: the loop's variables, so that its steps can be short functions."""

    def __init__(self, config, mesh, source, directory, saved, evaluators, show, stop):
        self.config = config
        self.source = source
        self.directory = directory
        self.saved = saved
        self.evaluators = evaluators
        self.show = show
        self.stop = stop
        self.sharding = partitioning.batch_sharding(mesh)
        self.next_batch = source.batch if hasattr(source, "batch") else source
        self.pending: list[tuple[int, dict[str, jax.Array]]] = []
        self.logged: dict[str, float] = {}
        self.clock = time.monotonic()
        self.tokens_since = 0.0
        self.steps_since = 0

    def go(self, train_step, state, step) -> TrainResult:
        """Steps until the end or a signal."""
        config = self.config
        if step >= config.steps:
            self.show.message(f"step {step} of {config.steps}: this run is complete already")
            return TrainResult(step, {}, self.directory)
        # 1 keeps dropout apart from the parameters' draw, which uses 0.
        rng = jax.random.fold_in(jax.random.key(config.seed), 1)
        with _writer(self.directory, step) as self.writer:
            batch = self._batch(step)
            while step < config.steps:
                state, metrics = train_step(state, batch, rng)
                step += 1
                self.pending.append((step, metrics))
                last = step == config.steps
                signal_name = self._signal(step)
                if not last and not signal_name:
                    # Read while the device works.
                    batch = self._batch(step)
                if len(self.pending) > MAX_STEPS_AHEAD:
                    jax.block_until_ready(self.pending[-1 - MAX_STEPS_AHEAD][1])
                log = step % config.log_period == 0 or step == 1 or last or signal_name
                save = (config.save_period and step % config.save_period == 0) or last
                evaluate = (config.eval_period and step % config.eval_period == 0) or last
                if log or save or evaluate:
                    self._drain(step, write=bool(log))
                if save or signal_name:
                    self._save(step, state)
                if signal_name:
                    self._leave(step, signal_name)
                if evaluate and self.evaluators:
                    self._evaluate(step, state)
            self.saved.wait()
        self.show.message(f"done: step {step}, loss {self.logged['loss']:.4f}, {self.directory}")
        return TrainResult(step, self.logged, self.directory)

    def _batch(self, position):
        """The global arrays of one batch, from this process's rows."""
        rows = self.next_batch(position)
        count = self.config.batch_size // jax.process_count()
        arrays = {}
        for name in types.BATCH_FIELDS:
            if name not in rows:
                raise errors.InputError(f"batch {position}: field '{name}' is missing.")
            local = np.asarray(rows[name])
            if local.ndim != 2 or local.shape[0] != count:
                raise errors.InputError(
                    f"batch {position}: '{name}' has shape {list(local.shape)}, expected {count} "
                    f"rows of this process (batch_size {self.config.batch_size} over "
                    f"{jax.process_count()} process(es))."
                )
            arrays[name] = jax.make_array_from_process_local_data(
                self.sharding, local, (self.config.batch_size, local.shape[1])
            )
        return arrays

    def _drain(self, step, write):
        """Reads the metrics of the steps under way, checks them, and logs the last."""
        values = jax.device_get([metrics for _, metrics in self.pending])
        for (at, _), metrics in zip(self.pending, values, strict=True):
            if not (np.isfinite(metrics["loss"]) and np.isfinite(metrics["grad_norm"])):
                raise Diverged(self._diverged(at, metrics), at)
        self.tokens_since += sum(float(metrics["tokens"]) for metrics in values)
        self.steps_since += len(values)
        self.pending.clear()
        if not write:
            return
        now = time.monotonic()
        seconds = max(now - self.clock, 1e-9)
        metrics = {name: value.item() for name, value in values[-1].items()}
        self.logged = {
            "loss": metrics["loss"],
            "learning_rate": metrics["learning_rate"],
            "grad_norm": metrics["grad_norm"],
            "tokens_per_second": self.tokens_since / seconds,
            "target_tokens": int(metrics["target_tokens"]),
            "tokens": int(metrics["tokens"]),
            "seconds": seconds,
        }
        self.writer.write(step, self.logged)
        # The first step's time is mostly compilation and says nothing about the rest.
        seconds_left = seconds / self.steps_since * (self.config.steps - step)
        self.show.update(
            step,
            self.logged["loss"],
            self.logged["tokens_per_second"],
            None if step == 1 else seconds_left,
        )
        self.clock, self.tokens_since, self.steps_since = now, 0.0, 0

    def _diverged(self, step, metrics):
        kept = self.saved.latest_step()
        return (
            f"step {step}: loss {float(metrics['loss'])} and gradient norm "
            f"{float(metrics['grad_norm'])}: training diverged and was stopped. "
            + (
                f"The last checkpoint, step {kept}, is from before."
                if kept is not None
                else "No checkpoint was saved before."
            )
            + " Lower the learning rate, warm up longer or clip harder, and start again."
        )

    def _save(self, step, state):
        config = self.config
        source_state = None
        if hasattr(self.source, "state"):
            source_state = self.source.state(step)
        self.saved.save(
            step,
            state,
            {
                "seed": config.seed,
                "batch_size": config.batch_size,
                "data_position": step,
                "source": source_state,
            },
        )

    def _evaluate(self, step, state):
        began = time.monotonic()
        for evaluator in self.evaluators:
            scores = evaluator.evaluate(state["policy"]["params"], step)
            self.writer.write_evaluation(
                step, {f"{evaluator.name}/{name}": value for name, value in scores.items()}
            )
            told = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
            self.show.message(f"step {step}: {evaluator.name}: {told}")
        # Evaluation is not training time.
        self.clock += time.monotonic() - began

    def _signal(self, step):
        """The signal to stop for, the same on every process at the same step."""
        if jax.process_count() == 1:
            return self.stop.name
        if step % self.config.log_period:
            return ""
        numbers = multihost_utils.process_allgather(np.int32(_SIGNALS.index(self.stop.name)))
        return _SIGNALS[int(np.max(numbers))]

    def _leave(self, step, signal_name):
        self.saved.wait()
        message = (
            f"{signal_name}: stopped after step {step} of {self.config.steps}; the checkpoint is "
            "saved. Start the same command again to go on from there."
        )
        raise (Interrupted if signal_name == "SIGINT" else Preempted)(message, step)


_SIGNALS = ("", "SIGINT", "SIGTERM")


@dataclasses.dataclass
class _Stop:
    """The signal that arrived, or an empty name."""

    name: str = ""


@contextlib.contextmanager
def _signals(show) -> Iterator[_Stop]:
    """Turns the first SIGINT or SIGTERM into a note; a second SIGINT stops at once."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number, frame):
        name = signal.Signals(number).name
        if stop.name and name == "SIGINT":
            raise KeyboardInterrupt
        stop.name = name
        show.message(f"{name}: finishing this step, then saving")

    earlier = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _writer(directory, step):
    """The metrics files, on the first process only."""
    if jax.process_index() == 0:
        return metrics_writer.MetricsWriter(directory, step)
    return _NoWriter()


class _NoWriter:
    """The writer of the processes that write nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None

    def write(self, step, values):
        """Writes nothing."""

    def write_evaluation(self, step, values):
        """Writes nothing."""


class _Nowhere(io.StringIO):
    """The stream of the processes that show nothing."""

    def write(self, text, /):
        """Drops the text."""
        return len(text)
