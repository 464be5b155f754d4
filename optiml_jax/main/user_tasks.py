"""A user's module of SeqIO tasks, for `optiml prepare --module` and for MIXTURE_OR_TASK_MODULE.

    read          module and SeqIO name -> tasks, roles and rates that go into a store
    with_module   an open store -> the same with the module's current rates

Neighbours: `data.user_modules` imports the module, `data.foreign_tasks` reads its tasks. SeqIO is
imported only where a module is given: a stored mixture is trained on without it.
"""

import argparse
import dataclasses
import difflib
import math
import os
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optiml_jax import errors
from optiml_jax.errors import InputError

if TYPE_CHECKING:
    from optiml_jax.bench import catalog, splits
    from optiml_jax.data import store as store_lib

DEFAULT_SPLIT = "opt_iml"
"""Named in a store that holds users' tasks alone; it places none of them."""


@dataclasses.dataclass(frozen=True)
class Found:
    """What a module's task or mixture brings into a store.

    Attributes:
        tasks: the user's tasks, and benchmarks in the mixture that the store does not have yet.
        assignments: their roles; the levels of users' tasks are settled with the store.
        mixtures: name -> task -> rate; empty for a task alone.
        own: names of the user's tasks among them.
        default_split: that of the benchmarks among them.
        split_rules: text of a split file, where they are placed by one.
        max_train_examples: random examples kept per task.
    """

    tasks: "Sequence[catalog.BenchTask]"
    assignments: "Mapping[str, splits.Assignment]"
    mixtures: Mapping[str, Mapping[str, float]]
    own: Sequence[str]
    default_split: str = DEFAULT_SPLIT
    split_rules: str = ""
    max_train_examples: int = 100_000


def read(args: argparse.Namespace, index: Mapping[str, Any]) -> Found:
    """Imports `args.module` and reads what its task or mixture `args.benchmark` stands for.

    Args:
        index: of the store that is written, {} for a new one.

    Raises:
        InputError: the module, the name, a task or a rate is bad, or they do not fit the store.
    """
    from optiml_jax.data import user_modules

    if args.data_dir is not None:
        raise InputError(
            "--data_dir goes with a benchmark, --module with your own SeqIO tasks: give one. A"
            " module says itself where its data is."
        )
    name, where = args.benchmark, f"module '{args.module}'"
    foreign_tasks = _seqio()
    from optiml_jax.data import seqio_tasks

    if args.seqio_additional_cache_dirs:
        from optiml_jax.data import seqio_text

        seqio_text.add_cache_dirs(args.seqio_additional_cache_dirs.split(","))
    modules = user_modules.load_modules(args.module)
    declared = user_modules.declarations(modules)
    for task in declared:
        if task not in foreign_tasks.registered_names():
            raise errors.unknown(
                "task", task, foreign_tasks.registered_names(), f"{where}: {user_modules.TABLE}"
            )
    resolved = foreign_tasks.resolve(name, where)
    bench = {
        task.name: task.source
        for task in resolved.tasks.values()
        if isinstance(task.source, seqio_tasks.BenchSource)
    }
    benchmarks = {source.task.spec.benchmark for source in bench.values()}
    if name in bench or name in benchmarks:
        raise InputError(
            f"'{name}' is this package's own: run `optiml prepare {benchmarks.pop()}"
            f" --out={args.out}` without --module."
        )
    stored = {row["spec"]["name"]: row["spec"]["benchmark"] for row in index.get("tasks", ())}
    _check_stored(bench, stored, args.out)
    sources = seqio_tasks.registered_sources(benchmarks - set(stored.values()))
    split = _split_of(sources, args.split or placing_split(index))
    own = [
        foreign_tasks.read(task, declared.get(task.name, user_modules.Declaration()), args.skip_bad)
        for task in resolved.tasks.values()
        if task.name not in bench
    ]
    for task in own:
        for note in (*task.notes, *_new_category(task.task.spec)):
            print(f"note: {note}", file=sys.stderr)
    return Found(
        tasks=[*(task.task for task in own), *(source.task for source in sources)],
        assignments={
            **{task.task.spec.name: task.assignment for task in own},
            **{source.task.spec.name: source.assignment for source in sources},
        },
        mixtures={name: resolved.rates} if resolved.is_mixture else {},
        own=[task.task.spec.name for task in own],
        default_split=split or index.get("split", DEFAULT_SPLIT),
        split_rules=sources[0].config.split_rules if sources else "",
    )


def placing_split(index: Mapping[str, Any]) -> str | None:
    """The split by which a store's benchmarks are placed; None where it has users' tasks alone."""
    from optiml_jax.data import residents

    rows = index.get("tasks", ())
    is_placed = any(row["spec"]["instruction_kind"] != residents.KIND for row in rows)
    return index["split"] if is_placed else None


