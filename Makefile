# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo
JOBS ?= 2
# Each of the test workers computes on one core: they share the machine.
ONE_THREAD := LSX_THREADS=1 OMP_NUM_THREADS=1

.PHONY: corpus demo test lint check stubs setup format clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
# torch first and alone: exactly this version has a CPU build where only one is wanted, see CONTRIBUTING.md.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/python -m examples.demo $(DEMO)

test: setup
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS) --dist loadscope

# A thousand damaged media files, each read or refused on one line.
corpus: setup
	$(BIN)/python -m tests.corpus --count $(or $(COUNT),1056)

# Types of TensorRT's Python calls, made from the installed bindings. Not committed: they are NVIDIA's.
build/stubs/.made: $(VENV)/.installed scripts/tensorrt_stubs.py
	rm -rf build/stubs
	$(BIN)/python scripts/tensorrt_stubs.py build/stubs
	touch $@

stubs: build/stubs/.made

lint: setup stubs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS) --dist loadscope tests/unit

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) demo build dist *.egg-info
