# Two commands: `make run` and `make test`. Both create .venv and install what the lock pins.

PYTHON ?= python3
BIN := .venv/bin
FLASK := $(BIN)/flask
PYTEST := $(BIN)/pytest -n 2 --dist worksteal
MEASURED := --cov --cov-append --cov-report=

.PHONY: run test test-all test-slow lint soak load fuzz bench screenshots lock clean

run: .venv/run
	@$(FLASK) db upgrade
	@$(FLASK) demo load || { [ $$? -eq 73 ] && echo "serving the database as it is"; }
	@$(FLASK) rollup run || [ $$? -eq 75 ]
	@$(FLASK) demo calls
	@exec $(BIN)/python -m jobs.dev

# Lint, and the tests that hold every rule: under six minutes on two cores.
test: .venv/test lint
	$(PYTEST) -m "not slow or quick" $(if $(COVERAGE),$(MEASURED))

# Every test, and how much of the code they reach.
test-all: .venv/test lint
	$(BIN)/coverage erase
	$(PYTEST) $(MEASURED)
	$(BIN)/coverage report

# What `make test` leaves out. What `make test COVERAGE=1` has reached before counts, too.
test-slow: .venv/test
	$(PYTEST) -m "slow and not quick" $(MEASURED)
	$(BIN)/coverage report

lint: .venv/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive app jobs migrations wsgi.py gunicorn.conf.py

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/run: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

.venv/test: requirements-test.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-test.txt
	@touch $@ .venv/run

# A million events while jobs are killed and PostgreSQL restarts; prints what was lost or doubled.
soak: .venv/test
	$(BIN)/python -m tests.faults.soak

# As deployed, under load, while the scheduler is killed and PostgreSQL crashes; writes the table
# in docs/operate/capacity.md when all went well.
load: .venv/test
	$(BIN)/python -m tests.load --into docs/operate/capacity.md

# Ten thousand requests, well-formed and not, against the API's own description.
fuzz: .venv/test
	FUZZ_EXAMPLES=950 FUZZ_MINIMUM=10000 $(BIN)/pytest -q tests/fuzz

# What it costs beside its rivals, into docs/performance.md: about a quarter of an hour. Needs wrk.
bench: .venv/test
	$(BIN)/python -m benchmarks --write docs/performance.md

# The pictures in README.md and docs/dashboard.md; wants Debian's chromium and chromium-driver.
screenshots: .venv/test
	$(BIN)/python -m tests.browser.screenshots --into docs/images

# Resolve setup.cfg's ranges anew into the locks; what is deployed is what is tested.
lock:
	$(PYTHON) -m venv .venv/lock
	.venv/lock/bin/pip install --quiet pip-tools
	.venv/lock/bin/pip-compile --upgrade $(LOCKED) --extra test --output-file requirements-test.txt
	.venv/lock/bin/pip-compile --upgrade $(LOCKED) --constraint requirements-test.txt \
		--output-file requirements.txt
	.venv/lock/bin/pip-compile --upgrade $(LOCKED) --constraint requirements-test.txt \
		--extra tracing --output-file requirements-tracing.txt

LOCKED := --quiet --no-strip-extras --generate-hashes --allow-unsafe --no-emit-index-url \
	--no-emit-find-links --no-header --no-annotate setup.cfg

clean:
	rm -rf .venv build dist *.egg-info .coverage* .hypothesis .pytest_cache .mypy_cache .ruff_cache
