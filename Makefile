PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-gpu mutate conf course lint format tensorboard clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Made again only when pyproject.toml has changed since.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[dev]"
	@touch $@

demo: $(READY) ## Install into .venv and train: handwritten digits, the main job
	$(BIN)/cnntrain

test: $(READY) ## Run the fast tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

test-all: $(READY) ## Run all tests, the slow ones too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m ""

test-gpu: $(READY) ## Run the tests that need CUDA (in one process: they share the GPU)
	$(BIN)/python -m pytest -m gpu

mutate: $(READY) ## Change the core in small ways: do the tests notice? FILE=cnntrain/optim/optimizers.py SAMPLE=40 SEED=1
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev,mutate]"
	OMP_NUM_THREADS=1 nice $(BIN)/python tests/mutate.py FILE=$(FILE) SAMPLE=$(SAMPLE) SEED=$(SEED)

conf: $(READY) ## Write conf/train.yaml from the settings classes
	$(BIN)/python tests/train_yaml.py

course: $(READY) ## Run the pages of docs/course and write what they show into them: PAGES="3 6"
	$(BIN)/python tests/course_pages.py $(PAGES)

lint: $(READY) ## Check format, style and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

format: $(READY) ## Format the code, and repair what can be repaired
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

tensorboard: $(READY) ## Look at the runs in outputs/
	$(BIN)/tensorboard --logdir outputs

clean: ## Remove .venv, caches and builds; outputs/ and data/ stay
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache
	find cnntrain tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
