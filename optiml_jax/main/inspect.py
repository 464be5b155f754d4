"""`optiml inspect`: what a store, a mixture or a catalog holds, as tables, texts or JSON.

Neighbours: `inspect_content`, `inspect_mixture`, `inspect_catalog` and `inspect_samples` find out,
`inspect_tables` shows; they are imported when the command runs, not when help is asked for.
"""

import argparse
import dataclasses
import json
import sys
from typing import Any

from optiml_jax.errors import InputError
from optiml_jax.main import flags

EXAMPLES = """
optiml inspect --store=stores/sni
optiml inspect --store=stores/sni --tasks --level=partially_supervised
optiml inspect opt_iml --store=stores/bench --steps=4000 --batch_size=256
optiml inspect mixtures/tasks_16.gin --tasks
optiml inspect --store=stores/sni --mixture --eps=128 --rows=50000
optiml inspect --store=stores/mini --mixture --proportions=mini=0.9,replay=0.1 --json
optiml inspect --store=stores/sni --samples=3 --category="Text Matching"
optiml inspect --store=stores/sni --samples=2 --view=eval_0shot
optiml inspect --store=stores/sni --verify
optiml inspect --catalog
optiml inspect --catalog --tasks --benchmark=flan --role=test
optiml inspect --catalog --split=flan_entailment
optiml inspect --catalog --split=opt_iml_max --category="Data to Text" --json
optiml inspect --catalog super_natural_instructions --data_dir=natural-instructions
"""

RATE_FLAGS = ("eps", "alpha", "proportions", "equalize_clusters")
ROW_FLAGS = ("rows", "steps", "batch_size", "feature_length", "packing", "seed")
DEFAULT_BATCH_SIZE = 256
"""Of OPT-IML 30B (Table 3)."""


def register(subparsers: Any) -> None:
    """Adds the command's flags."""
    parser = flags.add_command(
        subparsers,
        "inspect",
        run,
        summary="what a store, a mixture or a catalog holds: tasks, shares, lengths, samples",
        description=(
            "Prints what a store holds by benchmark, level and category; the shares that a mixture"
            " gives to its tasks; stored texts with the part that carries loss; the catalog of"
            " OPT-IML Bench; or that of a benchmark's folder. It writes nothing."
        ),
        examples=EXAMPLES,
        stopped="Nothing was written. A filter or --samples=1 makes it shorter.",
    )
    parser.add_argument(
        "mixture_file",
        nargs="?",
        metavar="MIXTURE",
        help="how tasks are mixed: a file of gin/mixtures such as opt_iml or eps_128, or your own"
        " .gin; with --store its shares, without it its tasks in the catalog",
    )
    parser.add_argument("--store", metavar="STORE", help="a folder made by `optiml prepare`")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--tasks", action="store_true", help="list every task")
    parser.add_argument("--verify", action="store_true", help="hash every shard of the store first")

    group = parser.add_argument_group("filters", "together they narrow what is shown")
    group.add_argument("--benchmark", metavar="NAME", help="e.g. super_natural_instructions")
    group.add_argument("--category", metavar="NAME", help='e.g. "Question Answering"')
    group.add_argument(
        "--level",
        metavar="NAME",
        help="fully_held_out, partially_supervised or fully_supervised",
    )
    group.add_argument("--role", metavar="NAME", help="train, validation, test or excluded")

    group = parser.add_argument_group("mixture", "shares of examples, tokens and target tokens")
    group.add_argument(
        "--mixture",
        nargs="?",
        const="",
        metavar="NAME",
        help="of this mixture, benchmark or task of the store; without NAME of all its tasks",
    )
    group.add_argument("--eps", metavar="N", help="cap on a task's size, or none (default 4096)")
    group.add_argument("--alpha", type=float, help="exponent on the shares (default 1)")
    group.add_argument(
        "--proportions", metavar="NAME=SHARE,...", help="fixed shares, e.g. mini=0.9,replay=0.1"
    )
    group.add_argument(
        "--equalize_clusters",
        action="store_true",
        help="every category of a benchmark gets the same share",
    )
    group.add_argument(
        "--steps", type=int, metavar="N", help="also the epoch that each task reaches in N steps"
    )
    group.add_argument(
        "--batch_size",
        type=int,
        metavar="N",
        help=f"rows a step (default {DEFAULT_BATCH_SIZE}, OPT-IML 30B's)",
    )
    group.add_argument("--rows", type=int, help="the same in rows: steps x batch size")
    group.add_argument(
        "--feature_length",
        type=int,
        metavar="T",
        help="tokens of a row; longer examples count as cut to it (default 2048)",
    )
    group.add_argument(
        "--packing", metavar="NAME", help="of those rows: greedy (default) or first_fit"
    )
    group.add_argument("--seed", type=int, metavar="N", help="of those rows (default 0)")

    group = parser.add_argument_group("samples", "stored texts; what carries loss stands out")
    group.add_argument("--samples", type=int, metavar="N", help="show N, spread over the tasks")
    group.add_argument("--task", metavar="NAME", help="of this task only")
    group.add_argument(
        "--view", help="train_0, eval_0shot, ... (default: the first that the tasks have)"
    )

    group = parser.add_argument_group("catalog", "tasks without a store")
    group.add_argument(
        "--catalog",
        nargs="?",
        const="",
        metavar="BENCHMARK",
        help="without BENCHMARK: all of OPT-IML Bench, counted (listed with --tasks), no data"
        " needed; with it: the tasks in its folder, or mini, which comes with the package",
    )
    group.add_argument("--data_dir", metavar="DIR", help="folder of BENCHMARK's task files")
    group.add_argument(
        "--split",
        metavar="NAME|FILE",
        help="gives roles and levels: a named split (default opt_iml) or your own, a .tsv file",
    )


