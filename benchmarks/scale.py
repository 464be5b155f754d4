"""Scale: memory and time of index, plan and stream as the number of examples grows.

    python benchmarks/scale.py [--examples=200000,2000000] [--tasks=2000] [--dir=SCRATCH] [--json]

Writes a synthetic store of each size through the store's own writer (random ids; lengths of a
log-normal law with Super-NaturalInstructions' median and 90th percentile), measures it in fresh
processes, and removes it. Two million examples take about 0.8 GB of disk. What one more example
costs is the difference between the largest and the smallest store; from it the last lines say what
18 million examples, OPT-IML Bench's own number, would take. That part is computed, not measured,
and left out where the stores differ by less than a million examples, which is lost in the noise.

Memory is the anonymous part of the resident set: pages of the shards that the system caches are
not counted. Tokens are real ones, padding is not counted.

    python benchmarks/scale.py --prepare=500,2000 [--instances=200] [--num_shards=8] [--json]

Writes so many task files in Super-NaturalInstructions' schema, of made-up words, and runs the
command `optiml prepare` on them: seconds, CPU-seconds, and the greatest resident set.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc

import conditions
import numpy as np

FULL_BENCH_EXAMPLES = 18_000_000
"""Examples of OPT-IML Bench (arXiv 2212.12017, section 2)."""

MIN_DIFFERENCE = 1_000_000
LENGTH = 2048
BATCH_ROWS = 16
NUM_SHARDS = 64
MEDIAN_TOKENS, P90_TOKENS = 132, 363


def make_store(folder: pathlib.Path, num_examples: int, num_tasks: int, seed: int) -> dict:
    """Writes a synthetic store; returns its size on disk and the time that writing took."""
    from optiml_jax.data import store, vocabularies

    rng = np.random.default_rng(seed)
    weights = rng.lognormal(0.0, 1.5, num_tasks)
    sizes = np.maximum(1, np.floor(weights / weights.sum() * num_examples)).astype(int)
    sizes[-1] += num_examples - sizes.sum()
    spread = np.log(P90_TOKENS / MEDIAN_TOKENS) / 1.2816
    drawn = rng.lognormal(np.log(MEDIAN_TOKENS), spread, num_examples)
    lengths = np.clip(drawn, 8, LENGTH + 1).astype(np.int32)
    firsts = np.cumsum(sizes) - sizes
    vocabulary = vocabularies.gpt2_vocabulary()
    pool = rng.integers(4, vocabulary.size, 1 << 20).astype("<u2").tobytes()
    names = [f"super_natural_instructions__task{number:05d}_made" for number in range(num_tasks)]
    homes = [store.shard_of(name, NUM_SHARDS) for name in names]
    places: dict[int, store.Place] = {}
    shards, view = [], store.train_view(0)
    started = time.perf_counter()
    with store.writing(folder):
        for shard in range(NUM_SHARDS):
            records: list[bytes] = []
            for task in (t for t in range(num_tasks) if homes[t] == shard):
                places[task] = store.Place(shard, len(records), int(sizes[task]))
                own = slice(firsts[task], firsts[task] + sizes[task])
                starts = 2 * rng.integers(0, (1 << 20) - LENGTH - 1, sizes[task])
                for start, tokens in zip(starts.tolist(), lengths[own].tolist()):
                    records.append(pool[start : start + 2 * tokens])
            shards.append(store.write_shard(folder, view, shard, records))
        vocabulary.save(folder / store.VOCABULARY_FOLDER)
        rows = [
            _task(name, places[task], int(firsts[task]), lengths[firsts[task] :][: sizes[task]])
            for task, name in enumerate(names)
        ]
        index = {
            "format": store.FORMAT,
            "mixture": "super_natural_instructions",
            "split": "made",
            "render": {},
            "num_renderings": 1,
            "num_shards": NUM_SHARDS,
            "max_tokens": LENGTH + 1,
            "token_dtype": "<u2",
            "vocabulary": {
                "name": vocabulary.name,
                "size": vocabulary.size,
                "digest": vocabulary.digest,
            },
            "arrays": store.write_arrays(
                folder, lengths[None], (lengths[None] * 0.8).astype(np.int32)
            ),
            "shards": {view: [vars(shard) for shard in shards]},
            "tasks": [row.to_json() for row in rows],
        }
        store.commit(folder, index)
    seconds = time.perf_counter() - started
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    index_bytes = (folder / store.INDEX_FILE).stat().st_size
    return {"write_seconds": seconds, "disk_bytes": size, "index_json_bytes": index_bytes}


def _task(name: str, place, first: int, lengths: np.ndarray):
    from optiml_jax.bench import catalog
    from optiml_jax.data import store

    spec = catalog.TaskSpec(
        name=name,
        original_name=name.partition("__")[2],
        benchmark="super_natural_instructions",
        category="Question Answering",
        instruction_kind="task",
        sources=("made",),
        metric="rouge_l",
        input_languages=("English",),
        output_languages=("English",),
        licence="none",
        num_examples=place.count,
        path="",
    )
    view = store.train_view(0)
    return store.StoredTask(
        spec=spec,
        role="train",
        level="fully_supervised",
        reason="made",
        keys={view: hashlib.sha256(name.encode()).hexdigest()[:32]},
        places={view: place},
        first_example=first,
        num_train=place.count,
        num_eval=0,
        num_tokens=int(lengths.sum()),
        num_target_tokens=int(lengths.sum() * 0.2),
        num_truncated=0,
    )


def measure(folder: str, packing: str, seconds: float) -> dict:
    """In this process: opens, reads one batch, streams for `seconds`, then plans alone."""
    memory = {}
    from optiml_jax.data import store, stream

    memory["imports"] = _anonymous_bytes()
    started = time.perf_counter()
    opened = store.open_store(folder)
    found: dict = {"open_seconds": time.perf_counter() - started}
    memory["index"] = _anonymous_bytes()
    config = stream.StreamConfig(feature_length=LENGTH, batch_size=BATCH_ROWS, packing=packing)
    source = stream.TrainStream(opened, config)
    memory["arrays"] = _anonymous_bytes()
    next(batches := source.iterate(0))
    found["first_batch_seconds"] = time.time() - float(os.environ["STARTED"])
    memory["first_batch"] = _anonymous_bytes()
    tokens = rows = 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        segments = next(batches)["segment_ids"]
        tokens += int(np.count_nonzero(segments))
        rows += len(segments)
    found["tokens_per_second"] = tokens / (time.perf_counter() - started)
    found["fill"] = tokens / (rows * LENGTH)
    memory["streaming"] = _anonymous_bytes()
    del batches
    plan = source._plan  # what a block costs by itself, without a reader
    times = []
    for number in range(100, 105):
        started = time.perf_counter()
        plan.block(number)
        times.append(time.perf_counter() - started)
    tracemalloc.start()
    plan.block(105)
    found["block_peak_bytes"] = tracemalloc.get_traced_memory()[1]
    found["block_seconds"] = statistics.median(times)
    found["memory_bytes"] = memory
    found["array_bytes"] = opened.lengths.nbytes + opened.loss_starts.nbytes
    return found


def _anonymous_bytes() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024


def _fresh(folder: pathlib.Path, packing: str, seconds: float) -> dict:
    environment = {**os.environ, "STARTED": str(time.time()), "JAX_PLATFORMS": "cpu"}
    words = [sys.executable, os.path.abspath(__file__), f"--child={folder}"]
    words += [f"--packing={packing}", f"--seconds={seconds}"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def per_example(small: dict, large: dict) -> dict:
    """Bytes that one more example costs: on disk, in the arrays, and resident by stage."""
    more = large["examples"] - small["examples"]
    growth = {
        stage: (large["memory_bytes"][stage] - small["memory_bytes"][stage]) / more
        for stage in large["memory_bytes"]
    }
    return {
        "disk": (large["disk_bytes"] - small["disk_bytes"]) / more,
        "arrays": large["array_bytes"] / large["examples"],
        "resident": growth,
    }


def make_task_files(folder: pathlib.Path, num_tasks: int, num_instances: int, seed: int) -> None:
    """Writes task files whose inputs have 20 to 200 words and whose answers have 1 to 20."""
    rng = random.Random(seed)
    syllables = ("ba", "den", "fir", "gol", "hu", "kan", "lom", "mer", "ni", "pos", "ra", "tuv")
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(20_000)]
    (folder / "tasks").mkdir(parents=True)
    for number in range(num_tasks):
        text = {
            "Contributors": ["made"],
            "Source": [f"made_{number % 300}"],
            "Categories": [("Question Answering", "Summarization", "Translation")[number % 3]],
            "Input_language": ["English"],
            "Output_language": ["English"],
            "Definition": [f"Definition {number}: {' '.join(rng.choices(words, k=40))}."],
            "Positive Examples": [
                {"input": f"{words[i]} {words[-i]}", "output": words[i], "explanation": ""}
                for i in (1, 2)
            ],
            "Negative Examples": [],
            "Instances": [
                {
                    "id": f"task{number}-{i}",
                    "input": " ".join(rng.choices(words, k=rng.randint(20, 200))),
                    "output": [" ".join(rng.choices(words, k=rng.randint(1, 20)))],
                }
                for i in range(num_instances)
            ],
        }
        path = folder / "tasks" / f"task{number:04d}_made.json"
        path.write_text(json.dumps(text), "utf-8")


def measure_prepare(data_dir: pathlib.Path, out: pathlib.Path, num_shards: int) -> dict:
    """Runs the command in a child of its own, whose greatest resident set is then the command's."""
    words = [sys.executable, "-m", "optiml_jax", "prepare", "super_natural_instructions"]
    words += [f"--data_dir={data_dir}", f"--out={out}", f"--num_shards={num_shards}"]
    started = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)} failed:\n{printed[-3000:]}")
    index = json.loads((out / "index.json").read_text("utf-8"))
    return {
        "tasks": len(index["tasks"]),
        "examples": sum(task["num_train"] for task in index["tasks"]),
        "tokens": sum(task["num_tokens"] for task in index["tasks"]),
        "num_shards": num_shards,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "max_rss_bytes": usage.ru_maxrss * 1024,
    }


def prepare_report(args: argparse.Namespace) -> dict:
    """One run, and one with nothing left to do, for every number of tasks."""
    measured = conditions.measured("tokenizers", seed=args.seed)
    results = []
    for number in sorted(int(number) for number in args.prepare.split(",")):
        with tempfile.TemporaryDirectory(dir=args.dir, prefix="optiml_scale_") as scratch:
            data_dir, out = pathlib.Path(scratch, "data"), pathlib.Path(scratch, "store")
            make_task_files(data_dir, number, args.instances, args.seed)
            for run in ("first", "again"):
                found = measure_prepare(data_dir, out, args.num_shards)
                results.append({"run": run, **found})
    return {"conditions": measured, "results": results}


def prepare_text(report: dict) -> str:
    """The report on `optiml prepare` as a table."""
    lines = [
        conditions.shown(report["conditions"]),
        f"{'run':8}{'tasks':>7}{'examples':>11}{'Mtokens':>9}{'shards':>8}{'seconds':>9}"
        f"{'CPU':>9}{'most MB':>9}",
    ]
    for row in report["results"]:
        lines.append(
            f"{row['run']:8}{row['tasks']:7,}{row['examples']:11,}{row['tokens'] / 1e6:9.1f}"
            f"{row['num_shards']:8}{row['seconds']:9.1f}{row['cpu_seconds']:9.1f}"
            f"{row['max_rss_bytes'] / 1e6:9,.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Makes the stores, measures each with both packings, prints a table or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--examples", default="200000,2000000", help="sizes of the stores")
    parser.add_argument("--tasks", type=int, default=2000, help="tasks of each (default 2000)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of streaming (default 5)")
    parser.add_argument("--dir", help="scratch folder; default: the system's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--prepare", help="measure `optiml prepare` on so many task files instead")
    parser.add_argument("--instances", type=int, default=200, help="of a task file (default 200)")
    parser.add_argument("--num_shards", type=int, default=8, help="of --prepare (default 8)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--packing", default="greedy", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.child, args.packing, args.seconds)))
        return
    for flag in ("examples", "prepare"):
        value = getattr(args, flag)
        if value is not None and not all(part.isdecimal() for part in value.split(",")):
            parser.error(f"--{flag} is '{value}', expected whole numbers with commas between.")
    if args.tasks < 1:
        parser.error(f"--tasks is {args.tasks}, expected 1 or more.")
    if min(map(int, args.examples.split(","))) < 2 * args.tasks:
        parser.error(f"--examples={args.examples} are too few for --tasks={args.tasks}.")
    if args.dir and not pathlib.Path(args.dir).is_dir():
        parser.error(f"--dir: there is no folder '{args.dir}'.")
    if args.prepare:
        report = prepare_report(args)
        print(json.dumps(report) if args.json else prepare_text(report))
        return
    measured = conditions.measured("grain", tasks=args.tasks, length=LENGTH, seed=args.seed)
    results = []
    for number in sorted(int(number) for number in args.examples.split(",")):
        folder = pathlib.Path(tempfile.mkdtemp(dir=args.dir, prefix="optiml_scale_"))
        try:
            made = make_store(folder, number, args.tasks, args.seed)
            for packing in ("greedy", "first_fit"):
                found = _fresh(folder, packing, args.seconds)
                results.append({"examples": number, "packing": packing, **made, **found})
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    report: dict = {"conditions": measured, "results": results}
    greedy = [row for row in results if row["packing"] == "greedy"]
    if greedy[-1]["examples"] - greedy[0]["examples"] >= MIN_DIFFERENCE:
        cost = per_example(greedy[0], greedy[-1])
        last, more = greedy[-1], FULL_BENCH_EXAMPLES - greedy[-1]["examples"]
        report["bytes_per_example"] = cost
        report["full_bench"] = {
            "examples": FULL_BENCH_EXAMPLES,
            "disk_bytes": last["disk_bytes"] + more * cost["disk"],
            "memory_bytes": {
                stage: last["memory_bytes"][stage] + more * bytes_each
                for stage, bytes_each in cost["resident"].items()
            },
        }
    print(json.dumps(report) if args.json else as_text(report))


