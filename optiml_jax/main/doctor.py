"""`optiml doctor`: looks at the install, the machine and the folders, and says what to do.

Neighbours: `doctor_install` looks at packages, `doctor_checks` at the machine, `doctor_folders` at
what a user made; every check returns `Finding`s and raises nothing that a user could cause. Exit
code 0 where nothing is broken (warnings included), 2 where something is.
"""

import argparse
import functools
import json
from typing import Any

from optiml_jax.main import flags

EXAMPLES = """
optiml doctor
optiml doctor --quick --json
optiml doctor --dir=/mnt/runs --data_dir=natural-instructions
optiml doctor --store=stores/sni --run=runs/tiny
"""


def register(subparsers: Any) -> None:
    """Adds the command's flags."""
    parser = flags.add_command(
        subparsers,
        "doctor",
        run,
        summary="check install, devices and folders, and say what to do",
        description=(
            "Checks Python and packages, devices, memory, disk, vocabulary, gin files and the"
            " folders that are given, runs a small computation, and says what to do about each"
            " finding. Exit code 0: no problem; 2: at least one."
        ),
        examples=EXAMPLES,
        stopped="Nothing was changed. --quick leaves the slow checks out.",
    )
    parser.add_argument(
        "--dir", default=".", metavar="DIR", help="where runs will be written (default: here)"
    )
    parser.add_argument("--data_dir", metavar="DIR", help="a folder of task files to read")
    parser.add_argument("--store", metavar="STORE", help="a folder made by `optiml prepare`")
    parser.add_argument("--run", dest="model_dir", metavar="MODEL_DIR", help="a run to read")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="do not import TensorFlow and SeqIO, start no device, compute nothing",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def run(args: argparse.Namespace) -> int:
    """Runs the checks; prints them, or gives them as JSON."""
    from optiml_jax.main import doctor_checks, doctor_install, show

    findings = doctor_install.check_install(args.quick)
    findings += doctor_checks.check_machine(args.dir)
    findings += doctor_checks.check_devices(args.quick)
    folders = {"data_dir": args.data_dir, "store": args.store, "run": args.model_dir}
    for name, path in folders.items():
        if path is not None:
            findings += doctor_checks.looked_at(name, functools.partial(_check, name, path))
    counts = {
        status: sum(one.status == status for one in findings) for status in doctor_checks.STATUSES
    }
    code = 2 if counts["problem"] else 0
    if args.json:
        rows = [one.to_json() for one in findings]
        print(json.dumps({"findings": rows, **counts}, indent=1, ensure_ascii=False))
        return code
    show.show_statuses([(one.status, one.name, one.found, one.advice) for one in findings])
    told = ", ".join(f"{count} {status}{'s' * (count != 1)}" for status, count in counts.items())
    print(f"\n{told.replace('oks', 'ok')}.")
    return code


def _check(name: str, path: str) -> Any:
    from optiml_jax.main import doctor_folders

    return getattr(doctor_folders, f"check_{name}")(path)
