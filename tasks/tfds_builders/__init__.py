"""Data sets for TensorFlow Datasets, made from a benchmark's own files; see `__main__`."""
