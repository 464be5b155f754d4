"""`optiml prepare`: task files of a benchmark, or a user's own SeqIO tasks -> a store.

Neighbours: the declarations in tasks/ read benchmarks, `user_tasks` reads users' modules.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from optiml_jax.main import flags, user_tasks

EXAMPLES = """
optiml prepare mini --out=stores/mini --vocabulary=small --vocab_size=2048
optiml prepare super_natural_instructions --data_dir=natural-instructions --out=stores/sni
optiml prepare super_natural_instructions --data_dir=DIR --out=STORE --vocabulary=small
optiml prepare super_natural_instructions --data_dir=DIR --out=STORE --shots=0,5 --skip_bad
optiml prepare flan --data_dir=DIR --out=STORE --tfds_data_dir=TFDS --tasks=rte,anli_r?
optiml prepare promptsource --data_dir=DIR --out=STORE --meta_icl=4 --suffix_loss
optiml prepare super_natural_instructions --data_dir=DIR --out=STORE --split=my_split.tsv
optiml prepare my_mixture --module=examples/my_tasks --out=stores/mine
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
    parser.add_argument(
        "benchmark",
        metavar="NAME",
        help="a benchmark: mini, super_natural_instructions, promptsource, flan, crossfit, exmix,"
        " t5, unifiedskg, reasoning, dialogue or replay; with --module a SeqIO task or mixture that"
        " it registers",
    )
    parser.add_argument(
        "--module",
        metavar="MODULE",
        help="your own module of SeqIO tasks: a name that Python can import or the path of a .py"
        " file; several with commas",
    )
    parser.add_argument(
        "--data_dir",
        metavar="DIR",
        help="folder of the benchmark's files, laid out as its release (docs/bench.md); not needed"
        " for the embedded benchmark mini",
    )
    parser.add_argument(
        "--tasks",
        metavar="NAME,NAME",
        help="only these of the benchmark: names or patterns such as task0*,flan__anli_r?",
    )
    parser.add_argument(
        "--tfds_data_dir",
        metavar="DIR",
        help="TensorFlow Datasets' folder, for tasks whose rows are not in --data_dir",
    )
    parser.add_argument(
        "--tfds_download",
        action="store_true",
        help="let TensorFlow Datasets get what is missing there",
    )
    parser.add_argument(
        "--seqio_additional_cache_dirs",
        metavar="DIR,DIR",
        help="with --module: folders of seqio_cache_tasks; cached tasks are read from there",
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
    settings = parser.add_argument_group(
        "settings", "an existing store keeps its own where a flag is not given"
    )
    settings.add_argument(
        "--split",
        metavar="NAME|FILE",
        help="a named split (default opt_iml; mini for mini) or your own, a .tsv file"
        " (docs/splits.md)",
    )
    settings.add_argument(
        "--shots", metavar="K,K", help="demonstrations of each evaluation view (default 0)"
    )
    settings.add_argument("--renderings", type=int, help="training texts per example (default 1)")
    settings.add_argument(
        "--max_tokens", type=int, help="longest example, cut on the left (default 2049)"
    )
    settings.add_argument(
        "--max_eval_examples",
        type=int,
        help="evaluated per held-out task (default: all of a release's test set; 100 of"
        " Super-NaturalInstructions, mini and your own tasks)",
    )
    settings.add_argument(
        "--max_eval_prompts",
        type=int,
        help="of all templates together, per validation task (default 250; a test takes all)",
    )
    settings.add_argument(
        "--separator",
        action="append",
        metavar="TEXT",
        help="between demonstrations, \\n is a new line (default three); given several times, one"
        " is drawn for every example",
    )
    settings.add_argument(
        "--meta_icl",
        metavar="A",
        help="training examples show 0 to 5 others, by Zipf's law with exponent A (OPT-IML: 2, 4);"
        " none for none",
    )
    settings.add_argument(
        "--meta_icl_shots", type=int, metavar="K", help="at most so many (default 5)"
    )
    settings.add_argument(
        "--suffix_loss",
        action=argparse.BooleanOptionalAction,
        help="with --meta_icl: the loss begins at the first answer shown (default no)",
    )
    settings.add_argument("--num_shards", type=int, help="files per view (default 8)")
    settings.add_argument("--seed", type=int, help="of wordings (default 0)")
    parser.add_argument(
        "--prune", action="store_true", help="remove stored tasks that DIR does not have"
    )
    parser.add_argument(
        "--skip_bad", action="store_true", help="report bad task files and go on without them"
    )


def run(args: argparse.Namespace) -> int:
    """Reads, renders, writes; prints what was done."""
    # setup.py maps the folder tasks/ to this name, which pyright does not know.
    from optiml_jax import tasks as declarations  # pyright: ignore[reportAttributeAccessIssue]
    from optiml_jax.bench import splits
    from optiml_jax.data import prepare, rendering
    from optiml_jax.data import store as store_lib
    from optiml_jax.errors import InputError
    from optiml_jax.main import show, split_notes

    notes: list[str] = []

    def on_skip(message: str) -> None:
        notes.append(message)
        print(f"note: {message}", file=sys.stderr)

    if args.seqio_additional_cache_dirs and args.module is None:
        raise InputError(
            "--seqio_additional_cache_dirs goes with --module: only SeqIO tasks of your own have"
            " such caches."
        )
    if args.tasks is not None and not all(args.tasks.split(",")):
        raise InputError(f"--tasks is {args.tasks!r}, expected names or patterns with commas.")
    index = store_lib.read_index(pathlib.Path(args.out)) or {}
    split = _split(args.split, index)
    if args.split:
        args.split = split.name
    own = user_tasks.read(args, index) if args.module is not None else None
    benchmark = own or _benchmark(args.benchmark)
    kept = {**index.get("render", {}), **index}

    def setting(given: Any, name: str, default: Any) -> Any:
        return given if given is not None else kept.get(name, default)

    render = rendering.RenderConfig(
        split=split.name if split else benchmark.default_split,
        split_rules=split.rules if split else own.split_rules if own else "",
        seed=setting(args.seed, "seed", 0),
        num_renderings=setting(args.renderings, "num_renderings", 1),
        shots=tuple(setting(_shots(args.shots), "shots", (0,))),
        max_train_examples=benchmark.max_train_examples,
        max_eval_examples=setting(args.max_eval_examples, "max_eval_examples", None),
        max_eval_prompts=setting(args.max_eval_prompts, "max_eval_prompts", 250),
        prompt=_prompt(args, kept.get("prompt", {})),
    )
    config = prepare.PrepareConfig(
        render=render,
        max_tokens=setting(args.max_tokens, "max_tokens", 2049),
        num_shards=setting(args.num_shards, "num_shards", 8),
    )
    if own is not None:
        tasks, assignments, origin = own.tasks, own.assignments, f" from {args.module}"
    else:
        tasks, assignments = declarations.read(
            args.benchmark,
            args.data_dir,
            split,
            args.skip_bad,
            on_skip,
            only=args.tasks.split(",") if args.tasks else (),
            tfds_data_dir=args.tfds_data_dir,
            tfds_download=args.tfds_download,
        )
        folders = " and ".join(filter(None, (args.data_dir, args.tfds_data_dir)))
        origin = f" from {folders}" if folders else ""
    split = split or splits.find(render.split, render.split_rules)
    placed = {task.spec.name: (task.spec, assignments[task.spec.name]) for task in tasks}
    for note in split_notes.task_notes(split, placed, index):
        print(f"note: {note}", file=sys.stderr)
    split_notes.check_beside(split, placed, index, args.out)
    print(f"read {show.count_of(len(tasks), 'task')} of {args.benchmark}{origin}", flush=True)
    if out := [t.spec.name for t in tasks if assignments[t.spec.name].role == "excluded"]:
        print(
            f"note: the split excludes {len(out):,} of them, such as '{out[0]}':"
            f" {assignments[out[0]].reason}.",
            file=sys.stderr,
        )
    vocabulary = _vocabulary(args, tasks, assignments, render)

    def progress(done: int, total: int, what: str) -> None:
        if sys.stderr.isatty():
            print(f"\r[{done}/{total}] {what}".ljust(60), end="", file=sys.stderr, flush=True)

    result = prepare.prepare_store(
        tasks,
        assignments,
        args.out,
        vocabulary,
        config,
        progress,
        args.prune,
        mixtures=own.mixtures if own else None,
    )
    if sys.stderr.isatty():
        print("\r" + " " * 60, end="\r", file=sys.stderr)
    print(
        f"wrote {args.out}: {show.count_of(result.num_tasks, 'task')},"
        f" {show.count_of(result.num_examples, 'training example')}, {result.num_tokens:,} tokens,"
        f" vocabulary {vocabulary.name} ({vocabulary.size:,});"
        f" {show.count_of(result.tasks_rendered, 'task')} rendered,"
        f" {result.tasks_reused:,} taken over, {result.tasks_removed:,} removed;"
        f" {result.seconds:.1f} s"
        + (f" ({show.count_of(len(notes), 'note')} above on what was left out)" if notes else "")
    )
    written = store_lib.read_index(pathlib.Path(args.out)) or {}
    told = split_notes.change_note(split, index)
    if user_tasks.placing_split(written) is not None:
        told += split_notes.store_notes(split, written, args.out)
    # The texts of the embedded benchmark are made up, and evaluated nowhere.
    if args.data_dir and result.tasks_rendered:
        told += split_notes.text_notes(written, args.out)
    for note in told:
        print(f"note: {note}", file=sys.stderr)
    if result.untrained:
        print(
            f"note: without an example to train on, only such that are evaluated:"
            f" {show.count_of(len(result.untrained), 'task')} of the role train (first:"
            f" '{result.untrained[0]}').",
            file=sys.stderr,
        )
    if result.tasks_behind:
        print(
            f"note: without a view of --shots={','.join(map(str, render.shots))}, until they are"
            f" prepared too: {show.count_of(result.tasks_behind, 'stored task')} of other runs.",
            file=sys.stderr,
        )
    if own is not None:
        print(user_tasks.describe(store_lib.open_store(args.out), own.own))
    return 0


def _benchmark(name: str) -> Any:
    from optiml_jax import tasks as declarations  # pyright: ignore[reportAttributeAccessIssue]
    from optiml_jax.errors import InputError

    try:
        return declarations.benchmark(name)
    except InputError as error:
        raise InputError(
            f"{error} A SeqIO task or mixture of your own needs --module=MODULE."
        ) from error


def _split(given: str | None, index: Mapping[str, Any]) -> Any:
    """The split that is asked for, or else the one that placed the store's benchmarks."""
    from optiml_jax.bench import splits

    if given:
        return splits.find(given)
    stored = user_tasks.placing_split(index)
    rules = index.get("render", {}).get("split_rules", "")
    return None if stored is None else splits.find(stored, rules)


def _prompt(args: argparse.Namespace, kept: Mapping[str, Any]) -> Any:
    """The wording: the store's, changed by the flags that are given."""
    from optiml_jax.bench import meta_icl, prompts
    from optiml_jax.errors import InputError

    prompt = prompts.PromptConfig.from_json(kept)
    if args.separator is not None:
        texts = [text.replace("\\n", "\n") for text in args.separator]
        several = tuple(texts) if len(texts) > 1 else ()
        prompt = dataclasses.replace(prompt, separator=texts[0], separators=several)
    icl = prompt.meta_icl
    if args.meta_icl == "none":
        icl = None
    elif args.meta_icl is not None:
        try:
            icl = dataclasses.replace(
                icl or meta_icl.MetaIclConfig(), exponent=float(args.meta_icl)
            )
        except ValueError:
            raise InputError(
                f"--meta_icl is '{args.meta_icl}', expected a number such as 2 or 4, or none."
            ) from None
    given = {"max_shots": args.meta_icl_shots, "suffix_loss": args.suffix_loss}
    given = {name: value for name, value in given.items() if value is not None}
    if given and icl is None:
        flag = "--meta_icl_shots" if "max_shots" in given else "--suffix_loss"
        raise InputError(f"{flag} goes with --meta_icl=A, which is not given.")
    if icl is not None:
        icl = dataclasses.replace(icl, **given)
    return dataclasses.replace(prompt, meta_icl=icl)


def _shots(text: str | None) -> tuple[int, ...] | None:
    from optiml_jax.errors import InputError

    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--shots is '{text}', expected numbers such as 0 or 0,5.") from None


def _vocabulary(args: argparse.Namespace, tasks: Any, assignments: Any, render: Any) -> Any:
    """The vocabulary asked for; a store keeps its own, also where `small` is asked for again."""
    from optiml_jax.data import rendering, vocabularies
    from optiml_jax.data import store as store_lib
    from optiml_jax.errors import InputError

    folder = pathlib.Path(args.out)
    if (index := store_lib.read_index(folder)) is not None:
        name, size = (index["vocabulary"][key] for key in ("name", "size"))
        # The tasks of this run may not be those that a store's small vocabulary was trained on.
        trained = args.vocabulary == name == "small" and size <= args.vocab_size
        if args.vocabulary is None or trained:
            return store_lib.Store(folder, index).vocabulary()
    if args.vocabulary in (None, "gpt2"):
        return vocabularies.gpt2_vocabulary()
    if args.vocabulary == "small":
        if all(assignments[task.spec.name].role != "train" for task in tasks):
            raise InputError(
                "--vocabulary=small is learned from tasks that train, and none of these does."
                " Prepare such tasks first, or give --vocabulary=gpt2 or a folder."
            )
        texts = rendering.corpus_texts(tasks, assignments, render)
        return vocabularies.train_vocabulary(texts, args.vocab_size)
    return vocabularies.load_vocabulary(args.vocabulary)
