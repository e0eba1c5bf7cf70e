# `make demo` and `make test` set up all they need: a virtual environment in .venv, reused while pyproject.toml is unchanged.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# what each task needs beyond the core; `make test` runs against every optional part
EXTRAS := ray,onnx,executorch,quantize,adb,ssh,detect,webdataset,bench,baselines,dashboard,postgres,dev
ANB ?= ../shared/data/anb/anb_dataset_jsons.tar.gz

.PHONY: demo test test-slow fuzz lint bench bench-search clean

demo: $(VENV)/core
	$(BIN)/mnas demo $(DEMO)

test: $(VENV)/all
	$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile

test-slow: $(VENV)/all
	$(BIN)/python -m pytest -m slow

# damaged images, models, tables, settings, studies and names, for SECONDS in all; make fuzz SEED=7 repeats a run
SECONDS ?= 300
SEED ?= $(shell date +%s)
fuzz: $(VENV)/all
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed $(SEED) --keep build/fuzz

lint: $(VENV)/all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/all
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# the table of docs/benchmark.md: every controller, 5 seeds, 500 trials
bench-search: $(VENV)/core
	test -f $(ANB) || { echo "make bench-search ANB=FILE: anb_dataset_jsons.tar.gz of github.com/afzalxo/Accel-NASBench"; exit 2; }
	$(BIN)/mnas bench --path $(ANB) --controllers all --seeds 5 --trials 500

$(VENV)/core: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mnas needs Python 3.11 or newer: make PYTHON=python3.x")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/all: pyproject.toml | $(VENV)/core
	$(BIN)/pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
