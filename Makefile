# Every target sets up what it needs. PROFILE=smoke|demo|..., DATA=folder, LIMIT=n, SHARD=i/n.
PROFILE ?= demo
DATA    ?=
LIMIT   ?=
SHARD   ?=

SHELL := /bin/bash
.DEFAULT_GOAL := help

# An active environment is used as it is (conda's `base` does not count); else .venv is made.
# `make` sees the environment's python first in PATH, but says it in full to be sure.
ifneq ($(VIRTUAL_ENV),)
  ENV := $(VIRTUAL_ENV)
else ifneq ($(filter-out base,$(CONDA_DEFAULT_ENV)),)
  ENV := $(CONDA_PREFIX)
else
  ENV := .venv
endif
PY    := $(ENV)/bin/python
# One stamp per environment and checkout: a second checkout may share an active environment.
STAMP := $(ENV)/.matlib-installed-$(firstword $(shell printf '%s' "$(CURDIR)" | cksum))

STUDY = $(PY) -m matlib study --profile $(PROFILE) \
	$(if $(DATA),--data "$(DATA)") $(if $(LIMIT),--limit $(LIMIT)) $(if $(SHARD),--shard $(SHARD))

# Files of tests side by side, one process for each core; each takes up to 3 GB.
SIDE_BY_SIDE = -n auto --maxprocesses 4 --dist loadfile

.PHONY: help study test test-full notebooks report docs bench gpu lab clean

help: ## show this list
	@echo "make TARGET [PROFILE=demo] [DATA=folder] [LIMIT=n] [SHARD=i/n]"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) \
	  | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | awk -F'\t' '{printf "  %-10s %s\n", $$1, $$2}'

study: $(STAMP) ## run the study (PROFILE, default demo) and write its report
	@$(STUDY)

test: $(STAMP) ## style, types, every test, every notebook at toy size (half an hour on 2 cores)
	$(PY) -m ruff check .
	$(PY) -m mypy matlib benchmarks
	$(PY) -m pytest -q $(SIDE_BY_SIDE)

test-full: $(STAMP) ## the same with wide grids, long kill loops and the documentation's build
	$(PY) -m ruff check .
	$(PY) -m mypy matlib benchmarks
	$(PY) -m pytest -q -m "full or not full" $(SIDE_BY_SIDE)

notebooks: $(STAMP) ## run the study and copy its outputs into notebooks/
	@$(STUDY) --publish

report: $(STAMP) ## write the report again from the executed notebooks
	@$(PY) -m matlib report --profile $(PROFILE)

docs: $(STAMP) ## build the documentation into site/, without a network
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict
	@echo "open site/index.html; its search needs a server: $(PY) -m http.server -d site"

bench: $(STAMP) ## speed and memory against the released code, and the strength of attacks against their time
	@$(PY) -m benchmarks

gpu: $(STAMP) ## on a CUDA machine, 8 minutes: what holds there, how fast it is, the demo's rows
	@$(PY) -m benchmarks.gpu

lab: $(STAMP) ## open the notebooks in JupyterLab
	@$(PY) -m jupyter lab notebooks

clean: ## remove caches (results/ and .venv stay)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist site *.egg-info
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt environment.sh
	@bash environment.sh "$(ENV)"
	@touch "$@"
