"""gin flags are taken off the command line, whatever their spelling."""

import pytest

from optiml_jax.errors import InputError
from optiml_jax.main import flags


@pytest.mark.parametrize(
    ("argv", "others", "bindings"),
    [
        (["train", "--gin.A=1", "--dry_run"], ["train", "--dry_run"], [("A", "1")]),
        (["train", "--gin.A", "1"], ["train"], [("A", "1")]),
        (["train", "--gin.B.c=x=y"], ["train"], [("B.c", "x=y")]),
        (["train", "--gin.s/B.c=-1", "--gin.A", "-1"], ["train"], [("s/B.c", "-1"), ("A", "-1")]),
        (["--gin_file=a", "--gin_bindings=A = 1"], ["--gin_file=a", "--gin_bindings=A = 1"], []),
    ],
)
def test_split(argv, others, bindings):
    assert flags.split_gin_flags(argv) == (others, bindings)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--gin.A"], "--gin.A has no value. Write --gin.A=VALUE."),
        (["--gin.A", "--dry_run"], "--gin.A has no value. Write --gin.A=VALUE."),
        (["--gin.=3"], "--gin.=3: '' is not the name of a macro or parameter."),
        (["--gin.A B=3"], "'A B' is not the name of a macro or parameter."),
    ],
)
def test_refused(argv, message):
    with pytest.raises(InputError) as caught:
        flags.split_gin_flags(argv)
    assert message in str(caught.value)
