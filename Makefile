# Two commands need nothing but Python >= 3.11, make and the package registries: `make run` and `make test`.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
FAILED = { echo "Installing failed (is a package registry reachable?): $$(grep -E '^ERROR' $(VENV)/install.log | tail -1); all of it is in $(VENV)/install.log" >&2; exit 1; }
# Tests of real servers mostly wait for them: more of them than cores may run at a time.
WORKERS ?= 4
.PHONY: help run run-postgres test check check-versions format bench proto lock install clean

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

install: $(READY) ## Install everything that run, test and check need into .venv

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "stream-relay needs Python >= 3.11, found: $$($(PYTHON) --version 2>&1 | head -1); try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "1/3 making $(VENV)"; $(PYTHON) -m venv $(VENV); } || \
	  { echo "$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "2/3 installing $$(grep -c '==' requirements-dev.lock) packages with pip, once; about a minute"
	@trap : INT; sh infra/pip-install.sh $(BIN)/python requirements-dev.lock $(VENV)/install.log || $(FAILED)
	@echo "3/3 installing stream-relay itself"
	@$(PIP) --no-deps --no-build-isolation -e . > $(VENV)/install.log 2>&1 || $(FAILED)
	@touch $@

run: $(READY) ## Everything embedded on this machine: NATS, recorded rounds, relay, ready to curl
	@exec $(BIN)/stream-relay dev

run-postgres: $(READY) ## The same, with a real PostgreSQL that the rounds are captured from
	@exec $(BIN)/stream-relay dev --backend postgres-replication

test: $(READY) check ## Everything: check, then the tests that start real servers and clients
	$(BIN)/python -m pytest -q -m heavy
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "service and not heavy"

check: $(READY) ## Format, lint, types and unit tests; no services, under 30 s
	$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n auto -m "not service"

check-versions: ## The unit tests and a smoke run with the oldest, then the newest allowed versions
	.ci/versions oldest
	.ci/versions newest

format: $(READY) ## Rewrite the code in the one format
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: $(READY) ## The benchmarks of docs/benchmarks.md, one after another
	$(BIN)/python -m bench

proto: $(READY) ## Generate rounds/datastream_pb2.py from proto/
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python -m grpc_tools.protoc -Irounds=proto --python_out=. --mypy_out=quiet:. rounds/datastream.proto

lock: ## Pin again what pyproject.toml allows, with hashes
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade pyproject.toml --extra postgres -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade pyproject.toml --extra dev-server --extra dev-postgres --group dev -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade --group release -o .ci/release.lock

clean: ## Remove what was installed and cached
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache
