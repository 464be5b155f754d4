"""`optiml inspect`: what a store, a mixture or a catalog holds, as tables, texts or JSON.

Neighbours: `inspect_content`, `inspect_catalog` and `inspect_samples` find out, `inspect_tables`
shows; they are imported when the command runs, not when help is asked for.
"""

import argparse
import json
from typing import Any

from optiml_jax.errors import InputError
from optiml_jax.main import flags

EXAMPLES = """
optiml inspect --store=stores/sni
optiml inspect --store=stores/sni --tasks --level=partially_supervised
optiml inspect --store=stores/sni --mixture --eps=128 --rows=50000
optiml inspect --store=stores/mini --mixture --proportions=mini=0.9,replay=0.1 --json
optiml inspect --store=stores/sni --samples=3 --category="Text Matching"
optiml inspect --store=stores/sni --samples=2 --view=eval_0shot
optiml inspect --store=stores/sni --verify
optiml inspect --catalog
optiml inspect --catalog --tasks --benchmark=flan --role=test
optiml inspect --catalog --split=opt_iml_max --category="Data to Text" --json
optiml inspect --catalog super_natural_instructions --data_dir=natural-instructions
"""

MIXING_FLAGS = ("eps", "alpha", "proportions", "equalize_clusters", "rows", "feature_length")


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
        help="of this mixture, benchmark or task; without NAME of the store's own mixture",
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
        "--rows", type=int, help="also the epochs within this many rows: steps x batch size"
    )
    group.add_argument(
        "--feature_length", type=int, metavar="T", help="tokens of those rows (default 2048)"
    )

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
        "--split", help="gives roles and levels, e.g. opt_iml (the default) or opt_iml_max"
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
    from optiml_jax.data import store as store_lib

    store = store_lib.open_store(args.store, verify=args.verify)
    if args.mixture is not None:
        content = inspect_content.mixture_content(
            *(store, args.mixture or None, _mixture_spec(args), filters, args.rows),
            feature_length=2048 if args.feature_length is None else args.feature_length,
        )
        return _print(args, content, inspect_tables.print_mixture, args.tasks)
    if args.samples is not None:
        content = inspect_samples.samples_content(
            store, filters, args.samples, args.task, args.view
        )
        return _print(args, content, inspect_tables.print_samples)
    content = inspect_content.store_content(store, filters, args.tasks)
    return _print(args, content, inspect_tables.print_store)


def _print(args: argparse.Namespace, content: dict[str, Any], show: Any, *options: Any) -> int:
    if args.json:
        print(json.dumps(content, indent=1, ensure_ascii=False))
        return 0
    show(content, *options)
    if args.verify:
        print(f"verified: all shards of {args.store} are as they were written.")
    return 0


def _check_usage(args: argparse.Namespace) -> None:
    """Refuses flags that would have no effect: silence would look like an answer."""
    views = [name for name in ("mixture", "samples", "catalog") if getattr(args, name) is not None]
    if len(views) > 1:
        raise InputError(f"--{views[0]} and --{views[1]} are two views. Ask for one at a time.")
    if args.catalog is None and not args.store:
        raise InputError(
            "give --store=STORE, a folder made by `optiml prepare`. Without a store, --catalog"
            " shows the tasks of OPT-IML Bench."
        )
    needs = {
        "mixture": MIXING_FLAGS,
        "samples": ("task", "view"),
        "catalog": ("data_dir", "split"),
    }
    for view, names in needs.items():
        for name in names:
            if getattr(args, name) not in (None, False) and view not in views:
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
    if args.feature_length is not None and args.rows is None:
        raise InputError("--feature_length has no effect without --rows. Add --rows=N.")


def _mixture_spec(args: argparse.Namespace) -> Any:
    from optiml_jax.data import mixing

    given: dict[str, Any] = {"equalize_clusters": args.equalize_clusters}
    if args.eps is not None:
        given["eps"] = _eps(args.eps)
    if args.alpha is not None:
        given["alpha"] = args.alpha
    if args.proportions is not None:
        given["proportions"] = _proportions(args.proportions)
    return mixing.MixtureSpec(**given)


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