def run(args: argparse.Namespace) -> int:
    """Prints one view, as tables or as JSON."""
    _check_usage(args)
    from optiml_jax.main import inspect_content, inspect_samples, inspect_tables

    filters = inspect_content.Filters(args.benchmark, args.category, args.level, args.role)
    if args.catalog == "":
        from optiml_jax.main import inspect_catalog

        content = inspect_catalog.table_content(args.split, filters)
        return _print(args, content, inspect_tables.print_table, args.tasks)
    if args.catalog is not None:
        content = inspect_content.catalog_content(args.catalog, args.data_dir, args.split, filters)
        return _print(args, content, inspect_tables.print_catalog)
    if args.mixture_file is not None and not args.store:
        from optiml_jax.main import inspect_mixture

        file = inspect_mixture.find_file(args.mixture_file)
        assert file is not None  # Nothing else was known.
        content = inspect_mixture.members_content(
            file, inspect_mixture.read_spec(file), args.split, filters
        )
        return _print(args, content, inspect_tables.print_members, args.tasks)
    from optiml_jax.data import store as store_lib

    store = store_lib.open_store(args.store, verify=args.verify)
    if args.mixture is not None or args.mixture_file is not None:
        content = _mixture_content(args, store, filters)
        return _print(args, content, inspect_tables.print_mixture, args.tasks)
    if args.samples is not None:
        content = inspect_samples.samples_content(
            store, filters, args.samples, args.task, args.view
        )
        return _print(args, content, inspect_tables.print_samples)
    content = inspect_content.store_content(store, filters, args.tasks)
    return _print(args, content, inspect_tables.print_store)


