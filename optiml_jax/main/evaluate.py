"""`optiml eval`: a checkpoint and a store -> results.json, samples.jsonl and a table.

Neighbours: `eval_job` holds what gin configures and what is built from it; it imports JAX, so
it is imported when the command runs, not when help is asked for.
"""

import argparse
from typing import Any

from optiml_jax.main import flags

EXAMPLES = """
optiml eval --gin_file=models/opt_tiny.gin --gin_file=runs/eval.gin \\
    --gin.STORE="'stores/ni'" --gin.CHECKPOINT_PATH="'runs/tiny'" --gin.EVAL_OUTPUT_DIR="'out'"
optiml eval --gin_file=models/opt_tiny.gin --gin_file=runs/eval.gin \\
    --gin.STORE="'stores/ni'" --gin.CHECKPOINT_PATH="'runs/tiny/checkpoints/300'" \\
    --gin.EVAL_OUTPUT_DIR="'out'" --gin.SHOTS=5 --dry_run
"""


def register(subparsers: Any) -> None:
    """Adds the command's flags."""
    parser = flags.add_command(
        subparsers,
        "eval",
        run,
        summary="score a checkpoint on held-out tasks, at three levels of generalization",
        description=(
            "Scores a checkpoint on a store's evaluation records: rank classification where a"
            " task has options, greedy decoding elsewhere. Writes results.json and samples.jsonl"
            " to EVAL_OUTPUT_DIR and prints a table."
        ),
        examples=EXAMPLES,
        stopped="Answers so far are kept in EVAL_OUTPUT_DIR: start the same command again.",
    )
    flags.add_gin_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Builds the job from gin, and runs or shows it."""
    from optiml_jax.main import eval_job, gin_config

    config = gin_config.build(gin_config.sources(args), "evaluate", eval_job.CONFIGURABLES)
    parts = eval_job.resolve(config.value)
    if args.dry_run:
        print(eval_job.describe(config.value, parts))
        print(f"\n{config.text}")
        return 0
    return eval_job.run(config.value, parts, config.text, args.command_line)
