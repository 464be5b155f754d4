"""One of several processes of one training run on pretended devices.

python process_worker.py PORT NUM_PROCESSES PROCESS STORE MODEL_DIR STEPS
"""

import sys

import jax

PORT, NUM_PROCESSES, PROCESS, STORE, MODEL_DIR, STEPS = sys.argv[1:]
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8 // int(NUM_PROCESSES))
if int(NUM_PROCESSES) > 1:
    jax.distributed.initialize(f"127.0.0.1:{PORT}", int(NUM_PROCESSES), int(PROCESS))

from optiml_jax.data import store, stream  # noqa: E402
from optiml_jax.model import partitioning  # noqa: E402
from optiml_jax.model.config import OptConfig  # noqa: E402
from optiml_jax.train import loop  # noqa: E402
from optiml_jax.train.optimizer import OptimizerConfig  # noqa: E402

BATCH, LENGTH = 16, 48


def main():
    opened = store.open_store(STORE)
    model = OptConfig(
        vocab_size=opened.meta["vocabulary"]["size"],
        num_layers=2,
        num_heads=4,
        d_model=32,
        ffn_dim=64,
        max_positions=LENGTH,
        dtype="float32",
        embedding_dropout=True,
    )
    share = BATCH // jax.process_count()
    first = share * jax.process_index()
    config = stream.StreamConfig(feature_length=LENGTH, batch_size=BATCH)
    source = stream.ReadAhead(stream.TrainStream(opened, config, rows=(first, first + share)))
    loop.train(
        loop.TrainConfig(int(STEPS), BATCH, log_period=1, save_period=3),
        model,
        OptimizerConfig(3e-3, 2, 8),
        partitioning.make_mesh(partitioning.MeshConfig(data=2, fsdp=2, model=2)),
        source,
        MODEL_DIR,
    )


main()
