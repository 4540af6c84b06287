# Two commands for a newcomer: `make demo` and `make test`. Both set up all they need in .venv.
PYTHON ?= $(firstword $(foreach v,3.11 3.12 3.13,$(shell command -v python$(v))) python3)
BIN := .venv/bin
READY := .venv/.ready
NATIVE := $(wildcard spaudio/filters/fused/native/*)

.DEFAULT_GOAL := help
.PHONY: help demo test lint types unit fuzz audit lock clean

help:  ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# uv resolves nothing here: it installs exactly what the lock names, and many times faster than pip.
$(READY): requirements.lock pyproject.toml $(NATIVE)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --reinstall-package spaudio -e .
	@touch $@

demo: $(READY)  ## Render a data set of notes, train without and with a filterbank, compare
	$(BIN)/python recipes/notes/run.py -m filter=none,bank

test: lint types unit  ## Lint, types and tests

lint: $(READY)  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## mypy --strict
	$(BIN)/mypy

# A process a core, each with one thread: more would wait for each other.
unit: $(READY)  ## pytest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

fuzz: $(READY)  ## Fuzz what reads audio, manifests, archives, settings (Linux)
	$(BIN)/uv run --no-project --python $(BIN)/python --with 'atheris>=3' python -m tests.fuzz

# Strict: a package that the index knows nothing of fails the audit rather than pass it unseen.
audit: $(READY)  ## Ask the index for known vulnerabilities of the lock (needs network)
	$(BIN)/uvx pip-audit --strict --no-deps --disable-pip -r requirements.lock

lock:  ## Resolve requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	  --no-header --no-emit-index-url --upgrade -q -o requirements.lock

clean:  ## Remove the environment and caches, but no data and no runs
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache
