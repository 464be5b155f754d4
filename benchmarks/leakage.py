"""`optiml leakage` on real tasks: seconds, peak memory, and the same counts as brute force.

    python benchmarks/leakage.py super_natural_instructions --data_dir=DIR [--json]

Two stores are prepared from the folder: one that trains on every task, held-out categories and
copies of suites included, and one under the benchmark's default split, of which 60 tasks are
evaluated: its validation and test tasks, then tasks that it excludes. The command runs as a user
runs it, with `--jobs` processes; memory is the proportional share (PSS) of all its processes
together, sampled ten times a second, so that mapped files count once. Goals: 10 minutes and 4 GB on
2 cores.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import conditions

# setup.py maps the folder tasks/ to this name, which pyright does not know.
from optiml_jax import tasks as declarations  # pyright: ignore[reportAttributeAccessIssue]
from optiml_jax.bench import splits
from optiml_jax.data import prepare, vocabularies

ORDER = ("validation", "test", "excluded", "train")


def make_stores(args: argparse.Namespace, folder: pathlib.Path) -> tuple[int, list[str]]:
    """Prepares both stores; returns the number of training tasks and the evaluated tasks."""
    tasks, under_split = declarations.read(args.benchmark, args.data_dir)
    names = sorted(under_split, key=lambda name: (ORDER.index(under_split[name].role), name))
    chosen = [name for name in names if under_split[name].role != "train"][: args.num_eval]
    evaluated = {
        name: dataclasses.replace(one, role="test" if name in chosen else one.role)
        for name, one in under_split.items()
    }
    everything = {
        task.spec.name: splits.Assignment(
            "train", "fully_supervised", "all train", task.spec.category
        )
        for task in tasks
    }
    vocabulary = vocabularies.gpt2_vocabulary()
    config = prepare.PrepareConfig()
    for name, assignments in (("train", everything), ("evaluated", evaluated)):
        prepare.prepare_store(tasks, assignments, folder / name, vocabulary, config)
    return len(tasks), chosen


def pss_of(process: int) -> int:
    """Proportional memory of a process and all below it, in bytes; what has ended counts 0."""
    try:
        rollup = pathlib.Path(f"/proc/{process}/smaps_rollup").read_text()
        threads = pathlib.Path(f"/proc/{process}/task").glob("*/children")
        children = [int(one) for path in threads for one in path.read_text().split()]
    except OSError:
        return 0
    kilobytes = sum(int(line.split()[1]) for line in rollup.splitlines() if line[:4] == "Pss:")
    return 1024 * kilobytes + sum(map(pss_of, children))


def run(words: list[str]) -> tuple[float, int, str]:
    """(wall seconds, peak bytes of the command and its processes, what it printed)."""
    started, peak = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as out, subprocess.Popen(words, stdout=out) as process:
        while process.poll() is None:
            peak = max(peak, pss_of(process.pid))
            time.sleep(0.1)
        wall = time.monotonic() - started
        out.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}")
        return wall, peak, out.read()


def measure(args: argparse.Namespace, folder: pathlib.Path) -> dict:
    """Prepares, runs, counts."""
    num_tasks, chosen = make_stores(args, folder)
    words = [
        *(sys.executable, "-m", "optiml_jax", "leakage", f"--store={folder / 'train'}"),
        *(f"--against={folder / 'evaluated'}", f"--eval={','.join(chosen)}", "--json"),
        *(f"--jobs={args.jobs}", *args.more),
    ]
    wall, peak, printed = run(words)
    content = json.loads(printed)
    if num_tasks != content["num_train_tasks"]:
        raise SystemExit(f"{num_tasks} tasks, but {content['num_train_tasks']} were compared")
    names = ("num_train_tasks", "num_train_examples", "num_eval_tasks", "num_eval_examples")
    counts = (*names, "num_pairs", "num_overlapping_pairs", "num_listed_pairs", "verdicts")
    return {
        "seconds": round(wall, 1),
        "peak_gb": round(peak / 1e9, 2),
        **{name: content[name] for name in (*counts, "num_false_hits", "num_verified_pairs")},
        "jobs": args.jobs,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("benchmark", nargs="?", default="mini")
    parser.add_argument("--data_dir")
    parser.add_argument("--num_eval", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args, args.more = parser.parse_known_args()
    measured = conditions.measured(seed=0)
    with tempfile.TemporaryDirectory() as folder:
        found = measured | measure(args, pathlib.Path(folder))
    if args.json:
        print(json.dumps(found))
        return
    print(conditions.shown(measured))
    print(
        f"{found['num_train_tasks']:,} training tasks ({found['num_train_examples']:,} examples)"
        f" x {found['num_eval_tasks']:,} evaluation tasks ({found['num_eval_examples']:,}"
        f" examples): {found['seconds']} s (goal 600), {found['peak_gb']} GB (goal 4);"
        f" {found['jobs']} processes"
    )
    print(
        f"{found['num_pairs']:,} pairs, {found['num_overlapping_pairs']:,} share 13 words,"
        f" {found['num_listed_pairs']:,} are listed, {found['num_false_hits']:,} false hits of"
        " 64-bit hashes"
    )
    if found["num_verified_pairs"]:
        print(f"{found['num_verified_pairs']:,} pairs counted again by brute force: equal")


if __name__ == "__main__":
    main()
