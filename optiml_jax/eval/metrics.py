"""The metrics under the name that scripts use; they are implemented in `bench/metrics.py`.

Tasks carry their metric from the catalog on, so the functions live with the catalog.
"""

from optiml_jax.bench.metrics import (
    METRICS,
    Metric,
    Tokenize,
    XlingualTokenizer,
    accuracy,
    exact_match,
    extract_bbh_answer,
    make_metric,
    mean,
    needs_xlingual_tokens,
    normalize_answer,
    rouge_l,
)

__all__ = [
    "METRICS",
    "Metric",
    "Tokenize",
    "XlingualTokenizer",
    "accuracy",
    "exact_match",
    "extract_bbh_answer",
    "make_metric",
    "mean",
    "needs_xlingual_tokens",
    "normalize_answer",
    "rouge_l",
]
