# Every target does its own set-up; a second run skips it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.ready-dev
SETUP_RUN := $(VENV)/.ready-run

.PHONY: setup demo test lint unit proto simulate fuzz soak node bench bench-quick clean

setup: $(SETUP)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Headrace needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(SETUP_RUN): requirements/run.txt requirements/build.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/build.txt
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(SETUP): requirements/dev.txt $(SETUP_RUN)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	touch $@

demo: $(SETUP_RUN)
	$(BIN)/headrace run examples/review-repo.yaml

lint: $(SETUP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy libs services

unit: $(SETUP)
	$(BIN)/pytest tests/unit tests/contracts tests/test_tidy.py -m "not slow"

# Tests of whole processes and of times (APART) have the machine for themselves; the others share its two cores.
APART := tests/chaos tests/e2e tests/benchmarks
test: $(SETUP) lint
	$(BIN)/pytest -m "not slow" --numprocesses 2 $(addprefix --ignore=,$(APART))
	$(BIN)/pytest -m "not slow" $(APART)

proto: $(SETUP)
	$(BIN)/python proto/generate.py

simulate: $(SETUP)
	$(BIN)/python -m tests.simulation.run --seeds 2000
	HEADRACE_SIM_KILLS=1000 HEADRACE_KILL_SEEDS=300 $(BIN)/pytest tests/simulation/test_killed_owner.py tests/behaviour/test_kills.py

# FUZZ inputs for expressions and as many for the loader; three quarters of an hour on one core.
FUZZ ?= 1000000
fuzz: $(SETUP)
	$(BIN)/python -m tests.fuzz.run --inputs $(FUZZ)

# SOAK random kills (a tenth as many clusters of 200 runs); about half an hour, and an hour at most. `make soak SOAK=20
# SOAK_PARTS=tests/chaos` is a part of it.
SOAK ?= 100
SOAK_PARTS ?= tests/chaos tests/e2e/test_kill.py tests/e2e/test_up.py tests/integration/services/test_otp_n4.py
soak: $(SETUP)
	HEADRACE_SOAK=$(SOAK) $(BIN)/pytest $(SOAK_PARTS) -m "slow or not slow" --timeout 600 --session-timeout 3600

# What needs Node, and more of MCP: the example worker in another language, a server from npm. `make test` does without.
node: $(SETUP)
	npm ci --no-audit --no-fund --prefix examples/node-worker
	npm ci --no-audit --no-fund --prefix examples/mcp
	$(BIN)/pytest tests/e2e/test_node_worker.py tests/integration/client/test_mcp_link.py -m slow

bench bench-quick: $(SETUP)
	$(BIN)/python -m tests.benchmarks.run

# Ratios by CPU time of graphs of 10,000 steps and maps of 100,000 items, two minutes; then the map over a real cluster.
SCALE_ITEMS ?= 100000
scale: $(SETUP)
	$(BIN)/python -m tests.benchmarks.scale
	$(BIN)/python -m tests.benchmarks.scale cluster $(SCALE_ITEMS)

clean:
	rm -rf $(VENV) build dist .headrace
