# `make run` and `make test` need only Python >= 3.11, make and the package registries.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
FAILED = { echo "Installing failed (is a package registry reachable?): $$(grep -E '^ERROR' $(VENV)/install.log | tail -1); all of it is in $(VENV)/install.log" >&2; exit 1; }
# Tests with real servers mostly wait for them, so more workers than cores are useful.
WORKERS ?= 4
.PHONY: help run run-postgres test check check-versions faults fuzz lint unit nightly format bench bench-peers proto lock install clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

install: $(READY) ## Install everything that run, test and check need into .venv

$(READY): requirements-dev.lock pyproject.toml $(wildcard hatch_build.py relay/live/sending/_send_loop.c)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "stream-relay needs Python >= 3.11, found: $$($(PYTHON) --version 2>&1 | head -1); try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "1/3 creating $(VENV)"; $(PYTHON) -m venv $(VENV); } || \
	  { echo "$(PYTHON) cannot create a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "2/3 installing $$(grep -c '==' requirements-dev.lock) packages with pip, once; about a minute"
	@trap : INT; sh infra/pip-install.sh $(BIN)/python requirements-dev.lock $(VENV)/install.log || $(FAILED)
	@echo "3/3 installing stream-relay itself"
	@$(PIP) --no-deps --no-build-isolation -e . > $(VENV)/install.log 2>&1 || $(FAILED)
	@test -e relay/live/sending/_send_loop.abi3.so || echo "    without a C compiler and the headers of Python; rounds are sent in Python (docs/operations.md)"
	@touch $@

run: $(READY) ## Start NATS, recorded rounds and a relay on this machine, ready for curl
	@exec $(BIN)/stream-relay dev

run-postgres: $(READY) ## The same, with a real PostgreSQL as the source of rounds
	@exec $(BIN)/stream-relay dev --backend postgres-replication

test: $(READY) check ## Run check, then the tests that start real servers and clients
	$(BIN)/python -m pytest -q -m heavy
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "service and not heavy"

check: $(READY) ## Check format, lint and types, and run the unit tests; no services, under 30 s
	@$(MAKE) --no-print-directory -j 2 lint unit

lint: $(READY)
	$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet .
	$(BIN)/mypy

unit: $(READY)
	$(BIN)/python -m pytest -q -n auto --dist worksteal -m "not service"

check-versions: ## Run unit tests and a smoke run with the oldest, then the newest allowed dependencies
	.ci/versions oldest
	.ci/versions newest

faults: $(READY) ## Break real parts and judge every delivery, 5 minutes; SEED= MINUTES= SCHEDULES= TOUR=1
	$(BIN)/python -m tests.faults $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) \
	  $(if $(SCHEDULES),--schedules $(SCHEDULES)) $(if $(TOUR),--tour)

fuzz: $(READY) ## Look for inputs that break a parser of untrusted bytes, 20 s for each; TARGETS= SECONDS=
	$(PIP) --require-hashes -r .ci/fuzz.lock
	$(BIN)/python -m tests.fuzz $(TARGETS) $(if $(SECONDS),--seconds $(SECONDS))

nightly: $(READY) ## Run what takes an hour or more: faults, new examples of property tests, foreign clients, versions
	.ci/nightly

format: $(READY) ## Format the code
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: $(READY) ## Run the benchmarks of docs/benchmarks.md, one after another
	$(BIN)/python -m bench

bench-peers: $(READY) ## Race a relay against Centrifugo and grpc-go, which Go builds first; PARTS= LINKS=
	$(BIN)/python -m bench.peers $(PARTS) $(if $(LINKS),--links $(LINKS))

proto: $(READY) ## Generate rounds/datastream_pb2.py from proto/
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python -m grpc_tools.protoc -Irounds=proto --python_out=. --mypy_out=quiet:. rounds/datastream.proto

lock: ## Pin the newest versions that pyproject.toml allows, with hashes
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade pyproject.toml --extra postgres --extra signing -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade pyproject.toml --extra dev-server --extra dev-postgres --extra signing --group dev -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade --group release -o .ci/release.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade --group audit -o .ci/audit.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade --group fuzz -o .ci/fuzz.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade --group schemathesis -o .ci/schemathesis.lock

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache
