"""What `optiml inspect` shows people: the content of `inspect_content` as tables and texts."""

from collections.abc import Mapping, Sequence
from typing import Any

from optiml_jax.bench import taxonomy
from optiml_jax.data import mixing
from optiml_jax.main import show
from optiml_jax.main.show import Table

NAME_OF = {"benchmarks": "benchmark", "categories": "category", "levels": "level", "roles": "role"}


def print_store(content: Mapping[str, Any]) -> None:
    """The summary of a store, its lengths, and its tasks where they are in `content`."""
    vocabulary = content["vocabulary"]
    print(
        f"{content['mixture']}, split {content['split']}: {content['num_tasks']:,} tasks"
        f" ({content['num_excluded_tasks']:,} more excluded), {content['num_examples']:,} training"
        f" examples, {content['num_tokens']:,} tokens ({content['num_target_tokens']:,} with loss,"
        f" {content['num_truncated']:,} examples cut), {content['num_eval']:,} evaluation records;"
        f" vocabulary {vocabulary['name']} ({vocabulary['size']:,}); views"
        f" {', '.join(content['views'])}\n"
    )
    if "tasks" in content:
        show.show([_tasks(content["tasks"])])
    else:
        show.show([*_counts(content), _lengths(content["lengths"])])
    for reason, count in sorted(content["excluded"].items(), key=lambda item: -item[1]):
        print(f"excluded: {show.count_of(count, 'task')}: {reason}")


def print_mixture(content: Mapping[str, Any], with_tasks: bool = False) -> None:
    """Effective shares by benchmark and category, by task if asked, and lengths."""
    settings = content["settings"]
    mixed = mixing.describe(settings, settings["has_own_rates"])
    file = content.get("mixture_file")
    print(
        f"{f'{file} of ' if file else ''}{content['mixture']}, split {content['split']}:"
        f" {content['num_tasks']:,} training tasks,"
        f" {content['num_examples']:,} examples; {mixed};"
        f" an example drawn has {content['mean_tokens']:,.1f} tokens,"
        f" {content['mean_target_tokens']:,.1f} with loss, on average"
    )
    if content["num_rows"] is not None:
        print(
            f"{content['num_rows']:,} rows of {content['feature_length']:,} tokens"
            f" ({content['packing']} packing, seed {content['seed']}) hold"
            f" {content['num_drawn_examples']:,} examples"
        )
    print(
        "ex %, tok %, loss %: shares of the whole mixture's drawn examples, of their tokens, of"
        f" their tokens with loss, in rows of {content['feature_length']:,} tokens\n"
    )
    tables = [_shares(content[kind], kind) for kind in ("benchmarks", "categories")]
    if with_tasks:
        tables.append(_shares({row["name"]: row for row in content["tasks"]}, "tasks"))
    show.show([*tables, _lengths(content["lengths"])])


def print_members(content: Mapping[str, Any], with_tasks: bool = False) -> None:
    """The catalog's tasks that a mixture draws from, counted or listed, and its fixed shares."""
    print(
        f"{content['mixture_file']}, split {content['split']}: {content['num_tasks']:,} of the"
        f" catalog's {content['num_catalog_tasks']:,} training tasks;"
        f" {mixing.describe(content['settings'])}"
        "\nex %: share of the drawn examples, where sizes do not matter; the other shares need a"
        " store: --store=STORE\n"
    )
    if with_tasks:
        keys = ("name", "benchmark", "category", "level")
        rows = [tuple(row[key] for key in keys) for row in content["tasks"]]
        show.show([Table(f"{len(rows):,} tasks", ("task", *keys[1:]), rows, align="l")])
        return
    benchmarks = [
        (
            name,
            f"{row['num_tasks']:,}",
            "-" if row["example_share"] is None else show.percent(row["example_share"]),
        )
        for name, row in content["benchmarks"].items()
    ]
    categories = [(name, f"{row['num_tasks']:,}") for name, row in content["categories"].items()]
    show.show(
        [
            Table("benchmarks", ("benchmark", "tasks", "ex %"), benchmarks),
            Table("categories", ("category", "tasks"), categories),
        ]
    )


def print_samples(content: Mapping[str, Any]) -> None:
    """Texts, one below the other; what carries loss stands out."""
    for sample in content["samples"]:
        where = f"{sample['task']}, {content['view']} {sample['number']}"
        about = ", ".join(part for part in (sample["category"], sample["level"]) if part)
        if "target" in sample:
            about += f"; {sample['num_tokens']:,} tokens, {sample['num_target_tokens']:,} with loss"
            show.show_heading(f"--- {where} ({about})")
            show.show_marked(sample["source"], sample["target"])
        else:
            show.show_heading(f"--- {where} ({about}; id {sample['id']})")
            print(sample["source"])
            for name in ("references", "options"):
                if sample[name]:
                    print(f"{name + ':':<15}{' | '.join(sample[name])}")
            for name in ("input", "demonstration", "prompt_id"):
                if sample.get(name):
                    print(f"{name + ':':<15}{sample[name]!r}")
        print()


