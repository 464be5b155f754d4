"""`python -m optiml_jax` is the console script `optiml`."""

from optiml_jax.main import cli

if __name__ == "__main__":
    cli.entry()