def _print(args: argparse.Namespace, content: dict[str, Any], show: Any, *options: Any) -> int:
    for note in content.get("notes", ()):
        print(f"note: {note}", file=sys.stderr)
    if args.json:
        print(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
        return 0
    show(content, *options)
    if args.verify:
        print(f"verified: all shards of {args.store} are as they were written.")
    return 0


def _mixture_content(args: argparse.Namespace, store: Any, filters: Any) -> dict[str, Any]:
    """Shares of a mixture's file, or of one of the store's names, in the store."""
    from optiml_jax.data import mixing
    from optiml_jax.main import inspect_content

    name, spec, file = args.mixture or None, mixing.MixtureSpec(), None
    if args.mixture_file is not None:
        from optiml_jax.main import inspect_mixture

        file = inspect_mixture.find_file(args.mixture_file, () if args.mixture else store.names)
        if file is None:
            name = args.mixture_file
        else:
            spec = inspect_mixture.read_spec(file)
    rows = args.rows
    if args.steps is not None:
        batch_size = DEFAULT_BATCH_SIZE if args.batch_size is None else args.batch_size
        for flag, value in (("steps", args.steps), ("batch_size", batch_size)):
            if value < 1:
                raise InputError(f"--{flag} is {value}, expected 1 or more.")
        rows = args.steps * batch_size
    spec = dataclasses.replace(spec, **_rate_settings(args))
    content = inspect_content.mixture_content(
        *(store, name, spec, filters, rows),
        feature_length=2048 if args.feature_length is None else args.feature_length,
        packing="greedy" if args.packing is None else args.packing,
        seed=0 if args.seed is None else args.seed,
        file=file,
        progress=_progress if sys.stderr.isatty() else lambda done, total: None,
    )
    return {"mixture_file": file, **content}


def _progress(done: int, total: int) -> None:
    text = f"\r{done:,} of {total:,} rows" if done < total else "\r".ljust(40) + "\r"
    print(text, end="", file=sys.stderr, flush=True)


def _check_usage(args: argparse.Namespace) -> None:
    """Refuses flags that would have no effect: silence would look like an answer."""
    views = [name for name in ("mixture", "samples", "catalog") if getattr(args, name) is not None]
    if args.mixture_file is not None and (others := [name for name in views if name != "mixture"]):
        raise InputError(
            f"'{args.mixture_file}' asks for shares, --{others[0]} for another view. Ask for one at"
            " a time."
        )
    if len(views) > 1:
        raise InputError(f"--{views[0]} and --{views[1]} are two views. Ask for one at a time.")
    if args.catalog is None and args.mixture_file is None and not args.store:
        raise InputError(
            "give --store=STORE, a folder made by `optiml prepare`. Without a store, --catalog"
            " shows the tasks of OPT-IML Bench."
        )
    if args.mixture_file is not None and not args.store:
        for name in ("mixture", "verify", *RATE_FLAGS, *ROW_FLAGS):
            if getattr(args, name) not in (None, False):
                raise InputError(
                    f"--{name} needs the examples of a store: shares of tasks depend on their"
                    " sizes and lengths. Add --store=STORE."
                )
    needs = {
        "mixture": (*RATE_FLAGS, *ROW_FLAGS),
        "samples": ("task", "view"),
        "catalog": ("data_dir", "split"),
    }
    shown = {*views, *(("mixture",) * (args.mixture_file is not None))}
    if args.mixture_file is not None and not args.store:
        needs["catalog"] = ("data_dir",)  # --split says whose training tasks.
    if args.store and args.catalog is None and args.split is not None:
        raise InputError(
            "--split has no effect with --store: a store has one split, which placed its tasks when"
            " it was prepared. Leave --split out; `optiml prepare --split=...` makes another store."
        )
    for view, names in needs.items():
        for name in names:
            if getattr(args, name) not in (None, False) and view not in shown:
                raise InputError(f"--{name} has no effect without --{view}. Add --{view}.")
    useless = {"catalog": ("store", "verify"), "samples": ("tasks",)}
    if args.catalog == "" and args.data_dir is not None:
        raise InputError(
            "--data_dir needs to know whose files these are: --catalog=BENCHMARK, e.g."
            " --catalog=super_natural_instructions."
        )
    if args.catalog and args.tasks:
        raise InputError(
            f"--tasks has no effect with --catalog={args.catalog}, which lists every task anyway."
            " Leave it out."
        )
    for view in views:
        for name in useless.get(view, ()):
            if getattr(args, name):
                raise InputError(f"--{name} has no effect with --{view}. Leave it out.")
    _check_rows(args)


def _check_rows(args: argparse.Namespace) -> None:
    if args.rows is not None and args.steps is not None:
        raise InputError("--rows and --steps both say how far training goes. Give one of them.")
    if args.batch_size is not None and args.steps is None:
        raise InputError("--batch_size has no effect without --steps. Add --steps=N.")
    for name in ("packing", "seed"):
        if getattr(args, name) is not None and args.rows is None and args.steps is None:
            raise InputError(f"--{name} has no effect without --rows. Add --rows=N or --steps=N.")


def _rate_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of a `MixtureSpec` that flags give."""
    given: dict[str, Any] = {}
    if args.equalize_clusters:
        given["equalize_clusters"] = True
    if args.eps is not None:
        given["eps"] = _eps(args.eps)
    if args.alpha is not None:
        given["alpha"] = args.alpha
    if args.proportions is not None:
        given["proportions"] = _proportions(args.proportions)
    return given


def _eps(text: str) -> int | None:
    if text.casefold() == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise InputError(
            f"--eps is '{text}', expected a whole number of examples such as 4096, or none."
        ) from None


def _proportions(text: str) -> dict[str, float]:
    """Shares by benchmark of `mini=0.9,replay=0.1`."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, separator, value = (piece.strip() for piece in part.partition("="))
        try:
            share = float(value)
        except ValueError:
            share = None
        if not name or not separator or share is None:
            raise InputError(
                f"--proportions: '{part}' is not NAME=SHARE. Write e.g."
                " --proportions=mini=0.9,replay=0.1."
            )
        if name in shares:
            raise InputError(f"--proportions names '{name}' twice. Give each benchmark one share.")
        shares[name] = share
    return shares
