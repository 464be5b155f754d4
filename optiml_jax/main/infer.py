"""`optiml infer`: rows of prompts -> rows with continuations, or with chosen options.

Neighbours: `infer_job` does the work and imports JAX, so it is imported when the command runs;
`decoding_flags` holds the flags that `generate` has too.
"""

import argparse
from typing import Any

from optiml_jax.main import decoding_flags, flags

EXAMPLES = """
optiml infer --checkpoint=runs/tiny --input=prompts.jsonl --output=answers.jsonl
optiml infer --checkpoint=runs/tiny/checkpoints/300 --input=prompts.jsonl \\
    --output=answers.jsonl --temperature=0.8 --top_p=0.95 --seed=1 --stop='\\n'
optiml infer --checkpoint=runs/tiny --input=prompts.jsonl --output=answers.jsonl \\
    --num_beams=4 --num_return_sequences=2
optiml infer --checkpoint=runs/tiny --input=- --output=- > answers.jsonl
"""


def register(subparsers: Any) -> None:
    """Adds the command's flags."""
    parser = flags.add_command(
        subparsers,
        "infer",
        run,
        summary="continue the prompts of a JSONL file, or choose among their options",
        description=(
            'Reads rows {"prompt": TEXT} and writes them with "text" and "num_tokens"; rows with'
            ' "options" get "log_probs" and "choice" instead. Other keys pass through. A run that'
            " was stopped goes on where it was, and ends in the same bytes."
        ),
        examples=EXAMPLES,
        stopped="Rows so far are kept beside --output: start the same command again.",
    )
    decoding_flags.add(parser)
    decoding_flags.add_beams(parser)
    group = parser.add_argument_group("rows")
    group.add_argument(
        "--input", required=True, metavar="FILE", help="JSONL; - reads standard input"
    )
    group.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="JSONL, in the order of the input; - writes to standard output, which cannot go on",
    )
    group.add_argument(
        "--batch_size", type=int, default=32, metavar="N", help="rows at a time (default 32)"
    )
    group.add_argument(
        "--normalization",
        default="none",
        metavar="NAME",
        help="of the options' scores before one is chosen: none (OPT-IML), per_token, "
        "per_character, per_byte, unconditional",
    )


def run(args: argparse.Namespace) -> int:
    """Checks everything, then continues or ranks every row."""
    from optiml_jax.main import infer_job

    settings = decoding_flags.settings(args)
    job = infer_job.InferJob(
        checkpoint=args.checkpoint,
        input=args.input,
        output=args.output,
        settings=settings,
        normalization=args.normalization,
        batch_size=args.batch_size,
        dtype=args.dtype,
        mesh=decoding_flags.mesh_config(args.mesh),
    )
    return infer_job.run(job)
