"""Compiles every recipe of gin/pods for its slice and writes the table of docs/precompile.md.

    python benchmarks/precompile_all.py [NAME ...] [--table]

One process after another. What is done stays in docs/results/precompile/NAME.json, under a digest
of recipe, code and libtpu: start again after a stop, or after a change, and only what is missing is
compiled. `--table` writes the table from what is there. Nothing here times a TPU.
"""

import argparse
import hashlib
import importlib.metadata
import json
import re
import subprocess
import sys

import conditions

ROOT = conditions.ROOT
PODS = ROOT / "gin" / "pods"
RESULTS = ROOT / "docs" / "results" / "precompile"
GUIDE = ROOT / "docs" / "precompile.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
# What a compiled step is made from.
CODE = ("ahead", "model", "train")
FIRST = ("175b", "66b", "30b")
GIB = 2**30


def recipes() -> list[tuple[str, str]]:
    """(name, topology) of every file, the largest models first."""
    found = []
    for path in PODS.glob("*.gin"):
        match = re.search(r"--topology=(\S+)", path.read_text("utf-8"))
        if match is None:
            raise SystemExit(f"{path}: its head names no --topology.")
        found.append((path.stem, match[1]))

    def order(recipe: tuple[str, str]) -> tuple[int, str]:
        sizes = [rank for rank, size in enumerate(FIRST) if f"_{size}_" in recipe[0]]
        return (sizes[0] if sizes else len(FIRST), recipe[0])

    return sorted(found, key=order)


def digest(name: str) -> str:
    """Of everything that a result depends on."""
    sha = hashlib.sha256(importlib.metadata.version("libtpu").encode())
    sha.update(importlib.metadata.version("jax").encode())
    files = [PODS / f"{name}.gin", *sorted((ROOT / "gin" / "runs").glob("*.gin"))]
    files += sorted((ROOT / "gin" / "models").glob("*.gin"))
    for package in CODE:
        files += sorted((ROOT / "optiml_jax" / package).glob("*.py"))
    for path in files:
        sha.update(path.name.encode() + path.read_bytes())
    return sha.hexdigest()[:16]


def compile_recipe(name: str, topology: str) -> dict:
    """Runs the command in a process of its own; a recipe that does not fit is a result too."""
    command = [sys.executable, "-m", "optiml_jax", "precompile"]
    command += [f"--gin_file=pods/{name}.gin", f"--topology={topology}", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode not in (0, 1) or not done.stdout:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout)


def table() -> str:
    """The results as Markdown, in the order of size and kind."""
    lines = [
        "| recipe (`gin/pods/`) | chips | mesh | rows a step | remat | arguments | peak | limit |"
        " collectives: times, GiB sent a chip | FLOPs a token | compiled in |",
        "| --- | ---: | --- | ---: | --- | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    rows = [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    rows.sort(key=lambda row: (row["num_params"], row["topology"]))
    for row in rows:
        mesh = " x ".join(f"{name}={size}" for name, size in row["mesh"].items() if size > 1)
        sent = "; ".join(
            f"{kind} {one['count']:,}, {one['bytes'] / GIB:.2f}"
            for kind, one in row["collectives"].items()
        )
        rows_a_step = f"{row['batch_size']}" + (
            f" in {row['num_microbatches']}" if row["num_microbatches"] > 1 else ""
        )
        peak = f"{row['peak_bytes'] / GIB:.2f}"
        lines.append(
            f"| {row['name']} | {row['num_chips']} | {mesh} | {rows_a_step} | {row['remat']} | "
            f"{row['argument_bytes'] / GIB:.2f} | {peak if row['fits'] else f'**{peak}**'} | "
            f"{row['limit_bytes'] / GIB:.2f} | {sent or 'does not fit'} | "
            f"{row['flops_per_token']:.3g} | {row['compile_seconds']:.0f} s |"
        )
    versions = sorted({f"libtpu {row['libtpu']}, commit {row['commit']}" for row in rows})
    lines += ["", f"Memory in GiB a chip. Compiled with {'; '.join(versions)}."]
    return "\n".join(lines)


def write_table() -> None:
    """Puts the table between its markers."""
    text = GUIDE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    GUIDE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", "utf-8")


def main() -> None:
    """Compiles what is missing, then writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of recipes; all without any")
    parser.add_argument("--table", action="store_true", help="write the table, compile nothing")
    args = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    unknown = set(args.names) - {name for name, _ in recipes()}
    if unknown:
        raise SystemExit(f"no such recipe in {PODS}: {', '.join(sorted(unknown))}")
    failed = []
    for name, topology in recipes() if not args.table else ():
        if args.names and name not in args.names:
            continue
        path = RESULTS / f"{name}.json"
        key = digest(name)
        if path.exists() and json.loads(path.read_text("utf-8"))["digest"] == key:
            print(f"{name}: done before")
            continue
        content = compile_recipe(name, topology)
        content |= {"name": name, "digest": key, "commit": conditions.commit()}
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        partial.rename(path)
        verdict = "fits" if content["fits"] else "DOES NOT FIT"
        failed += [] if content["fits"] else [name]
        peak = f"{content['peak_bytes'] / GIB:.2f} of {content['limit_bytes'] / GIB:.2f} GiB"
        print(f"{name}: {verdict}, {peak}, {content['compile_seconds']:.0f} s", flush=True)
    write_table()
    if failed:
        raise SystemExit(f"do not fit: {', '.join(failed)}")


if __name__ == "__main__":
    main()
