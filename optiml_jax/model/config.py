"""The shape of an OPT decoder, the published sizes, and the arithmetic that follows from them.

A config is frozen and checks itself when made. `architecture()` tells which fields make a model
the same model: the rest (dropout, dtype, remat, scan, back-end) may change between two runs over
one checkpoint. 350M is another architecture under the same class: norms after the residual sum,
no final norm, token embeddings narrower than the model.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from optiml_jax import errors
from optiml_jax.model import attention

DTYPES = ("bfloat16", "float32")
NORM_PLACEMENTS = ("pre", "post")
SIZE_FIELDS = (
    "vocab_size",
    "num_layers",
    "num_heads",
    "d_model",
    "ffn_dim",
    "max_positions",
)
VARIANT_FIELDS = ("norm_placement", "final_norm", "embedding_dim")
ARCHITECTURE_FIELDS = SIZE_FIELDS + VARIANT_FIELDS

# What the backward pass finds and need not compute again, by the names that the decoder gives its
# values ("mixed" and "attention_residuals" are what dense and splash give); a layer's input is
# there always. "none" keeps what automatic differentiation keeps.
REMAT: Mapping[str, tuple[str, ...] | None] = {
    "none": None,
    # All matrix products: norms, activations and the attention square are computed again.
    "minimal": ("qkv", "mixed", "attention_residuals", "out", "fc1"),
    # The attention block's projections; attention and the feed-forward block again.
    "save_projections": ("qkv", "out"),
    "full": (),
}


@dataclasses.dataclass(frozen=True)
class OptConfig:
    """An OPT decoder: ReLU, biases everywhere, learned positions, tied head.

    Attributes:
        vocab_size: OPT's 50,265 entries padded to 50,272.
        max_positions: longest document; the table has two rows more (OPT's offset).
        norm_placement: "pre" normalises each block's input; "post" (350M) the sum after it.
        final_norm: a norm after the last layer; a post-LN model has none.
        embedding_dim: width E of the token embeddings where it is not the model's (350M: 512);
            projections without bias then lead from E to D and, before the head, back.
        dropout_rate: after the attention output and after fc2, before the residual is added.
        attention_dropout_rate: on attention probabilities.
        embedding_dropout: apply `dropout_rate` to embeddings also (OPT-IML does, OPT does not).
        dtype: of computation; parameters are float32 always.
        init_std: 0.006; out_proj and fc2 use init_std / sqrt(2 L).
        remat: what the backward pass computes again, a name of `REMAT`.
        scan_layers: False unrolls the loop over the same stacked parameters.
        attention: name of a back-end in `model/attention.py`, or "auto": the platform's.

    Source: OPT (arXiv 2205.01068) §2.1, §2.2, Table 1; OPT-IML (arXiv 2212.12017) §3.3; the 350M
    variant: the released checkpoint (Hugging Face facebook/opt-350m, config.json).
    """

    vocab_size: int
    num_layers: int
    num_heads: int
    d_model: int
    ffn_dim: int
    max_positions: int = 2048
    norm_placement: str = "pre"
    final_norm: bool = True
    embedding_dim: int | None = None
    dropout_rate: float = 0.1
    attention_dropout_rate: float = 0.1
    embedding_dropout: bool = False
    dtype: str = "bfloat16"
    init_std: float = 0.006
    remat: str = "none"
    scan_layers: bool = True
    attention: str = "auto"

    def __post_init__(self) -> None:
        for name in (*SIZE_FIELDS, "embedding_dim"):
            value = getattr(self, name)
            if name == "embedding_dim" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise errors.InputError(
                    f"model config: '{name}' is {value!r}, expected a whole number of at least 1."
                )
        if self.d_model % self.num_heads:
            raise errors.InputError(
                f"model config: d_model {self.d_model} does not divide into {self.num_heads} "
                "heads. Choose num_heads among the divisors of d_model."
            )
        for name in ("dropout_rate", "attention_dropout_rate"):
            value = getattr(self, name)
            if not 0.0 <= value < 1.0:
                raise errors.InputError(
                    f"model config: '{name}' is {value!r}, expected 0 <= rate < 1."
                )
        if self.init_std <= 0.0:
            raise errors.InputError(
                f"model config: 'init_std' is {self.init_std!r}, expected a positive number."
            )
        for name, known in (
            ("dtype", DTYPES),
            ("norm_placement", NORM_PLACEMENTS),
            ("remat", tuple(REMAT)),
            ("attention", ("auto", *attention.BACK_ENDS)),
        ):
            if getattr(self, name) not in known:
                raise errors.unknown(name, str(getattr(self, name)), known, "model config")
        if self.final_norm and self.norm_placement == "post":
            raise errors.InputError(
                "model config: 'final_norm' is True with norm_placement 'post', whose last layer "
                "ends with a norm already. Set final_norm = False."
            )

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.d_model // self.num_heads

    @property
    def embedding_width(self) -> int:
        """Width E of a token's embedding, and of what the tied head reads."""
        return self.d_model if self.embedding_dim is None else self.embedding_dim

    def architecture(self) -> dict[str, Any]:
        """The fields that two runs must share to read each other's checkpoints."""
        return {name: getattr(self, name) for name in ARCHITECTURE_FIELDS}

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values that `from_json` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str = "model config") -> "OptConfig":
        """Reads `to_json`'s dict.

        Raises:
            InputError: a field is missing or unknown.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise errors.unknown("field", name, known, where)
        missing = [name for name in SIZE_FIELDS if name not in values]
        if missing:
            raise errors.InputError(f"{where}: missing field(s) {', '.join(missing)}.")
        return cls(**values)

    def num_params(self) -> int:
        """Trainable numbers, the tied embedding counted once.

        Example:
            125m has 125,239,296 with OPT's vocabulary.
        """
        width, hidden = self.d_model, self.ffn_dim
        attention_params = 4 * (width * width + width)
        ffn_params = width * hidden + hidden + hidden * width + width
        norms = 2 * 2 * width
        tables = self.vocab_size * self.embedding_width + (self.max_positions + 2) * width
        projections = 0 if self.embedding_dim is None else 2 * self.embedding_dim * width
        final = 2 * width if self.final_norm else 0
        layers = self.num_layers * (attention_params + ffn_params + norms)
        return tables + projections + layers + final

    def flops_per_token(self, length: int | None = None) -> float:
        """Floating-point operations of forward and backward pass per token of a full row.

        Counts matrix products only (6 per weight, the head included, lookups not) and half of the
        attention square, since it is causal. `length` defaults to `max_positions`.
        """
        length = self.max_positions if length is None else length
        weights = self.num_layers * (4 * self.d_model**2 + 2 * self.d_model * self.ffn_dim)
        weights += self.vocab_size * self.embedding_width
        weights += 0 if self.embedding_dim is None else 2 * self.embedding_dim * self.d_model
        attention_square = 2 * self.num_layers * length * self.d_model / 2
        return 6.0 * (weights + attention_square)


def _size(num_layers: int, num_heads: int, d_model: int) -> OptConfig:
    return OptConfig(
        vocab_size=50272,
        num_layers=num_layers,
        num_heads=num_heads,
        d_model=d_model,
        ffn_dim=4 * d_model,
    )


# OPT (arXiv 2205.01068) Table 1; the feed-forward width is 4 times the model width.
PUBLISHED: dict[str, OptConfig] = {
    "125m": _size(12, 12, 768),
    # Released as another architecture (Hugging Face facebook/opt-350m, config.json).
    "350m": dataclasses.replace(
        _size(24, 16, 1024), norm_placement="post", final_norm=False, embedding_dim=512
    ),
    "1.3b": _size(24, 32, 2048),
    "2.7b": _size(32, 32, 2560),
    "6.7b": _size(32, 32, 4096),
    "13b": _size(40, 40, 5120),
    "30b": _size(48, 56, 7168),
    "66b": _size(64, 72, 9216),
    "175b": _size(96, 96, 12288),
}


def published(size: str, **changes: Any) -> OptConfig:
    """The config of a published size, with some fields changed.

    Example:
        published("1.3b", dtype="float32", embedding_dropout=True)

    Raises:
        InputError: no such size.
    """
    if size not in PUBLISHED:
        raise errors.unknown("model size", size, PUBLISHED)
    return dataclasses.replace(PUBLISHED[size], **changes)
