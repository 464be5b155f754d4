"""How far from transformers: logits, gradients, greedy tokens and beams of every variant.

    python benchmarks/parity.py [--sizes=125m,350m] [--json]

Random weights, all arrays of them (norms and biases too), scaled so that the logits spread by 1 or
more; float32 on both sides. Small models of every variant first, then the published sizes asked
for, at their whole shape. Each also against itself: layers unrolled, documents packed into one row,
and token by token from the cache.

Gradients are compared on the longest beginning of a row in which no unit's input to ReLU lies
within rounding of zero: of millions of units a few do, each side rounds them its own way, and one
unit on or off moves a gradient by 1e-3. `gradients_all_tokens` has those too. Gradients that are zero but for
rounding (the keys' biases, which softmax ignores) are left out of both.
"""

import argparse
import dataclasses
import json
import platform
from typing import Any

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
ROWS, LENGTH, NEW_TOKENS, NUM_BEAMS = 3, 40, 64, 4
# Inputs to ReLU have a spread near 1; float32 rounds them by 1e-6 or less.
KINK = 3e-6


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
    smooth = without_kinks(model, tokens)
    report = {
        "num_params": config.num_params(),
        "logits_std": float(expected.std()),
        "logits": distance(found, expected),
        "gradients_worst_array": gradients(model, config, params, smooth),
        "gradients_tokens": smooth.size,
        "gradients_all_tokens": gradients(model, config, params, ids),
        **itself(config, params, ids, found),
    }
    report.update(decoded(model, config, params, seed))
    return report


def without_kinks(model: Any, tokens: Any) -> np.ndarray:
    """[1, T] ids: the longest beginning of a row that comes nowhere near ReLU's kink."""
    import torch

    nearest: list = []
    hooks = [
        layer.fc1.register_forward_hook(
            lambda module, given, made: nearest.append(made.abs().min(-1).values)
        )
        for layer in model.model.decoder.layers
    ]
    with torch.no_grad():
        model(tokens)
    for hook in hooks:
        hook.remove()
    shape = (len(nearest), *tokens.shape)
    clear = (torch.stack(nearest).reshape(shape).amin(0) > KINK).numpy()
    lengths = np.cumprod(clear, axis=1).sum(axis=1)
    row = int(lengths.argmax())
    return tokens[row : row + 1, : lengths[row]].numpy().astype(np.int32)


def gradients(model: Any, config: model_config.OptConfig, params: Any, ids: np.ndarray) -> float:
    """|ours - theirs| / |theirs| of the array where that is largest; the loss is the summed one."""
    import torch

    tokens = torch.tensor(ids, dtype=torch.long)
    model.zero_grad()
    scores = model(tokens).logits
    torch.nn.functional.cross_entropy(
        scores[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum"
    ).backward()
    weights: Any = np.ones(ids.shape, np.float32)
    weights[:, -1] = 0.0

    def summed(params):
        hidden, _ = decoder.hidden_states(config, params, *plain(ids))
        targets: Any = np.roll(ids, -1, axis=1)
        return losses.summed_cross_entropy(config, params, hidden, targets, weights)[0]

    named = huggingface.params_to_hf(jax.jit(jax.grad(summed))(params), config)
    theirs = {name: one.grad.numpy() for name, one in model.named_parameters()}
    least = 1e-6 * np.linalg.norm(theirs["model.decoder.embed_tokens.weight"])
    return max(
        float(np.linalg.norm(named[name] - one) / np.linalg.norm(one))
        for name, one in theirs.items()
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
    hidden, cache = run(
        config,
        params,
        *(array[:, :half] for array in plain(ids)),
        cache=decoder.init_cache(config, ROWS, LENGTH),
    )
    parts = [np.asarray(head(config, params, hidden))]
    for place in range(half, LENGTH):
        index = np.full(ROWS, place, np.int32)
        hidden, cache = run(
            config,
            params,
            ids[:, place : place + 1],
            np.ones((ROWS, 1), np.int32),
            index[:, None],
            cache=cache,
            cache_index=index,
        )
        parts.append(np.asarray(head(config, params, hidden)))
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
    import torch
    import transformers

    cases = dict(VARIANTS)
    for size in filter(None, args.sizes.split(",")):
        settings = huggingface_config.to_hf(model_config.published(size), "float32")
        cases[size] = {name: settings[name] for name in (*SMALL, "do_layer_norm_before")}
    report: dict = {
        "models": {name: compare(settings, args.seed) for name, settings in cases.items()},
        "versions": {
            "jax": jax.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
    }
    if args.json:
        print(json.dumps(report))
        return
    for name, found in report["models"].items():
        print(name)
        for key, value in found.items():
            print(
                f"  {key + ':':<26} {value:.3g}"
                if isinstance(value, float)
                else f"  {key + ':':<26} {value}"
            )
    print(report["versions"])


if __name__ == "__main__":
    main()
