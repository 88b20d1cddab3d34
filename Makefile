# The verbs of this repository; `make` alone lists them.
# GNU make 3.81 (macOS) is enough. Every path is relative, so a folder with spaces in its name is fine.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.SUFFIXES:

PY := .venv/bin/python
LABKIT := .venv/bin/labkit
INSTALLED := .venv/.installed
# The first of these that is new enough makes .venv. `make setup PYTHON=/path/to/python3` names one.
PYTHON ?= python3 python3.13 python3.12 python3.11
NEW_ENOUGH := import sys, ensurepip; sys.exit(sys.version_info < (3, 11))
USABLE := import sys, pip; sys.exit(sys.version_info < (3, 11))
UNIT := $(PY) -m pytest -m "not alone and not browser and not thorough" -n auto --maxprocesses=4 --dist worksteal
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup lab test lint types imports unit thorough coverage notebooks browser bench chaos clean

help: ## List the verbs
	@awk 'BEGIN { FS = ":.*## " } /^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(INSTALLED) ## Create .venv and install everything into it
	@echo ".venv is up to date"

$(INSTALLED): pyproject.toml requirements.lock
	@if ! $(PY) -c '$(USABLE)' >/dev/null 2>&1; then \
	  found=; \
	  for candidate in $(PYTHON); do \
	    if "$$candidate" -c '$(NEW_ENOUGH)' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "labkit needs Python 3.11 or later with venv (Debian, Ubuntu: apt install python3-venv)." >&2; \
	    echo "Tried: $(PYTHON). Name another one: make setup PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	  fi; \
	  echo "Creating .venv with $$("$$found" --version)"; \
	  "$$found" -m venv --clear .venv; \
	fi
	@echo "Installing the locked dependencies (about a minute the first time)"
	@$(PY) -m pip install -qq -r requirements.lock
	@$(PY) -m pip install -qq --no-deps --no-build-isolation -e .
	@touch $@

lab: setup ## Start the servers and JupyterLab where you left it; Ctrl-C stops what it started
	@exec $(LABKIT) lab $(NOTEBOOK)

test: lint types imports unit notebooks ## Everything that CI runs: the five verbs below

lint: setup ## Formatting and lint, notebooks included
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

types: setup ## Types, strictly
	$(PY) -m mypy

imports: setup ## The floors: which module may import which
	.venv/bin/lint-imports --no-logo

unit: setup ## The tests, on real servers
	$(UNIT)

notebooks: setup ## Every notebook: run, its outputs compared with the saved ones, and its core timed
	$(if $(NOTEBOOKS),$(PY) -m pytest --nbval --nbval-current-env -n auto --maxprocesses=2 --dist loadfile notebooks,@echo "There are no notebooks yet")
	$(PY) -m pytest -m "alone and not thorough" tests/repo

thorough: setup ## What takes too long for every change: benchmarks at work, JupyterLab started and stopped, notebooks again
	$(PY) -m pytest -m "thorough and not alone and not browser" -n auto --maxprocesses=2 --dist worksteal
	$(PY) -m pytest -m "thorough and alone" tests/repo

browser: setup ## Every notebook, run in JupyterLab in a real Chromium; screenshots in build/screenshots
	$(PY) -m pytest -m browser -rs tests/browser

coverage: setup ## The same tests with branch coverage, which takes a quarter more of the processors
	$(UNIT) --cov --cov-report=term-missing:skip-covered

bench: setup ## Speed beside hand-written code (six minutes); BENCH=relay runs one line, BENCH=growth its growth
	$(PY) -m benchmarks $(BENCH)

chaos: setup ## Kill and freeze servers and workers at random: make chaos SEED=7 DURATION=60
	$(PY) -m labkit.cli.chaos $(if $(SEED),--seed $(SEED)) $(if $(DURATION),--duration $(DURATION))

clean: ## Stop the servers, delete caches and reports; .venv and the servers' data stay
	@[ ! -x $(LABKIT) ] || $(LABKIT) down || true
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
	  .coverage .coverage.* htmlcov build dist
	find . -name .venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +
