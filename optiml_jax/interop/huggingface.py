"""Hugging Face's names and layouts of OPT parameters, and ours: one table, read in both ways.

A linear weight is [out, in] there and [in, out] here, with heads as axes of their own; query, key
and value are three arrays there and one here; layers are numbered there and stacked here. The
350M variant (`project_in`, post-LN) is another architecture and is refused by its names. Files,
shards and tokenizers are not read here: the input is a mapping of names to arrays.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from optiml_jax import errors
from optiml_jax.model import decoder
from optiml_jax.model.config import OptConfig

PREFIX = "model.decoder."
# A base model (`OPTModel`) and the files of the oldest uploads lack the leading "model.".
BASE_PREFIX = "decoder."
HEAD = "lm_head.weight"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One Hugging Face array and its place in our tree.

    Attributes:
        name: after `PREFIX`; {layer} stands for the layer's number.
        path: keys of our tree.
        slot: index on the axis of (query, key, value), the one before the last, where fused.
        transposed: [out, in] there, [in, out] here.
    """

    name: str
    path: tuple[str, ...]
    slot: int | None = None
    transposed: bool = False


def _linear(name: str, path: str, slot: int | None = None) -> tuple[Entry, Entry]:
    return (
        Entry(f"layers.{{layer}}.{name}.weight", ("layers", path, "kernel"), slot, True),
        Entry(f"layers.{{layer}}.{name}.bias", ("layers", path, "bias"), slot),
    )


def _norm(name: str, *path: str) -> tuple[Entry, Entry]:
    return Entry(f"{name}.weight", (*path, "scale")), Entry(f"{name}.bias", (*path, "bias"))


TABLE: tuple[Entry, ...] = (
    Entry("embed_tokens.weight", ("token_embedding",)),
    Entry("embed_positions.weight", ("position_embedding",)),
    *_norm("layers.{layer}.self_attn_layer_norm", "layers", "attention_norm"),
    *_linear("self_attn.q_proj", "qkv", 0),
    *_linear("self_attn.k_proj", "qkv", 1),
    *_linear("self_attn.v_proj", "qkv", 2),
    *_linear("self_attn.out_proj", "out"),
    *_norm("layers.{layer}.final_layer_norm", "layers", "ffn_norm"),
    *_linear("fc1", "fc1"),
    *_linear("fc2", "fc2"),
    *_norm("final_layer_norm", "final_norm"),
)


def params_from_hf(state: Mapping[str, np.ndarray], config: OptConfig) -> dict[str, Any]:
    """Our float32 parameters (NumPy) from the state dict of an `OPTForCausalLM` or `OPTModel`.

    Raises:
        InputError: a name is missing or unknown, a shape does not fit `config`, or the head is not
            tied to the embedding.
    """
    state = {
        name if name == HEAD or name.startswith(PREFIX) else _with_prefix(name): array
        for name, array in state.items()
    }
    shapes = jax.eval_shape(lambda rng: decoder.init_params(config, rng), jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    seen = set()
    for entry, layer, name in _names(config):
        if name not in state:
            raise errors.InputError(
                f"Hugging Face weights: '{name}' is missing ({len(state)} names given). The model "
                f"config asks for {config.num_layers} pre-LN layers with biases."
            )
        seen.add(name)
        target = _place(params, entry, layer)
        array = np.asarray(state[name], dtype=np.float32)
        expected = target.shape
        if entry.transposed:
            inputs = config.ffn_dim if entry.path[1] == "fc2" else config.d_model
            expected = (target.size // inputs, inputs)
        elif entry.path[0] == "layers":
            expected = (target.size,)
        if array.shape != expected:
            raise errors.InputError(
                f"Hugging Face weights: '{name}' has shape {list(array.shape)}, the model config "
                f"expects {list(expected)}. Compare the config's sizes with the model's."
            )
        target[...] = (array.T if entry.transposed else array).reshape(target.shape)
    head = state.get(HEAD)
    if head is not None and not np.array_equal(
        np.asarray(head, np.float32), params["token_embedding"]
    ):
        raise errors.InputError(
            f"Hugging Face weights: '{HEAD}' differs from the embedding; OPT's head is tied. "
            "Save the model with tied weights."
        )
    unread = sorted(set(state) - seen - {HEAD})
    if unread:
        raise errors.InputError(
            f"Hugging Face weights: {len(unread)} name(s) have no place in this model, the first "
            f"is '{unread[0]}'. The model has more layers than the config, or is another variant."
        )
    return params


def params_to_hf(params: Mapping[str, Any], config: OptConfig) -> dict[str, np.ndarray]:
    """The state dict of an `OPTForCausalLM` (float32, the tied head included) from ours."""
    arrays = jax.tree.map(np.asarray, dict(params))
    state = {}
    for entry, layer, name in _names(config):
        array = _place(arrays, entry, layer)
        if entry.transposed:
            inputs = config.ffn_dim if entry.path[1] == "fc2" else config.d_model
            array = array.reshape(inputs, -1).T
        elif entry.path[0] == "layers":
            array = array.reshape(-1)
        state[name] = np.ascontiguousarray(array)
    state[HEAD] = state[PREFIX + "embed_tokens.weight"]
    return state


def _with_prefix(name: str) -> str:
    if name.startswith(BASE_PREFIX):
        name = name[len(BASE_PREFIX) :]
    return PREFIX + name


def _names(config: OptConfig):
    """Every (entry, layer number or None, full Hugging Face name)."""
    for entry in TABLE:
        if "{layer}" in entry.name:
            for layer in range(config.num_layers):
                yield entry, layer, PREFIX + entry.name.format(layer=layer)
        else:
            yield entry, None, PREFIX + entry.name


def _place(params: Any, entry: Entry, layer: int | None) -> np.ndarray:
    """The view of our tree that an entry fills."""
    leaf = params
    for key in entry.path:
        leaf = leaf[key]
    if layer is not None:
        leaf = leaf[layer]
    return leaf if entry.slot is None else leaf[..., entry.slot, :]
