# Thin: every target is also a documented pip or kgrec command (see README).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test test-distributed test-torchrec test-dask install check clean

# The stamps are files, so an unchanged pyproject.toml and constraints.txt install nothing again.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable . --constraint constraints.txt
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]' --constraint constraints.txt
	@touch $@

$(VENV)/installed-torchrec: $(VENV)/installed-dev requirements/torchrec-cpu.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --requirement requirements/torchrec-cpu.txt
	@touch $@

$(VENV)/installed-dask: $(VENV)/installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dask]' --constraint constraints.txt
	@touch $@

$(VENV)/installed-distributed: $(VENV)/installed-torchrec $(VENV)/installed-dask
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[ray]' --constraint constraints.txt
	@touch $@

install: $(VENV)/installed

run: $(VENV)/installed
	$(BIN)/kgrec run configs/ml-100k.toml

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

# What needs TorchRec, Ray or Dask: `make test` goes without them. Here nothing may be skipped.
test-distributed: $(VENV)/installed-distributed
	KGREC_NOTHING_SKIPPED=1 $(BIN)/python -m pytest -m distributed tests

# The same in parts, without Ray, whose own processes take minutes to start.
test-torchrec: $(VENV)/installed-torchrec
	KGREC_NOTHING_SKIPPED=1 $(BIN)/python -m pytest -m distributed -k "not ray" tests/chain tests/contracts tests/training

test-dask: $(VENV)/installed-dask
	KGREC_NOTHING_SKIPPED=1 $(BIN)/python -m pytest -m distributed -k dask tests/test_deploy.py

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) workspace