def as_text(report: dict) -> str:
    """The report as a table."""
    lines = [
        conditions.shown(report["conditions"]),
        f"{'examples':>12}{'packing':>11}{'disk MB':>9}{'open':>8}{'first batch':>13}"
        f"{'memory MB then':>16}{'streaming':>11}{'Mtok/s':>8}{'fill':>7}{'block':>9}{'MB':>5}",
    ]
    for row in report["results"]:
        memory = row["memory_bytes"]
        lines.append(
            f"{row['examples']:12,}{row['packing']:>11}{row['disk_bytes'] / 1e6:9,.0f}"
            f"{row['open_seconds']:6.2f} s{row['first_batch_seconds']:11.2f} s"
            f"{memory['first_batch'] / 1e6:16,.0f}{memory['streaming'] / 1e6:11,.0f}"
            f"{row['tokens_per_second'] / 1e6:8.1f}{row['fill']:7.3f}"
            f"{row['block_seconds'] * 1e3:6.0f} ms{row['block_peak_bytes'] / 1e6:5.0f}"
        )
    if "bytes_per_example" in report:
        cost, full = report["bytes_per_example"], report["full_bench"]
        stages = ", ".join(f"{stage} {value:.1f}" for stage, value in cost["resident"].items())
        memory = ", ".join(f"{s} {value / 1e6:,.0f}" for s, value in full["memory_bytes"].items())
        lines += [
            f"bytes an example: disk {cost['disk']:.0f}, arrays {cost['arrays']:.0f};"
            f" memory: {stages}",
            f"computed for {full['examples']:,} examples: disk {full['disk_bytes'] / 1e9:.1f} GB;"
            f" MB of memory: {memory}",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
