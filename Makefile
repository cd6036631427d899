# `make` or `make help` lists the targets. Each is one uv command that can be typed as well.
.DEFAULT_GOAL := help
PACKAGES := gpt-kernels gpt-data gpt-eval gpt-core gpt-optim gpt-dag
require_p = $(if $(filter $(P),$(PACKAGES)),,$(error say which package: make $@ P=one of $(PACKAGES)))

.PHONY: help setup test test-one lint format types ci build prepare pretrain sample compare clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  P=gpt-kernels names a package, ARGS='--training.max_steps 100' passes arguments on"

setup: ## install the workspace and the pre-commit hooks
	uv sync --locked
	uv run --locked pre-commit install

test: ## all tests; ARGS="-m 'not slow'" for the quick ones
	uv run pytest $(ARGS)

test-one: ## tests of package P with only its own dependencies
	$(require_p)uv run --isolated --locked --package $(P) pytest packages/$(P) $(ARGS)

lint: ## ruff: rules and formatting
	uv run ruff check .
	uv run ruff format --check .

format: ## ruff: mend what can be mended
	uv run ruff check --fix .
	uv run ruff format .

types: ## ty
	uv run ty check

ci: ## everything that must hold before a change is merged
	.ci/run $(ARGS)

build: ## wheel and source archive of package P into dist/
	$(require_p)uv build --package $(P) --out-dir dist

prepare: ## make a dataset; ARGS="text my-notes/", without ARGS: list them
	uv run apps/prepare $(ARGS)

pretrain: ## train a GPT; ARGS="CONFIG --section.key value"
	uv run apps/pretrain $(ARGS)

sample: ## continue text with the newest run; ARGS="--help" for more
	uv run apps/sample $(ARGS)

compare: ## table and plot over runs; ARGS="out/one out/two"
	uv run apps/compare $(ARGS)

clean: ## remove caches and builds; datasets (data/) and runs (out/) stay
	rm -rf dist .pytest_cache .ruff_cache .hypothesis .ci/work-*
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
