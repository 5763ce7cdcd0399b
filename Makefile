# XZepr: everything a developer or a newcomer runs. `make` alone prints the list.

.DEFAULT_GOAL := help
.SUFFIXES:

VENV  := .venv
BIN   := $(VENV)/bin
# What installs took place, as empty files: nothing is installed twice, and a changed lock is installed at once.
RUN   := $(VENV)/.installed-run
DEV   := $(VENV)/.installed-dev
# The locks name everything, so nothing is left to resolve; `pip check` afterwards says whether that is true.
PIP   := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCKED := install --no-deps --require-hashes --requirement
PYTEST := $(BIN)/python -m pytest
WORKERS ?= auto
# The tests that want a broker, a browser or patience, and those that break things, have targets of their own.
ELSEWHERE := kafka or browser or slow or faults
# pytest ends with 5 when nothing was selected, which is no failure.
NONE_IS_FINE := || { code=$$?; [ $$code -eq 5 ] || exit $$code; }

.PHONY: help install run demo check fmt test test-kafka test-browser test-all faults coverage bench kafka schema lock clean

help: ## this list
	@echo "make …"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(DEV) ## everything into .venv: the hub and what its tests and checks need

run: $(RUN) ## start the hub with its own PostgreSQL; ARGS="--port 8043" and the like are passed on
	@exec $(BIN)/xzepr serve $(ARGS)

demo: $(RUN) ## play a release pipeline against a throw-away hub
	@exec $(BIN)/xzepr demo $(ARGS)

check: $(DEV) ## style, types, direction of imports, drift of schema.graphql
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	@$(BIN)/xzepr schema > $(VENV)/schema.graphql
	@diff -u schema.graphql $(VENV)/schema.graphql \
	  || { echo "schema.graphql is not what the code prints: run \`make schema\` and look at the difference."; exit 1; }

fmt: $(DEV) ## put the code into shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test: $(DEV) ## the tests but those that need a broker or a browser, or are slow
	$(PYTEST) -n $(WORKERS) -m "not ($(ELSEWHERE))" $(ARGS)
	@echo "Left to make test-kafka, test-browser, test-all or faults, with the number of tests in each file:"
	@$(PYTEST) --collect-only -qq -m "$(ELSEWHERE)" | grep ': [0-9]' || echo "none"

test-kafka: $(DEV) ## the tests on a real broker (Java and Maven, or XZEPR_TEST_KAFKA); without one they skip
	$(PYTEST) -m "kafka and not slow" $(ARGS) $(NONE_IS_FINE)

test-browser: $(DEV) ## the tests in Debian's Chromium; without it they skip
	$(PYTEST) -m "browser and not slow" $(ARGS) $(NONE_IS_FINE)

test-all: $(DEV) ## every test but the faults, the slow ones too
	$(PYTEST) -m "not faults" $(ARGS)

faults: $(DEV) ## kills, cuts and fills everything under load, and proves that nothing was lost (a minute a fault)
	$(PYTEST) -m faults $(ARGS) $(NONE_IS_FINE)

coverage: $(DEV) ## which lines the tests reach, as text and in htmlcov/
	$(PYTEST) -n $(WORKERS) -m "not ($(ELSEWHERE))" --cov=xzepr --cov-branch --cov-report=term:skip-covered --cov-report=html $(ARGS)

bench: $(DEV) ## what the hub can do, beside hand-written endpoints that do the least (minutes)
	@exec $(BIN)/python -m tests.bench $(ARGS)

kafka: $(DEV) ## a real broker for trying things out, from Maven Central jars (Java and Maven); Ctrl-C ends it
	@exec $(BIN)/python -m tests.support.kafka $(ARGS)

schema: $(RUN) ## print the GraphQL schema into schema.graphql
	@$(BIN)/xzepr schema > $(VENV)/schema.graphql && cp $(VENV)/schema.graphql schema.graphql

COMPILE := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras --generate-hashes \
  --no-emit-index-url --no-annotate --quiet --custom-compile-command "make lock"
lock: $(DEV) ## bring the lock files to pyproject.toml; ARGS=--upgrade takes the newest of everything
	$(COMPILE) $(ARGS) --group build -o requirements.lock
	$(COMPILE) $(ARGS) --group build --group dev -c requirements.lock -o requirements-dev.lock

clean: ## forget what was installed and built; a hub's data stays
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage* htmlcov dist build
	find xzepr tests migrations -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@sh .ci/venv $(VENV) $(PYTHON)

# The project goes in without dependencies: pip refuses an editable install where hashes are required.
$(RUN): requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV) …"
	@$(PIP) $(LOCKED) requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip --disable-pip-version-check check
	@touch $@

$(DEV): $(RUN) requirements-dev.lock
	@echo "installing what tests and checks need …"
	@$(PIP) $(LOCKED) requirements-dev.lock
	@$(BIN)/python -m pip --disable-pip-version-check check
	@touch $@
