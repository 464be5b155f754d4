"""How far from transformers: logits, gradients, greedy tokens and beams of every variant.

    python benchmarks/parity.py [--sizes=125m,350m] [--json]

Random weights, all arrays of them (norms and biases too), scaled so that the logits spread by 1 or
more; float32 on both sides. Small models of every variant first, then the published sizes asked
for, at their whole shape. Each also against itself: layers unrolled, documents packed into one row,
and token by token from the cache.

Of the millions of units of a published size a few meet ReLU within rounding of zero. Each side
rounds them its own way, and one unit on or off moves a gradient by 1e-3: `gradients` says so, and
`gradients_theirs_in_float64` how far transformers in float32 is from itself in float64.
`gradients_clear_of_zero` is the comparison without that: the short row, of many, whose units keep
farthest from zero. Gradients that are zero but for rounding (the keys' biases, which softmax
ignores) are left out.
"""

import argparse
import dataclasses
import functools
import json
from typing import Any

import conditions
import jax
import numpy as np

from optiml_jax.infer import beam, decoding
from optiml_jax.infer.settings import DecodingConfig
from optiml_jax.interop import huggingface, huggingface_config
from optiml_jax.model import config as model_config
from optiml_jax.model import decoder
from optiml_jax.train import losses

SMALL = {
    "vocab_size": 272,
    "hidden_size": 64,
    "word_embed_proj_dim": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "ffn_dim": 256,
    "max_position_embeddings": 128,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "pre-LN": {},
    "post-LN with projections (350M)": {"do_layer_norm_before": False, "word_embed_proj_dim": 32},
    "pre-LN without final norm": {"_remove_final_layer_norm": True},
    "pre-LN with projections": {"word_embed_proj_dim": 32},
}
Arrays = dict[str, np.ndarray]
ROWS, LENGTH, NEW_TOKENS, NUM_BEAMS = 3, 40, 64, 4
SHORT_ROWS, SHORT_LENGTH = 256, 4


