# `make help` lists the targets. Everything runs in .venv, which `make env` makes from nothing.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# As environment variables the constraints hold for the build backend as well, which pip installs apart from the rest:
# the first name is for that in older pips, the second in newer ones.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

.PHONY: env
env: $(STAMP) ## make .venv, with the versions in constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than Python 3.11. Try: make env PYTHON=python3.11" >&2; exit 1; }
	@echo "Installing Loopwright and what it needs into $(VENV): a minute or more, most of it for torch"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --editable '.[server,dev,train]'
	@touch $@

.PHONY: demo
demo: env ## make a picture from the prompt "red apple"
	@$(BIN)/loopwright generate "red apple" -o demo.png
	@echo "The picture is $(CURDIR)/demo.png"

.PHONY: test
test: lint types ## lint, types, then all tests, the built wheel's among them
	$(BIN)/python -m pytest

.PHONY: test-thorough
test-thorough: env ## the tests of properties, with thousands of examples each
	HYPOTHESIS_PROFILE=thorough $(BIN)/python -m pytest -m "not wheel and not exhaustive"

.PHONY: families-thorough
families-thorough: env ## the tests of all workflows of all of diffusers' families: minutes
	$(BIN)/python -m pytest -m "" tests/bridge

.PHONY: families
families: env ## run all of diffusers' families and write their table into docs/compatibility.md: minutes
	$(BIN)/python -m tools.family_table

.PHONY: lint
lint: env ## style and likely mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: format
format: env ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: types
types: env ## the types of src/
	$(BIN)/mypy

.PHONY: bench
bench: env ## measure against diffusers and write docs/performance.md
	$(BIN)/python -m benchmarks

.PHONY: bench-serving
bench-serving: env ## measure the server against other ways to serve, and write that part of docs/performance.md: minutes
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks.serving

.PHONY: server-crash-loop
server-crash-loop: env ## kill a server under load 50 times: no job is lost, or computed twice: minutes
	$(BIN)/python -m tools.server_crash_loop

.PHONY: api-fuzz
api-fuzz: env ## thousands of requests made from the description of the server's API: minutes
	$(BIN)/python -m tools.api_fuzz

.PHONY: soak
soak: env ## 64 clients that connect, cancel and vanish for 20 minutes: the server stays as it is
	$(BIN)/python -m tools.soak

.PHONY: crash-loop
crash-loop: env ## kill a run at every iteration and at random moments, resume it, some twice, compare: minutes
	$(BIN)/python -m tools.crash_loop

.PHONY: many-runs
many-runs: env ## hundreds of runs at once, in threads and as tasks, against the same runs alone: minutes
	$(BIN)/python -m tools.many_runs

.PHONY: diffusers-tests
diffusers-tests: env ## diffusers' own tests of modular pipelines, of the checkout CHECKOUT=folder, run here
	$(BIN)/python -m tools.diffusers_tests "$(CHECKOUT)"

.PHONY: batching-schedules
batching-schedules: env ## random schedules of requests to a batch, with faults, against each request alone: minutes
	$(BIN)/python -m tools.batching_schedules

.PHONY: batching-costs
batching-costs: env ## what batching gains, and what its deterministic mode costs
	$(BIN)/python -m tools.batching_costs

.PHONY: train
train: env ## train the embedded model again, from its data on: hours; continues where it stopped
	$(BIN)/python -m training.data
	$(BIN)/python -m training.autoencoder
	$(BIN)/python -m training.denoiser
	$(BIN)/python -m training.export
	$(BIN)/python -m training.evaluate

.PHONY: schedulers
schedulers: env ## write docs/schedulers.md
	$(BIN)/python -m tools.scheduler_table

.PHONY: readme
readme: env ## make the pictures of README.md again
	$(BIN)/python -m tools.readme_pictures

.PHONY: clean
clean: ## remove what the other targets leave, but for the work of `make train`
	rm -rf $(VENV) build dist demo.png .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests training benchmarks tools -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
