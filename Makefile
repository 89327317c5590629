# FAOS Hybrid. A newcomer needs two of these: `make up` and `make test`.
.DEFAULT_GOAL := help
.SUFFIXES:
SHELL := /bin/bash

UV   := .cache/uv/bin/uv
BIN  := .venv/bin
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.cache/bin:$(PATH)
# Images for containers set it; here every start of a process would compile half a thousand modules anew.
unexport PYTHONDONTWRITEBYTECODE

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

up: .venv/embedded.stamp ## Everything on this machine, from nothing to an agent's answers (ONCE=1: then stop)
	@$(BIN)/faos up $(if $(ONCE),--once) $(ARGS)

test: .venv/dev.stamp parts ## All tests; names the servers it did without (FAOS_TEST_REQUIRE=all: fails instead)
	@$(BIN)/pytest -n $(or $(WORKERS),3) --dist worksteal $(ARGS)

check: .venv/dev.stamp lint test ## Format, lint, types, imports, protos, tests

lint: .venv/dev.stamp ## All of check but the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy scripts benchmarks
	$(BIN)/lint-imports
	cd proto && ../$(BIN)/buf lint
	$(BIN)/python scripts/generate_stubs.py --check

format: .venv/dev.stamp ## Rewrite the code in our format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: .venv/dev.stamp ## Generate the stubs from the .proto files
	$(BIN)/python scripts/generate_stubs.py

bench: .venv/dev.stamp parts ## Benchmarks: a table and JSON under benchmarks/results/
	@$(BIN)/python benchmarks/run_all.py $(ARGS)

sim: .venv/dev.stamp ## Simulate sessions and applying by seed (SEEDS=n FIRST=k; TRACE=1: every event; MUTANTS=1: find planted defects)
	@PYTHONPATH=.:proto:installer $(BIN)/python -m tests.sim --seeds $(or $(SEEDS),1000) --first $(or $(FIRST),1) $(if $(TRACE),--trace) $(if $(MUTANTS),--mutants)

chaos: .venv/dev.stamp parts ## Real processes, real faults, by seed (FAULTS=n SEED=k MINUTES=m; FIRST=i: from there on)
	@PYTHONPATH=.:proto:installer $(BIN)/python -m tests.chaos --faults $(or $(FAULTS),150) --seed $(or $(SEED),1) --first $(or $(FIRST),0) --minutes $(or $(MINUTES),60) $(ARGS)

fuzz: .venv/fuzz.stamp ## Fuzz all that parses bytes of others (SECONDS=n each; TARGET=name; INPUT=file)
	@PYTHONPATH=.:proto:installer $(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),30) $(if $(TARGET),--target $(TARGET)) $(if $(INPUT),--input $(INPUT))

parts: .venv/dev.stamp ## The real parts that tests use and that need no root
	@scripts/provision.sh user

lock: .venv/dev.stamp ## Resolve the dependencies anew
	scripts/lock.sh

clean: ## Remove environments, caches and what `make up` left
	rm -rf .venv .cache .faos

# Python 3.11+ → an environment with pip in it → uv by hash → everything else by hash.
$(UV): requirements/uv.lock
	@scripts/bootstrap.sh

.venv/embedded.stamp: $(UV) requirements/embedded.lock pyproject.toml
	@scripts/install.sh embedded

.venv/dev.stamp: $(UV) requirements/dev.lock pyproject.toml
	@scripts/install.sh dev

.venv/fuzz.stamp: .venv/dev.stamp requirements/fuzz.lock
	@VIRTUAL_ENV=$(CURDIR)/.venv $(UV) pip install --quiet --require-hashes -r requirements/fuzz.lock && touch $@

.PHONY: help up test check lint format proto bench sim chaos fuzz parts lock clean
