# Each target sets up what it needs in .venv. Outside this folder nothing is touched, but that `make test` as root on
# Debian installs the browser in which the notebooks are tested.
PYTHON ?= python3
VENV   ?= .venv
RUN     = $(VENV)/bin/python
CONFIG ?= config.yaml
ARGS   ?=

.PHONY: help train maxent test cluster-test lint format check docs bench levels pages clean

help:
	@echo "make train   train the default policy (CONFIG=config.yaml, ARGS='--seed 1')"
	@echo "make maxent  try the tree search with a small model that is trained here first, minutes (ARGS='--methods dts_star')"
	@echo "make test    run the tests"
	@echo "make cluster-test"
	@echo "             run the tests of --launcher with all its packages, on a Ray cluster of this machine too, minutes"
	@echo "make check   format, lint and test, as CI does"
	@echo "make docs    build the documentation site into site/"
	@echo "make bench   measure speed (docs/LOG.md keeps results)"
	@echo "make levels  what the default policy learns on every level in 1, 3, 10 and 60 minutes, docs/levels.md; it takes"
	@echo "             days, goes on where it was stopped (ARGS='--minutes 1 --only GoTo,PickupLoc')"
	@echo "make pages   the notebooks as pages to keep, plots/routing.html and plots/runs.html; they need no network"
	@echo "make format  rewrite the code in the project's format"
	@echo "make clean   delete .venv and caches; results stay"

$(VENV)/.run: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements/dev.txt requirements/science.txt $(VENV)/.run
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@sh tools/install_browser.sh
	@touch $@

$(VENV)/.cluster: requirements/cluster.txt requirements/dev.txt $(VENV)/.run
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements/cluster.txt -r requirements/dev.txt
	@touch $@

$(VENV)/.docs: requirements/docs.txt $(VENV)/.run
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements/docs.txt
	@touch $@

$(VENV)/.science: requirements/science.txt $(VENV)/.run
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements/science.txt
	@touch $@

train: $(VENV)/.run
	$(RUN) train_mop.py --config $(CONFIG) $(ARGS)

maxent: $(VENV)/.run
	$(RUN) maxent/run_experiments_with_wandb.py --models phi-2 --dataset M4 --preset quick --stand_in --no_wandb $(ARGS)

test: $(VENV)/.dev
	$(RUN) -m pytest -n auto --dist loadfile $(ARGS)

cluster-test: $(VENV)/.cluster
	$(RUN) -m pytest tests/pipeline/launch tests/test_modal_app.py $(ARGS)

lint: $(VENV)/.dev
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m marimo check --strict routing_viz.py cross_task_viz.py

format: $(VENV)/.dev
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

check: lint test

docs: $(VENV)/.docs
	$(RUN) -m sphinx -b html -W --keep-going -q docs site
	@echo "site/index.html"

bench: $(VENV)/.science
	$(RUN) -m benchmarks.world
	$(RUN) -m benchmarks.training
	$(RUN) -m benchmarks.sweep
	$(RUN) -m benchmarks.policy
	$(RUN) -m benchmarks.evaluation
	$(RUN) -m benchmarks.interventions
	$(RUN) -m benchmarks.more
	$(RUN) -m benchmarks.maxent_search
	$(RUN) -m benchmarks.analyses
	$(RUN) -m benchmarks.maxent
	@echo "and with a cache: $(RUN) -m benchmarks.figures --cache PATH"

levels: $(VENV)/.run
	$(RUN) -m benchmarks.levels --config $(CONFIG) --docs docs $(ARGS)

pages: $(VENV)/.run
	$(RUN) routing_viz.py -- --all_views --page plots/routing.html $(ARGS)
	$(RUN) cross_task_viz.py -- --all_views --page plots/runs.html $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build site *.egg-info
