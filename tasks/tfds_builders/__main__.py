"""`tfds build` of TensorFlow Datasets, with the data sets of this package known by name.

    python -m optiml_jax.tasks.tfds_builders super_natural_instructions --manual_dir=DIR
        --data_dir=TFDS_DIR
    python -m optiml_jax.tasks.tfds_builders glue/sst2 --data_dir=TFDS_DIR

It is TFDS's own command, with its flags. The script `tfds` imports Apache Beam for its other
commands and ends with an error where Beam is not installed; this needs no Beam.
"""

import os
import sys

# Before TensorFlow is loaded: what it found of the processor is not news here.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from tensorflow_datasets.scripts.cli import build, cli_utils

from optiml_jax.errors import InputError

from .super_natural_instructions import (  # noqa: F401  # known to TFDS once imported
    super_natural_instructions_dataset_builder,
)


def main() -> None:
    """Parses flags as `tfds build` does, and builds."""
    parse = cli_utils.make_flags_parser(build.Args, description="tfds build")
    app.run(_build, flags_parser=parse)


def _build(args: build.Args) -> None:
    try:
        args.execute()
    except InputError as error:
        _refuse(error)
    except AssertionError as error:
        # TFDS asserts that the folder of --manual_dir is there and not empty.
        if "MANUAL" not in str(error) and "manual" not in str(error):
            raise
        _refuse(error)


def _refuse(error: Exception) -> None:
    print(f"tfds_builders: error: {error}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    sys.exit(main())
