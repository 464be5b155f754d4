"""`optiml convert`: weights of Hugging Face, metaseq or a run of ours -> a MODEL_DIR, or a folder
that `transformers` loads.

Neighbours: `convert_job` does the work; it imports JAX, so it is imported when the command runs,
not when help is asked for.
"""

import argparse
from typing import Any

from optiml_jax.errors import InputError
from optiml_jax.main import flags

EXAMPLES = """
optiml convert --from_hf=opt-iml-1.3b --out=models/opt_iml_1.3b
optiml convert --from_hf=opt-iml-30b --out=models/opt_iml_30b --dry_run
optiml convert --from_metaseq=checkpoint_1_4000.pt-model_part-0.pt \\
    --from_metaseq=checkpoint_1_4000.pt-model_part-1.pt --vocabulary=gpt2_files --out=models/iml
optiml convert --from_metaseq="175b/checkpoint_last-model_part-*-shard*.pt" \\
    --vocabulary=gpt2_files --out=models/opt_175b
optiml convert --from_checkpoint=runs/tuned --to_hf=hf/tuned --dtype=bfloat16
optiml convert --from_checkpoint=runs/tuned/checkpoints/4000 --out=models/tuned
"""

SOURCES = ("from_hf", "from_metaseq", "from_checkpoint")
TARGETS = ("out", "to_hf")
# Flag -> the flags of which one must be given for it to have an effect.
NEEDS = {
    "vocabulary": ("from_hf", "from_metaseq"),
    "num_heads": ("from_metaseq",),
    "norm_placement": ("from_metaseq",),
    "copy_tolerance": ("from_metaseq",),
    "dtype": ("to_hf",),
    "max_shard_size": ("to_hf",),
}


def register(subparsers: Any) -> None:
    """Adds the command's flags."""
    parser = flags.add_command(
        subparsers,
        "convert",
        run,
        summary="weights of Hugging Face or metaseq to ours, and ours to Hugging Face",
        description=(
            "Reads the weights of a Hugging Face OPT folder, of metaseq's files or of a run of"
            " ours, checks every tensor, and writes a MODEL_DIR that every command reads, or a"
            " folder that transformers loads. No code in a file is run. What does not fit is named"
            " tensor by tensor, and nothing is written then."
        ),
        examples=EXAMPLES,
    )
    group = parser.add_argument_group("from", "one of these")
    group.add_argument("--from_hf", metavar="DIR", help="folder with config.json and weights")
    group.add_argument(
        "--from_metaseq",
        action="extend",
        nargs="+",
        metavar="PATH",
        help="files of one checkpoint (all model parts and shards): repeat the flag, or give a"
        " folder or a quoted pattern with *",
    )
    group.add_argument(
        "--from_checkpoint",
        metavar="MODEL_DIR",
        help="a run of ours (its latest checkpoint) or MODEL_DIR/checkpoints/STEP",
    )
    group = parser.add_argument_group("to", "one of these; a folder that is empty or not there")
    group.add_argument("--out", metavar="MODEL_DIR", help="ours: float32 parameters, no optimizer")
    group.add_argument("--to_hf", metavar="DIR", help="Hugging Face: config, tokenizer, weights")
    group = parser.add_argument_group("what is read")
    group.add_argument(
        "--vocabulary",
        metavar="DIR",
        help="folder with the model's vocab.json and merges.txt (default: beside the weights)",
    )
    group.add_argument(
        "--num_heads",
        type=int,
        help="of a metaseq model that is of no published size and keeps no settings",
    )
    group.add_argument(
        "--norm_placement",
        metavar="NAME",
        help="pre or post, of a metaseq model without a norm after its last layer",
    )
    group.add_argument(
        "--copy_tolerance",
        type=float,
        metavar="X",
        help="how far copies of one tensor in metaseq's model parts may differ (default 0); part 0"
        " is taken",
    )
    group = parser.add_argument_group("what is written")
    group.add_argument("--dtype", metavar="NAME", help="float32 (default), bfloat16 or float16")
    group.add_argument(
        "--max_shard_size", metavar="SIZE", help="of one file, e.g. 500MB (default 5GB)"
    )
    parser.add_argument(
        "--mesh",
        metavar="AXIS=N,...",
        help="how arrays lie on devices while they pass, e.g. fsdp=4,model=2 (default: fsdp over"
        " all devices where the width divides, else one device)",
    )
    parser.add_argument(
        "--max_listed",
        type=int,
        default=20,
        metavar="N",
        help="tensors that an error lists (default 20; 0 for all)",
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="check names, shapes and vocabulary without reading weights, print, and stop",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def run(args: argparse.Namespace) -> int:
    """Converts, or checks only."""
    _check_usage(args)
    from optiml_jax.main import convert_job

    return convert_job.run(args)


def _check_usage(args: argparse.Namespace) -> None:
    for names, what in ((SOURCES, "reads from"), (TARGETS, "writes to")):
        given = [name for name in names if getattr(args, name) is not None]
        if len(given) != 1:
            told = " and ".join(f"--{name}" for name in given) or "none"
            raise InputError(
                f"optiml convert {what} one place: give one of "
                f"{', '.join(f'--{name}' for name in names)} (given: {told})."
            )
    for name, needed in NEEDS.items():
        if getattr(args, name) is not None and all(getattr(args, one) is None for one in needed):
            raise InputError(
                f"--{name} has no effect without {' or '.join(f'--{one}' for one in needed)}. "
                "Leave it out."
            )
    if args.max_listed < 0:
        raise InputError(f"--max_listed is {args.max_listed}, expected 0 (all) or more.")
