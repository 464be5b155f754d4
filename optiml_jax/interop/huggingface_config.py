"""`config.json` of a Hugging Face OPT model and our `OptConfig`, both ways.

Only what changes the function that the model computes is compared; a value that we do not have is
refused by its name. Other fields (paths, versions, generation habits) say nothing about weights.
"""

from collections.abc import Mapping
from typing import Any

from optiml_jax import errors, types
from optiml_jax.model.config import OptConfig

# Field -> (value where it is absent, the only value that this model has).
FIXED: Mapping[str, tuple[Any, Any]] = {
    "model_type": (None, "opt"),
    "activation_function": ("relu", "relu"),
    "enable_bias": (True, True),
    "layer_norm_elementwise_affine": (True, True),
    "tie_word_embeddings": (True, True),
    "eos_token_id": (types.EOS_ID, types.EOS_ID),
    "pad_token_id": (types.PAD_ID, types.PAD_ID),
    "quantization_config": (None, None),
}
# Ours -> theirs. Defaults are those of `OPTConfig`, which files may leave out.
SIZES: Mapping[str, tuple[str, int]] = {
    "vocab_size": ("vocab_size", 50272),
    "num_layers": ("num_hidden_layers", 12),
    "num_heads": ("num_attention_heads", 12),
    "d_model": ("hidden_size", 768),
    "ffn_dim": ("ffn_dim", 3072),
    "max_positions": ("max_position_embeddings", 2048),
}
# Sizes of arrays are 32 bits wide.
MOST = 2**31
RATES: Mapping[str, tuple[str, float]] = {
    "dropout_rate": ("dropout", 0.1),
    "attention_dropout_rate": ("attention_dropout", 0.0),
    "init_std": ("init_std", 0.02),
}


def from_hf(values: Mapping[str, Any], where: str) -> OptConfig:
    """Our config of a `config.json`.

    A model is pre-LN where `do_layer_norm_before`, and has a final norm then unless
    `_remove_final_layer_norm` (uploads made before transformers 4.20.1 lack it).

    Raises:
        InputError: another architecture or variant, named by field and value.
    """
    for name, (default, expected) in FIXED.items():
        value = values.get(name, default)
        if value != expected:
            raise errors.InputError(
                f"{where}: {name} is {value!r}, optiml_jax has {expected!r} only. This model is "
                "another architecture, or another variant of OPT, and cannot be converted."
            )
    sizes = {ours: values.get(theirs, default) for ours, (theirs, default) in SIZES.items()}
    rates = {ours: values.get(theirs, default) for ours, (theirs, default) in RATES.items()}
    for (theirs, _), value in zip(RATES.values(), rates.values()):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise errors.InputError(f"{where}: {theirs} is {value!r}, expected a number.")
    for (theirs, _), value in zip(SIZES.values(), sizes.values()):
        if isinstance(value, int) and value >= MOST:
            raise errors.InputError(f"{where}: {theirs} is {value:,}, expected less than {MOST:,}.")
    flags = {
        name: values.get(name, default)
        for name, default in (("do_layer_norm_before", True), ("_remove_final_layer_norm", False))
    }
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise errors.InputError(f"{where}: {name} is {value!r}, expected true or false.")
    is_pre = flags["do_layer_norm_before"]
    width = values.get("word_embed_proj_dim")
    try:
        return OptConfig(
            **sizes,
            **rates,
            norm_placement="pre" if is_pre else "post",
            final_norm=is_pre and not flags["_remove_final_layer_norm"],
            embedding_dim=None if width in (None, sizes["d_model"]) else width,
        )
    except (errors.InputError, TypeError) as error:
        raise errors.InputError(f"{where}: {error}") from None


def to_hf(config: OptConfig, dtype: str) -> dict[str, Any]:
    """The content of `config.json` for a model of ours.

    Raises:
        InputError: a variant that Hugging Face's `OPTConfig` cannot tell.
    """
    if config.embedding_dim == config.d_model:
        raise errors.InputError(
            f"model config: embedding_dim is d_model, {config.d_model}: Hugging Face's OPT has "
            "projections only where the two differ, so this model cannot be written for it."
        )
    fixed = {name: value for name, (_, value) in FIXED.items() if value is not None}
    is_pre = config.norm_placement == "pre"
    return {
        "architectures": ["OPTForCausalLM"],
        **fixed,
        **{theirs: getattr(config, ours) for ours, (theirs, _) in SIZES.items()},
        **{theirs: getattr(config, ours) for ours, (theirs, _) in RATES.items()},
        "do_layer_norm_before": is_pre,
        "_remove_final_layer_norm": is_pre and not config.final_norm,
        "word_embed_proj_dim": config.embedding_width,
        "bos_token_id": types.EOS_ID,  # OPT begins a text with </s>.
        "torch_dtype": dtype,
        "use_cache": True,
    }
