# The same few commands on a laptop and in CI. `make serve` and `make test` need nothing done before.
# The distribution's first: it is built with profile-guided optimisation. One that pyenv compiled with
# its defaults is not, and runs the same code a third slower (docs/performance.md).
PYTHON ?= $(or $(shell for p in /usr/bin/python3.11 python3.11; do \
  $$p -c 'import ensurepip' 2>/dev/null && echo $$p && break; done),python3.11)
BIN := .venv/bin
EXTRAS ?= cpu,explain,query,train,dev
export BENTOML_DO_NOT_TRACK := True
export TF_CPP_MIN_LOG_LEVEL := 3
export WEIGHBRIDGE_HOME ?= .weighbridge
export BENTOML_HOME ?= $(abspath $(WEIGHBRIDGE_HOME))/bentoml
# Some images set this. The tests start hundreds of processes, and each would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install serve train demo test test-slow check format bento verify-wheel bench bench-audit bench-serving bench-gpu lock clean

install: .venv/.ready .venv-clients/.ready

# One resolver run against the lock file; repeated only when either file changes.
.venv/.ready: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install python3.11 and python3.11-venv, or set PYTHON=" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

# Clients of other projects, for tests, whose own requirements do not fit beside ours.
CLIENT_PINS := tests/e2e/clients/constraints.txt
.venv-clients/.ready: $(CLIENT_PINS)
	test -x .venv-clients/bin/python || $(PYTHON) -m venv .venv-clients
	.venv-clients/bin/pip install --quiet --constraint $(CLIENT_PINS) kserve
	@touch $@

train: .venv/.ready
	$(BIN)/weighbridge train

serve: train
	$(BIN)/bentoml serve services.gateway:Gateway

demo: train
	$(BIN)/weighbridge demo

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: install
	$(BIN)/python -m pytest -m slow

check: .venv/.ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.ready
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

# The reviewer's verifier, a wheel of its own; needs no network.
verify-wheel: .venv/.ready
	$(BIN)/pip wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir dist ./verifier

bento: train
	$(BIN)/weighbridge bento

bench: bench-audit

# Half an hour, 40 GB of disk; `python -m bench.audit --only verify` and the like for a part of it.
bench-audit: train
	$(BIN)/python -m bench.audit --directory $(WEIGHBRIDGE_HOME)/bench-audit.tmp

# Starts each case itself: the server on one core, load from another; about a quarter of an hour.
bench-serving: train
	$(BIN)/python -m bench.serving

bench-gpu: install
	$(BIN)/python -m bench.gpu

# A new lock: resolve the ranges of pyproject.toml in a fresh environment and write down the result.
lock:
	rm -rf .venv && $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[$(EXTRAS)]'
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt && touch .venv/.ready
	$(BIN)/python -c 'from pathlib import Path; from services.packaging import *; \
	  print(*serving_requirements(Path()), sep="\n")' > requirements-serving.txt

clean:
	rm -rf .venv .venv-clients .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build *.egg-info
