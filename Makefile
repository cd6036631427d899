# `make` or `make help` lists the targets. Each is one uv command that can be typed as well.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PACKAGES := gpt-kernels gpt-data gpt-eval gpt-core gpt-optim gpt-dag
require_p = $(if $(filter $(P),$(PACKAGES)),,$(error say which package: make $@ P=one of $(PACKAGES)))

.PHONY: help environment setup test test-one lint format types ci build prepare pretrain sample compare clean
.PHONY: ddp-train run-scaling-law chat-server gpu-status kill-gpu

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@awk '/^# Knobs/ {on = 1} !/^#/ {on = 0} on {sub(/^# ?/, ""); print}' $(MAKEFILE_LIST)

environment: ## install the workspace: all packages and apps, in .venv
	uv sync --locked

setup: environment ## install the workspace and the pre-commit hooks
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

clean: ## remove caches and builds; datasets (data/), runs (out/) and logs/ stay
	rm -rf dist .pytest_cache .ruff_cache .hypothesis .ci/work-*
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

# Knobs, such as `make ddp-train NGPUS=8 DEPTH=12 TARGET_FLOPS=1e18`; one that is not given leaves the app its default:
#   NGPUS            processes on this machine (default: its GPUs, or one process on the CPU)
#   MODE             pretraining, mid-training (needs CHECKPOINT), or all: one after the other, the second with what
#                    ARGS="--mid.data FOLDER" and other --mid. options say
#   CHECKPOINT       a run, a checkpoint's folder or a ckpt.pt
#   CONFIG           a shipped configuration or a file, as `make pretrain ARGS=--help` lists them (with DEPTH: depth)
#   DATA_DIR         a dataset's folder
#   DEPTH            layers; the width follows: ASPECT_RATIO (64) x DEPTH, in heads of HEAD_DIM (128)
#   TARGET_FLOPS     length of the run, such as 2.15e18; or PARAM_DATA_RATIO: tokens per parameter
#   BATCH_SIZE       sequences per process and micro-step
#   EVAL_INTERVAL    steps between evaluations
#   VAL_EVALS        false: none; CORE_EVALS, CHATCORE_EVALS: true adds these benchmarks, BUNDLE: the folder of their data
#                    (HumanEval in ChatCORE runs what the model writes: ARGS="--eval.allow_code_execution true")
#   NNODES NODE_RANK MASTER_ADDR MASTER_PORT (29500)   several machines; the same command on each
#   LOG              where the output goes besides the terminal (logs/...)
#   DEPTHS BUDGETS   of run-scaling-law, such as DEPTHS="6 8 10" BUDGETS="1e18 2.15e18"; OUT (out/scaling-CONFIG): its folder
#   PORT (8003)      of chat-server
#   FORCE            1: kill-gpu does not ask
#   P=gpt-kernels names a package;   ARGS='--training.max_steps 100' passes arguments on, to every target

# Text is quoted for the shell; make itself still reads $ in it.
quoted = '$(subst ','\'',$(1))'
option = $(if $($(2)),$(1) $(call quoted,$($(2))))
truth = $(if $(filter-out true false,$($(1))),$(error $(1) is true or false, got '$($(1))'))$(filter true false,$($(1)))
# tee -i: Ctrl-C ends the run, which then still has something to say.
logged = 2>&1 | tee -ia $(call quoted,$(1))

gpus = $(or $(filter-out 0,$(shell nvidia-smi -L 2>/dev/null | grep -c '^GPU ')),1)
processes = $(or $(NGPUS),$(gpus))
nodes = $(filter-out 1,$(NNODES))
needed = $(if $($(1)),$($(1)),$(error several machines (NNODES=$(NNODES)) need $(1)))
together = --nnodes $(NNODES) --node-rank $(call needed,NODE_RANK) --master-addr $(call needed,MASTER_ADDR) \
	--master-port $(or $(MASTER_PORT),29500)
torchrun = torchrun $(if $(nodes),$(together),--standalone) --nproc-per-node $(1)
launcher = uv run $(if $(nodes)$(filter-out 1,$(processes)),$(call torchrun,$(processes)))

train_options = $(call option,--mode,MODE) $(call option,--checkpoint,CHECKPOINT) $(call option,--dataset,DATA_DIR) \
	$(call option,--depth,DEPTH) $(call option,--aspect-ratio,ASPECT_RATIO) $(call option,--head-dim,HEAD_DIM) \
	$(call option,--target-flops,TARGET_FLOPS) $(call option,--param-data-ratio,PARAM_DATA_RATIO) \
	$(call option,--device-batch-size,BATCH_SIZE) $(call option,--eval-interval,EVAL_INTERVAL) \
	$(if $(filter false,$(call truth,VAL_EVALS)),--no-evals) \
	$(if $(filter true,$(call truth,CORE_EVALS)),--run-core-evals) \
	$(if $(filter true,$(call truth,CHATCORE_EVALS)),--run-chatcore-evals) $(call option,--eval.bundle,BUNDLE)
train_config = $(or $(CONFIG),$(if $(filter-out mid-training,$(or $(MODE),pretraining)),$(if $(DEPTH),depth)))
horizon = $(if $(TARGET_FLOPS),_F$(TARGET_FLOPS))$(if $(PARAM_DATA_RATIO),_R$(PARAM_DATA_RATIO))
sized_log = $(if $(DEPTH),$(if $(horizon),logs/scaling_laws_N$(DEPTH)$(horizon).log))
train_log = $(or $(LOG),$(sized_log),logs/$(or $(MODE),pretraining)$(if $(nodes),-node$(NODE_RANK)).log)

comma := ,
space := $(subst ,, )
listed = $(if $($(2)),$(1) $(subst $(space),$(comma),$(strip $($(2)))))
grid_out = $(or $(OUT),out/scaling-$(basename $(notdir $(or $(CONFIG),depth))))
grid = $(if $(CONFIG),$(call quoted,$(CONFIG))) $(call listed,--depths,DEPTHS) $(call listed,--budgets,BUDGETS) \
	--out $(call quoted,$(grid_out)) $(if $(filter-out 1,$(processes)),--processes $(processes))

ddp-train: ## train on all GPUs of this machine, or on NGPUS processes; the knobs below say what
	@mkdir -p "$$(dirname $(call quoted,$(train_log)))"
	$(strip $(launcher) apps/pretrain $(if $(train_config),$(call quoted,$(train_config))) $(train_options) $(ARGS)) $(call logged,$(train_log))

run-scaling-law: ## train the grid DEPTHS x BUDGETS (what is there is kept), fit, plot
	status=0; $(strip uv run apps/scaling sweep $(grid) $(ARGS)) || status=$$?; \
	((status <= 1)) || exit $$status; `# 1: some runs failed, and the others are fitted` \
	uv run apps/scaling fit --logs $(call quoted,$(grid_out)); \
	uv run apps/scaling plot --logs $(call quoted,$(grid_out)); exit $$status

chat-server: ## talk to CHECKPOINT (default: the newest run) in a browser, at http://127.0.0.1:8003
	$(strip uv run apps/chat serve $(if $(CHECKPOINT),$(call quoted,$(CHECKPOINT))) \
	  --port $(or $(PORT),8003) $(ARGS))

gpu-status: ## the GPUs of this machine and who uses them
	@if command -v nvidia-smi >/dev/null; then nvidia-smi; else echo "no nvidia-smi here: a machine without NVIDIA GPUs"; fi

kill-gpu: ## end your own processes on the GPUs, after asking; FORCE=1: without asking
	@scripts/kill_gpu.sh $(if $(FORCE),--force) $(ARGS)
