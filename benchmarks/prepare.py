"""`optiml prepare`: tokens per CPU-second beside `tokenizers` alone, a second run, random kills.

    python benchmarks/prepare.py super_natural_instructions --data_dir=DIR [--kills=10] [--json]

- rate: the whole command (start, reading, wording, tokenizing, writing) with one tokenizer thread,
  against `encode_batch_fast` over the very texts that the store then holds. Both in CPU-seconds of
  a fresh process, in turns, `--repeats` times; the goal is 70 % of the median of the ratios.
- again: seconds of a run that has nothing to do; the goal is 10.
- kills: the command gets SIGKILL at a random moment of a first run, `--kills` times; started again,
  it has to leave the same files as a run that was left alone, byte for byte.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import conditions

ENCODE = """
import sys, time
import numpy as np
from optiml_jax.data import store, vocabularies
opened = store.open_store(sys.argv[1])
vocabulary = vocabularies.load_vocabulary(opened.path / store.VOCABULARY_FOLDER)
dtype, texts = opened.meta["token_dtype"], []
for task in opened.tasks:
    if (place := task.places.get("train_0")) is not None:
        rows = opened.read("train_0", place.shard, range(place.first, place.first + place.count))
        texts += [vocabulary.decode(np.frombuffer(row, dtype).tolist()) for row in rows]
started = time.process_time()
encoded = vocabulary._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
seconds = time.process_time() - started
print(sum(len(one.ids) for one in encoded), seconds)
"""


def command(args: argparse.Namespace, out: pathlib.Path) -> list[str]:
    """The command under test."""
    given = [f"--data_dir={args.data_dir}"] if args.data_dir else []
    head = [sys.executable, "-m", "optiml_jax", "prepare", args.benchmark]
    return [*head, *given, f"--out={out}", *args.more]


def run(words: list[str]) -> tuple[float, float, str]:
    """(wall seconds, CPU-seconds, what it printed) of a process with one tokenizer thread."""
    env = {**os.environ, "RAYON_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(words[1:])}\n{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, done.stdout


def files_of(folder: pathlib.Path) -> dict[str, str]:
    """Name -> sha256 of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def kill(words: list[str], after: float) -> bool:
    """SIGKILL after so many seconds; False if the command had ended by then."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def measure(args: argparse.Namespace, folder: pathlib.Path) -> dict:
    """All three measurements."""
    store, rows, walls = folder / "store", [], []
    for _ in range(args.repeats):
        shutil.rmtree(store, ignore_errors=True)
        wall, cpu, _ = run(command(args, store))
        walls.append(wall)
        index = json.loads((store / "index.json").read_text())
        made = sum(task["num_tokens"] for task in index["tasks"])
        tokens, seconds = run([sys.executable, "-c", ENCODE, str(store)])[2].split()
        rows.append((made / cpu, int(tokens) / float(seconds)))
    again, _, _ = run(command(args, store))
    wanted, same, killed = files_of(store), 0, 0
    draw = random.Random(args.seed)
    for number in range(args.kills):
        trial = folder / f"killed-{number}"
        killed += kill(command(args, trial), draw.uniform(0.3, 1.0) * min(walls))
        run(command(args, trial))
        same += files_of(trial) == wanted
        shutil.rmtree(trial)
    ratios = [prepare / own for prepare, own in rows]
    return {
        "prepare_tokens_per_cpu_second": [round(row[0]) for row in rows],
        "tokenizers_tokens_per_cpu_second": [round(row[1]) for row in rows],
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "first_seconds": [round(wall, 2) for wall in walls],
        "again_seconds": round(again, 2),
        "kills": killed,
        "same_after_kill": same,
        "runs_after_kill": args.kills,
        "tasks": len(index["tasks"]),
        "tokens": made,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("benchmark", nargs="?", default="mini")
    parser.add_argument("--data_dir")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args, args.more = parser.parse_known_args()
    measured = conditions.measured("tokenizers", seed=args.seed)
    with tempfile.TemporaryDirectory() as folder:
        found = measured | measure(args, pathlib.Path(folder))
    if args.json:
        print(json.dumps(found))
        return
    print(conditions.shown(measured))
    print(f"{found['tasks']:,} tasks, {found['tokens']:,} tokens")
    print(
        f"prepare / tokenizers alone, per CPU-second: {found['ratio']:.2f}"
        f" of {found['ratios']} (goal 0.70)"
    )
    print(f"a second run with nothing to do: {found['again_seconds']} s (goal 10)")
    print(
        f"after {found['kills']} kills: the same store {found['same_after_kill']} of"
        f" {found['runs_after_kill']} times"
    )


if __name__ == "__main__":
    main()
