# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv first.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo
JOBS ?= 3
# PyTorch on a CPU asks the system for the memory of every large tensor and gives it back. Kept, the tiny VAE encodes 1.8
# times as fast, and a test with gradients of 16 frames takes a third less; the U-Net's steps gain little.
KEPT_MEMORY := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=4294967296 MALLOC_TOP_PAD_=67108864
# Each of the test workers computes on one core: they share the machine.
ONE_THREAD := LSX_THREADS=1 OMP_NUM_THREADS=1 $(KEPT_MEMORY)

# Every test and every command of a test starts a Python: what one of them compiled, the next one reads.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help coverage docs gpu gpu-kit corpus soak torture audit test-browser tiny distill-tiny demo test lint check stubs setup format clean

help:
	@echo 'make setup    .venv with everything; the others make it first'
	@echo 'make demo     the main job from nothing, in the folder demo'
	@echo 'make test     all tests'
	@echo 'make coverage the same, and which lines they reach'
	@echo 'make docs     the site, in build/site'
	@echo 'make check    format, lint, types, imports and the unit tests: green at every commit'
	@echo 'make lint     the same without tests'
	@echo 'make stubs    types of TensorRT, from the installed bindings; lint makes them first'
	@echo 'make format   format, and mend what ruff can'
	@echo 'make gpu      the first hour on a machine with an NVIDIA GPU'
	@echo 'make gpu-kit  what an offline machine with a GPU needs, in one archive'
	@echo 'make tiny     lsx-tiny trained from nothing, on two cores in under two hours'
	@echo 'make distill-tiny  its student of 4 steps from nothing, on two cores in under 90 minutes'
	@echo 'make corpus   a thousand damaged media files'
	@echo 'make soak     an hour of 1080p with its memory watched, and a batch killed thirty times'
	@echo 'make torture  a server killed, frozen, flooded and cut off, on SQLite and PostgreSQL'
	@echo 'make audit    known weaknesses of what constraints.txt names; needs a network'
	@echo 'make test-browser  the page of lsx serve, in Chromium'
	@echo 'make clean    remove what was made'

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
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder --max-worker-restart 2

# The page in Debian's Chromium, installed where it is missing.
test-browser: setup
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium; }
	$(ONE_THREAD) $(BIN)/python -m pytest tests/browser

# All tests, and which lines of lsx they reach; build/coverage has it line by line.
coverage: setup
	rm -f .coverage .coverage.*
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder --max-worker-restart 2 --cov --cov-report=
	$(BIN)/python -m scripts.coverage

# The documentation as a site. Every warning is an error.
docs: setup
	$(BIN)/python scripts/architecture.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# A thousand damaged media files, each read or refused on one line.
corpus: setup
	$(BIN)/python -m tests.corpus --count $(or $(COUNT),1056)

# An hour of 1080p with all of the footage options, memory watched; a batch killed thirty times. SOAK is the folder.
SOAK ?= soak
soak: setup
	$(BIN)/python -m tests.soak $(SOAK) $(SOAK_OPTIONS)

# A server killed, frozen, flooded and cut off, on SQLite and PostgreSQL; a table of figures. TORTURE is the folder. Its
# connections are seen by strace, installed where it is missing and can be.
TORTURE ?= torture
torture: setup
	-command -v strace >/dev/null || { apt-get update -qq && apt-get install -y -qq strace; }
	$(BIN)/python -m tests.torture $(TORTURE) $(TORTURE_OPTIONS)

# Known weaknesses of the packages in constraints.txt, by PyPI's word; a package that PyPI does not know of is an error.
AUDIT := build/audit/bin
audit: setup
	@test -x $(AUDIT)/pip-audit || { $(BIN)/python -m venv build/audit && $(AUDIT)/python -m pip install --quiet pip-audit; } \
	  || { echo 'not audited: pip-audit cannot be installed without a network' >&2; exit 1; }
	$(AUDIT)/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r constraints.txt

# lsx-tiny from nothing: faces, VAE, both stages, SyncNet. TINY is the folder; goes on where it was stopped.
TINY ?= tiny
tiny: setup
	$(KEPT_MEMORY) $(BIN)/python -m examples.tiny.make $(TINY)

# The committed lsx-tiny's students, and the one of 4 steps as the repository has it, judged. TINY's faces are used again.
distill-tiny: setup
	$(KEPT_MEMORY) $(BIN)/python -m examples.tiny.distill $(TINY)

# The first hour on a machine with an NVIDIA GPU: eight stages, each with a limit and a log, and a report to send. GPU_OPTIONS
# are `python -m scripts.gpu --help`'s. Without a GPU it stops before anything is installed.
gpu:
	$(PYTHON) -m scripts.gpu --check
	test -x .venv-gpu/bin/python || $(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/python -m pip install --quiet -c constraints.txt -e '.[dev,export,rtx]'
	-.venv-gpu/bin/python -m pip install --quiet 'tensorrt>=10.14'
	.venv-gpu/bin/python -m scripts.gpu $(GPU_OPTIONS)

# What an offline machine with a GPU needs, in one archive.
gpu-kit: setup
	$(BIN)/python -m scripts.gpu.kit $(KIT_OPTIONS)

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
	$(BIN)/python scripts/shape.py --check

check: lint
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS) --dist loadscope tests/unit

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) demo build dist *.egg-info
