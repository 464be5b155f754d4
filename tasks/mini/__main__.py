"""`python -m optiml_jax.tasks.mini DIR`: writes the mini benchmark's task files."""

import sys

from optiml_jax.errors import InputError

from . import files


def main(argv: list[str]) -> int:
    """Writes the files and says so; returns the exit code."""
    if len(argv) != 1 or argv[0].startswith("-"):
        print("usage: python -m optiml_jax.tasks.mini DIR", file=sys.stderr)
        return 2
    try:
        num = files.write(argv[0])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {num} task files below {argv[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
