"""Decoding: our greedy loop beside `transformers`' `generate`, the same weights in one run.

    python benchmarks/decode.py [--shapes=tiny,125m] [--pairs=5] [--json]

Both continue the same 16 prompts of 64 tokens by 64 new ones in float32 on the CPU, no id ending a
row. Each pair times one after the other, the first of a pair alternating; the ratio told is the
median of the pairs' ratios. Compilation and warm-up are not timed. The tokens of both are compared
too: `same` is the share of rows that agree whole (random weights have near ties). `our_step_ms` is
a new token of all rows: our time less that of a prefill, over 63.
"""

import argparse
import json
import os
import statistics
import time
from typing import Any

import conditions

os.environ.setdefault("JAX_PLATFORMS", "cpu")

BATCH, PROMPT, NEW = 16, 64, 64
NO_EOS = -1
# vocabulary 50,272 as OPT's; `tiny` is the shape of the goal in docs/inference.md.
SHAPES = {"tiny": (4, 4, 256), "125m": (12, 12, 768)}


def measure(shape: str, pairs: int) -> dict:
    """The times of both, in seconds, and their ratio."""
    import jax
    import numpy as np
    import torch
    import transformers

    from optiml_jax.infer import decoding
    from optiml_jax.infer.settings import DecodingConfig
    from optiml_jax.interop import huggingface
    from optiml_jax.model import decoder
    from optiml_jax.model.config import OptConfig

    num_layers, num_heads, width = SHAPES[shape]
    config = OptConfig(50272, num_layers, num_heads, width, 4 * width, dtype="float32")
    params = jax.jit(decoder.init_params, static_argnums=0)(config, jax.random.key(0))
    model: Any = transformers.OPTForCausalLM(
        transformers.OPTConfig(
            vocab_size=config.vocab_size,
            hidden_size=width,
            num_hidden_layers=num_layers,
            num_attention_heads=num_heads,
            ffn_dim=config.ffn_dim,
            max_position_embeddings=config.max_positions,
            word_embed_proj_dim=width,
        )
    )
    state = huggingface.params_to_hf(params, config)
    model.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    model = model.float().eval()
    model.generation_config.eos_token_id = None
    prompts = np.random.default_rng(0).integers(4, 50265, (BATCH, PROMPT))
    ids = torch.tensor(prompts)
    mask = torch.ones_like(ids)

    # Once, as an engine does: a model of transformers, too, is ready when it is asked.
    weights = decoding.prepare(config, params)

    def ours(new=NEW):
        return decoding.decode(
            config,
            params,
            prompts.tolist(),
            DecodingConfig(max_new_tokens=new),
            NO_EOS,
            batch_size=BATCH,
            weights=weights,
        ).tokens

    def theirs():
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=NEW,
                do_sample=False,
                pad_token_id=1,
            )
        return out[:, PROMPT:].tolist()

    same = sum(a == b for a, b in zip(ours(), theirs())) / BATCH
    ours(1)
    prefill = min(_seconds(lambda: ours(1)) for _ in range(3))
    times: dict = {"ours": [], "theirs": []}
    for number in range(pairs):
        order = [("ours", ours), ("theirs", theirs)]
        for name, call in order if number % 2 == 0 else order[::-1]:
            times[name].append(_seconds(call))
    ours_s, theirs_s = (statistics.median(times[name]) for name in ("ours", "theirs"))
    ratios = [b / a for a, b in zip(times["ours"], times["theirs"])]
    return {
        "shape": shape,
        "ours_s": ours_s,
        "transformers_s": theirs_s,
        "ours_tokens_per_s": BATCH * NEW / ours_s,
        "transformers_tokens_per_s": BATCH * NEW / theirs_s,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "our_prefill_s": prefill,
        "our_step_ms": (min(times["ours"]) - prefill) / (NEW - 1) * 1000,
        "same": same,
    }


def _seconds(call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    """Measures every shape and prints a table or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shapes", default="tiny,125m", help="tiny, 125m (default both)")
    parser.add_argument("--pairs", type=int, default=5, help="alternating pairs (default 5)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    import torch

    told = conditions.measured(
        *("jax", "torch", "transformers"),
        torch_threads=torch.get_num_threads(),
        dtype="float32",
        batch=BATCH,
        prompt=PROMPT,
        new=NEW,
        seed=0,
    )
    rows = [measure(shape, args.pairs) for shape in args.shapes.split(",")]
    if args.json:
        print(json.dumps({**told, "results": rows}))
        return
    print(conditions.shown(told))
    print(
        f"{'shape':6}{'ours':>10}{'transformers':>14}{'ratio':>8}{'step':>11}{'prefill':>10}{'same':>7}"
    )
    for row in rows:
        print(
            f"{row['shape']:6}{row['ours_s']:8.2f} s{row['transformers_s']:12.2f} s"
            f"{row['ratio']:8.2f}{row['our_step_ms']:8.1f} ms{row['our_prefill_s']:8.2f} s"
            f"{row['same']:7.2f}"
        )


if __name__ == "__main__":
    main()
