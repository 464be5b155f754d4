"""Flags of a model that is run and of how it continues text: those of `infer` and `generate`.

Neighbours: `opened_model` opens what they name. Nothing here imports JAX before `settings`.
"""

import argparse
import re
from typing import Any

from optiml_jax import errors
from optiml_jax.errors import InputError

MESH_AXES = ("data", "fsdp", "model")
DTYPES = ("bfloat16", "float32")


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the flags to a command."""
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="DIR",
        help="MODEL_DIR (its latest checkpoint), MODEL_DIR/checkpoints/STEP, or a folder made by "
        "`optiml convert`",
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, metavar="NAME", help="compute in it (default: the checkpoint's)"
    )
    parser.add_argument(
        "--mesh",
        default="data=-1",
        metavar="AXIS=N,...",
        help="how devices share the work: data (rows), fsdp (weights), model (heads); one may be "
        "-1, what is left (default data=-1)",
    )
    group = parser.add_argument_group("decoding (greedy without these)")
    group.add_argument(
        "--max_new_tokens",
        type=int,
        default=256,
        metavar="N",
        help="most tokens of a continuation (default 256, as OPT-IML)",
    )
    group.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="draw tokens from scores / T; 0 takes the best (default 0)",
    )
    group.add_argument(
        "--top_k", type=int, default=0, metavar="K", help="draw among the K best tokens"
    )
    group.add_argument(
        "--top_p",
        type=float,
        default=1.0,
        metavar="P",
        help="draw among the smallest set of tokens that has probability P",
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default 0)")
    group.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end a continuation before this text; \\n is a line break; repeat it for several",
    )


def add_beams(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of beam search."""
    group = parser.add_argument_group("beam search")
    group.add_argument(
        "--num_beams", type=int, default=1, metavar="N", help="sequences kept (default 1: none)"
    )
    group.add_argument(
        "--length_penalty",
        type=float,
        default=1.0,
        metavar="X",
        help="scores are log-probability / length ** X (default 1)",
    )
    group.add_argument(
        "--num_return_sequences",
        type=int,
        default=1,
        metavar="N",
        help="write the N best beams (default 1)",
    )


def settings(args: argparse.Namespace) -> Any:
    """The `infer.settings.DecodingConfig` that the flags ask for.

    Raises:
        InputError: a value out of range, or two that exclude each other.
    """
    from optiml_jax.infer.settings import DecodingConfig

    named = ("num_beams", "length_penalty", "num_return_sequences")
    return DecodingConfig(
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        seed=args.seed,
        stop=tuple(text.replace("\\n", "\n") for text in args.stop),
        **{name: getattr(args, name) for name in named if hasattr(args, name)},
    )


def mesh_config(text: str) -> Any:
    """The `MeshConfig` of "data=2,model=4"; axes that are not named are 1.

    Raises:
        InputError: not of this form, or an unknown axis.
    """
    from optiml_jax.model.partitioning import MeshConfig

    sizes = dict.fromkeys(MESH_AXES, 1)
    for part in text.split(","):
        name, _, size = part.partition("=")
        if not re.fullmatch(r"-?\d+", size):
            raise InputError(f"--mesh: '{part}', expected AXIS=N such as data=2,model=4.")
        if name not in sizes:
            raise errors.unknown("mesh axis", name, MESH_AXES, "--mesh")
        sizes[name] = int(size)
    return MeshConfig(**sizes)
