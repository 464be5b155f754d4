"""Input: process start to first batch, memory, packed tokens per second; SeqIO's mixture beside it.

    python benchmarks/input.py --store=STORE[,STORE] [--data_dir=DIR --seqio_tasks=10,200] [--json]

Without a store the mini benchmark's is prepared and measured. Each measurement is a fresh process;
stores and packings take turns, `--repeats` times. Tokens are real ones (padding is not counted).
With stores of different numbers of tasks the last lines say how far first batch and memory depend
on it (goal: 20 %). SeqIO reads the first tasks of DIR through `optiml_jax.tasks.register`, its
shuffle buffer set to min(1000, examples of the task), packed by its own converter to the same
length.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import conditions

BATCH_ROWS = 16
MEASURED = (
    *("first_batch_seconds", "first_batch_cpu_seconds", "first_batch_rss_gib"),
    *("tokens_per_second", "rss_gib", "fill"),
)


def measure_store(store_path: str, length: int, seconds: float, packing: str) -> dict:
    """In this process: opens the store, takes a batch, then streams for `seconds`."""
    import numpy as np

    from optiml_jax.data import store, stream

    opened = store.open_store(store_path)
    config = stream.StreamConfig(feature_length=length, batch_size=BATCH_ROWS, packing=packing)
    batches = stream.TrainStream(opened, config).iterate(0)
    first = next(batches)
    first_batch = time.time() - float(os.environ["STARTED"])
    first_cpu = time.process_time()
    first_rss = _rss_gib()
    tokens = rows = 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        segments = next(batches)["segment_ids"]
        tokens += int(np.count_nonzero(segments))
        rows += len(segments)
    elapsed = time.perf_counter() - started
    return {
        "store": store_path,
        "packing": packing,
        "num_stored_tasks": len(opened.tasks),
        "num_tasks": len([t for t in opened.tasks if t.num_train]),
        "first_batch_seconds": first_batch,
        "first_batch_cpu_seconds": first_cpu,
        "first_batch_rss_gib": first_rss,
        "tokens_per_second": tokens / elapsed,
        "rss_gib": _rss_gib(),
        "fill": tokens / (rows * length),
        "batch_shape": list(first["inputs"].shape),
    }


def measure_seqio(data_dir: str, length: int, seconds: float, num_tasks: int) -> dict:
    """In this process: SeqIO's own mixture over the first `num_tasks` training tasks."""
    import numpy as np
    import seqio

    from optiml_jax import tasks  # pyright: ignore[reportAttributeAccessIssue]  # see setup.py
    from optiml_jax.bench import splits
    from optiml_jax.data import mixing, rendering, seqio_tasks, vocabularies

    found, assignments = tasks.read("super_natural_instructions", data_dir, skip_bad=True)
    trained = [t for t in found if assignments[t.spec.name].role == "train"][:num_tasks]
    config = rendering.RenderConfig()
    kept: dict[str, splits.Assignment] = {t.spec.name: assignments[t.spec.name] for t in trained}
    seqio_tasks.register_tasks(trained, kept, vocabularies.gpt2_vocabulary(), config)
    seqio_tasks.register_mixture("bench", trained, kept, mixing.MixtureSpec(), config)
    dataset = seqio.get_dataset(
        mixture_or_task_name="bench",
        task_feature_lengths={"inputs": length, "targets": length},
        dataset_split="train",
        shuffle=True,
        num_epochs=None,
        feature_converter=seqio.PrefixLMFeatureConverter(pack=True),
    )
    batches = dataset.batch(BATCH_ROWS).prefetch(2).as_numpy_iterator()
    next(batches)
    first_batch = time.time() - float(os.environ["STARTED"])
    first_cpu = time.process_time()
    first_rss = _rss_gib()
    tokens = rows = 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        batch = next(batches)
        tokens += int(np.count_nonzero(batch["decoder_segment_ids"]))
        rows += len(batch["decoder_segment_ids"])
    elapsed = time.perf_counter() - started
    return {
        "packing": "seqio",
        "num_tasks": len(trained),
        "first_batch_seconds": first_batch,
        "first_batch_cpu_seconds": first_cpu,
        "first_batch_rss_gib": first_rss,
        "tokens_per_second": tokens / elapsed,
        "rss_gib": _rss_gib(),
        "fill": tokens / (rows * batch["decoder_segment_ids"].shape[1]),
        "batch_shape": list(batch["decoder_segment_ids"].shape),
    }


def _rss_gib() -> float:
    with open("/proc/self/status") as status:
        kib = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    return kib / 2**20


def _fresh(arguments: list[str]) -> dict:
    environment = {**os.environ, "STARTED": str(time.time()), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, os.path.abspath(__file__), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _mini(folder: str) -> str:
    """A store of the embedded benchmark."""
    store = os.path.join(folder, "mini")
    command = [sys.executable, "-m", "optiml_jax", "prepare", "mini", f"--out={store}"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return store


def compare(rows: list[dict]) -> dict:
    """Medians by store and packing, and the ratios that the goals are about."""
    medians = {}
    for row in rows:
        medians.setdefault((row["store"], row["packing"]), []).append(row)
    table = [
        {
            "store": store,
            "packing": packing,
            "num_tasks": own[0]["num_tasks"],
            "num_stored_tasks": own[0]["num_stored_tasks"],
            **{name: statistics.median(row[name] for row in own) for name in MEASURED},
        }
        for (store, packing), own in medians.items()
    ]
    ratios = {}
    greedy = sorted(
        (row for row in table if row["packing"] == "greedy"), key=lambda r: r["num_tasks"]
    )
    if len(greedy) > 1:
        for name in MEASURED[:3]:
            ratios[f"{name}, most tasks / fewest"] = greedy[-1][name] / greedy[0][name]
    for row in table:
        if row["packing"] == "first_fit":
            other = next(r for r in greedy if r["store"] == row["store"])
            ratio = row["tokens_per_second"] / other["tokens_per_second"]
            ratios[f"tokens_per_second, first_fit / greedy, {row['store']}"] = ratio
    return {"medians": table, "ratios": ratios}


def main() -> None:
    """Runs every measurement in a process of its own and prints a table or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--store", default="", help="prepared stores, comma-separated")
    parser.add_argument("--data_dir", help="task files, for SeqIO's mixture")
    parser.add_argument("--seqio_tasks", default="10,50,200", help="numbers, default 10,50,200")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=5.0, help="of streaming (default 5)")
    parser.add_argument("--repeats", type=int, default=3, help="of the stores' part (default 3)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", choices=["store", "seqio"], help=argparse.SUPPRESS)
    parser.add_argument("--num_tasks", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--packing", default="greedy", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child == "store":
        result = measure_store(args.store, args.length, args.seconds, args.packing)
        print(json.dumps(result))
        return
    if args.child == "seqio":
        result = measure_seqio(args.data_dir, args.length, args.seconds, args.num_tasks)
        print(json.dumps(result))
        return
    shape = [f"--length={args.length}", f"--seconds={args.seconds}"]
    measured = conditions.measured("seqio", length=args.length, rows_a_batch=BATCH_ROWS, seed=0)
    with tempfile.TemporaryDirectory() as scratch:
        stores = [store for store in args.store.split(",") if store] or [_mini(scratch)]
        rows = [
            _fresh(["--child=store", f"--store={store}", f"--packing={packing}", *shape])
            for _ in range(args.repeats)
            for store in stores
            for packing in ("greedy", "first_fit")
        ]
    seqio_rows = []
    for number in args.seqio_tasks.split(",") if args.data_dir else []:
        child = ["--child=seqio", f"--data_dir={args.data_dir}", f"--num_tasks={number}", *shape]
        seqio_rows.append(_fresh(child))
    found = compare(rows)
    if args.json:
        print(json.dumps({**measured, **found, "runs": rows, "seqio": seqio_rows}))
        return
    print(conditions.shown(measured))
    print(f"medians of {args.repeats} for the stores")
    print(
        f"{'packing':10}{'stored':>8}{'trained':>8}{'first batch':>13}{'CPU':>9}{'GiB then':>10}"
        f"{'tokens/s':>13}{'fill':>7}"
    )
    for row in [*found["medians"], *seqio_rows]:
        print(
            f"{row['packing']:10}{row.get('num_stored_tasks', ''):>8}{row['num_tasks']:8d}"
            f"{row['first_batch_seconds']:11.2f} s{row['first_batch_cpu_seconds']:7.2f} s"
            f"{row['first_batch_rss_gib']:10.2f}{row['tokens_per_second']:13,.0f}{row['fill']:7.3f}"
        )
    for name, ratio in found["ratios"].items():
        print(f"{name}: {ratio:.2f}")


if __name__ == "__main__":
    main()
