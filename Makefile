# Every target sets itself up: Python 3.11 or newer and make are all that a machine needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup tools demo check test bench format clean

# Programs of the system that tests of deploy/ and of pages drive, with the Debian package of each. Without one, its tests
# say so and skip; with DUALTRACK_REQUIRE_TOOLS=1 they fail.
TOOLS  := chromium:chromium curl:curl promtool:prometheus systemd-analyze:systemd

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[demo,test]'
	@touch $@

$(VENV)/.clients: $(VENV)/.ready tests/support/environments.py tests/support/binaries.py
	$(BIN)/python -m tests.support.environments
	$(BIN)/python -m tests.support.binaries
	@touch $@

setup: $(VENV)/.ready $(VENV)/.clients ## make the virtual environments: ours, and those of the clients of the tests; fetch kubectl and helm

tools: ## install what some tests drive, where it is missing (Debian; root or sudo): a browser, Prometheus, systemd
	@missing=; for tool in $(TOOLS); do command -v $${tool%%:*} >/dev/null || missing="$$missing $${tool##*:}"; done; \
	as_root=; [ "$$(id -u)" = 0 ] || as_root="sudo --preserve-env=DEBIAN_FRONTEND"; export DEBIAN_FRONTEND=noninteractive; \
	if [ -n "$$missing" ]; then $$as_root apt-get update --quiet --quiet; \
	$$as_root apt-get install --yes --quiet --no-install-recommends $$missing; fi

demo: $(VENV)/.ready ## two workspaces, a real training run, the comparison
	$(BIN)/dualtrack demo $(DEMO_ARGS)

check: $(VENV)/.ready ## format, lint, strict types, layers, unit and contract tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit tests/contract

test: setup check ## all of it: check, then flow, fault, acceptance, browser and deployment tests
	$(BIN)/python -m pytest -q tests/flow tests/faults tests/acceptance tests/browser tests/deploy

bench: $(VENV)/.ready ## the figures of the README (minutes; not a test)
	$(BIN)/python -m bench $(BENCH_ARGS)

format: $(VENV)/.ready ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what the targets made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage build dist *.egg-info
