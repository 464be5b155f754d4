"""`optiml leakage`: which evaluation tasks have text in common with which training tasks.

Neighbours: `bench.leakage` and `bench.leakage_minhash` count, `leakage_store` gives the texts,
`leakage_content` says what the counts mean, `leakage_page` writes; they are imported when the
command runs.
"""

import argparse
import contextlib
import fnmatch
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from optiml_jax import errors
from optiml_jax.errors import InputError
from optiml_jax.main import flags

EXAMPLES = """
optiml leakage --store=stores/all
optiml leakage --store=stores/all --out=out/leakage --near_duplicates
optiml leakage --store=stores/all --inputs_only --level=partially_supervised
optiml leakage --store=stores/all --train='flan__*' --eval=promptsource__super_glue_rte
optiml leakage --store=stores/all --level=fully_supervised --inputs_only --json
optiml leakage --store=stores/max --against=stores/all --threshold=0.05
"""

SHOWN_PAIRS = 40
SHOWN_TASKS = 12


def register(subparsers: Any) -> None:
    """Adds the command's flags."""
    parser = flags.add_command(
        subparsers,
        "leakage",
        run,
        summary="13-gram overlap between training and evaluation tasks",
        description=(
            "Counts, for every pair of a training and an evaluation task of a store, the evaluation"
            " examples that share any 13-gram with a training example, and lists the pairs over"
            " 1 %: OPT-IML's check (§2.3). Beside it stands the count of bare instances, because"
            " tasks with one definition or template overlap wholly."
        ),
        examples=EXAMPLES,
    )
    parser.add_argument(
        "--store", required=True, metavar="STORE", help="a folder made by `optiml prepare`"
    )
    parser.add_argument(
        "--against",
        metavar="STORE",
        help="take the evaluation tasks from this store (default: from --store)",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="write leakage.json and leakage.html into a new folder"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")

    group = parser.add_argument_group("tasks")
    group.add_argument(
        "--train",
        metavar="PATTERN,...",
        help="training tasks, by name or shell pattern, e.g. 'flan__*' (default: all)",
    )
    group.add_argument(
        "--eval",
        dest="evaluation",
        metavar="PATTERN,...",
        help="evaluation tasks (default: all validation and test tasks)",
    )
    group.add_argument(
        "--level",
        metavar="NAME",
        help="evaluation tasks of this level; fully_supervised: held-out parts of training tasks",
    )
    group.add_argument(
        "--view", help="evaluation view, e.g. eval_0shot (default: that with the fewest shots)"
    )

    group = parser.add_argument_group("what counts")
    group.add_argument("--n", type=int, default=13, help="units in a gram (default 13)")
    group.add_argument(
        "--unit",
        default="words",
        metavar="NAME",
        help="words (default; lower-cased, no punctuation) or tokens of the vocabulary",
    )
    group.add_argument(
        "--threshold",
        type=float,
        default=0.01,
        metavar="FRACTION",
        help="list pairs over this fraction of the evaluation examples (default 0.01)",
    )
    group.add_argument(
        "--inputs_only",
        action="store_true",
        help="list by bare instances, without definition and template, instead of whole sequences",
    )
    group.add_argument(
        "--near_duplicates",
        action="store_true",
        help="also find inputs that are nearly the same (MinHash over word 5-grams)",
    )
    group.add_argument(
        "--jaccard",
        type=float,
        metavar="J",
        help="similarity from which they are, 0.053 to 1 (default 0.8)",
    )

    group = parser.add_argument_group("work")
    group.add_argument("--jobs", type=int, metavar="N", help="processes (default: all cores)")
    group.add_argument(
        "--verify",
        type=int,
        default=0,
        metavar="N",
        help="count sequences and instances of N pairs again by brute force; near-duplicates not",
    )


def run(args: argparse.Namespace) -> int:
    """Counts, prints, and writes where it is asked to."""
    with _ends_like_an_interruption():
        return _run(args)


@contextlib.contextmanager
def _ends_like_an_interruption() -> Iterator[None]:
    """SIGTERM and a closed terminal clean up as Ctrl-C does: there are files and processes."""

    def stop(*_: Any) -> None:
        # Once: a second one must not stop the cleaning.
        for number in earlier:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    earlier = {}

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        # `nohup` has it ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
            earlier[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _run(args: argparse.Namespace) -> int:
    jobs = _check_usage(args)
    from optiml_jax.bench import leakage, leakage_brute, leakage_minhash
    from optiml_jax.data import store as store_lib
    from optiml_jax.main import leakage_content, leakage_store, report

    store = store_lib.open_store(args.store)
    against = store if args.against is None else store_lib.open_store(args.against)
    view = leakage_store.find_view(against, args.view)
    train = _choose(
        [task for task in store.tasks if task.num_train],
        args.train,
        f"store '{store.path}'",
        "--train",
    )
    if not train:
        raise InputError(f"store '{store.path}' has no training tasks.")
    evaluation, not_compared = _evaluated(against, view, args)
    train.sort(key=lambda task: (-task.num_tokens, task.name))
    texts = leakage_store.StoreTexts(str(store.path), str(against.path), view, args.unit)
    names, others = [t.name for t in train], [t.name for t in evaluation]
    settings = {
        "view": view,
        "unit": args.unit,
        "n": args.n,
        "threshold": args.threshold,
        "inputs_only": args.inputs_only,
        "near_duplicates": args.near_duplicates,
        "jaccard": args.jaccard,
    }
    with _out_folder(args.out) as folder, _progress() as progress:
        counted = leakage.count(texts, names, others, args.n, args.threshold, jobs, progress)
        near = None
        if args.near_duplicates:
            near = leakage_minhash.find(texts, names, others, args.jaccard, jobs, progress)
        checked = 0
        if args.verify:
            checked = leakage_brute.verify(texts, counted, names, args.verify, args.n)
        found = leakage_content.Found(
            *(store, against, train, evaluation, not_compared, settings, counted, near)
        )
        content = leakage_content.gather(found)
        content["num_verified_pairs"] = checked
        if folder is not None:
            folder.write(content, report.provenance(args.command_line))
    if args.json:
        print(json.dumps(content, indent=1, ensure_ascii=False))
    else:
        _print(content)
        if args.out:
            print(f"wrote {os.path.join(args.out, 'leakage.html')} and leakage.json")
    return 0


def _check_usage(args: argparse.Namespace) -> int:
    """Refuses values out of range before anything is read; returns the number of processes."""
    from optiml_jax.bench import leakage, leakage_minhash, leakage_units

    jobs = len(os.sched_getaffinity(0)) if args.jobs is None else args.jobs
    leakage.check(args.n, args.threshold, jobs)
    if args.unit not in leakage_units.UNITS:
        raise errors.unknown("unit", args.unit, leakage_units.UNITS)
    if args.verify < 0:
        raise InputError(f"--verify is {args.verify}, expected a number of pairs, 0 for none.")
    if args.jaccard is not None and not args.near_duplicates:
        raise InputError("--jaccard has no effect without --near_duplicates. Add it.")
    if args.near_duplicates:
        args.jaccard = 0.8 if args.jaccard is None else args.jaccard
        leakage_minhash.check(args.jaccard)
    return jobs


def _evaluated(store: Any, view: str, args: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    """The evaluation tasks that are asked for, and those of them that lack the view.

    Raises:
        InputError: there are none, or none of one pattern has the view.
    """
    from optiml_jax.bench import splits
    from optiml_jax.main import leakage_content

    where = f"store '{store.path}'"
    if args.level is None:
        tasks = [task for task in store.tasks if task.role in leakage_content.EVALUATED_ROLES]
        which = "that validate or test"
        hint = " --level=fully_supervised compares the held-out parts of training tasks."
    else:
        if args.level not in splits.LEVELS:
            raise errors.unknown("level", args.level, splits.LEVELS)
        tasks = [task for task in store.tasks if task.level == args.level]
        which, hint = f"of the level '{args.level}'", ""
    if not tasks:
        raise InputError(f"{where} has no tasks {which}.{hint}")
    for pattern in [None] if args.evaluation is None else args.evaluation.split(","):
        found = _choose(tasks, pattern, where, "--eval")
        if not any(view in task.places for task in found):
            asked = "" if pattern is None else f", --eval={pattern.strip()}"
            raise InputError(f"{where}{asked}: {_told_views(found, view, store.eval_views)}")
    chosen = _choose(tasks, args.evaluation, where, "--eval")
    return [t for t in chosen if view in t.places], [t for t in chosen if view not in t.places]


def _told_views(tasks: Sequence[Any], view: str, all_views: Sequence[str]) -> str:
    """Which views tasks without the compared one have, and how they get it.

    Args:
        all_views: of the store.
    """
    from optiml_jax.main import leakage_content

    who = f"task '{tasks[0].name}' has"
    if len(tasks) > 1:
        who = f"all {len(tasks):,} evaluation tasks, such as '{tasks[0].name}', have"
    views = sorted({own for task in tasks for own in leakage_content.eval_views_of(task)})
    have, do = "nor any other", "Run"
    if views:
        have, do = f"only {', '.join(views)}", f"Give --view={views[0]}, or run"
    shots = sorted(int(one.removeprefix("eval_").removesuffix("shot")) for one in all_views)
    names = " and ".join(sorted({f"`optiml prepare {task.spec.benchmark}`" for task in tasks}))
    return (
        f"{who} no evaluation view '{view}', {have}. {do} {names} again into the store with"
        f" --shots={','.join(map(str, shots))}."
    )


def _choose(tasks: Sequence[Any], patterns: str | None, where: str, flag: str) -> list[Any]:
    """The tasks whose name, or own name, matches any of some shell patterns.

    Raises:
        InputError: a pattern matches none.
    """
    if patterns is None:
        return list(tasks)
    chosen = {}
    for pattern in (part.strip() for part in patterns.split(",")):
        wanted = pattern.casefold()
        found = [
            task
            for task in tasks
            if fnmatch.fnmatchcase(task.name.casefold(), wanted)
            or fnmatch.fnmatchcase(task.spec.original_name.casefold(), wanted)
        ]
        if not found:
            raise errors.unknown("task", pattern, [t.name for t in tasks], f"{where}, {flag}")
        chosen |= {task.name: task for task in found}
    return [task for task in tasks if task.name in chosen]


@contextlib.contextmanager
def _out_folder(path: str | None) -> Iterator[Any]:
    if path is None:
        yield None
        return
    from optiml_jax.main import leakage_page

    folder = leakage_page.Folder(path)
    try:
        yield folder
    finally:
        folder.close()


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """A line on a terminal that is written over, and cleared at the end."""
    is_terminal = sys.stderr.isatty()

    def write(line: str) -> None:
        # A terminal may be closed meanwhile.
        with contextlib.suppress(OSError):
            if is_terminal:
                print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)

    try:
        yield lambda done, total, what: write(f"{done:,} of {total:,} {what}")
    finally:
        write("")


def _print(content: dict[str, Any]) -> None:
    """Counts, the pairs over the threshold, and what to look at, as tables."""
    from optiml_jax.main import leakage_content, show

    count_of = show.count_of
    measure = "bare instances" if content["inputs_only"] else "sequences or instances"
    overlapping = content["num_overlapping_pairs"]
    print(
        f"{count_of(content['num_train_tasks'], 'training task')}"
        f" ({count_of(content['num_train_examples'], 'example')}),"
        f" {count_of(content['num_eval_tasks'], 'evaluation task')}"
        f" ({count_of(content['num_eval_examples'], 'example')}, view {content['view']}): of"
        f" {count_of(content['num_pairs'], 'pair')} {overlapping:,}"
        f" share{'s' * (overlapping == 1)} any {content['n']}-gram of {content['unit']},\n"
        f"{content['num_listed_pairs']:,} over {100 * content['threshold']:g} % of the {measure}"
    )
    if short := content["num_whole"] + content["num_too_short"]:
        print(
            f"{count_of(short, 'evaluation instance')} of fewer than {content['n']}"
            f" {content['unit']}: {content['num_whole']:,} compared by the whole input,"
            f" {content['num_too_short']:,} too short to compare"
        )
    if rest := content["not_compared"]:
        names = [f"{row['task']} ({', '.join(row['views']) or 'none'})" for row in rest]
        more = f", and {len(rest) - SHOWN_TASKS:,} more" if len(rest) > SHOWN_TASKS else ""
        print(
            f"not compared, without the view {content['view']}:"
            f" {count_of(len(rest), 'evaluation task')}, with the views they have:"
            f" {', '.join(names[:SHOWN_TASKS])}{more}"
        )
    print()
    near = content["near_duplicates"]
    columns = ("training task", "evaluation task", "seq %", "inst %", *(["near %"] * near), "n", "")
    rows = []
    for pair in content["pairs"][:SHOWN_PAIRS]:
        kinds = ("fraction", "bare_fraction", *["near_duplicate_fraction"] * near)
        cells = [show.percent(pair[kind]) for kind in kinds]
        told = leakage_content.VERDICTS[pair["verdict"]]
        rows.append((pair["train"], pair["eval"], *cells, f"{pair['num_eval']:,}", told))
    tables = [show.Table("pairs", columns, rows, "ll" + "r" * (3 + near) + "l")] if rows else []
    if some := content["suggested"]:
        lines = [(row["task"], row["reason"]) for row in some[:SHOWN_PAIRS]]
        title = f"{count_of(len(some), 'training task')} to look at"
        tables.append(show.Table(title, ("task", "why"), lines, "ll"))
    show.show(tables)
    if max(len(content["pairs"]), len(some)) > SHOWN_PAIRS:
        print(f"The first {SHOWN_PAIRS} are shown; --json and --out=DIR have them all.")
    for name, told in leakage_content.VERDICTS.items():
        if content["verdicts"][name]:
            print(f"{count_of(content['verdicts'][name], 'pair')}: {told}")
    if content["excluded"]:
        print(f"left out by the split already: {count_of(len(content['excluded']), 'task')}")
    if content["num_verified_pairs"]:
        told = count_of(content["num_verified_pairs"], "pair")
        print(f"sequences and instances equal a brute-force count: {told}")
