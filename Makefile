# Every target sets itself up: the virtual environment is made on first use and renewed when the requirements change.
.POSIX:

PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
WORKERS ?= 2
PYTEST_ARGS ?=
# Two stamps in one environment: the demo needs the library alone, so that a newcomer does not wait for the tools.
RUNTIME = $(VENV)/.installed-runtime
DEVELOP = $(VENV)/.installed-develop
PEERS = .peers/.installed
BENCH_ARGS ?=

.PHONY: help venv demo test test-long lint format bench bench-peers docs build clean

help:
	@echo "make demo       see in ten seconds what sessionstore does"
	@echo "make test       run the tests, on SQLite and PostgreSQL, with branch coverage"
	@echo "make test-long  the same with the slow tests, many more random examples and faults"
	@echo "make lint       ruff, mypy, import-linter"
	@echo "make format     format the code, mend what ruff can mend"
	@echo "make bench      measure the store against its floor (BENCH_ARGS='--only W1,W4 --database sqlite')"
	@echo "make bench-peers  the same with other stores, and draw docs/benchmarks.svg"
	@echo "make docs       build the documentation into site/, strictly"
	@echo "make build      build the sdist and the wheel into dist/"
	@echo "make venv       only set up $(VENV)"
	@echo "make clean      remove $(VENV), .peers and everything generated"
	@echo ""
	@echo "PYTHON=python3.12 chooses the interpreter (3.11 or newer), PYTEST_ARGS='-k fork -x' goes to pytest."

venv: $(DEVELOP)

$(RUNTIME): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { echo "sessionstore needs Python 3.11 or newer: no $(PYTHON) found. Try: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "sessionstore needs Python 3.11 or newer: $(PYTHON) is `"$(PYTHON)" -V 2>&1`. Try: make PYTHON=python3.12" >&2; exit 1; }
	@echo "setting up $(VENV)"
	@"$(PYTHON)" -m venv $(VENV) || { echo "python -m venv failed (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@$(PIP_INSTALL) --editable .
	@touch $@

$(DEVELOP): $(RUNTIME)
	@echo "installing the tools into $(VENV)"
	@$(PIP_INSTALL) --editable ".[test,lint,build,docs]"
	@touch $@

demo: $(RUNTIME)
	@$(BIN)/sessionstore demo

test: $(DEVELOP)
	$(BIN)/python -m pytest -n $(WORKERS) -m "not long" --cov --cov-fail-under=95 $(PYTEST_ARGS)

test-long: $(DEVELOP)
	SESSIONSTORE_TEST_ROUNDS=full $(BIN)/python -m pytest -n $(WORKERS) --hypothesis-profile=long --timeout=900 \
		$(PYTEST_ARGS)

lint: $(DEVELOP)
	@status=0; \
	for check in "ruff check" "ruff format --check" "mypy" "lint-imports"; do \
		echo "== $$check"; $(BIN)/$$check || status=1; \
	done; \
	exit $$status

format: $(DEVELOP)
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: $(DEVELOP)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

# The other stores need an environment of their own: what they require is much, and some of it other than ours.
bench-peers: $(PEERS)
	.peers/bin/python -m benchmarks --peers --json benchmarks.json $(BENCH_ARGS)
	.peers/bin/python -m benchmarks.plot benchmarks.json docs/benchmarks.svg
	.peers/bin/python -m benchmarks.readme benchmarks.json README.md

$(PEERS): pyproject.toml
	@"$(PYTHON)" -m venv .peers
	@.peers/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test,bench,peers]"
	@touch $@

docs: $(DEVELOP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

build: $(DEVELOP)
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) .peers benchmarks.json build dist site htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