def reference(settings: dict) -> Any:
    """An `OPTForCausalLM` with everything random and logits of std 1 or more."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.OPTConfig(**{**SMALL, **settings}, dropout=0.0)
    model = transformers.OPTForCausalLM(config).float().eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        for name, value in model.named_parameters():
            mean = 1.0 if "layer_norm" in name and name.endswith("weight") else 0.0
            value.normal_(mean, 0.2 if mean else 1.5 * value.shape[-1] ** -0.5)
    return model


def compare(settings: dict, seed: int) -> dict:
    """All distances of one model."""
    import torch

    model = reference(settings)
    hf_config = model.config.to_dict()
    config = dataclasses.replace(huggingface_config.from_hf(hf_config, "here"), dtype="float32")
    state = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    params = huggingface.params_from_hf(state, config)
    ids = np.random.default_rng(seed).integers(4, config.vocab_size, (ROWS, LENGTH))
    ids = ids.astype(np.int32)
    tokens = torch.tensor(ids, dtype=torch.long)

    with torch.no_grad():
        expected = model(tokens).logits.numpy()
    hidden, _ = jax.jit(decoder.hidden_states, static_argnums=0)(config, params, *plain(ids))
    found = np.asarray(jax.jit(decoder.logits, static_argnums=0)(config, params, hidden))
    clear, margin = clear_of_zero(model, config.vocab_size, seed)
    theirs = their_gradients(model, ids)
    report = {
        "num_params": config.num_params(),
        "logits_std": float(expected.std()),
        "logits": distance(found, expected),
        "gradients": farthest(our_gradients(config, params, ids), theirs),
        "gradients_theirs_in_float64": farthest(theirs, their_gradients(model, ids, double=True)),
        "gradients_clear_of_zero": farthest(
            our_gradients(config, params, clear), their_gradients(model, clear)
        ),
        "gradients_clear_of_zero_theirs_in_float64": farthest(
            their_gradients(model, clear), their_gradients(model, clear, double=True)
        ),
        "clear_of_zero_by": margin,
        **itself(config, params, ids, found),
    }
    report.update(decoded(model, config, params, seed))
    return report


def clear_of_zero(model: Any, vocab_size: int, seed: int) -> tuple[np.ndarray, float]:
    """[1, T] ids of the short row whose inputs to ReLU keep farthest from zero, and how far."""
    import torch

    rows = np.random.default_rng(seed).integers(4, vocab_size, (SHORT_ROWS, SHORT_LENGTH))
    nearest: list = []
    hooks = [
        layer.fc1.register_forward_hook(
            lambda module, given, made: nearest.append(made.abs().reshape(SHORT_ROWS, -1).amin(1))
        )
        for layer in model.model.decoder.layers
    ]
    with torch.no_grad():
        model(torch.tensor(rows))
    for hook in hooks:
        hook.remove()
    margins = torch.stack(nearest).amin(0).numpy()
    row = int(margins.argmax())
    return rows[row : row + 1].astype(np.int32), float(margins[row])


def their_gradients(model: Any, ids: np.ndarray, double: bool = False) -> Arrays:
    """Of the summed loss, by name; computed in float64 where asked."""
    import torch

    model = model.double() if double else model.float()
    tokens = torch.tensor(ids, dtype=torch.long)
    model.zero_grad()
    scores = model(tokens).logits
    torch.nn.functional.cross_entropy(
        scores[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum"
    ).backward()
    found = {name: one.grad.numpy().copy() for name, one in model.named_parameters()}
    model.float()
    return found


def our_gradients(config: model_config.OptConfig, params: Any, ids: np.ndarray) -> Arrays:
    """The same of ours, under the same names."""
    weights: Any = np.ones(ids.shape, np.float32)
    weights[:, -1] = 0.0

    def summed(params):
        hidden, _ = decoder.hidden_states(config, params, *plain(ids))
        targets: Any = np.roll(ids, -1, axis=1)
        return losses.summed_cross_entropy(config, params, hidden, targets, weights)[0]

    return huggingface.params_to_hf(jax.jit(jax.grad(summed))(params), config)


def farthest(found: Arrays, expected: Arrays) -> float:
    """|found - expected| / |expected| of the array where that is largest."""
    least = 1e-6 * np.linalg.norm(expected["model.decoder.embed_tokens.weight"])
    return max(
        float(np.linalg.norm(found[name] - one) / np.linalg.norm(one))
        for name, one in expected.items()
        if np.linalg.norm(one) > least
    )


def plain(ids: np.ndarray) -> Any:
    """Ids, segment ids and positions of rows of one document each."""
    positions = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
    return ids, np.ones_like(ids), positions


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference as a share of the largest value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def itself(config: model_config.OptConfig, params: Any, ids: np.ndarray, found: np.ndarray) -> dict:
    """Unrolled, packed and cached, against the plain pass."""
    run = jax.jit(decoder.hidden_states, static_argnums=0)
    head = jax.jit(decoder.logits, static_argnums=0)
    unrolled = dataclasses.replace(config, scan_layers=False)
    hidden, _ = run(unrolled, params, *plain(ids))
    report = {"unrolled": distance(np.asarray(head(config, params, hidden)), found)}

    segments = np.repeat(np.arange(1, ROWS + 1, dtype=np.int32), LENGTH)[None]
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), ROWS)[None]
    hidden, _ = run(config, params, ids.reshape(1, -1), segments, positions)
    packed = np.asarray(head(config, params, hidden)).reshape(found.shape)
    report["packed"] = distance(packed, found)

    half = LENGTH // 2
    keeping = jax.jit(functools.partial(decoder.hidden_states, keep_cache=True), static_argnums=0)
    hidden, cache = keeping(config, params, *(array[:, :half] for array in plain(ids)))
    parts = [np.asarray(head(config, params, hidden))]
    cache = decoder.unstack_cache(cache, LENGTH - half)
    weights, step = decoder.unstack(params), jax.jit(decoder.step, static_argnums=0)
    for place in range(half, LENGTH):
        places = np.full(ROWS, place, np.int32)
        hidden, cache = step(config, weights, ids[:, place], places, cache, np.int32(place))
        parts.append(np.asarray(head(config, params, hidden))[:, None])
    report["cached"] = distance(np.concatenate(parts, axis=1), found)
    return report


def decoded(model: Any, config: model_config.OptConfig, params: Any, seed: int) -> dict:
    """Greedy tokens and beams of prompts of unequal length."""
    import torch

    rng = np.random.default_rng(seed)
    prompts = [rng.integers(4, config.vocab_size, size).tolist() for size in (9, 3, 17)]
    longest = max(map(len, prompts))
    ids = torch.tensor([[1] * (longest - len(one)) + one for one in prompts])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts])
    options = {
        "attention_mask": mask,
        "do_sample": False,
        "eos_token_id": -1,
        "pad_token_id": 1,
        "max_new_tokens": NEW_TOKENS,
    }
    with torch.no_grad():
        greedy = model.generate(ids, **options)[:, longest:].tolist()
        beams = model.generate(
            ids,
            num_beams=NUM_BEAMS,
            early_stopping=False,
            return_dict_in_generate=True,
            output_scores=True,
            **options,
        )
    ours = decoding.greedy(config, params, prompts, NEW_TOKENS, -1).tokens
    settings = DecodingConfig(max_new_tokens=NEW_TOKENS, num_beams=NUM_BEAMS)
    found = [rows[0] for rows in beam.search(config, params, prompts, settings, -1).found]
    scores = np.array([one.score for one in found])
    return {
        "greedy_tokens_identical": ours == greedy,
        "beam_tokens_identical": [one.tokens for one in found]
        == beams.sequences[:, longest:].tolist(),
        "beam_scores": float(np.abs(scores - beams.sequences_scores.numpy()).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="", help="published sizes too, with commas between")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    measured = conditions.measured("jax", "torch", "transformers", seed=args.seed)
    cases = dict(VARIANTS)
    for size in filter(None, args.sizes.split(",")):
        settings = huggingface_config.to_hf(model_config.published(size), "float32")
        cases[size] = {name: settings[name] for name in (*SMALL, "do_layer_norm_before")}
    report: dict = {
        "models": {name: compare(settings, args.seed) for name, settings in cases.items()},
        "conditions": measured,
    }
    if args.json:
        print(json.dumps(report))
        return
    for name, found in report["models"].items():
        print(name)
        for key, value in found.items():
            print(
                f"  {key + ':':<42} {value:.3g}"
                if isinstance(value, float)
                else f"  {key + ':':<42} {value}"
            )
    print(conditions.shown(measured))


if __name__ == "__main__":
    main()
