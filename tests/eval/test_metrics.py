"""`eval.metrics` offers everything that `bench.metrics` has."""

import types

from optiml_jax.bench import metrics as implemented
from optiml_jax.eval import metrics


def test_all_public_names_are_offered():
    public = {
        name
        for name, value in vars(implemented).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and getattr(value, "__module__", implemented.__name__) == implemented.__name__
    } | {"Metric", "Tokenize"}
    assert set(metrics.__all__) == public
    for name in public:
        assert getattr(metrics, name) is getattr(implemented, name)
