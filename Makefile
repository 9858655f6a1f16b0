# The same few commands for people and for CI. A new machine needs Python 3.11 or newer and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-slow mutants install fix check docs build bench clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(VENV)/.core: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Sightline needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "installing into $(VENV): about 1.3 GB, some minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train]'
	touch $@

$(VENV)/.installed: $(VENV)/.core
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,check]'
	touch $@

install: $(VENV)/.installed  ## the environment, with everything that tests and checks need

demo: $(VENV)/.core  ## the first minute: bundled models at work, one report in demo-out/
	$(BIN)/sightline demo --out demo-out

# networks of this size gain nothing from a second thread, the tests much from a second process
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest
test: install  ## the default tests
	$(PYTEST) -n logical --maxprocesses 8 --dist loadfile

test-slow: install  ## the longer ones: training to the promised scores
	$(BIN)/python -m pytest -m slow --timeout 3600

SAMPLE ?= 300
SEED ?= 0
ROOMS ?= models,nn,objectives
mutants: install  ## mistakes planted in ROOMS, SAMPLE of them by SEED: do the tests catch them?
	$(BIN)/python -m tests.mutation --sample $(SAMPLE) --seed $(SEED) --rooms $(ROOMS)

fix: install  ## format, and repair what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: install  ## format, lint, types, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell src docs *.md

docs: install  ## the site in build/docs
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	$(BIN)/python docs/build.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

build: install  ## wheel and source distribution in dist/
	$(BIN)/python -m pip install --quiet build
	$(BIN)/python -m build

bench: install  ## speed against the peers, side by side
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/sightline bench embed

clean:
	rm -rf $(VENV) build dist demo-out .pytest_cache .mypy_cache .ruff_cache
