PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
VARIANT ?= lora
PARAMS ?=
PORT ?= 5000
BENCH ?=

BIN := $(abspath $(VENV))/bin
INSTALLED := $(VENV)/.installed
export PATH := $(BIN):$(PATH)

.PHONY: help run ui test test-all bench check format

help:
	@echo "make run [VARIANT=vera] [PARAMS='task=atlas-qa seed=1']  train, score and track one run (whichlora --help has all commands)"
	@echo "make ui [PORT=5000]      open the tracking UI on loopback"
	@echo "make test                run the tests, in minutes; make test-all adds the slow ones and those that kill processes"
	@echo "make bench [BENCH='--only scoring --pairs 2']  compare speed with the usual tools; 20 to 30 minutes on an idle machine"
	@echo "make check               run ruff, mypy and lint-imports (order of imports); make format applies ruff's changes"

# torch is installed first and separately, so that pip takes a CPU build if an additional index offers one.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13) and "whichlora needs Python 3.11 or 3.12: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

# The schema is created under a lock first: `mlflow run` takes none, and two at once would leave SQLite half migrated.
run: $(INSTALLED)
	@python -m whichlora.database
	mlflow run . -P variant=$(VARIANT) $(addprefix -P ,$(PARAMS)) --env-manager local

ui: $(INSTALLED)
	@python -m whichlora.database
	mlflow ui --host 127.0.0.1 --port $(PORT)

test: $(INSTALLED)
	python -m pytest -n 2 --dist loadfile

test-all: $(INSTALLED)
	python -m pytest -n 2 --dist loadfile -m ""

# TRL has a separate environment, because it is compared with and is not a dependency.
.venv-bench/.installed: benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check "torch==2.13.0"
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

bench: $(INSTALLED) .venv-bench/.installed
	python -m benchmarks $(BENCH)

check: $(INSTALLED)
	ruff check .
	ruff format --check .
	mypy
	lint-imports

format: $(INSTALLED)
	ruff check --fix .
	ruff format .
