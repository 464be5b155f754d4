"""`optiml prepare`: task files of a benchmark -> a store."""

import argparse
import pathlib
import sys
from typing import Any

from optiml_jax.main import flags

EXAMPLES = """
optiml prepare super_natural_instructions --data_dir=natural-instructions --out=stores/sni
optiml prepare super_natural_instructions --data_dir=DIR --out=STORE --vocabulary=small
optiml prepare super_natural_instructions --data_dir=DIR --out=STORE --shots=0,5 --skip_bad
"""

STOPPED = "The store is as it was before; start the same command again."


def register(subparsers: Any) -> None:
    """Adds the command's flags."""
    parser = flags.add_command(
        subparsers,
        "prepare",
        run,
        summary="build or update a store from a benchmark's task files",
        description=(
            "Renders and tokenizes every task once and writes a store. Run again after task files"
            " changed: only what changed is done again."
        ),
        examples=EXAMPLES,
        stopped=STOPPED,
    )
    parser.add_argument("benchmark", metavar="BENCHMARK", help="e.g. super_natural_instructions")
    parser.add_argument(
        "--data_dir",
        required=True,
        metavar="DIR",
        help="folder of task files, or one like the official repository's (tasks/, splits/)",
    )
    parser.add_argument("--out", required=True, metavar="STORE", help="folder of the store")
    parser.add_argument(
        "--vocabulary",
        metavar="NAME|DIR",
        help="gpt2 (GPT-2's BPE behind OPT's special ids, 50272 rows), small (a BPE trained on"
        " these tasks), or a folder with vocab.json and merges.txt; default: the store's, or gpt2",
    )
    parser.add_argument(
        "--vocab_size", type=int, default=8192, help="rows of --vocabulary=small (default 8192)"
    )
    parser.add_argument("--split", default="opt_iml", help="named split (default opt_iml)")
    parser.add_argument(
        "--shots",
        default="0",
        metavar="K,K",
        help="demonstrations of each evaluation view (default 0)",
    )
    parser.add_argument(
        "--renderings", type=int, default=1, help="training texts per example (default 1)"
    )
    parser.add_argument(
        "--max_tokens", type=int, default=2049, help="longest example, cut on the left (2049)"
    )
    parser.add_argument(
        "--max_eval_examples", type=int, default=100, help="evaluated per held-out task (100)"
    )
    parser.add_argument("--num_shards", type=int, default=8, help="files per view (default 8)")
    parser.add_argument("--seed", type=int, default=0, help="of wordings (default 0)")
    parser.add_argument(
        "--skip_bad", action="store_true", help="report bad task files and go on without them"
    )


def run(args: argparse.Namespace) -> int:
    """Reads, renders, writes; prints what was done."""
    # setup.py maps the folder tasks/ to this name, which pyright does not know.
    from optiml_jax import tasks as declarations  # pyright: ignore[reportAttributeAccessIssue]
    from optiml_jax.data import prepare, rendering

    notes: list[str] = []

    def on_skip(message: str) -> None:
        notes.append(message)
        print(f"note: {message}", file=sys.stderr)

    benchmark = declarations.benchmark(args.benchmark)
    render = rendering.RenderConfig(
        split=args.split,
        seed=args.seed,
        num_renderings=args.renderings,
        shots=_shots(args.shots),
        max_train_examples=benchmark.max_train_examples,
        max_eval_examples=args.max_eval_examples,
    )
    config = prepare.PrepareConfig(
        render=render, max_tokens=args.max_tokens, num_shards=args.num_shards
    )
    tasks, assignments = declarations.read(
        args.benchmark, pathlib.Path(args.data_dir), args.split, args.skip_bad, on_skip
    )
    print(f"read {len(tasks):,} tasks of {args.benchmark} from {args.data_dir}", flush=True)
    vocabulary = _vocabulary(args, tasks, assignments, render)

    def progress(done: int, total: int, what: str) -> None:
        if sys.stderr.isatty():
            print(f"\r[{done}/{total}] {what}".ljust(60), end="", file=sys.stderr, flush=True)

    result = prepare.prepare_store(tasks, assignments, args.out, vocabulary, config, progress)
    if sys.stderr.isatty():
        print("\r" + " " * 60, end="\r", file=sys.stderr)
    print(
        f"wrote {args.out}: {result.num_tasks:,} tasks, {result.num_examples:,} training examples,"
        f" {result.num_tokens:,} tokens, vocabulary {vocabulary.name} ({vocabulary.size:,});"
        f" {result.tasks_rendered:,} tasks rendered, {result.tasks_reused:,} taken over,"
        f" {result.tasks_removed:,} removed; {result.seconds:.1f} s"
        + (f" ({len(notes)} notes above on what was left out)" if notes else "")
    )
    return 0


def _shots(text: str) -> tuple[int, ...]:
    from optiml_jax.errors import InputError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--shots is '{text}', expected numbers such as 0 or 0,5.") from None


def _vocabulary(args: argparse.Namespace, tasks: Any, assignments: Any, render: Any) -> Any:
    """The vocabulary asked for; without --vocabulary, the store's own where there is one."""
    from optiml_jax.data import rendering, vocabularies
    from optiml_jax.data import store as store_lib

    if args.vocabulary is None and store_lib.read_index(pathlib.Path(args.out)) is not None:
        return vocabularies.load_vocabulary(pathlib.Path(args.out) / store_lib.VOCABULARY_FOLDER)
    if args.vocabulary in (None, "gpt2"):
        return vocabularies.gpt2_vocabulary()
    if args.vocabulary == "small":
        texts = rendering.corpus_texts(tasks, assignments, render)
        return vocabularies.train_vocabulary(texts, args.vocab_size)
    return vocabularies.load_vocabulary(args.vocabulary)
