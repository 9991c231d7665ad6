PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
VARIANT ?= lora
PARAMS ?=
PORT ?= 5000
BENCH ?=

BIN := $(abspath $(VENV))/bin
INSTALLED := $(VENV)/.installed
INSTALL := -m pip install --quiet --disable-pip-version-check
# The locked version of torch.
TORCH := $(shell sed -n 's/^\(torch==[0-9.]*\).*/\1/p' requirements/torch.txt)
TOOLS := .venv-tools/bin
export PATH := $(BIN):$(PATH)

.PHONY: help run ui test test-all bench check format docs reference env lock audit

help:
	@echo "make run [VARIANT=vera] [PARAMS='task=atlas-qa seed=1']  train, score and track one run (whichlora --help has all commands)"
	@echo "make ui [PORT=5000]      open the tracking UI on loopback"
	@echo "make test                run the tests, in minutes; make test-all adds the slow ones and those that kill processes"
	@echo "make bench [BENCH='--only scoring --pairs 2']  compare speed with the usual tools; 30 to 40 minutes on an idle machine"
	@echo "make check               run ruff, mypy and lint-imports (order of imports); make format applies ruff's changes"
	@echo "make docs                build README and docs/ as a site in site/; make reference writes docs/reference from the code"
	@echo "make env                 create .env for docker-compose.yml, with random passwords that only you can read"
	@echo "make lock                update requirements/*.txt to the newest versions that pyproject.toml allows"
	@echo "make audit               look up known vulnerabilities of the locked versions; needs the internet"

# Every package but torch must have a hash of the lock. torch comes from any index that pip is configured for, so that a
# build for CPUs or for another CUDA can be chosen; its hash would be another one.
$(INSTALLED): pyproject.toml requirements/develop.txt requirements/torch.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13) and "whichlora needs Python 3.11 or 3.12: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) --require-hashes --no-deps --requirement requirements/develop.txt
	$(BIN)/python $(INSTALL) "$(TORCH)"
	$(BIN)/python $(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# The schema is created under a lock first: `mlflow run` takes none, and two at once would leave SQLite half migrated.
run: $(INSTALLED)
	@python -m whichlora.database
	mlflow run . -P variant=$(VARIANT) $(addprefix -P ,$(PARAMS)) --env-manager local

ui: $(INSTALLED)
	@python -m whichlora.database
	@python -m whichlora.tracking.experiment_page $(PORT)
	mlflow ui --host 127.0.0.1 --port $(PORT)

test: $(INSTALLED)
	python -m pytest -n 2 --dist loadfile

test-all: $(INSTALLED)
	python -m pytest -n 2 --dist loadfile -m ""

# TRL has a separate environment, because it is compared with and is not a dependency.
.venv-bench/.installed: benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python $(INSTALL) "$(TORCH)"
	.venv-bench/bin/python $(INSTALL) --requirement $<
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

.venv-docs/.installed: requirements/docs.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python $(INSTALL) --require-hashes --no-deps --requirement $<
	@touch $@

# Links and anchors that lead nowhere are errors. The search needs a server: `python -m http.server --directory site`.
docs: .venv-docs/.installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

reference: $(INSTALLED)
	python -m docs.generate
	python -m docs.badges

env: .env

.env: | .env.example
	@umask 077 && $(PYTHON) -c 'import re, secrets, sys; \
		print(re.sub(r"(?m)^(\w+)=$$", lambda line: line[0] + secrets.token_hex(24), sys.stdin.read()), end="")' \
		< .env.example > $@.part && mv $@.part $@
	@echo "Created .env; only you can read it."

$(TOOLS)/.installed: Makefile
	$(PYTHON) -m venv .venv-tools
	$(TOOLS)/python $(INSTALL) "uv==0.13.9" "pip-audit==2.10.1"
	@touch $@

# torch and the CUDA packages, which only its build for GPUs needs, are in a file of their own.
GPU := /^(torch|triton|cuda-|nvidia-)/ && !/^nvidia-ml-py/
COMPILE := $(TOOLS)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-annotate --custom-compile-command "make lock"

lock: $(TOOLS)/.installed
	$(COMPILE) --extra dev --group pyproject.toml:server pyproject.toml | awk '/^[a-z]/ {gpu = $(GPU)} !gpu' > requirements/develop.txt.part
	$(COMPILE) -c requirements/develop.txt.part pyproject.toml > requirements/all.part
	awk '/^[a-z]/ {gpu = $(GPU)} !gpu' requirements/all.part > requirements/worker.txt
	awk '/^[a-z]/ {gpu = $(GPU)} gpu || /^#/' requirements/all.part > requirements/torch.txt
	$(COMPILE) -c requirements/develop.txt.part --group pyproject.toml:server > requirements/server.txt
	$(COMPILE) --group pyproject.toml:docs > requirements/docs.txt
	mv requirements/develop.txt.part requirements/develop.txt
	rm requirements/all.part

audit: $(TOOLS)/.installed
	$(TOOLS)/pip-audit --require-hashes --disable-pip $(addprefix --requirement ,$(wildcard requirements/*.txt))
