"""A decoding config refuses what it could not keep."""

import pytest

from optiml_jax.errors import InputError
from optiml_jax.infer.settings import DecodingConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_new_tokens": 0}, "'max_new_tokens' is 0, expected a whole number from 1"),
        ({"max_new_tokens": True}, "'max_new_tokens' is True, expected a whole number"),
        ({"temperature": -0.1}, "'temperature' is -0.1, expected 0"),
        ({"temperature": float("nan")}, "'temperature' is nan, expected a finite number"),
        ({"temperature": 1.0, "top_p": 0.0}, "'top_p' is 0.0, expected 0 < top_p <= 1"),
        ({"temperature": 1.0, "top_k": -1}, "'top_k' is -1, expected a whole number from 0"),
        ({"temperature": 1e-300}, "'temperature' is 1e-300, expected 0 (greedy) or a number from"),
        ({"temperature": 1e300}, "'temperature' is 1e+300, expected 0 (greedy) or a number from"),
        ({"temperature": 1.0, "top_k": 2**31}, "'top_k' is 2147483648, expected less than"),
        ({"num_beams": 10**12}, "'num_beams' is 1000000000000, expected at most 1024"),
        ({"num_beams": 2, "length_penalty": 99.0}, "'length_penalty' is 99.0, expected a number"),
        ({"top_k": 5}, "'top_k' is 5, but with temperature 0"),
        ({"top_p": 0.5}, "'top_p' is 0.5, but with temperature 0"),
        ({"seed": 2**32}, "'seed' is 4294967296, expected less than"),
        ({"num_beams": 2, "temperature": 1.0}, "beam search does not go with a temperature"),
        ({"num_beams": 2, "stop": ("a",)}, "beam search does not go with stop strings"),
        ({"num_beams": 2, "num_return_sequences": 3}, "expected at most num_beams, 2"),
        ({"length_penalty": 2.0}, "'length_penalty' is 2.0, expected 1 without num_beams"),
        ({"stop": ("",)}, "'stop' is ('',), expected a tuple of texts"),
    ],
)
def test_refused(values, message):
    with pytest.raises(InputError) as raised:
        DecodingConfig(**values)
    assert message in str(raised.value)


def test_the_first_stop_string_counts():
    settings = DecodingConfig(stop=("\n", "ab"))
    assert settings.end_of("xab\n") == 1
    assert settings.end_of("x\nab") == 1
    assert settings.end_of("xa") is None
    assert DecodingConfig().end_of("x") is None
