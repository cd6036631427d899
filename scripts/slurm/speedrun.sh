#!/usr/bin/env bash
# apps/speedrun on one node of Slurm, once for each of several seeds.
#
#   scripts/slurm/speedrun.sh --gpus 8 --gpu-type h100
#   GPUS=4 GPU_TYPE=h100 scripts/slurm/speedrun.sh --config speedrun-89 --seeds 3 -- --training.max_steps=400
#
#   --config NAME         configuration of apps/speedrun (speedrun-68)
#   --gpus N              1, 2, 4 or 8 ($GPUS, else 8); every number takes the same optimizer steps
#   --gpu-type TYPE       as Slurm calls it: h100, h200, a100 ($GPU_TYPE, else any)
#   --seeds N             jobs, with the seeds 1, 2, ... ($SEEDS, else 1)
#   --job-name NAME       of jobs and runs, with the seed behind it (that of the configuration)
#   --submit ARGUMENT     one more argument of submit.sh, such as --partition=gpu; can be repeated
#   --dry-run             print the commands of every stage, run none
#
# What stands after -- are keys of the configuration.
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=../lib.sh
source "$scripts/lib.sh"

option=([config]=speedrun-68 [gpus]="${GPUS:-8}" [gpu-type]="${GPU_TYPE:-}" [seeds]="${SEEDS:-1}" [job-name]="")
many=([submit]="")
parse "$@"
((${#positional[@]} == 0)) || fail "'${positional[0]}' stands before --; keys of the configuration go after it"
whole seeds 1
[[ ${option[gpus]} =~ ^[1248]$ ]] ||
  fail "--gpus is '${option[gpus]}': the eight micro-batches of a step are shared by 1, 2, 4 or 8"

mapfile -t more < <(printf '%s' "${many[submit]}")
[[ ! ${option[gpu-type]} ]] || more+=("--sbatch=--gpus-per-node=${option[gpu-type]}:${option[gpus]}") # the last counts
[[ ! ${flag[dry-run]} ]] || more+=(--dry-run)

for ((seed = 1; seed <= option[seeds]; seed++)); do
  name=${option[job-name]:-${option[config]}}-seed$seed
  bash "$scripts/slurm/submit.sh" --gpus-per-node "${option[gpus]}" --job-name "$name" "${more[@]}" -- \
    apps/speedrun "${option[config]}" "--general.run_name=$name" "--general.seed=$seed" "${words[@]}"
done
