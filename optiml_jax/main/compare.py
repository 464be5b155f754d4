"""`optiml compare`: two evaluations of the same examples, their difference and its significance.

Neighbours: `eval.comparison` computes the tree, `eval.table` shows it; both are imported when the
command runs. No device and no model is needed: the samples of both evaluations are read.
"""

import argparse
import json
from typing import Any

from optiml_jax.main import flags

EXAMPLES = """
optiml compare runs/base/eval/sni/0 runs/tuned/eval/sni/3000
optiml compare out/base/results.json out/tuned/results.json --tasks
optiml compare out/base out/tuned --json
optiml compare out/first_100 out/all --common
"""


def register(subparsers: Any) -> None:
    """Adds the command's flags."""
    parser = flags.add_command(
        subparsers,
        "compare",
        run,
        summary="paired difference of two evaluations: scores, intervals, p-values",
        description=(
            "Compares two evaluations of the same examples, overall and by level and category:"
            " the difference of scores, its 95 % interval (paired bootstrap over tasks and"
            " instances) and a p-value (sign flips of the differences of instances). Both need"
            " results.json and, beside it, samples.jsonl; suite, split, shots and examples must be"
            " the same."
        ),
        examples=EXAMPLES,
    )
    for name, told in (("before", "the one to compare with"), ("after", "the other one")):
        parser.add_argument(
            name,
            metavar=name.upper(),
            help=f"{told}: a folder that `optiml eval` wrote, or the results.json in it",
        )
    parser.add_argument("--tasks", action="store_true", help="show every task, with adjusted p")
    parser.add_argument(
        "--common",
        action="store_true",
        help="compare the examples that both have, instead of refusing when some are missing",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def run(args: argparse.Namespace) -> int:
    """Prints the difference of two evaluations."""
    from optiml_jax.eval import comparison, table

    before, after = comparison.load(args.before), comparison.load(args.after)
    tree = comparison.compare(
        before.results,
        after.results,
        before.samples,
        after.samples,
        common=args.common,
        names=(before.folder, after.folder),
    )
    if args.json:
        print(json.dumps(tree, indent=1, ensure_ascii=False))
    else:
        table.show_comparison(tree, tasks=args.tasks)
    return 0
