"""The OPT decoder: token ids to hidden states to logits, with an optional key-value cache.

The functions at the end are the whole face: parameters are a plain nested dict of float32 arrays,
layers stacked on axis 0. Linen stays inside. `logical_axes` mirrors the parameter tree and is
what `model/partitioning.py` turns into shardings.

    token_embedding [V, D]   position_embedding [P + 2, D]   final_norm {scale, bias} [D]
    layers/attention_norm, layers/ffn_norm {scale, bias} [L, D]
    layers/qkv   kernel [L, D, N, 3, H]  bias [L, N, 3, H]    a head's query, key, value
    layers/out   kernel [L, N, H, D]     bias [L, D]
    layers/fc1   kernel [L, D, F]        bias [L, F]
    layers/fc2   kernel [L, F, D]        bias [L, D]

Two variants change the tree: with `embedding_dim` E the token embedding is [V, E], beside
project_in {kernel [E, D]} and project_out {kernel [D, E]}; without `final_norm` there is none.

Left out on purpose: sampling (`infer/`), losses (`train/losses.py`).
"""

from typing import Any

import jax
import jax.ad_checkpoint
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int, Key

from optiml_jax import types
from optiml_jax.model import attention, layers, partitioning
from optiml_jax.model.config import REMAT, OptConfig

# fairseq starts positions at padding_idx + 1 (metaseq PositionalEmbedding; HF `offset = 2`).
POSITION_OFFSET = 2
Params = dict[str, Any]
Cache = dict[str, jax.Array]
StepCache = dict[str, Any]
# Names of layers that are not stacked: this and their number.
UNSTACKED = "layers_"


class DecoderLayer(nn.Module):
    """Two blocks, attention and feed-forward, each added to what came in.

    Pre-LN: x + drop(block(norm(x))). Post-LN (350M): norm(x + drop(block(x))).
    """

    config: OptConfig
    keeps_cache: bool = False

    @nn.compact
    def __call__(self, hidden, dropout_rng, cache, context):
        """Returns the next hidden state and the layer's cache (None without one).

        Args:
            cache: of `step`: {"keys", "values"} [B, N, S, H] of this layer. None for whole rows,
                whose keys and values [B, T, N, H] come back where `keeps_cache`.
            context: what all layers share, see `_context`.
        """
        rngs = (None,) * 3 if dropout_rng is None else jax.random.split(dropout_rng, 3)
        length = _residual_length(cache, self.keeps_cache)

        def add(block, norm, rng, hidden):
            is_pre = self.config.norm_placement == "pre"
            # Whole rows enter the products, also where the residual stream is cut by length.
            inputs = norm(hidden) if is_pre else hidden
            inputs = partitioning.constrain(inputs, ("batch", "length", "features"))
            outputs, extra = block(inputs)
            outputs = layers.dropout(outputs, self.config.dropout_rate, rng)
            hidden = partitioning.constrain(hidden + outputs, ("batch", length, "features"))
            return (hidden if is_pre else norm(hidden)), extra

        hidden, cache = add(
            lambda inputs: self._attention(inputs, rngs[0], cache, context),
            layers.LayerNorm(name="attention_norm"),
            rngs[1],
            hidden,
        )
        hidden, _ = add(self._ffn, layers.LayerNorm(name="ffn_norm"), rngs[2], hidden)
        return hidden, cache

    def _attention(self, inputs, dropout_rng, cache, context):
        """The attention block's output [B, T, D] and the updated cache."""
        config = self.config
        dtype = jnp.dtype(config.dtype)
        width, heads = (config.d_model,), (config.num_heads, config.head_dim)
        qkv = layers.Linear(
            width,
            (config.num_heads, 3, config.head_dim),
            config.init_std,
            dtype,
            name="qkv",
        )(inputs)
        qkv = partitioning.constrain(qkv, ("batch", "length", "heads", "qkv", "head_dim"))
        qkv = jax.ad_checkpoint.checkpoint_name(qkv, "qkv")
        query, key, value = qkv[..., 0, :], qkv[..., 1, :], qkv[..., 2, :]
        query = query * jnp.asarray(config.head_dim**-0.5, dtype)
        is_step = cache is not None
        if is_step:
            cache, key, value = _extend(cache, key, value, context["step_slot"])
        elif self.keeps_cache:
            cache = {"keys": key, "values": value}
        mixed = attention.attend(
            config.attention,
            query,
            key,
            value,
            query_segment_ids=context["query_segment_ids"],
            key_segment_ids=context["key_segment_ids"],
            query_slots=context["query_slots"],
            dropout_rate=config.attention_dropout_rate,
            dropout_rng=dropout_rng,
            cached=is_step,
        )
        mixed = partitioning.constrain(mixed, ("batch", "length", "heads", "head_dim"))
        outputs = layers.Linear(heads, width, _small_std(config), dtype, name="out")(mixed)
        return jax.ad_checkpoint.checkpoint_name(outputs, "out"), cache

    def _ffn(self, inputs):
        """The feed-forward block's output [B, T, D], and None."""
        config = self.config
        dtype = jnp.dtype(config.dtype)
        width, inner = (config.d_model,), (config.ffn_dim,)
        hidden = layers.Linear(width, inner, config.init_std, dtype, name="fc1")(inputs)
        hidden = partitioning.constrain(hidden, ("batch", "length", "ffn"))
        hidden = nn.relu(jax.ad_checkpoint.checkpoint_name(hidden, "fc1"))
        return layers.Linear(inner, width, _small_std(config), dtype, name="fc2")(hidden), None


class Decoder(nn.Module):
    """Embeddings, the stack of layers, the final norm, and the 350M variant's projections."""

    config: OptConfig
    keeps_cache: bool = False

    @nn.compact
    def __call__(self, inputs, positions, dropout_rng, cache, context):
        """Returns what the head reads [B, T, E] and the stacked cache of all layers."""
        config = self.config
        dtype = jnp.dtype(config.dtype)
        table_init = layers.zero_row(nn.initializers.normal(config.init_std), types.PAD_ID)
        tokens = self.param(
            "token_embedding", table_init, (config.vocab_size, config.embedding_width), jnp.float32
        )
        places = self.param(
            "position_embedding",
            table_init,
            (config.max_positions + POSITION_OFFSET, config.d_model),
            jnp.float32,
        )
        # Every device looks all rows up in its own columns of the tables, which stay cut: what
        # moves is one activation, where the tables and their gradients would be gathered whole.
        inputs = partitioning.constrain(inputs, ("lookup_batch", "length"))
        positions = partitioning.constrain(positions, ("lookup_batch", "length"))
        hidden = partitioning.constrain(tokens[inputs], ("lookup_batch", "length", "embed"))
        if config.embedding_dim is not None:
            hidden = partitioning.constrain(hidden, ("batch", "length", "features"))
            project = self._projection("project_in", config.embedding_dim, config.d_model)
            hidden = project(hidden).astype(jnp.float32)
        looked_up = places[positions + jnp.int32(POSITION_OFFSET)]
        looked_up = partitioning.constrain(looked_up, ("lookup_batch", "length", "embed"))
        hidden = hidden + looked_up
        length = _residual_length(cache, self.keeps_cache)
        hidden = partitioning.constrain(hidden.astype(dtype), ("batch", length, "features"))

        layer_rngs = None
        if dropout_rng is not None:
            rngs = jax.random.split(dropout_rng, config.num_layers + 1)
            layer_rngs = rngs[1:]
            if config.embedding_dropout:
                hidden = layers.dropout(hidden, config.dropout_rate, rngs[0])

        if isinstance(cache, tuple):
            hidden, cache = self._unrolled(hidden, cache, context)
        else:
            hidden, cache = self._scanned(hidden, layer_rngs, cache, context)
        if config.final_norm:
            hidden = layers.LayerNorm(name="final_norm")(hidden)
        hidden = partitioning.constrain(hidden, ("batch", "length", "features"))
        if config.embedding_dim is not None:
            hidden = self._projection("project_out", config.d_model, config.embedding_dim)(hidden)
        return hidden, cache

    def _scanned(self, hidden, layer_rngs, cache, context):
        """All layers over stacked parameters."""
        config = self.config
        layer = DecoderLayer
        saved = REMAT[config.remat]
        if saved is not None:
            policy = jax.checkpoint_policies.save_only_these_names(*saved)
            layer = nn.remat(layer, prevent_cse=not config.scan_layers, policy=policy)
        # Linen declares `in_axes` as a number; it takes one per argument.
        in_axes: Any = (0, 0, nn.broadcast)
        stack = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=in_axes,
            length=config.num_layers,
            unroll=1 if config.scan_layers else config.num_layers,
        )(config, self.keeps_cache, name="layers")
        return stack(hidden, layer_rngs, cache, context)

    def _unrolled(self, hidden, cache, context):
        """All layers, each with parameters and cache of its own, see `unstack`."""
        updated = []
        for number, layer_cache in enumerate(cache):
            layer = DecoderLayer(self.config, name=f"{UNSTACKED}{number}")
            hidden, layer_cache = layer(hidden, None, layer_cache, context)
            updated.append(layer_cache)
        return hidden, tuple(updated)

    def _projection(self, name, width, new_width):
        """A linear map without bias, in the compute dtype."""
        config = self.config
        dtype = jnp.dtype(config.dtype)
        linear = layers.Linear(
            (width,), (new_width,), config.init_std, dtype, has_bias=False, name=name
        )
        return lambda values: linear(values.astype(dtype))


