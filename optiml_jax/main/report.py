"""`optiml report`: one evaluation, or two, as an HTML page that needs nothing but itself.

Neighbours: `eval.report` gathers what is shown, `eval.report_page` writes it. Here the store and
the mixture of a run are found through its config.gin.
"""

import argparse
import datetime
import pathlib
import platform
from typing import Any

import optiml_jax
from optiml_jax.errors import InputError
from optiml_jax.main import flags

EXAMPLES = """
optiml report out/after
optiml report out/before out/after --run=runs/tiny --out=report.html
optiml report out/before out/after --store=stores/sni --title='Tiny OPT, 300 steps'
"""

# Those that decide numbers.
PACKAGES = ("jax", "flax", "optax", "numpy", "rouge-score")


def register(subparsers: Any) -> None:
    """Adds the command's flags."""
    parser = flags.add_command(
        subparsers,
        "report",
        run,
        summary="an HTML page of one evaluation, or of two: before and after",
        description=(
            "Writes a page of scores by level, category and task with the samples behind them,"
            " learning curves and mixture shares. The file holds all it needs and asks the network"
            " for nothing."
        ),
        examples=EXAMPLES,
    )
    parser.add_argument(
        "evaluations",
        nargs="+",
        metavar="EVAL_DIR",
        help="a folder that `optiml eval` wrote; given two, the first is before, the second after",
    )
    parser.add_argument(
        "--run",
        dest="model_dir",
        metavar="MODEL_DIR",
        help="the run that made the model: adds its loss, its scores while training and its"
        " configuration",
    )
    parser.add_argument(
        "--store",
        metavar="STORE",
        help="shows the shares of its training mixture (default: the store of --run)",
    )
    parser.add_argument("--title", default="", help="of the page (default: the suite's name)")
    parser.add_argument("--out", metavar="FILE", help="default: report.html in the last EVAL_DIR")


def run(args: argparse.Namespace) -> int:
    """Gathers and writes the report."""
    from optiml_jax.eval import report, report_page

    if len(args.evaluations) > 2:
        raise InputError(
            f"{len(args.evaluations)} folders were given; a report shows one evaluation, or two:"
            " EVAL_DIR [EVAL_DIR]."
        )
    content = report.gather(
        args.evaluations,
        model_dir=args.model_dir,
        mixture=find_mixture(args.model_dir, args.store),
        title=args.title,
        made=provenance(args.command_line),
    )
    last = pathlib.Path(content["evaluations"][-1]["directory"])
    path = report_page.write(args.out or last / "report.html", content)
    num_tasks = sum(row["kind"] == "task" for row in content["rows"])
    num_samples = sum(len(task["rows"]) for task in content["samples"].values())
    print(
        f"{path}: {num_tasks:,} tasks, {num_samples:,} samples,"
        f" {path.stat().st_size / 2**20:.1f} MiB. Open it in a browser."
    )
    return 0


def find_mixture(model_dir: str | None, store: str | None) -> Any:
    """The shares of the mixture that a run or a store describes, as an `eval.report_run.Mixture`.

    A store that a run names but that is not here, or no longer fits, is told in the page; one that
    was asked for with --store must be right.
    """
    from optiml_jax.data import mixing
    from optiml_jax.eval import report_run

    name, spec, origin = None, mixing.MixtureSpec(), "its default rates"
    module, is_asked, length = None, store is not None, None
    if model_dir is not None and (pathlib.Path(model_dir) / report_run.CONFIG_NAME).is_file():
        config = pathlib.Path(model_dir) / report_run.CONFIG_NAME
        try:
            job = _read_job(config)
        except InputError as error:
            if store is None:
                note = f"Not known: {config} is not a configuration of this version ({error})"
                return report_run.Mixture(note=note)
        else:
            name, spec, origin = job.mixture_or_task_name, job.mixture, f"the rates of {config}"
            module, length = job.mixture_or_task_module, job.feature_length
            if store is None and not pathlib.Path(job.store).is_dir():
                note = f"Not known: the run's store '{job.store}' is not here; give --store=STORE."
                return report_run.Mixture(note=note)
            store = store or job.store
    if store is None:
        return report_run.Mixture()
    try:
        return _mixture_of(store, name, spec, module, origin, length)
    except InputError as error:
        if is_asked:
            raise
        return report_run.Mixture(note=f"Not known: {error}")


def _mixture_of(
    store: str, name: str | None, spec: Any, module: Any, origin: str, length: int | None
) -> Any:
    from optiml_jax.data import store as store_lib
    from optiml_jax.data import summary
    from optiml_jax.eval import report_run

    opened = store_lib.open_store(store)
    if module is not None and name in opened.mixtures:
        origin = "the rates that it was prepared with"
    elif module is not None and name is not None and name not in opened.names:
        note = f"Not known: '{name}' is a mixture of {module} that the store {store} does not hold."
        return report_run.Mixture(note=note)
    shown = name or opened.meta["mixture"]
    return report_run.Mixture(
        summary.mixture_shares(opened, name, spec, length),
        f"{shown} of the store {store}, {origin}.",
    )


def _read_job(config: pathlib.Path) -> Any:
    from optiml_jax.main import gin_config, train_job

    sources = gin_config.Sources(files=(str(config),))
    return gin_config.build(sources, "train", train_job.CONFIGURABLES).value


def provenance(command_line: str) -> dict[str, str]:
    """When, with what and how this report is made."""
    import importlib.metadata

    from optiml_jax.main import run_record

    now = datetime.datetime.now(datetime.UTC)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return {
        "Made": f"{now:%Y-%m-%d %H:%M} UTC",
        "by optiml_jax": optiml_jax.__version__,
        "commit": run_record.commit() or "unknown",
        "with": f"Python {platform.python_version()}, {versions}",
        "command": command_line,
    }
