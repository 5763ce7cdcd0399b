# The commands for users and developers of XZepr. `make` prints a list of them.

.DEFAULT_GOAL := help
.SUFFIXES:

VENV  := .venv
BIN   := $(VENV)/bin
# Empty files that record what is installed: an install runs only if a lock file has changed since.
RUN   := $(VENV)/.installed-run
DEV   := $(VENV)/.installed-dev
# The lock files name all packages, so pip need not resolve dependencies; `pip check` verifies that afterwards.
PIP   := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCKED := install --no-deps --require-hashes --requirement
PYTEST := $(BIN)/python -m pytest
WORKERS ?= auto
# Tests with separate targets: they need a broker, a browser or much time, or they break things.
SEPARATE := kafka or browser or slow or faults
# The exit code 5 of pytest means that no test was selected, which is no failure.
ALLOW_NO_TESTS := || { code=$$?; [ $$code -eq 5 ] || exit $$code; }

# Tests start hundreds of processes, which would compile all modules each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install run demo check fmt test test-kafka test-browser test-all faults coverage bench kafka package schema reference lock clean

help: ## print this list
	@echo "make …"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(DEV) ## install the hub, its tests and its checks into .venv, and git's commit-msg hook
	@sh .ci/install-hook

run: $(RUN) ## start a hub with an embedded PostgreSQL; options as in ARGS="--port 8043"
	@exec $(BIN)/xzepr serve $(ARGS)

demo: $(RUN) ## play a release pipeline against a temporary hub
	@exec $(BIN)/xzepr demo $(ARGS)

check: $(DEV) ## check style, types, the direction of imports, and schema.graphql
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	@$(BIN)/xzepr schema > $(VENV)/schema.graphql
	@diff -u schema.graphql $(VENV)/schema.graphql \
	  || { echo "schema.graphql differs from the code: run \`make schema\` and review the difference."; exit 1; }

fmt: $(DEV) ## format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test: $(DEV) ## run the tests that need no broker and no browser and are not slow; ARGS selects some
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "not ($(SEPARATE))" $(ARGS)

test-kafka: $(DEV) ## run the tests on a broker (Java and Maven, or XZEPR_TEST_KAFKA); skipped without one
	$(PYTEST) -m "kafka and not slow" $(ARGS) $(ALLOW_NO_TESTS)

test-browser: $(DEV) ## run the tests in Debian's Chromium; skipped without it
	$(PYTEST) -m "browser and not slow" $(ARGS) $(ALLOW_NO_TESTS)

test-all: $(DEV) ## run all tests except the fault tests
	$(PYTEST) -m "not faults" $(ARGS)

faults: $(DEV) ## break processes, connections and disks under load, and prove that nothing was lost (a minute each)
	$(PYTEST) -m faults $(ARGS) $(ALLOW_NO_TESTS)

coverage: $(DEV) ## measure which lines the tests reach; prints a table and writes htmlcov/
	$(PYTEST) -n $(WORKERS) -m "not ($(SEPARATE))" --cov=xzepr --cov-branch --cov-report=term:skip-covered --cov-report=html $(ARGS)

bench: $(DEV) ## measure the hub beside hand-written endpoints and its goals (half an hour; ARGS=--quick: two minutes)
	@exec $(BIN)/python -m tests.bench $(ARGS)

kafka: $(DEV) ## run a broker to try things out, from Maven Central (Java and Maven); Ctrl-C stops it
	@exec $(BIN)/python -m tests.support.kafka $(ARGS)

package: $(DEV) ## build the wheel and the source distribution into dist/, and try the wheel in a clean environment
	@rm -rf dist
	$(BIN)/python -m build --no-isolation
	@sh .ci/try-package $(BIN)/python dist/*.whl

schema: $(RUN) ## write the GraphQL schema to schema.graphql
	@$(BIN)/xzepr schema > $(VENV)/schema.graphql && cp $(VENV)/schema.graphql schema.graphql

reference: $(DEV) ## print the reference pages of settings, commands and permissions
	@$(BIN)/xzepr config --reference > $(VENV)/settings.md && cp $(VENV)/settings.md docs/reference/settings.md
	@$(BIN)/python -m tests.contract.command_line_page
	@$(BIN)/python -m tests.contract.permissions_page

COMPILE := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras --generate-hashes \
  --no-emit-index-url --no-annotate --quiet --custom-compile-command "make lock"
lock: $(DEV) ## update the lock files from pyproject.toml; ARGS=--upgrade upgrades all packages
	$(COMPILE) $(ARGS) --group build -o requirements.lock
	$(COMPILE) $(ARGS) --group build --group dev -c requirements.lock -o requirements-dev.lock

clean: ## remove everything installed and built; a hub's data stays
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage* htmlcov dist build
	find xzepr tests migrations -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@sh .ci/venv $(VENV) $(PYTHON)

# The project is installed separately: with required hashes, pip rejects editable installs.
$(RUN): requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing the hub into $(VENV) …"
	@$(PIP) $(LOCKED) requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip --disable-pip-version-check check
	@touch $@

$(DEV): $(RUN) requirements-dev.lock
	@echo "installing the packages of tests and checks …"
	@$(PIP) $(LOCKED) requirements-dev.lock
	@$(BIN)/python -m pip --disable-pip-version-check check
	@touch $@