def _residual_length(cache, keeps_cache):
    """The logical axis of the residual stream's length: what decodes is not cut along it."""
    return "residual_length" if cache is None and not keeps_cache else "length"


def _extend(cache, key, value, slot):
    """A layer's cache with a token more in each row, and all of it as attention reads it."""
    cache = {
        name: lax.dynamic_update_slice_in_dim(cache[name], new.swapaxes(1, 2), slot, axis=2)
        for name, new in (("keys", key), ("values", value))
    }
    return cache, cache["keys"].swapaxes(1, 2), cache["values"].swapaxes(1, 2)


def _small_std(config):
    """Standard deviation of the layers that end a block (Megatron's initialization)."""
    return config.init_std / (2 * config.num_layers) ** 0.5


def init_params(config: OptConfig, rng: Key[Array, ""]) -> Params:
    """Draws parameters: N(0, 0.006), N(0, 0.006 / sqrt(2 L)) for out and fc2, biases 0.

    The pad rows of both tables are zero. The draw does not depend on the mesh; run it under `jit`
    with `out_shardings` to make every array where it will live.

    Source: OPT (arXiv 2205.01068) §2.2.
    """
    ids = jnp.zeros((1, 1), jnp.int32)
    context = _context(ids + jnp.int32(1))
    variables: Any = Decoder(config).init({"params": rng}, ids, ids, None, None, context)
    return variables["params"]


def logical_axes(config: OptConfig) -> dict[str, Any]:
    """The logical names of every parameter's axes, in the tree of `init_params`."""
    norm = {"scale": ("layers", "norm"), "bias": ("layers", "norm")}
    axes = {
        "token_embedding": ("vocab", "embed"),
        "position_embedding": ("positions", "embed"),
        "layers": {
            "attention_norm": dict(norm),
            "qkv": {
                "kernel": ("layers", "embed", "heads", "qkv", "head_dim"),
                "bias": ("layers", "heads", "qkv", "head_dim"),
            },
            "out": {
                "kernel": ("layers", "heads", "head_dim", "embed"),
                "bias": ("layers", "norm"),
            },
            "ffn_norm": dict(norm),
            "fc1": {"kernel": ("layers", "embed", "ffn"), "bias": ("layers", "ffn")},
            "fc2": {"kernel": ("layers", "ffn", "embed"), "bias": ("layers", "norm")},
        },
    }
    if config.embedding_dim is not None:
        axes["project_in"] = {"kernel": ("embedding_width", "embed")}
        axes["project_out"] = {"kernel": ("embed", "embedding_width")}
    if config.final_norm:
        axes["final_norm"] = {"scale": ("norm",), "bias": ("norm",)}
    return axes


