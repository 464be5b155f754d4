"""`optiml train`: a store and gin files -> a run with checkpoints.

Neighbours: `train_job` holds what gin configures and what is built from it; it imports JAX, so
it is imported when the command runs, not when help is asked for.
"""

import argparse
import sys
from typing import Any

from optiml_jax.main import flags

EXAMPLES = """
optiml train --gin_file=models/opt_tiny.gin --gin_file=runs/finetune.gin \\
    --gin.STORE="'stores/ni'" --gin.MODEL_DIR="'runs/tiny'" --gin.TRAIN_STEPS=300
optiml train --gin_file=models/opt_tiny.gin --gin_file=runs/finetune.gin \\
    --gin.STORE="'stores/ni'" --gin.MODEL_DIR="'runs/tiny'" --dry_run
optiml train --gin_file=runs/tiny/config.gin --gin.TRAIN_STEPS=600
"""

STOPPED = "Start the same command again to go on from the last checkpoint in MODEL_DIR."


def register(subparsers: Any) -> None:
    """Adds the command's flags."""
    parser = flags.add_command(
        subparsers,
        "train",
        run,
        summary="train a model on a store: pre-training or instruction tuning",
        description=(
            "Trains on a prepared store. A run is a model file and a run file, changed by flags;"
            " the configuration in force is written to MODEL_DIR/config.gin. The same command"
            " goes on from the last checkpoint."
        ),
        examples=EXAMPLES,
        stopped=STOPPED,
    )
    flags.add_gin_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Builds the job from gin, and runs or shows it."""
    from optiml_jax.main import gin_config, mixture_files, train_job

    sources = gin_config.sources(args)
    gin_config.make_known(train_job.CONFIGURABLES)
    mixture_files.check(sources)
    config = gin_config.build(sources, "train", train_job.CONFIGURABLES)
    parts = train_job.resolve(config.value)
    for note in train_job.notes(config.value, parts, sources.files):
        print(f"note: {note}", file=sys.stderr)
    if args.dry_run:
        print(train_job.describe(config.value, parts))
        print(f"\n{config.text}")
        return 0
    return train_job.run(config.value, parts, config.text, args.command_line)
