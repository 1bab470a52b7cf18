# The project's chores. Each target makes .venv and installs what it needs when that is missing.
#
#   make demo     SFT and GRPO of the embedded model, before and after, curves (about 10 minutes on 2 cores)
#   make test     run the tests
#   make check    format, lint and types
#   make fix      mend format and lint where that can be done by machine
#   make bench    measure speed and memory (on purpose, never part of the tests)
#   make test-slow, make test-all   the long tests; all tests
#
# PYTHON=python3.12 chooses the interpreter, ARGS="--seed 1" is passed on to the command.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
CORE := .venv/.installed-core
DEV := .venv/.installed-dev
BENCH := .venv/.installed-bench
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-all check fix bench clean

help:
	@sed -n 's/^#   \(make .*\)/  \1/p' Makefile

demo: $(CORE)
	$(BIN)/toolhone demo $(ARGS)

test: $(DEV)
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-slow: $(DEV)
	$(BIN)/python -m pytest -m slow $(ARGS)

test-all: $(DEV)
	$(BIN)/python -m pytest $(ARGS)

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fix: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BENCH)
	$(BIN)/python benchmarks/run.py $(ARGS)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Toolhone needs Python 3.11 or newer; none was found. Install one, or name it: make demo PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -m venv .venv || { echo "The module venv is missing from $(PYTHON); on Debian and Ubuntu: apt install python3-venv"; rm -rf .venv; exit 2; }

$(CORE): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Toolhone into .venv (once; torch is large) ..."
	@$(PIP) --editable .
	@touch $@

$(DEV): $(CORE)
	@echo "Installing what the tests and checks need ..."
	@$(PIP) --editable '.[dev]'
	@touch $@

$(BENCH): $(DEV)
	@echo "Installing the peers that the benchmarks measure against ..."
	@$(PIP) --editable '.[dev,bench]'
	@touch $@

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
