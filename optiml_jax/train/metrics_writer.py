"""Numbers of a run on disk: `metrics.jsonl` for scripts, TensorBoard's files for people.

One object a logged step, floats at full precision. A run that resumes at step N drops what an
earlier life of it wrote beyond N, so that the curve has one value a step; a line torn by a crash
is dropped too.
"""

import json
import os
import pathlib
from collections.abc import Mapping

import tensorboardX

METRICS_NAME = "metrics.jsonl"


class MetricsWriter:
    """Appends to MODEL_DIR/metrics.jsonl and MODEL_DIR/tensorboard/. Close it, or use `with`.

    Args:
        step: the step the run starts from; later lines of an earlier run are dropped.
    """

    def __init__(self, model_dir: str | os.PathLike, step: int) -> None:
        directory = pathlib.Path(model_dir)
        path = directory / METRICS_NAME
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
            staged = path.with_suffix(".tmp")
            staged.write_text("".join(line + "\n" for line in kept))
            staged.replace(path)
        # Line buffered: another process reads the file while the run goes on.
        self._lines = path.open("a", buffering=1)
        self._tensorboard = tensorboardX.SummaryWriter(
            str(directory / "tensorboard"), purge_step=step + 1, write_to_disk=True
        )

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the line {"step": step, **values}, and the same to TensorBoard under train/."""
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._scalars(step, {f"train/{name}": value for name, value in values.items()})

    def write_evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Adds an evaluation's scores to TensorBoard under eval/ (files are the evaluator's)."""
        self._scalars(step, {f"eval/{name}": value for name, value in values.items()})

    def close(self) -> None:
        """Flushes and closes both."""
        self._lines.close()
        self._tensorboard.close()

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, step)


def read_metrics(model_dir: str | os.PathLike) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl, torn ones left out."""
    path = pathlib.Path(model_dir) / METRICS_NAME
    lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if _step_of(line) < float("inf")]


def _step_of(line: str) -> float:
    """The step of a line; infinity for one that is torn."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
