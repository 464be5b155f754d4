"""Train step: tokens per second beside transformers + torch, or T5X, on the same rows and machine.

    python benchmarks/train_step.py                              # OPT-125M, 2 x 512, float32, CPU
    python benchmarks/train_step.py --shape=t5x_baseline --peer=t5x   # T5X must be importable
    python benchmarks/train_step.py --size=1.3b --rows=8 --length=2048 --dtype=bfloat16 \\
        --documents=6 --compile                                  # one GPU

Both sides make whole updates: forward, backward, clipping at 1.0, AdamW with weight decay, no
dropout. Each is a process of its own that steps when told to, turn by turn, so that a noisy
machine disturbs both alike; what counts is the median of the ratios of neighbouring turns. With
`--documents` rows hold several documents of unequal length, masked from each other on both sides.
MFU is 6 N D over the peak given by `--peak_tflops`.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import conditions

SHAPES = {
    # About 11 M parameters on both sides, 8 rows of 512. T5X's feed-forward block is gated: its 512
    # make as many weights as 768 here.
    "t5x_baseline": {
        "vocab_size": 32128,
        "num_layers": 4,
        "num_heads": 4,
        "d_model": 256,
        "ffn_dim": 768,
        "rows": 8,
        "length": 512,
    },
}
T5X_FFN_DIM = 512


def make_rows(rows: int, length: int, documents: int, vocab_size: int, seed: int) -> dict:
    """A batch of full rows, each cut into `documents` documents of unequal length."""
    import numpy as np

    rng = np.random.default_rng(seed)
    ids = rng.integers(4, vocab_size, (rows, length + 1)).astype(np.int32)
    segment_ids = np.ones((rows, length), np.int32)
    positions = np.zeros((rows, length), np.int32)
    loss_weights = np.ones((rows, length), np.float32)
    for row in range(rows):
        cuts = np.sort(rng.choice(np.arange(1, length), documents - 1, replace=False))
        edges = [0, *cuts.tolist(), length]
        for number, (start, end) in enumerate(itertools.pairwise(edges)):
            segment_ids[row, start:end] = number + 1
            positions[row, start:end] = np.arange(end - start)
            if end < length:
                loss_weights[row, end - 1] = 0.0  # The next token is another document's.
    return {
        "inputs": ids[:, :-1],
        "targets": ids[:, 1:],
        "segment_ids": segment_ids,
        "positions": positions,
        "loss_weights": loss_weights,
    }


def ours(args: argparse.Namespace, shape: dict):
    """Our jitted update as a function of nothing, and the number of parameters."""
    import jax

    from optiml_jax.model import partitioning
    from optiml_jax.model.config import OptConfig
    from optiml_jax.train import state, step
    from optiml_jax.train.optimizer import OptimizerConfig

    config = OptConfig(
        **shape,
        dtype=args.dtype,
        dropout_rate=0.0,
        attention_dropout_rate=0.0,
        attention=args.attention,
        remat=args.remat,
        scan_layers=not args.unroll,
    )
    optimizer = OptimizerConfig(learning_rate=1e-4, warmup_steps=0, total_steps=1000)
    mesh = partitioning.make_mesh(partitioning.MeshConfig(), jax.devices()[:1])
    batch = make_rows(args.rows, args.length, args.documents, config.vocab_size, args.seed)
    with jax.set_mesh(mesh):
        held = [state.make_state(config, optimizer, mesh, jax.random.key(args.seed))]
        update = step.compile_train_step(config, optimizer, mesh)
    rows = jax.device_put(batch, partitioning.batch_sharding(mesh))
    rng = jax.random.key(args.seed)

    def go() -> float:
        with jax.set_mesh(mesh):
            held[0], metrics = update(held[0], rows, rng)
        return float(metrics["loss"])

    return go, config.num_params()


def theirs(args: argparse.Namespace, shape: dict):
    """The same update with transformers and torch."""
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("highest" if args.dtype == "float32" else "high")
    model: Any = transformers.OPTForCausalLM(
        transformers.OPTConfig(
            vocab_size=shape["vocab_size"],
            hidden_size=shape["d_model"],
            num_hidden_layers=shape["num_layers"],
            num_attention_heads=shape["num_heads"],
            ffn_dim=shape["ffn_dim"],
            max_position_embeddings=shape["max_positions"],
            word_embed_proj_dim=shape["d_model"],
            dropout=0.0,
        )
    )
    model.set_attn_implementation("sdpa")
    model.to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    rows = make_rows(args.rows, args.length, args.documents, shape["vocab_size"], args.seed)
    batch = {name: torch.as_tensor(values).to(device) for name, values in rows.items()}
    inputs = batch["inputs"].long()
    targets = batch["targets"].long()
    targets[batch["loss_weights"] == 0] = -100
    options = {}
    if args.documents > 1:
        segments = batch["segment_ids"]
        causal = torch.ones(args.length, args.length, dtype=torch.bool, device=device).tril()
        mask = (segments[:, :, None] == segments[:, None, :]) & causal
        options = {"attention_mask": mask[:, None], "position_ids": batch["positions"].long()}
    run = torch.compile(model) if args.compile else model
    is_mixed = args.dtype == "bfloat16"

    def go() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=is_mixed):
            logits = run(input_ids=inputs, use_cache=False, **options).logits
        loss = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss.detach())

    return go, sum(value.numel() for value in model.parameters())


def t5x(args: argparse.Namespace, shape: dict):
    """The update of T5X's own decoder-only example, by its trainer's function."""
    import jax
    import numpy as np
    import seqio
    from t5x import models, optimizers, partitioning, trainer, utils  # pyright: ignore
    from t5x.examples.decoder_only import network  # pyright: ignore

    model = models.DecoderOnlyModel(
        module=network.DecoderWrapper(
            network.TransformerConfig(
                vocab_size=shape["vocab_size"],
                dtype=args.dtype,
                emb_dim=shape["d_model"],
                num_heads=shape["num_heads"],
                num_layers=shape["num_layers"],
                head_dim=shape["d_model"] // shape["num_heads"],
                mlp_dim=T5X_FFN_DIM,
                mlp_activations=("gelu", "linear"),
                dropout_rate=0.0,
                logits_via_embedding=True,
            )
        ),
        vocabulary=seqio.PassThroughVocabulary(shape["vocab_size"]),
        optimizer_def=optimizers.adamw(learning_rate=1e-4, b1=0.9, b2=0.95, weight_decay=0.1),
    )
    rows = make_rows(args.rows, args.length, args.documents, shape["vocab_size"], args.seed)
    batch = {
        "decoder_input_tokens": rows["inputs"],
        "decoder_target_tokens": rows["targets"],
        "decoder_loss_weights": rows["loss_weights"].astype(np.int32),
        "decoder_segment_ids": rows["segment_ids"],
        "decoder_positions": rows["positions"],
        "decoder_causal_attention": np.zeros_like(rows["inputs"]),
    }
    partitioner = partitioning.PjitPartitioner(num_partitions=1)
    initializer = utils.TrainStateInitializer(
        optimizer_def=model.optimizer_def,
        init_fn=model.get_initial_variables,
        input_shapes={name: values.shape for name, values in batch.items()},
        input_types={name: values.dtype for name, values in batch.items()},
        partitioner=partitioner,
    )
    held = [initializer.from_scratch(jax.random.PRNGKey(args.seed))]

    def update(state, batch):
        return trainer.train_with_lr(
            state,
            batch,
            learning_rate=1e-4,
            dropout_rng=jax.random.PRNGKey(args.seed),
            model=model,
            num_microbatches=None,
        )

    axes = initializer.train_state_axes
    jitted = partitioner.partition(
        update,
        in_axis_resources=(axes, partitioner.data_partition_spec),
        out_axis_resources=(axes, None),
        donate_argnums=(0,),
    )
    compiled = partitioner.compile(jitted, held[0], batch)

    def go() -> float:
        held[0], metrics = compiled(held[0], batch)
        jax.block_until_ready(held[0].params)
        return float(metrics["cross_ent_loss"].compute())

    return go, sum(leaf.size for leaf in jax.tree.leaves(held[0].params))


WORKERS = {"ours": ours, "torch": theirs, "t5x": t5x}


def serve(args: argparse.Namespace) -> None:
    """A worker: builds its side, then makes one step for each line that it reads."""
    go, num_params = WORKERS[args.worker](args, model_shape(args))
    print(json.dumps({"first_loss": go(), "num_params": num_params}), flush=True)
    go()
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        loss = go()
        now = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        print(json.dumps({**now, "loss": loss}), flush=True)


class Worker:
    """One side, in its own process."""

    def __init__(self, side: str) -> None:
        environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, *sys.argv[1:], f"--worker={side}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.steps: list[dict] = []
        self.start = self._read()

    def step(self) -> dict:
        """Times one update."""
        assert self.process.stdin is not None
        print("step", file=self.process.stdin, flush=True)
        self.steps.append(self._read())
        return self.steps[-1]

    def median(self, name: str) -> float:
        """Over all steps."""
        return statistics.median(step[name] for step in self.steps)

    def _read(self) -> dict:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"train_step: the worker stopped with code {self.process.wait()}.")
        return json.loads(line)


def model_shape(args: argparse.Namespace) -> dict:
    """The fields of the model's shape that both sides need."""
    from optiml_jax.model import config as model_config

    if args.shape is None:
        sizes = model_config.published(args.size).architecture()
        return {name: sizes[name] for name in model_config.SIZE_FIELDS}
    sizes = SHAPES[args.shape]
    shape = {name: sizes[name] for name in model_config.SIZE_FIELDS if name in sizes}
    return {**shape, "max_positions": sizes["length"]}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="125m", help="a published pre-LN size")
    parser.add_argument("--shape", choices=SHAPES, help="instead of --size, --rows and --length")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--documents", type=int, default=1, help="a row")
    parser.add_argument("--attention", default="auto", help="our back-end")
    parser.add_argument("--remat", default="none", help="our rematerialisation")
    parser.add_argument("--unroll", action="store_true", help="our layers unrolled")
    parser.add_argument("--compile", action="store_true", help="torch.compile on the other side")
    parser.add_argument("--peer", default="torch", choices=("torch", "t5x", "none"))
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peak_tflops", type=float, help="of the device, for MFU")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.shape:
        args.rows, args.length = SHAPES[args.shape]["rows"], SHAPES[args.shape]["length"]
    return args


