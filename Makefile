# Each target sets up what it needs in .venv. Outside this folder nothing is touched, but that `make test` as root on
# Debian installs the browser in which the notebooks are tested.
PYTHON ?= python3
VENV   ?= .venv
RUN     = $(VENV)/bin/python
CONFIG ?= config.yaml
ARGS   ?=

.PHONY: help train test lint format check bench clean

help:
	@echo "make train   train the default policy (CONFIG=config.yaml, ARGS='--seed 1')"
	@echo "make test    run the tests"
	@echo "make check   format, lint and test, as CI does"
	@echo "make bench   measure speed (docs/LOG.md keeps results)"
	@echo "make format  rewrite the code in the project's format"
	@echo "make clean   delete .venv and caches; results stay"

$(VENV)/.run: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@sh tools/install_browser.sh
	@touch $@

train: $(VENV)/.run
	$(RUN) train_mop.py --config $(CONFIG) $(ARGS)

test: $(VENV)/.dev
	$(RUN) -m pytest -n auto --dist loadfile $(ARGS)

lint: $(VENV)/.dev
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m marimo check --strict routing_viz.py cross_task_viz.py

format: $(VENV)/.dev
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

check: lint test

bench: $(VENV)/.run
	$(RUN) -m benchmarks.world
	$(RUN) -m benchmarks.training
	$(RUN) -m benchmarks.sweep
	$(RUN) -m benchmarks.policy
	$(RUN) -m benchmarks.evaluation
	$(RUN) -m benchmarks.more
	$(RUN) -m benchmarks.maxent
	@echo "and with a cache: $(RUN) -m benchmarks.figures --cache PATH"

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
