"""One reader per benchmark's own file format; each gives a list of `catalog.BenchTask`."""
