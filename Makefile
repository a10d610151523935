PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MODEL := models/SmolLM2-135M-Instruct
# A file is one worker's, so that what it trains once is trained once.
SPREAD := --numprocesses auto --maxprocesses 4 --dist loadfile

# `make soak` on a tiny model, in minutes: python -m scripts.soak --tiny
.PHONY: setup demo test test-floors test-real test-faults soak check docs smoke bench clean

setup: $(STAMP) ## .venv/ with the pinned versions; instant when it is there

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup ## align a real 135M model on the starter pairs
	$(BIN)/python scripts/quickstart_model.py
	$(BIN)/dpo train recipes/quickstart.yaml
	$(BIN)/python scripts/starter_baselines.py

test: setup ## everything that needs no real model, GPU or network
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPREAD) -m "not real and not slow and not gpu and not network"

test-floors: .venv-floors/.installed ## the same with the oldest versions allowed; its torch is a CUDA build of 5 GB
	OMP_NUM_THREADS=1 .venv-floors/bin/python -m pytest $(SPREAD) -m "not real and not slow and not gpu and not network"

.venv-floors/.installed: pyproject.toml constraints-floors.txt
	$(PYTHON) -m venv .venv-floors
	.venv-floors/bin/python -m pip install --quiet --constraint constraints-floors.txt --editable '.[dev]'
	@touch $@

test-real: setup ## the rest that runs on this machine: the real model, the real data
	$(BIN)/python scripts/quickstart_model.py
	$(BIN)/python -m pytest -m "(real or slow) and not gpu and not network"

test-faults: setup ## every numbered fault: kills at each write, signals in each phase, full disks, flipped bits, forged files (half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults -m "not real and not gpu and not network"

soak: setup ## sixty random faults against one run of the real model (an hour)
	$(BIN)/python scripts/quickstart_model.py
	OMP_NUM_THREADS=1 $(BIN)/python -m scripts.soak

check: setup ## style, types, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

docs: .venv-docs/.installed ## the documentation as a site in site/, with search that works offline
	$(BIN)/python -m scripts.docs_pages
	.venv-docs/bin/mkdocs build --strict --quiet

.venv-docs/.installed: $(STAMP)
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --constraint constraints.txt mkdocs-material
	@touch $@

smoke: setup ## the whole pipeline on a tiny random model
	$(BIN)/python -c "from pathlib import Path; from tests.fakes import write_model; write_model(Path('models/tiny'))"
	$(BIN)/dpo train recipes/smoke.yaml train.resume=never

bench: setup .venv-trl/.installed ## our speed and memory beside TRL's, same rows, same run (half an hour)
	$(BIN)/python scripts/quickstart_model.py
	$(BIN)/python scripts/bench/vs_trl.py

.venv-trl/.installed: constraints.txt
	$(PYTHON) -m venv .venv-trl
	.venv-trl/bin/python -m pip install --quiet --constraint constraints.txt torch
	.venv-trl/bin/python -m pip install --quiet --constraint constraints.txt trl==1.16.0
	@touch $@

clean: ## everything that setup, tests and runs wrote, but the models
	rm -rf $(VENV) .venv-trl .venv-floors build dist runs wandb .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
