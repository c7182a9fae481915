# Everything here works in a fresh clone with Python 3.11 or later; each recipe says what it does when it starts.

PYTHON3 ?= python3
VENV := .venv
PY := $(VENV)/bin/python
LOCK := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate

.DEFAULT_GOAL := help
.PHONY: help demo test check format types contracts proto proto-check lock bench soak clean

help:  ## list the recipes
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/installed: pyproject.toml locks/dev.txt
	@echo "Installing into $(VENV), with hashes; the first time this takes a minute or two."
	$(PYTHON3) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed")'
	$(PYTHON3) -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r locks/dev.txt
	@echo "Installing torch, for the vendor's side only; the appliance itself never imports it."
	$(PY) -m pip install -q --disable-pip-version-check torch==2.13.0
	$(PY) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(VENV)/installed  ## the whole job once: train, export, seal, serve, ask, verify; leaves everything in build/demo
	$(VENV)/bin/appliance demo

test: $(VENV)/installed  ## run the tests
	@echo "Running the tests; those that need a tool this machine lacks say so and are skipped."
	$(PY) -m pytest -q -n 2 --dist loadscope

check: format types contracts proto-check test  ## format, lint, types, architecture, protocol drift, tests

format: $(VENV)/installed  ## check the formatting and lint
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

types: $(VENV)/installed  ## check the types, strictly
	$(VENV)/bin/mypy

contracts: $(VENV)/installed  ## check who may import whom
	$(VENV)/bin/lint-imports

proto: $(VENV)/installed  ## generate the protocol code anew
	proto/generate.sh

proto-check: $(VENV)/installed  ## check that the committed protocol code is what proto/ generates
	rm -rf build/proto && mkdir -p build/proto && proto/generate.sh build/proto
	for made in $$(cd build/proto && find . -type f); do cmp build/proto/$$made $$made || exit 1; done

bench: $(VENV)/installed  ## measure serving against ONNX Runtime alone and other servers; writes build/bench.json, bench.html
	$(PY) -m tests.benchmarks

soak: $(VENV)/installed  ## long runs, which print figures: kill -9 under load, every bit of a bundle, switches of large models
	$(PY) -m pytest -q -m soak -s

lock:  ## resolve the dependencies anew (needs uv)
	$(LOCK) --extra cpu pyproject.toml locks/build.in -o locks/cpu.txt
	$(LOCK) --extra gpu pyproject.toml locks/build.in -o locks/gpu.txt
	$(LOCK) --extra cpu --extra dev pyproject.toml locks/factory.in -o locks/dev.txt

clean:  ## remove what was built
	rm -rf build $(VENV)
