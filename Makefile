# Each target does the set-up it needs by itself: `make demo` or `make test` on a fresh clone is enough.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The packages that benchmarks/ compares with, laid over $(VENV).
BENCH_VENV ?= .venv-bench
WORKERS ?= 2
DEMO_FLAGS ?=
PYTEST_FLAGS ?=
# Worker processes with a thread pool each would share the same cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --timeout 600

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv and the system libraries ready (every other target does this first)
	@$(PYTHON) scripts/system_libraries.py
	@$(PYTHON) scripts/set_up.py --venv $(VENV)

demo: setup ## videos to latent actions, skills and policies, with a report (DEMO_FLAGS="--out DIR" and others)
	$(BIN)/hilam demo $(DEMO_FLAGS)

test: setup ## run every test (PYTEST_FLAGS="-k name" and others)
	$(PYTEST) $(PYTEST_FLAGS)

lint: setup ## style, formatting, types and which folder imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

format: setup ## put the code into the style that lint asks for
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## compare with named peers, a JSON line for each claim
	@$(BIN)/python scripts/bench_environment.py --venv $(BENCH_VENV)
	@set -e; for script in benchmarks/*.py; do \
		[ -e "$$script" ] || { echo "benchmarks/ holds no script yet"; break; }; \
		case "$$script" in */_*) continue;; esac; \
		echo "== $$script"; $(BENCH_VENV)/bin/python "$$script" --json; \
	done

clean: ## remove .venv, .venv-bench and caches; what the demo wrote stays
	rm -rf $(VENV) $(BENCH_VENV) build dist .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