def main() -> None:
    args = parse()
    if args.worker:
        serve(args)
        return
    sides = ["ours", *([args.peer] if args.peer != "none" else [])]
    measured = conditions.measured("jax", seed=args.seed)
    workers = {side: Worker(side) for side in sides}
    for turn in range(args.rounds):
        for side in sides if turn % 2 == 0 else sides[::-1]:
            workers[side].step()
    tokens = args.rows * args.length
    report: dict = {
        "tokens_per_step": tokens,
        "num_params": workers["ours"].start["num_params"],
        "rounds": args.rounds,
        **measured,
    }
    for side, worker in workers.items():
        seconds = worker.median("seconds")
        report[side] = {
            "seconds": seconds,
            "cpu_seconds": worker.median("cpu_seconds"),
            "tokens_per_second": tokens / seconds,
            "loss_after": worker.steps[-1]["loss"],
        }
        if args.peak_tflops:
            flops = 6 * worker.start["num_params"] * tokens / seconds
            report[side]["mfu_6nd"] = flops / (args.peak_tflops * 1e12)
    for name in ("seconds", "cpu_seconds"):
        for peer in sides[1:]:
            pairs = zip(workers[peer].steps, workers["ours"].steps)
            ratios = [theirs[name] / mine[name] for theirs, mine in pairs]
            report[f"times_faster_{name}"] = statistics.median(ratios)
            report[f"times_faster_{name}_range"] = [min(ratios), max(ratios)]
    if args.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name + ':':<28} {value}")


if __name__ == "__main__":
    main()
