"""`optiml demo`: the whole road on the embedded mini benchmark, in minutes on a CPU.

The demo does nothing that other commands do not: each stage is a command line, which is printed
before it runs in this process, so that a reader can repeat and change it. Every stage goes on where
it was stopped, and so does the demo.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from optiml_jax.errors import InputError
from optiml_jax.main import flags

EXAMPLES = """
optiml demo
optiml demo --quick
optiml demo --out=/tmp/optiml_demo
"""

STOPPED = "Start the same command again: what is done is kept, the rest goes on."

MODEL = "--gin_file=models/opt_demo.gin"
VOCAB_SIZE = 1024


@dataclasses.dataclass(frozen=True)
class Size:
    """How much the demo computes.

    Attributes:
        pretrain_steps: on plain text.
        tune_steps: on instructions.
        eval_examples: of each task, before and after.
        curve_points: evaluations while tuning.
        curve_examples: of each task in those.
    """

    pretrain_steps: int
    tune_steps: int
    eval_examples: int
    curve_points: int
    curve_examples: int


FULL = Size(1000, 1300, 20, 4, 3)
QUICK = Size(60, 60, 2, 1, 1)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One command of the demo."""

    title: str
    command: Sequence[str]


def register(subparsers: Any) -> None:
    """Adds the command's flags."""
    parser = flags.add_command(
        subparsers,
        "demo",
        run,
        summary="the whole road on the embedded mini benchmark: minutes on a CPU, ends in a report",
        description=(
            "Prepares the embedded mini benchmark, pre-trains a tiny OPT on plain text, evaluates"
            " it, tunes it on instructions, evaluates it again, compares, and writes report.html."
            " Needs no data, no network and no accelerator. Start it again to go on."
        ),
        examples=EXAMPLES,
        stopped=STOPPED,
    )
    parser.add_argument(
        "--out",
        default="optiml_demo",
        metavar="DIR",
        help="folder of the demo (default: %(default)s)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a minute: shows the road, the model learns little"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the stages one after another; returns the exit code of the first that fails, or 0."""
    from optiml_jax.main import cli

    began = time.monotonic()
    folder = pathlib.Path(args.out)
    size = QUICK if args.quick else FULL
    _check_folder(folder, size)
    planned = stages(folder, size)
    for number, stage in enumerate(planned, start=1):
        minutes = (time.monotonic() - began) / 60
        print(f"\n[{number}/{len(planned)}] {stage.title}  ({minutes:.1f} min so far)")
        print(f"{shown(stage.command)}\n", flush=True)
        code = cli.main(stage.command)
        if code:
            # The command has told why, and how it goes on by itself.
            print(
                f"optiml demo: stopped in stage {number} of {len(planned)}. To go on:"
                f" {args.command_line}",
                file=sys.stderr,
            )
            return code
    _conclude(folder, time.monotonic() - began, args.quick)
    return 0


def shown(command: Sequence[str]) -> str:
    """A command as one would type it, broken into lines of about 96 characters."""
    lines, line = [], "    optiml"
    for word in flags.shell_words(command):
        if len(line) + 1 + len(word) > 94:
            lines.append(f"{line} \\")
            line = "       "
        line += f" {word}"
    return "\n".join([*lines, line])


def stages(folder: pathlib.Path, size: Size) -> list[Stage]:
    """The commands of the demo, in their order."""
    store, base, tuned = folder / "store", folder / "base", folder / "tuned"
    before, after = folder / "before", folder / "after"
    common = (f"--gin.STORE={str(store)!r}", f"--gin.VOCAB_SIZE={VOCAB_SIZE}")
    roles = "--gin.train.eval_roles=('train', 'validation', 'test')"

    def evaluate(model: pathlib.Path, out: pathlib.Path) -> tuple[str, ...]:
        return (
            *("eval", MODEL, "--gin_file=runs/eval.gin", *common),
            f"--gin.CHECKPOINT_PATH={str(model)!r}",
            f"--gin.EVAL_OUTPUT_DIR={str(out)!r}",
            f"--gin.EVAL_EXAMPLES={size.eval_examples}",
        )

    return [
        Stage(
            "prepare: about 200 generated tasks, rendered and tokenized once",
            (
                *("prepare", "mini", f"--out={store}"),
                *("--vocabulary=small", f"--vocab_size={VOCAB_SIZE}"),
            ),
        ),
        Stage(
            "pre-train a tiny OPT on plain text",
            (
                *("train", MODEL, "--gin_file=runs/pretrain.gin", *common),
                f"--gin.MODEL_DIR={str(base)!r}",
                "--gin.MIXTURE_OR_TASK_NAME='replay'",
                "--gin.DROPOUT_RATE=0.0",
                *_length(size.pretrain_steps),
                "--gin.LOG_PERIOD=20",
                "--gin.SAVE_PERIOD=200",
            ),
        ),
        Stage("evaluate it before tuning", evaluate(base, before)),
        Stage(
            "tune it on instructions",
            (
                *("train", MODEL, "--gin_file=runs/finetune.gin"),
                *("--gin_file=mixtures/mini.gin", *common),
                f"--gin.MODEL_DIR={str(tuned)!r}",
                f"--gin.INITIAL_CHECKPOINT_PATH={str(base)!r}",
                "--gin.DROPOUT_RATE=0.0",
                *_length(size.tune_steps),
                "--gin.LOG_PERIOD=20",
                "--gin.SAVE_PERIOD=250",
                f"--gin.EVAL_PERIOD={size.tune_steps // size.curve_points}",
                f"--gin.EVAL_EXAMPLES={size.curve_examples}",
                roles,
            ),
        ),
        Stage("evaluate it after tuning", evaluate(tuned, after)),
        Stage("compare", ("compare", str(before), str(after))),
        Stage(
            "write the report",
            (
                *("report", str(before), str(after), f"--run={tuned}"),
                f"--out={folder / 'report.html'}",
                "--title=OPT-IML in minutes, on the mini benchmark",
            ),
        ),
    ]


def _length(steps: int) -> tuple[str, str]:
    return f"--gin.TRAIN_STEPS={steps}", f"--gin.WARMUP_STEPS={min(30, steps // 2)}"


def _check_folder(folder: pathlib.Path, size: Size) -> None:
    """Refuses a folder that holds something else, or a demo of another size."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out '{folder}' is a file, expected a folder for the demo.")
    ours = {"store", "base", "tuned", "before", "after", "report.html", "demo.json"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Names with a dot in front: what a killed stage left, or a file manager's.
        names = sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
        foreign = [name for name in names if name not in ours]
        if foreign:
            raise InputError(
                f"--out '{folder}' holds '{foreign[0]}', which is not of a demo. Give a new folder."
            )
        _check_size(folder / "demo.json", size)
    except OSError as error:
        raise InputError(
            f"--out '{folder}' cannot be written ({error.strerror}). Choose a folder that you may"
            " write to."
        ) from error


def _check_size(path: pathlib.Path, size: Size) -> None:
    wanted = json.dumps(dataclasses.asdict(size))
    if not path.exists():
        staged = path.with_name(f".{path.name}")
        staged.write_text(wanted + "\n", "utf-8")
        staged.replace(path)
    elif path.read_text("utf-8").strip() != wanted:
        raise InputError(
            f"--out '{path.parent}' holds a demo of another size (with or without --quick). Go on"
            " with that one, or give another --out."
        )


def _conclude(folder: pathlib.Path, seconds: float, quick: bool) -> None:
    """Prints the three levels before and after, what was written, and what to try next."""
    from optiml_jax.eval import aggregation, baselines

    before = aggregation.read_results(folder / "before")
    after = aggregation.read_results(folder / "after")
    print(f"\nDone in {seconds / 60:.1f} minutes.\n")
    for line in level_table(before, after, baselines.best_baseline):
        print(line)
    if quick:
        print(
            "\nThese few steps teach the form of answers, not the answers; and with two answers a"
            "\ntask the majority, counted on them, is flattered. `optiml demo` trains long enough"
            "\nto rise above the baselines, and asks ten times as much."
        )
    store = folder / "store"
    print(f"""
Open {folder / "report.html"} in a browser: every score, the samples behind it, learning curves.
The models are in {folder / "base"} and {folder / "tuned"}, their answers in {folder / "before"}
and {folder / "after"}.

Try next:
  optiml inspect --store={store} --samples=2 --category=Reasoning
  optiml inspect --store={store} --mixture
  optiml compare {folder / "before"} {folder / "after"} --tasks
  optiml prepare super_natural_instructions --data_dir=DIR --out=STORE
or one of the commands above, changed: they are all that the demo did.""")


def level_table(before: Mapping[str, Any], after: Mapping[str, Any], best: Any) -> list[str]:
    """Lines of a table: each level before tuning, best model-free baseline, after tuning.

    Args:
        best: node of results -> (name, node) of its best baseline, or None.
    """
    rows = [("", "before tuning", "best baseline", "after tuning")]
    for level, node in [("overall", after["overall"]), *after["levels"].items()]:
        earlier = before["overall"] if level == "overall" else before["levels"].get(level)
        found = best(node)
        baseline = f"{_score(found[1])} {found[0]}" if found else "-"
        rows.append((level, _score(earlier) if earlier else "-", baseline, _score(node)))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    ]


def _score(node: Mapping[str, Any]) -> str:
    if node["ci"] is None:
        return f"{node['score']:.1f}"
    return f"{node['score']:.1f} [{node['ci'][0]:.1f}, {node['ci'][1]:.1f}]"
