"""`optiml precompile`: a recipe and a TPU slice -> does it fit, what does it send, how fast?

Neighbours: `precompile_job` builds the recipe and asks `ahead`; it imports JAX, so it is imported
when the command runs, after the environment that libtpu reads is set.
"""

import argparse
import json
import sys
from typing import Any

from optiml_jax import errors
from optiml_jax.main import flags

EXAMPLES = """
optiml precompile --gin_file=pods/opt_175b_v4_8x8x8.gin --topology=v4:8x8x8
optiml precompile --gin_file=models/opt_1_3b.gin --gin_file=runs/finetune.gin \\
    --topology=v5e:4x4 --gin.BATCH_SIZE=64 --gin.ATTENTION_DROPOUT_RATE=0.0
optiml precompile --gin_file=models/opt_30b.gin --topology=v4:4x8x8 --num_slices=2 --json
optiml precompile --gin_file=models/opt_6_7b.gin --topology=v6e:4x8 --plan
optiml precompile --gin_file=models/opt_30b.gin --topology=v5e:4x4 --mode=decode --rows=8 \\
    --gin.MESH_FSDP=2 --gin.MESH_MODEL=8
"""

MODES = ("train", "decode")
DECODE_FLAGS = ("rows", "prompt_length", "new_tokens")
NEW_TOKENS = 256
EXIT_TOO_LARGE = 1


def register(subparsers: Any) -> None:
    """Adds the command's flags."""
    parser = flags.add_command(
        subparsers,
        "precompile",
        run,
        summary="compile a recipe for a TPU slice without having one: does it fit, how fast?",
        description=(
            "Compiles a recipe's training step (or decoding) with the TPU compiler, for a slice"
            " that need not be there, and prints memory per chip, collectives, floating-point"
            " operations and an estimate of the step's time. STORE and MODEL_DIR need not be set."
            " Without a run file it takes runs/pretrain.gin. Needs pip install 'optiml_jax[tpu]'."
            " Exit code 1: it compiles for the slice, but does not fit its memory."
        ),
        examples=EXAMPLES,
        stopped="Nothing was written.",
    )
    flags.add_gin_flags(parser)
    parser.add_argument(
        "--topology",
        required=True,
        metavar="KIND:SHAPE",
        help="the slice, in chips: v4:8x8x8, v5e:16x16, v5p:4x4x4, v6e:8x8",
    )
    parser.add_argument(
        "--num_slices",
        type=int,
        default=1,
        metavar="N",
        help="so many of them, joined by the data-centre network (the mesh's data axis)",
    )
    parser.add_argument(
        "--mode", default="train", metavar="MODE", help="train (default) or decode (bfloat16)"
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="search mesh, microbatches and remat for the fastest that fits, by the estimate",
    )
    group = parser.add_argument_group("decode", "the batch of --mode=decode")
    group.add_argument("--rows", type=int, metavar="N", help="default: 8 per data x fsdp")
    group.add_argument(
        "--prompt_length", type=int, metavar="T", help="default: what the model has room for"
    )
    group.add_argument("--new_tokens", type=int, metavar="T", help=f"default {NEW_TOKENS}")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def run(args: argparse.Namespace) -> int:
    """Compiles, prints, and returns 1 where the program does not fit."""
    from optiml_jax.ahead import topology

    of = topology.parse(args.topology, args.num_slices)
    if args.mode not in MODES:
        raise errors.unknown("mode", args.mode, MODES, "--mode")
    if args.plan and args.mode != "train":
        raise errors.InputError("--plan searches training recipes. Leave out --mode=decode.")
    given = [name for name in DECODE_FLAGS if getattr(args, name) is not None]
    if given and args.mode != "decode":
        raise errors.InputError(f"--{given[0]} belongs to --mode=decode, which is not given.")
    topology.libtpu_version()
    topology.prepare_environment()
    from optiml_jax.main import gin_config, precompile_job, precompile_report

    sources = gin_config.sources(args)
    job = precompile_job.read(sources)
    if args.dry_run:
        mesh = None if args.plan else precompile_job.mesh_of(job.job, of, args.mode)
        print(precompile_report.describe(job, of, mesh))
        return 0
    if args.plan:
        content = precompile_job.plan_job(job, of, lambda line: print(line, file=sys.stderr))
        show = precompile_report.plan_text
    else:
        new_tokens = NEW_TOKENS if args.new_tokens is None else args.new_tokens
        shape = precompile_job.DecodeShape(args.rows, args.prompt_length, new_tokens)
        content = precompile_job.compile_job(job, of, args.mode, shape)
        show = precompile_report.text
    print(json.dumps(content, indent=1) if args.json else show(content))
    return 0 if content["fits"] else EXIT_TOO_LARGE
