# Needs make and Python >= 3.11; everything else goes into .venv.
#
#   make demo PYTHON=python3.12                               another interpreter
#   make demo TORCH="torch==2.13.0 torchvision==0.28.0"       another PyTorch; pip options may follow
#
# A torch that is already in .venv is kept. `rm -rf .venv` starts afresh.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= -r constraints.txt

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# OpenMP threads that spin at barriers instead of sleeping can cost several times the run time on shared cores.
PYTEST := OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest
# Processes that share the test files, each of one thread; 0 runs them in pytest's own. The order stays: it begins with
# the files of tests/e2e, which take longest though they have few tests.
WORKERS ?= 2

.PHONY: help demo test sanitize fuzz gpu browser parity reference lint format types clean
.NOTPARALLEL:

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## */make \1\t/p' Makefile

demo: $(VENV)/.base  ## label the photos of examples/photos and measure their depth
	$(BIN)/densevit predict examples/photos --out demo --gallery
	@echo "Open $(CURDIR)/demo/index.html; the pictures are next to it."

test: $(VENV)/.dev  ## run the tests that need no accelerator
	$(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder

sanitize: $(VENV)/.dev  ## run the tests of the C kernels under ASan and UBSan (Linux, gcc)
	$(BIN)/python -m tests.sanitize

fuzz: $(VENV)/.dev  ## feed hostile inputs to the commands: make fuzz SECONDS=600 SEED=7
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60) --seed $(or $(SEED),0)

gpu: $(VENV)/.dev  ## run the tests that need an accelerator, then measure there: gpu.json
	$(PYTEST) -m gpu
	$(BIN)/densevit benchmark --suite gpu --json gpu.json

browser: $(VENV)/.dev  ## try the page of web exports in headless Chromium, as on a phone; needs npm
	command -v chromium || command -v google-chrome || { apt-get update && apt-get install -y chromium; }
	$(PYTEST) -m browser -rA --show-capture=no tests/browser

parity: $(VENV)/.dev  ## compare with transformers and timm, which it installs, and with the golden tensors
	$(PIP) install -q -c $(VENV)/constraints.txt -e '.[parity]'
	$(PYTEST) tests/parity

reference: $(VENV)/.dev  ## write the reference pages that are made from the code
	$(BIN)/python -m densevit_lab.reference

lint: $(VENV)/.dev  ## check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(VENV)/.dev  ## fix style and formatting
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(VENV)/.dev  ## check the types of src/
	$(BIN)/mypy

clean:  ## remove caches, builds and demo pictures; .venv stays
	rm -rf build dist demo .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# venv installs pip last, so an incomplete environment is created again.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is '$$($(PYTHON) --version 2>&1)' but densevit needs Python 3.11 or newer;" \
	       "name one, as in: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Two stamps, so that the demo does not wait for the test tools; a stamp newer than pyproject.toml is up to date.
# torch is installed first and separately; its version is then held fixed while pip resolves the rest.
$(VENV)/.base: WHAT := .
$(VENV)/.dev: WHAT := .[test,dev]
$(VENV)/.base $(VENV)/.dev: pyproject.toml | $(BIN)/pip
	$(BIN)/python -c 'from importlib.metadata import version; version("torch")' 2>/dev/null || $(PIP) install $(TORCH)
	$(PIP) list --format=freeze | grep -E '^torch(vision)?==' > $(VENV)/constraints.txt
	$(PIP) install -c $(VENV)/constraints.txt -e '$(WHAT)'
	touch $(VENV)/.base $@
