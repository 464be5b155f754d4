"""OPT-IML Bench as plain Python: records, tasks, categories, splits, metrics, prompts, readers.

No JAX, no TensorFlow, no SeqIO: the package says what the benchmarks mean, and `data` turns that
into tokens.
"""
