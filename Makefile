# What people and CI run. `make install` makes .venv from nothing; every other target needs it and
# makes it first. A stamp keeps pip away until the packaging files change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CHECKED := optiml_jax tasks tests benchmarks examples docs/make_screenshots.py setup.py

# Two workers on the two cores that the suite is measured on; TEST_FLAGS= runs it in one process.
TEST_FLAGS ?= -n 2 --dist loadfile
QUICK := not slow and not tpu_compile and not parity and not multiprocess
WHOLE := not tpu_compile

.PHONY: help install demo check test test-tpu precompile-all bench lint types screenshots clean

help:
	@echo "make install   .venv with everything pinned by constraints.txt"
	@echo "make demo      from raw text to a report, minutes on a CPU, in optiml_demo/"
	@echo "make check     format, lint, types, layers, quick tests"
	@echo "make test      check and the whole suite"
	@echo "make test-tpu  small recipes compiled for TPU slices (no TPU needed)"
	@echo "make precompile-all   every recipe of gin/pods compiled for its slice, goes on after a stop"
	@echo "make bench     every benchmark, printed as tables"
	@echo "make screenshots REPORT=FILE   pictures of a report.html, in docs/images"
	@echo "make clean     removes .venv and caches"

install: $(STAMP)

# Byte code is compiled once, also where the environment forbids writing it: without it every
# import costs four times as much.
$(STAMP): setup.py pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m compileall -q -j 0 $(VENV)/lib > /dev/null || true
	touch $@

lint: $(STAMP)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/ruff check $(CHECKED)

types: $(STAMP)
	$(BIN)/pyright

check: lint types
	$(BIN)/python -m pytest -q $(TEST_FLAGS) -m '$(QUICK)' --ignore=tests/parity --ignore=tests/devices

# The whole suite holds the quick tests, so they run once.
test: lint types
	$(BIN)/python -m pytest -q $(TEST_FLAGS) -m '$(WHOLE)'

# Compiles small recipes for TPU slices, with libtpu and without a TPU.
test-tpu: $(STAMP)
	$(BIN)/python -m pytest -q -m tpu_compile

# Every recipe of gin/pods; hours on two cores. Start it again and it goes on.
precompile-all: $(STAMP)
	$(BIN)/python benchmarks/precompile_all.py

demo: $(STAMP)
	$(BIN)/optiml demo

bench: $(STAMP)
	set -e; for file in $(filter-out benchmarks/precompile_all.py benchmarks/conditions.py,$(wildcard benchmarks/*.py)); do echo "== $$file"; $(BIN)/python $$file; done

screenshots: $(STAMP)
	$(BIN)/python docs/make_screenshots.py $(REPORT)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