def hidden_states(
    config: OptConfig,
    params: Params,
    inputs: Int[Array, "B T"],
    segment_ids: Int[Array, "B T"],
    positions: Int[Array, "B T"],
    *,
    dropout_rng: Key[Array, ""] | None = None,
    keep_cache: bool = False,
) -> tuple[Float[Array, "B T E"], Cache | None]:
    """What the head reads, in the compute dtype, and the cache that `step` goes on from.

    That is the output after the final norm, E = D wide; with `embedding_dim` its projection to E.

    Args:
        segment_ids: 1, 2, ... per document of a row, 0 for padding. A token sees the earlier
            tokens of its own document only.
        positions: restart at 0 with every document.
        dropout_rng: None turns dropout off.
        keep_cache: return keys and values [L, B, T, N, H] in the compute dtype, and segment_ids
            [B, T]; None otherwise. See `unstack_cache`.
    """
    context = _context(segment_ids)
    hidden, cache = Decoder(config, keep_cache).apply(
        {"params": params}, inputs, positions, dropout_rng, None, context
    )
    return hidden, {**cache, "segment_ids": segment_ids} if keep_cache else None


def logits(
    config: OptConfig, params: Params, hidden: Float[Array, "*batch E"]
) -> Float[Array, "*batch V"]:
    """Scores of the next token, float32, from the tied embedding."""
    dtype = jnp.dtype(config.dtype)
    table = partitioning.constrain(params["token_embedding"], ("vocab", "features"))
    return jnp.dot(hidden.astype(dtype), table.T.astype(dtype), preferred_element_type=jnp.float32)


def unstack(params: Params) -> Params:
    """Parameters with a tree per layer ("layers_0", ...), as `step` reads them.

    A loop over stacked layers copies each layer's weights out of the stack at every step.
    """
    unstacked = {name: value for name, value in params.items() if name != "layers"}
    stacked, tree = jax.tree.flatten(params["layers"])
    for number in range(stacked[0].shape[0]):
        own = [leaf[number] for leaf in stacked]
        unstacked[f"{UNSTACKED}{number}"] = jax.tree.unflatten(tree, own)
    return unstacked


def unstack_cache(cache: Cache, amount: int) -> StepCache:
    """A filled cache with `amount` empty slots more, as `step` reads it.

    Returns:
        layers: {"keys", "values"} [B, N, S, H] of each; segment_ids [B, S].
    """

    def grown(entry):
        entry = jnp.pad(entry.swapaxes(1, 2), ((0, 0), (0, 0), (0, amount), (0, 0)))
        return partitioning.constrain(entry, ("batch", "heads", "length", "head_dim"))

    layer_caches = tuple(
        {name: grown(cache[name][number]) for name in ("keys", "values")}
        for number in range(cache["keys"].shape[0])
    )
    segment_ids = jnp.pad(cache["segment_ids"], ((0, 0), (0, amount)))
    return {
        "layers": layer_caches,
        "segment_ids": partitioning.constrain(segment_ids, ("batch", "length")),
    }


def step(
    config: OptConfig,
    params: Params,
    tokens: Int[Array, " B"],
    positions: Int[Array, " B"],
    cache: StepCache,
    slot: Int[Array, ""],
) -> tuple[Float[Array, "B E"], StepCache]:
    """What the head reads after one token more in each row, and the updated cache.

    All rows write into the same `slot`, which costs a copy of one column; rows of unequal length
    leave a gap of padding (segment 0) behind their prompts, which none of their tokens sees.

    Args:
        params: from `unstack`.
        positions: of the tokens in their documents.
        cache: from `unstack_cache`, or from the step before.
    """
    ones = jnp.ones((tokens.shape[0], 1), jnp.int32)
    segment_ids = lax.dynamic_update_slice_in_dim(cache["segment_ids"], ones, slot, axis=1)
    context = {
        "query_segment_ids": ones,
        "key_segment_ids": segment_ids,
        "query_slots": jnp.broadcast_to(slot.astype(jnp.int32), ones.shape),
        "step_slot": slot,
    }
    hidden, layer_caches = Decoder(config).apply(
        {"params": params}, tokens[:, None], positions[:, None], None, cache["layers"], context
    )
    return hidden[:, 0], {"layers": layer_caches, "segment_ids": segment_ids}


def _context(segment_ids):
    """What all layers share: who may see whom; for `step` also where the new keys are written."""
    slots = jnp.arange(segment_ids.shape[1], dtype=jnp.int32)
    return {
        "query_segment_ids": segment_ids,
        "key_segment_ids": segment_ids,
        "query_slots": jnp.broadcast_to(slots, segment_ids.shape),
    }
