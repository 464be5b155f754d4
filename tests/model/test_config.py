import json

import jax
import pytest

from optiml_jax import errors
from optiml_jax.model import config as model_config
from optiml_jax.model import decoder
from optiml_jax.model.config import OptConfig

TINY = {"vocab_size": 32, "num_layers": 2, "num_heads": 2, "d_model": 8, "ffn_dim": 16}

# Parameters of transformers' OPTForCausalLM of the same sizes, tied ones counted once.
COUNTS = {"125m": 125_239_296, "350m": 331_196_416, "1.3b": 1_315_758_080, "6.7b": 6_658_473_984}


@pytest.mark.parametrize(("size", "count"), COUNTS.items())
def test_published_counts(size, count):
    assert model_config.published(size).num_params() == count


@pytest.mark.parametrize("size", model_config.PUBLISHED)
def test_num_params_equals_the_tree(size):
    config = model_config.published(size)
    shapes = jax.eval_shape(lambda rng: decoder.init_params(config, rng), jax.random.key(0))
    assert config.num_params() == sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_sizes_follow_the_paper():
    big = model_config.published("175b")
    assert (big.num_layers, big.num_heads, big.d_model) == (96, 96, 12288)
    assert (big.ffn_dim, big.head_dim, big.vocab_size) == (49152, 128, 50272)
    # 6 N D with N = 175e9 and a few per cent of attention.
    assert big.flops_per_token(2048) == pytest.approx(6 * 175e9, rel=0.04)


def test_json_round_trip():
    config = OptConfig(**TINY, dtype="float32", embedding_dropout=True)
    assert OptConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 3}, "d_model 8 does not divide into 3 heads"),
        ({"num_layers": 0}, "'num_layers' is 0"),
        ({"vocab_size": 32.0}, "'vocab_size' is 32.0"),
        ({"dropout_rate": 1.0}, "'dropout_rate' is 1.0"),
        ({"init_std": 0.0}, "'init_std'"),
        ({"dtype": "bfloat15"}, "unknown dtype 'bfloat15'. Did you mean 'bfloat16'"),
        ({"remat": "ful"}, "Did you mean 'full'"),
        ({"attention": "densse"}, "Did you mean 'dense'"),
        ({"norm_placement": "pots"}, "unknown norm_placement 'pots'"),
        ({"norm_placement": "post"}, "'final_norm' is True with norm_placement 'post'"),
        ({"embedding_dim": 0}, "'embedding_dim' is 0"),
    ],
)
def test_wrong_fields_are_refused(change, message):
    with pytest.raises(errors.InputError, match=message):
        OptConfig(**{**TINY, **change})


def test_unknown_names_are_refused():
    with pytest.raises(errors.InputError, match=r"unknown model size '1.3'. Did you mean '1.3b'"):
        model_config.published("1.3")
    with pytest.raises(errors.InputError, match=r"card: unknown field 'd_modell'.*'d_model'"):
        OptConfig.from_json({**TINY, "d_modell": 8}, "card")
    with pytest.raises(errors.InputError, match=r"missing field\(s\) num_layers"):
        OptConfig.from_json({name: value for name, value in TINY.items() if name != "num_layers"})