def with_module(
    store: "store_lib.Store", name: str | None, module: str | Sequence[str] | None
) -> "store_lib.Store":
    """The store with the rates that the module's mixture has now; the same store without a module.

    Raises:
        InputError: the module cannot be imported, the name is not known, or the store lacks tasks
            of the mixture; the command that prepares them is named.
    """
    if module is None:
        return store
    from optiml_jax.data import user_modules

    foreign_tasks = _seqio()
    user_modules.load_modules(module)
    told = module if isinstance(module, str) else ",".join(module)
    registered = foreign_tasks.registered_names()
    # A benchmark's rates are the run's own, also where the module registers its SeqIO mixture.
    benchmarks = store.names - store.by_name.keys() - store.mixtures.keys()
    if name is None or name in benchmarks or name in store.names - registered:
        return store
    if name not in registered:
        known = registered | store.names
        raise errors.unknown("mixture or task", name, known, f"MIXTURE_OR_TASK_MODULE '{told}'")
    resolved = foreign_tasks.resolve(name)
    if missing := [task for task in resolved.rates if task not in store.by_name]:
        raise InputError(
            f"store '{store.path}' lacks {len(missing)} of the {len(resolved.rates)} task(s) of"
            f" '{name}' (first: '{missing[0]}'). Run"
            f" `optiml prepare {name} --module={told} --out={store.path}` first."
        )
    if not resolved.is_mixture:
        return store
    if name in store.mixtures and (change := _change(store.mixtures[name], resolved.rates)):
        print(
            f"note: the rates of '{name}' in {told} are not those that the store was prepared with"
            f" ({change}); the module's are used.",
            file=sys.stderr,
        )
    return store.with_mixture(name, resolved.rates)


def describe(store: "store_lib.Store", names: Collection[str]) -> str:
    """A line for each of these tasks: what it trains on, and at which level it is evaluated."""
    width = max(map(len, names), default=0)
    lines = []
    for task in store.tasks:
        if task.name in names:
            trains = f"trains on {task.num_train:,}, " if task.num_train else ""
            asked = f"{task.num_eval:,} evaluated at the level {task.level}"
            lines.append(
                f"  {task.name:<{width}}  {trains}{asked if task.num_eval else 'none evaluated'}"
                f"  ({task.spec.category}, {task.spec.metric})"
            )
    return "\n".join(lines)


def _seqio() -> Any:
    """`data.foreign_tasks`, imported without what TensorFlow's C++ code prints while it loads.

    It prints, past all of its log levels, which instructions and drivers the machine has.
    """
    if "tensorflow" in sys.modules:
        from optiml_jax.data import foreign_tasks

        return foreign_tasks
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 2)
        try:
            from optiml_jax.data import foreign_tasks

            foreign_tasks.hide_accelerators()
        except BaseException:
            printed.seek(0)
            os.write(shown, printed.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)
    return foreign_tasks


def _check_stored(bench: Mapping[str, Any], stored: Mapping[str, str], out: str) -> None:
    """A benchmark that the store has must have the mixture's tasks too."""
    for name, source in bench.items():
        benchmark = source.task.spec.benchmark
        if benchmark in stored.values() and name not in stored:
            raise InputError(
                f"store '{out}' has the benchmark '{benchmark}' without the task '{name}', which"
                f" the mixture names. Run `optiml prepare {benchmark} --out={out}` with the same"
                " data as the module registers."
            )


def _split_of(sources: Sequence[Any], wanted: str | None) -> str | None:
    """The split under which the module registered these benchmarks, None for no benchmark."""
    names = sorted({source.config.split for source in sources})
    if len(names) > 1:
        raise InputError(
            f"the module registers benchmarks under several splits: {', '.join(names)}. Give all"
            " the same: tasks.register(..., config=RenderConfig(split=...))."
        )
    if names and wanted is not None and wanted != names[0]:
        raise InputError(
            f"the module registers '{sources[0].task.spec.benchmark}' under the split '{names[0]}',"
            f" the store's is '{wanted}'. Use the same (--split, or tasks.register's config), or"
            " another --out."
        )
    return names[0] if names else None


def _new_category(spec: "catalog.TaskSpec") -> list[str]:
    from optiml_jax.bench import taxonomy

    if spec.category in taxonomy.CATEGORIES:
        return []
    near = difflib.get_close_matches(spec.category, taxonomy.CATEGORIES, n=1, cutoff=0.75)
    return [
        f"task '{spec.name}': '{spec.category}' is a category of your own"
        + (f"; did you mean '{near[0]}'?" if near else ".")
    ]


def _change(before: Mapping[str, float], now: Mapping[str, float]) -> str:
    """The largest change of a rate, "" where all are the same."""
    names = sorted(before.keys() | now.keys())
    name = max(names, key=lambda n: round(abs(before.get(n, 0) - now.get(n, 0)), 9))
    old, new = before.get(name, 0.0), now.get(name, 0.0)
    return "" if math.isclose(old, new, abs_tol=1e-9) else f"'{name}' {old:.3g} -> {new:.3g}"
