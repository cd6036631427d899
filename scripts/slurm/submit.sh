#!/usr/bin/env bash
# Run an app of this repository as a Slurm job: stage the source, submit, requeue.
#
#   scripts/slurm/submit.sh --nodes 2 --gpus-per-node 8 --job-name x -- apps/pretrain gpt2-1.36b --training.max_steps 1000
#   scripts/slurm/submit.sh --gpus-per-node 0 --job-name text -- apps/prepare shakespeare
#
#   --job-name NAME       folder of the job in --out-dir, and name of a restartable run
#   --nodes N             (1)
#   --gpus-per-node N     one process each (8); 0: CPUs only
#   --tasks-per-node N    processes per node, where that is not the number of GPUs
#   --cpus-per-task N     bind each process to N CPUs; else all may use those of the job
#   --node-gpus N         GPUs that a node has (8): a job that takes all of them gets the node for itself
#   --out-dir DIR         runs, logs, staged source ($OUT_DIR, else ./out); every node must see it
#   --restartable         continue after preemption, a failed node, a failure or the time limit: the app is given
#                         --general.run_name, --general.out_dir and, once there is a checkpoint, --general.init_from=resume
#   --notice SECONDS      a restartable job saves and requeues this long before its time limit (300)
#   --requeue             only let Slurm start the job again, for apps that continue by themselves (apps/prepare)
#   --torchrun            one torchrun per node, instead of one Slurm task per process
#   --env-setup FILE      sourced on the nodes before anything else: modules, conda, proxies
#   --python PATH         interpreter that has the dependencies; else `uv sync` makes .venv in the staged source
#   --container IMAGE     run in it (pyxis); the working directory, --out-dir and $DATA_ROOT are mounted
#   --mount FROM:TO       one more mount; can be repeated
#   --dirty               stage the working tree as it is, not the last commit
#   --partition, --account, --reservation, --time VALUE; --sbatch ARGUMENT (can be repeated): handed to sbatch
#   --dry-run             print the commands of every stage, run none
#
# The app's working directory is this one, so that relative paths mean what they mean here. The environment goes along.
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=../lib.sh
source "$scripts/lib.sh"

option=([job-name]="" [nodes]=1 [gpus-per-node]=8 [tasks-per-node]="" [cpus-per-task]="" [node-gpus]=8
  [out-dir]="${OUT_DIR:-out}" [notice]=300 [env-setup]="" [python]="" [container]=""
  [partition]="" [account]="" [reservation]="" [time]="")
flag+=([restartable]="" [requeue]="" [torchrun]="" [dirty]="")
many=([mount]="" [sbatch]="")
parse "$@"
((${#positional[@]} == 0)) || fail "'${positional[0]}' stands before --; the app and its arguments go after it"

wanted job-name "the name of the job and its folder"
[[ ${option[job-name]} != *[/%\$\\~]* && ${option[job-name]} != [-.]* ]] ||
  fail "--job-name '${option[job-name]}' names a folder: use none of / % \$ \\ ~, and no - or . first"
whole nodes 1
whole gpus-per-node 0
whole node-gpus 1
whole notice 1
[[ ${option[tasks-per-node]} ]] || option[tasks-per-node]=$((option[gpus-per-node] > 0 ? option[gpus-per-node] : 1))
whole tasks-per-node 1
[[ ! ${option[cpus-per-task]} ]] || whole cpus-per-task 1
[[ ! ${option[env-setup]} || -r ${option[env-setup]} ]] || fail "--env-setup '${option[env-setup]}' cannot be read"
check_app "${scripts%/*}"

absolute() { case $1 in /*) printf '%s' "$1" ;; *) printf '%s' "$PWD/$1" ;; esac; }
out=$(absolute "${option[out-dir]}")
job_dir="$out/${option[job-name]}/$(date +%Y%m%d-%H%M%S)"
run_dir=""
[[ ! ${flag[restartable]} ]] || name_run "${option[job-name]}" "$out"
mapfile -t extra < <(printf '%s' "${many[sbatch]}")
mapfile -t mounts < <(printf '%s' "${many[mount]}")

[[ ${flag[dry-run]} ]] || command -v sbatch >/dev/null ||
  fail "there is no sbatch here: submit on a machine of the cluster, or look first with --dry-run"

resources=(--nodes="${option[nodes]}" --ntasks-per-node="${option[tasks-per-node]}")
((option[gpus-per-node] == 0)) || resources+=(--gpus-per-node="${option[gpus-per-node]}")
[[ ! ${option[cpus-per-task]} ]] || resources+=(--cpus-per-task="${option[cpus-per-task]}")
if ((option[gpus-per-node] >= option[node-gpus])); then
  resources+=(--exclusive --overcommit)
else
  resources+=(--oversubscribe)
fi
for name in partition account reservation time; do
  [[ ! ${option[$name]} ]] || resources+=("--$name=${option[$name]}")
done
if [[ ${flag[restartable]} ]]; then
  resources+=(--requeue --signal="B:USR1@${option[notice]}" --dependency=singleton) # one job at a time writes a run
elif [[ ${flag[requeue]} ]]; then
  resources+=(--requeue)
else
  resources+=(--no-requeue)
fi

# sbatch runs a copy of job.sh, so it is told where everything is. No comments inside: one would end the command.
job=("$job_dir/scripts/slurm/job.sh" --job-dir "$job_dir" --run-dir "$run_dir" --nodes "${option[nodes]}"
  --gpus-per-node "${option[gpus-per-node]}" --tasks-per-node "${option[tasks-per-node]}"
  --cpus-per-task "${option[cpus-per-task]}")
[[ ! ${flag[torchrun]} ]] || job+=(--torchrun)
[[ ! ${option[env-setup]} ]] || job+=(--env-setup "$(absolute "${option[env-setup]}")")
[[ ! ${option[python]} ]] || job+=(--python "${option[python]}")
if [[ ${option[container]} ]]; then
  job+=(--container "${option[container]}" --mount "$PWD:$PWD" --mount "$out:$out")
  [[ ! ${DATA_ROOT:-} ]] || job+=(--mount "$(absolute "$DATA_ROOT"):$(absolute "$DATA_ROOT")")
fi
for mount in "${mounts[@]}"; do job+=(--mount "$mount"); done

run mkdir -p "$job_dir"
stage_source "${scripts%/*}" "$job_dir/source_dir"
run cp -R "$scripts" "$job_dir/scripts"
run sbatch --job-name="${option[job-name]}" --chdir="$PWD" --open-mode=append \
  --output="$job_dir/sbatch_log.txt" --error="$job_dir/sbatch_err.txt" \
  "${resources[@]}" "${extra[@]}" "${job[@]}" -- "${words[@]}"

if [[ ${flag[dry-run]} ]]; then
  note "and the job, on its first node:"
  bash "$scripts/slurm/job.sh" --dry-run --scripts "$scripts" "${job[@]:1}" -- "${words[@]}"
else
  note "logs: $job_dir"
fi