def print_catalog(content: Mapping[str, Any]) -> None:
    """One row a task, reason included."""
    columns = ("task", "category", "role", "level", "metric", "instructions", "examples", "reason")
    keys = ("name", "category", "role", "level", "metric", "instruction_kind")
    rows = [
        (*(row[key] or "-" for key in keys), f"{row['num_examples']:,}", row["reason"])
        for row in content["tasks"]
    ]
    show.show([Table(f"{len(rows):,} tasks", columns, rows, align="llllllrl")])


def print_table(content: Mapping[str, Any], with_tasks: bool = False) -> None:
    """The counts of OPT-IML Bench's table, or its tasks."""
    print(
        f"OPT-IML Bench, split {content['split']}: {content['num_tasks']:,} tasks in"
        f" {len(content['categories'])} of"
        f" {len({*taxonomy.CATEGORIES, *content['categories']})} categories\n"
        f"{content['opt_iml']:,} of them train in opt_iml, {content['opt_iml_max']:,} in"
        " opt_iml_max (max)\n"
    )
    if with_tasks:
        show.show([_listed(content["tasks"])])
        return
    counts = ("num_tasks", "train", "validation", "test", "excluded", "opt_iml_max")
    headers = ("tasks", "train", "valid", "test", "excluded", "max")
    tables = []
    for title in ("benchmarks", "levels", "categories"):
        rows = [
            (key, *(f"{row[name]:,}" for name in counts)) for key, row in content[title].items()
        ]
        tables.append(Table(title, (NAME_OF[title], *headers), rows))
    show.show(tables)


def _listed(tasks: Sequence[Mapping[str, Any]]) -> Table:
    """One row a task; why, where none is trained on, else its data sets."""
    keys = ("name", "category", "role", "level", "metric")
    with_reason = all(row["role"] != "train" for row in tasks)
    rows = [
        (
            *(row[key] or "-" for key in keys),
            (row["reason"] or "-") if with_reason else ", ".join(row["sources"]),
        )
        for row in tasks
    ]
    columns = ("task", *keys[1:], "reason" if with_reason else "data sets")
    return Table(f"{len(rows):,} tasks", columns, rows, align="l")


def _counts(content: Mapping[str, Any]) -> list[Table]:
    numbers = ("num_tasks", "num_examples", "num_tokens", "num_target_tokens", "num_eval")
    headers = ("tasks", "examples", "tokens", "with loss", "evaluation")
    return [
        Table(
            title,
            (name, *headers),
            [
                (key, *(f"{row[number]:,}" for number in numbers))
                for key, row in content[title].items()
            ],
        )
        for title, name in NAME_OF.items()
    ]


def _tasks(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("task", "category", "role", "level", "metric")
    numbers = ("examples", "eval", "tok/ex", "loss/ex")
    return Table(
        f"{len(rows):,} tasks",
        (*columns, *numbers),
        [
            (
                *(row[key] or "-" for key in ("name", "category", "role", "level", "metric")),
                f"{row['num_examples']:,}",
                f"{row['num_eval']:,}",
                _mean(row["mean_tokens"]),
                _mean(row["mean_target_tokens"]),
            )
            for row in rows
        ],
        align="lllllr",
    )


def _shares(rows: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    name = NAME_OF.get(title, "task")
    columns = ("ex %", "tok %", "loss %", "tok/ex", "loss/ex")
    has_epochs = any(row["epochs"] is not None for row in rows.values())
    is_tasks = title == "tasks"
    return Table(
        title,
        (name, *("tasks",) * (not is_tasks), "examples", *columns, *("epochs",) * has_epochs),
        [
            (
                key,
                *(() if is_tasks else (f"{row['num_tasks']:,}",)),
                f"{row['num_examples']:,}",
                *(
                    show.percent(row[share])
                    for share in ("example_share", "token_share", "target_share")
                ),
                _mean(row["mean_tokens"]),
                _mean(row["mean_target_tokens"]),
                *((f"{row['epochs']:.2f}",) if has_epochs else ()),
            )
            for key, row in rows.items()
        ],
    )


def _lengths(content: Mapping[str, Any]) -> Table:
    """Percentiles by benchmark, a line for tokens and one for those with loss."""
    marks = ("p50", "p90", "p99", "max")
    rows = []
    groups = {"all": content["all"], **content["benchmarks"]}
    for name, lengths in groups.items():
        for kind, told in (("tokens", "tokens"), ("target_tokens", "with loss")):
            if lengths[kind]:
                numbers = (f"{lengths[kind][mark]:,}" for mark in marks)
                rows.append((name, told, *numbers, show.percent(lengths["cut_share"])))
    return Table(
        "lengths of training examples", ("benchmark", "of", *marks, "cut %"), rows, align="llr"
    )


def _mean(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
