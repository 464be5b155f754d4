"""What a run tells a report: loss and scores by step, its configuration, and its mixture.

Neighbours: `report` puts it beside the evaluations. The shares of a mixture come from
`data.summary`; finding the run's store and mixture in its config.gin is `main`'s.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optiml_jax.data import summary
from optiml_jax.errors import InputError
from optiml_jax.eval import aggregation
from optiml_jax.train import metrics_writer

CONFIG_NAME = "config.gin"


@dataclasses.dataclass(frozen=True)
class Mixture:
    """What the model was trained on.

    Attributes:
        shares: rows of `data.summary.mixture_shares`; empty when they are not known.
        note: where they come from, or why they are not known.
    """

    shares: Sequence[summary.MixtureShare] = ()
    note: str = "No run and no store were given (--run, --store)."


def read_config(directory: pathlib.Path) -> dict[str, str] | None:
    """A folder's config.gin: its text, and what its first lines say of version, commit, command."""
    path = directory / CONFIG_NAME
    if not path.is_file():
        return None
    text = path.read_text("utf-8", errors="replace")
    told = {"optiml_jax": "", "commit": "", "command": ""}
    for line in text.splitlines():
        if not line.startswith("# "):
            break
        name, _, value = line[2:].partition(" ")
        if name in told:
            told[name] = value
    return {"text": text, **told}


def read_run(model_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """A run's loss by step, its scores while training by suite, and its configuration.

    Raises:
        InputError: the folder holds no run.
    """
    folder = pathlib.Path(model_dir)
    if not folder.is_dir():
        raise InputError(f"--run: MODEL_DIR '{folder}' does not exist.")
    config = read_config(folder)
    if config is None and not (folder / metrics_writer.METRICS_NAME).exists():
        raise InputError(
            f"--run: '{folder}' holds neither {CONFIG_NAME} nor {metrics_writer.METRICS_NAME}."
            " Give the MODEL_DIR of `optiml train`."
        )
    lines = metrics_writer.read_metrics(folder)
    loss = [[line["step"], line["loss"]] for line in lines if _is_number(line.get("loss"))]
    suites = {}
    for suite in sorted(path for path in folder.glob("eval/*") if path.is_dir()):
        found = [p for p in suite.glob(f"*/{aggregation.FILE_NAME}") if p.parent.name.isdigit()]
        trees = [aggregation.read_results(path) for path in found]
        points = [_point(tree) for tree in sorted(trees, key=lambda tree: tree["step"])]
        if points:
            suites[suite.name] = points
    return {"model_dir": str(folder), "config": config, "loss": loss, "suites": suites}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _point(tree: Mapping[str, Any]) -> dict[str, Any]:
    nodes = {"overall": tree["overall"], **tree["levels"]}
    fields = ("score", "ci", "n")
    place = {"suite": tree["suite"], "split": tree.get("split", ""), "shots": tree["shots"]}
    return {"step": tree["step"], **place} | {
        name: {field: node[field] for field in fields} for name, node in nodes.items()
    }


def summarize_mixture(shares: Sequence[summary.MixtureShare]) -> dict[str, list[dict[str, Any]]]:
    """Shares by benchmark and by category, the largest share of the examples first."""
    return {
        "benchmarks": _group(shares, lambda share: share.benchmark),
        "categories": _group(shares, lambda share: share.category),
    }


def _group(
    shares: Sequence[summary.MixtureShare], key: Callable[[summary.MixtureShare], str]
) -> list[dict[str, Any]]:
    groups: dict[str, list[summary.MixtureShare]] = {}
    for share in shares:
        groups.setdefault(key(share) or "(none)", []).append(share)
    rows = [
        {
            "name": name,
            "num_tasks": len(own),
            "num_examples": sum(share.num_examples for share in own),
            **{
                field: math.fsum(getattr(share, field) for share in own)
                for field in ("example_share", "token_share", "target_share")
            },
        }
        for name, own in groups.items()
    ]
    return sorted(rows, key=lambda row: (-row["example_share"], row["name"]))
