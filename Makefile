# `make run` and `make test` create .venv and install what the lock pins. `make` lists all targets:
# a line `## target: text` describes one.

PYTHON ?= python3
BIN := .venv/bin
FLASK := $(BIN)/flask
# Many tests wait, so three processes use two cores better than two do. The slow ones start servers
# and watch what they do in time, so nothing slows them down by measuring their coverage; what the
# others cover is enough.
PYTEST := $(BIN)/pytest --dist worksteal -n

.PHONY: help run test test-all test-slow lint soak load fuzz bench insight-report screenshots \
	settings-docs lock clean

help:
	@echo "make TARGET, where TARGET is one of:"
	@awk '/^## [a-z-]+: / { name = $$2; sub(/:$$/, "", name); sub(/^## [a-z-]+: /, ""); \
		printf "  %-14s %s\n", name, $$0 }' Makefile

## run: web and scheduler with demo data; prints a link that signs in, a token and calls
run: .venv/run
	@$(BIN)/python -m jobs.dev check
	@$(FLASK) demo prepare
	@exec $(BIN)/python -m jobs.dev

## test: lint, types and the tests of every rule; about six minutes on two cores
test: .venv/test lint
	$(PYTEST) 3 -m "not slow or quick" $(if $(COVERAGE),--cov)

## test-all: lint, types and every test, also the slow ones, with a coverage report of the others
test-all: COVERAGE = 1
test-all: test test-slow

## test-slow: the tests that `make test` leaves out
test-slow: .venv/test
	$(PYTEST) 2 -m "slow and not quick"

## lint: style, types, import layers, unsafe code
lint: .venv/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive agentidp_analytics app jobs migrations wsgi.py gunicorn.conf.py

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@echo "creating .venv ..."
	@$(PYTHON) -m venv .venv

.venv/run: requirements.txt | .venv/bin/python
	@echo "installing dependencies (about a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

.venv/test: requirements-test.txt | .venv/bin/python
	@echo "installing dependencies for the tests (about two minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-test.txt
	@touch $@ .venv/run

## soak: a million events while jobs and PostgreSQL are killed; counts lost and doubled events, and compares findings
soak: .venv/test
	$(BIN)/python -m tests.faults.soak

## load: the deployed service under load and faults; writes docs/operate/capacity.md
load: .venv/test
	$(BIN)/python -m tests.load --into docs/operate/capacity.md

## fuzz: ten thousand valid and invalid requests, checked against the API's own description
fuzz: .venv/test
	FUZZ_EXAMPLES=950 FUZZ_MINIMUM=10000 $(BIN)/pytest -q tests/fuzz

## bench: a comparison with other programs; writes docs/performance.md; needs wrk, 36 minutes on slow cores
bench: .venv/test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements-bench.txt
	$(BIN)/python -m benchmarks --write docs/performance.md

## insight-report: how much of a generator's unusual days detection finds; SEEDS=101-106 TENANTS=300
insight-report: .venv/test
	$(BIN)/python -m tests.insight --seeds $(SEEDS) --tenants $(TENANTS)

SEEDS := 101-106
TENANTS := 300

## screenshots: the pictures in README.md and docs/, in build/ all views; needs chromium-driver
screenshots: .venv/test
	$(BIN)/python -m tests.browser.screenshots --into docs/images --all build/screenshots

## settings-docs: docs/settings.md, deploy/*.env.example and the mappings' JSON Schema, from code
settings-docs: .venv/run
	$(BIN)/python -m app.config.document
	$(BIN)/python -m app.intake.formats

## lock: requirements*.txt, resolved again from the ranges in setup.cfg
lock:
	$(PYTHON) -m venv .venv/lock
	.venv/lock/bin/pip install --quiet pip-tools
	.venv/lock/bin/pip-compile --upgrade $(LOCKED) --extra test --output-file requirements-test.txt
	.venv/lock/bin/pip-compile --upgrade $(LOCKED) --constraint requirements-test.txt \
		--output-file requirements.txt
	.venv/lock/bin/pip-compile --upgrade $(LOCKED) --constraint requirements-test.txt \
		--extra tracing --output-file requirements-tracing.txt
	.venv/lock/bin/pip-compile --upgrade $(LOCKED) --constraint requirements-test.txt \
		--extra bench --output-file requirements-bench.txt

LOCKED := --quiet --no-strip-extras --generate-hashes --allow-unsafe --no-emit-index-url \
	--no-emit-find-links --no-header --no-annotate setup.cfg

## clean: remove .venv and all files that tests and builds create
clean:
	rm -rf .venv build dist *.egg-info .coverage* .hypothesis .pytest_cache .mypy_cache .ruff_cache
