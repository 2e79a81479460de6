# Everything runs from .venv, which the first target that needs it makes. Needs Python 3.11 or later.
#   make demo        detect a painted lesion in a real brain and draw a picture
#   make test        lint, types, walls between rooms, and the default tests
#   make test-slow   the tests that take minutes
#   make fuzz        damaged files and arguments, 2000 of each kind, other ones every time
#   make benchmark   time and memory (some 15 minutes; with BENCHMARK=--quick, a few)
# Variables: PYTHON=/path/to/python chooses the interpreter; TORCH_INDEX=URL the package index that
# torch comes from (on Linux, give PyTorch's CPU index, or its CUDA builds may be installed).

TORCH ?= 2.13.0
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow fuzz benchmark lint clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.demo
	@$(BIN)/lsr demo

test: $(VENV)/.test lint
	$(BIN)/python -m pytest

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow --timeout 3600

fuzz: $(VENV)/.test
	LSR_FUZZ=2000 $(BIN)/python -m pytest --timeout 7200 LatentSpaceRestoration/Testing/Python/library/test_fuzzing.py

benchmark: $(VENV)/.test
	@$(BIN)/python LatentSpaceRestoration/Testing/Benchmarks/benchmark.py $(BENCHMARK)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=LatentSpaceRestoration $(BIN)/lint-imports

clean:
	rm -rf $(VENV) build lsr-demo

# Each stamp is made last, so that an install that was broken off is taken up again.
$(VENV)/.test: $(VENV)/.torch-$(TORCH) pyproject.toml
	@echo "Installing what the tests need ..."
	@$(PIP) --editable ".[host,training,evaluation,cohort,dicom,demo,dev]"
	@touch $@ $(VENV)/.demo

$(VENV)/.demo: $(VENV)/.torch-$(TORCH) pyproject.toml
	@echo "Installing the extension's library ..."
	@$(PIP) --editable ".[demo]"
	@touch $@

# torch goes first and alone, so that nothing else decides which build is installed.
$(VENV)/.torch-$(TORCH): $(VENV)/.created
	@echo "Installing PyTorch $(TORCH) ..."
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==$(TORCH)
	@touch $@

# A python that is found may be too old, may be a shim that does not start, or may lack venv.
$(VENV)/.created:
	@for python in $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3 python; do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    echo "Making $(VENV) with $$($$python --version) ..."; \
	    $$python -m venv $(VENV) && touch $@; exit $$?; \
	  fi; \
	done; \
	echo "No Python 3.11 or later with its venv module was found. Install one, or name it: make PYTHON=/path/to/python3" >&2; \
	exit 1
