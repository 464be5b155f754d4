"""`tfds build` of TensorFlow Datasets, with the data sets of this package known by name.

    python -m optiml_jax.tasks.tfds_builders super_natural_instructions --manual_dir=DIR
        --data_dir=TFDS_DIR
    python -m optiml_jax.tasks.tfds_builders glue/sst2 --data_dir=TFDS_DIR

It is TFDS's own command, with its flags. The script `tfds` imports Apache Beam for its other
commands and ends with an error where Beam is not installed; this needs no Beam.
"""

import sys

from absl import app
from tensorflow_datasets.scripts.cli import build, cli_utils

from .super_natural_instructions import (  # noqa: F401  # known to TFDS once imported
    super_natural_instructions_dataset_builder,
)


def main() -> None:
    """Parses flags as `tfds build` does, and builds."""
    parse = cli_utils.make_flags_parser(build.Args, description="tfds build")
    app.run(lambda args: args.execute(), flags_parser=parse)


if __name__ == "__main__":
    sys.exit(main())
