# `make demo` and `make test` set up all they need in .venv, which is reused while pyproject.toml and constraints.txt are unchanged.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# `make test` runs with all extras installed
EXTRAS := onnx,executorch,quantize,pretrained,adb,ssh,webdataset,bench,detect,video,docs,dev
# exact versions, for the Python and processor that constraints.txt names; where the index lacks one, pip chooses
CONSTRAINED := $(addprefix --constraint ,$(wildcard constraints.txt))
install = $(BIN)/pip install --quiet $(CONSTRAINED) --editable $(1) || \
	{ echo "make: the package index lacks a version in constraints.txt; installing without it" >&2; $(BIN)/pip install --quiet --editable $(1); }
ANB ?= ../shared/data/anb/anb_dataset_jsons.tar.gz

# containers often set this; every process of the tests would then compile its modules again
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-fast test-slow fuzz lint docs reference wheel bench bench-search constraints clean

demo: $(VENV)/core
	$(BIN)/mnas demo $(DEMO)

test: $(VENV)/all
	$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile

# the tests to run while you work: without the longest files (tests/long_files.py), in about a minute
test-fast: $(VENV)/all
	$(BIN)/python -m pytest -m "not slow" --fast -n auto --maxprocesses 4 --dist loadfile

test-slow: $(VENV)/all
	$(BIN)/python -m pytest -m slow

# damaged images, models, tables, settings, studies and names, for SECONDS in total; make fuzz SEED=7 repeats a run
SECONDS ?= 300
SEED ?= $(shell date +%s)
fuzz: $(VENV)/all
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed $(SEED) --keep build/fuzz

lint: $(VENV)/all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the documentation in build/site; a broken link fails
docs: $(VENV)/all
	$(BIN)/zensical build --strict

# the page of all commands and options, from the dataclasses that define them
reference: $(VENV)/all
	mkdir -p build
	$(BIN)/python scripts/command_reference.py > build/command-line.md
	mv build/command-line.md docs/reference/command-line.md

# the wheel in fresh environments: each Python that is here, with the lowest and the newest dependencies
wheel: $(VENV)/all
	$(BIN)/python scripts/check_wheel.py

bench: $(VENV)/all
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# the table of docs/measurements/controllers.md: every controller, 5 seeds, 500 trials
bench-search: $(VENV)/core
	test -f $(ANB) || { echo "make bench-search ANB=FILE: anb_dataset_jsons.tar.gz of github.com/afzalxo/Accel-NASBench"; exit 2; }
	$(BIN)/mnas bench --path $(ANB) --controllers all --seeds 5 --trials 500

$(VENV)/core: pyproject.toml $(wildcard constraints.txt)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mnas needs Python 3.11 or newer: make PYTHON=python3.x")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(call install,.)
	touch $@

$(VENV)/all: pyproject.toml $(wildcard constraints.txt) | $(VENV)/core
	$(call install,'.[$(EXTRAS)]')
	touch $@

# write constraints.txt from the versions in .venv; for newer versions: rm constraints.txt; make clean constraints test
constraints: $(VENV)/all
	mkdir -p build
	$(BIN)/python scripts/constraints.py > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean:
	rm -rf $(VENV) .venv-litert-torch build dist .mypy_cache .pytest_cache .ruff_cache
