# `make demo` and `make test` are all that a newcomer needs. Both set up .venv first.
# Each candidate is started, because pyenv has commands for versions that it does not start.
PYTHON ?= $(firstword $(foreach v,3.11 3.12 3.13,\
  $(shell python$(v) -c 'print("python$(v)")' 2>/dev/null)) python3)
BIN := .venv/bin
READY := .venv/.ready
NATIVE := $(wildcard spaudio/filters/fused/native/*)

# Keep compiled modules, whatever the environment says: tests start many processes.
export PYTHONDONTWRITEBYTECODE :=

# Python compiles modules when it first imports them: the large ones, while the kernel is built.
COMPILED := import torch._dynamo, torchaudio, accelerate, sklearn.svm, librosa, numba, \
  matplotlib.figure, torchmetrics, transformers, hydra

.DEFAULT_GOAL := help
.PHONY: help demo test lint types unit docs results kernel fuzz audit lock clean

help:  ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] <= (3, 13) else \
	  "spaudio needs Python 3.11 to 3.13; $(PYTHON) is %d.%d: give another, as PYTHON=FILE" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q uv

# uv resolves nothing here: it installs exactly what requirements.lock names, faster than pip.
$(READY): requirements.lock pyproject.toml $(NATIVE) | $(BIN)/uv
	$(BIN)/uv pip install --python $(BIN)/python -r requirements.lock
	$(BIN)/python -c "$(COMPILED)" & \
	  $(BIN)/uv pip install --python $(BIN)/python --no-deps --reinstall-package spaudio -e . \
	  && wait
	@touch $@

demo: $(READY)  ## Train on recordings of people, test on a new speaker, compare
	$(BIN)/python recipes/fsdd/run.py -m source=recipes/fsdd/recordings split=speaker \
	  test_speaker=george trainer.min_steps=600 filter=none,depthwise

# mypy keeps only one core busy, so pytest runs beside it.
test: lint  ## Lint, types and tests
	@$(MAKE) --no-print-directory -j2 types unit

lint: $(READY)  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## mypy --strict
	$(BIN)/mypy

# One process per core with one thread each; more threads would only compete.
unit: $(READY)  ## pytest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

docs: $(READY)  ## Build the site into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -f docs/mkdocs.yml

results: $(READY)  ## Print all tables of results and charts again, from the recorded runs
	$(BIN)/spaudio study recipes/study/study.csv --output recipes/study/RESULTS.md
	$(BIN)/spaudio study recipes/study/adapters.csv --output recipes/study/ADAPTERS.md
	$(BIN)/spaudio compare recipes/text8/study.csv --step-costs recipes/text8/step_costs.json \
	  --only 'study-*'
	$(BIN)/python docs/results.py
	$(BIN)/python docs/gains.py

kernel: $(BIN)/uv  ## Build the native CPU kernel again, showing what the compiler says
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --reinstall-package spaudio -v -e .

fuzz: $(READY)  ## Fuzz the readers of audio, manifests, archives and settings (Linux)
	$(BIN)/uv run --no-project --python $(BIN)/python --with 'atheris>=3' python -m tests.fuzz

# Strict: a package that is unknown to the index fails the audit.
audit: $(READY)  ## Look up known vulnerabilities of requirements.lock (needs network)
	$(BIN)/uvx pip-audit --strict --no-deps --disable-pip -r requirements.lock

lock: $(BIN)/uv  ## Resolve requirements.lock again from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	  --no-header --no-emit-index-url --upgrade -q -o requirements.lock

clean:  ## Remove the environment, builds and caches, but not data and runs
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f spaudio/filters/fused/_native*
