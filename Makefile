# Two commands for a newcomer: `make demo` and `make test`. Everything is installed into .venv and nowhere else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help demo test check bench docs facts lock format clean
help:
	@echo "make demo    the whole pipeline on a simulated fleet and on this machine (no GPU, no Docker)"
	@echo "make test    every test; those that need Docker are skipped by name where there is none"
	@echo "make check   linters, types, layers, schemas: what CI runs"
	@echo "make bench   what a cell costs beside a bare docker run"
	@echo "make docs    write the pages of docs/ that are generated: checks, benchmarks, causes, compatibility rules"
	@echo "make facts   hold the tables of facts against their sources (network)"
	@echo "make lock    refresh the lock files"
	@echo "make format  let ruff format the sources"

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "make: $(PYTHON) is older than Python 3.10; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@sh tools/installing.sh $(PYTHON) -m venv --clear $(VENV) || \
	  { test $$? -ne 130 || exit 130; echo "make: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	@echo "installing into $(VENV) …"
	@sh tools/installing.sh $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@sh tools/installing.sh $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)
	@$(BIN)/cuda-matrix demo

# Tests with real containers share one engine: they run one after another, the rest on every core.
test: $(READY)
	@status=0; \
	$(BIN)/pytest --numprocesses auto --ignore tests/docker || status=1; \
	$(BIN)/pytest tests/docker || status=1; \
	exit $$status

check: $(READY)
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh tools/check.sh

bench: $(READY)
	@$(BIN)/python bench/bench.py

docs: $(READY)
	@$(BIN)/python tools/item_docs.py
	@$(BIN)/python tools/facts_docs.py

facts: $(READY)
	@$(BIN)/python tools/refresh_facts.py --check

lock: $(READY)
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --extra dev pyproject.toml -o requirements-dev.lock

format: $(READY)
	@$(BIN)/ruff format src tests bench tools
	@$(BIN)/ruff check --fix --quiet src tests bench tools

clean:
	rm -rf $(VENV) results demo-report .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
