# Every target does its own set-up: `make test` works in a fresh clone.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:

PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3))
VENV ?= .venv
PYTEST_WORKERS ?= 2
BIN := $(abspath $(VENV))/bin
SETUP := $(VENV)/.orl-setup
TREE := build/tree/.built
SOURCES := $(shell find orl envs solvers -type f -not -path '*/__pycache__/*')

# Numeric libraries stay at one thread each, so that two test workers do not fight for two cores.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help setup demo test test-slow warm style check docs bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*  ##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*  ## /\1\t/' | expand -t 12

setup: $(SETUP)  ## create .venv with pinned versions and install orl into it (editable)

$(SETUP): setup.cfg $(wildcard requirements/*.txt)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: $(SETUP)  ## a learned policy, dispatching rules, tabu search and CP-SAT on the same instances
	$(BIN)/orl demo

test: warm  ## the quick tests
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(PYTEST_WORKERS)

test-slow: warm  ## the tests marked slow
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(PYTEST_WORKERS) -m slow

# Compile the numba kernels once, so that parallel test workers load them instead of compiling the same code twice.
warm: $(SETUP)
	-@$(ONE_THREAD) $(BIN)/python tests/warm_numba_cache.py

style: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Static tools do not see the package_dir mapping of setup.cfg, so types, import rules and doctests are checked on an
# installed tree. The working directory lies inside that tree: the modules found are the tree's, and none loads twice.
$(TREE): $(SETUP) $(SOURCES) setup.cfg README.md LICENSE
	rm -rf build/tree build/lib build/bdist.*
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-compile \
		--target build/tree .
	rm -rf build/lib build/bdist.*
	touch $@

check: style $(TREE)  ## style, types, import rules and doctests
	cd build/tree && $(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p orl
	cd build/tree && $(BIN)/lint-imports --config ../../pyproject.toml --no-cache
	cd build/tree && $(ONE_THREAD) $(BIN)/python -m pytest -c ../../pyproject.toml --rootdir . -p no:cacheprovider \
		--import-mode=prepend --doctest-modules orl

docs: $(SETUP)  ## build the documentation into build/docs; renew the README's table from its committed figures
	$(BIN)/python docs/readme_table.py
	$(ONE_THREAD) $(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -b html docs build/docs
	@echo "Open build/docs/index.html"

bench: $(SETUP)  ## every benchmark in its quick form
	@shopt -s nullglob; for run in benchmarks/*/run.py; do echo "== $$run"; $(BIN)/python "$$run" --quick; done

clean:  ## remove what builds and tests left behind (.venv stays)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .jupyter_cache
	find orl envs solvers tests benchmarks -type d -name __pycache__ -not -path '*/.venv*' -prune -exec rm -rf {} +
