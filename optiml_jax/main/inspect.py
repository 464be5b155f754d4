"""`optiml inspect`: what a store holds, as a table or as JSON."""

import argparse
import json
from typing import Any

from optiml_jax.errors import InputError
from optiml_jax.main import flags

EXAMPLES = """
optiml inspect --store=stores/sni
optiml inspect --store=stores/sni --json
optiml inspect --store=stores/sni --verify
"""


def register(subparsers: Any) -> None:
    """Adds the command's flags."""
    parser = flags.add_command(
        subparsers,
        "inspect",
        run,
        summary="what a store holds: tasks, examples, tokens, categories, levels",
        description="Prints what a store holds, by benchmark, level and category.",
        examples=EXAMPLES,
    )
    parser.add_argument("--store", metavar="STORE", help="a folder made by `optiml prepare`")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--verify", action="store_true", help="hash every shard of the store first")


def run(args: argparse.Namespace) -> int:
    """Prints the summary of a store."""
    from optiml_jax.data import store as store_lib
    from optiml_jax.data import summary

    if not args.store:
        raise InputError("give --store=STORE, a folder made by `optiml prepare`.")
    store = store_lib.open_store(args.store, verify=args.verify)
    content = summary.summarize(store)
    if args.json:
        print(json.dumps(content, indent=1, ensure_ascii=False))
        return 0
    _print_tables(content)
    if args.verify:
        print(f"verified: all shards of {args.store} are as they were written.")
    return 0


def _print_tables(content: dict[str, Any]) -> None:
    from rich import box, console, table

    out = console.Console()
    vocabulary = content["vocabulary"]
    out.print(
        f"{content['mixture']}, split {content['split']}: {content['num_tasks']:,} tasks"
        f" ({content['num_excluded_tasks']:,} more excluded), {content['num_examples']:,} training"
        f" examples, {content['num_tokens']:,} tokens ({content['num_target_tokens']:,} with loss,"
        f" {content['num_truncated']:,} examples cut), {content['num_eval']:,} evaluation records;"
        f" vocabulary {vocabulary['name']} ({vocabulary['size']:,}); views"
        f" {', '.join(content['views'])}",
        highlight=False,
    )
    for title in ("benchmarks", "levels", "roles", "categories"):
        grid = table.Table(
            box=box.SIMPLE_HEAD, title_justify="left", title=title, title_style="bold"
        )
        grid.add_column(title[:-1] if title != "categories" else "category")
        for column in ("tasks", "examples", "tokens", "with loss", "evaluation"):
            grid.add_column(column, justify="right")
        for name, row in content[title].items():
            numbers = ("num_tasks", "num_examples", "num_tokens", "num_target_tokens", "num_eval")
            grid.add_row(name, *(f"{row[number]:,}" for number in numbers))
        out.print(grid)
    for reason, count in content["excluded"].items():
        out.print(f"excluded: {count:,} tasks: {reason}", highlight=False)
