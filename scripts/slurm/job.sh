#!/usr/bin/env bash
# The batch job that submit.sh hands to sbatch: runs on the first node, prepares the environment once, starts the app on
# all nodes, and asks for another start where that makes sense. With --dry-run it prints what it would run.
#
#   --job-dir DIR         staged source, scripts and logs
#   --run-dir DIR         the run of a restartable job; empty: not restartable
#   --nodes N --gpus-per-node N --tasks-per-node N --cpus-per-task N   as given to submit.sh, and so are
#   --torchrun --env-setup FILE --python PATH --container IMAGE --mount FROM:TO -- APP [ARGUMENT...]
#   --scripts DIR         where these scripts are (DIR/scripts of the job)
set -euo pipefail

# Slurm runs a copy of this file, so its neighbours are found through its arguments.
scripts=""
for ((i = 1; i < $#; i++)); do
  next=$((i + 1))
  case ${!i} in
    --job-dir) scripts=${scripts:-${!next}/scripts} ;;
    --scripts) scripts=${!next} ;;
    --) break ;;
  esac
done
[[ -r $scripts/lib.sh ]] || { echo "job.sh: no lib.sh in '$scripts'; submit.sh starts this script" >&2 && exit 2; }
# shellcheck source=../lib.sh
source "$scripts/lib.sh"

option=([job-dir]="" [run-dir]="" [scripts]="$scripts" [nodes]=1 [gpus-per-node]=0 [tasks-per-node]=1
  [cpus-per-task]="" [env-setup]="" [python]="" [container]="")
flag+=([torchrun]="")
many=([mount]="")
parse "$@"
wanted job-dir "the folder that submit.sh made"
((${#words[@]})) || fail "no app: it goes after --"

if [[ ${flag[dry-run]} ]]; then # what Slurm would have set
  : "${SLURM_JOB_ID:=1}" "${SLURMD_NODENAME:=first-node}"
fi
job_dir=${option[job-dir]}
run_dir=${option[run-dir]}
printf -v restart %03d "${SLURM_RESTART_COUNT:-0}"

# Ports differ between jobs that share a node.
export MASTER_ADDR=${MASTER_ADDR:-$SLURMD_NODENAME}
export MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}

# Decided once, here, so that all processes agree.
before=""
if [[ $run_dir ]]; then
  before=$(newest_checkpoint "$run_dir")
  if [[ $before ]]; then
    words+=(--general.init_from=resume)
    note "start $restart continues $before"
  else
    note "start $restart: no checkpoint in $run_dir yet"
  fi
fi

container=()
if [[ ${option[container]} ]]; then
  mounts=${many[mount]%$'\n'}
  container=(--container-image="${option[container]}" --container-mounts="${mounts//$'\n'/,}"
    --container-workdir="$PWD" --no-container-mount-home)
fi

processes=${option[tasks-per-node]}
tasks=$processes
[[ ! ${flag[torchrun]} ]] || tasks=1
cpus=(--cpu-bind=none) # Slurm would pin each process, and its data loading, to one CPU
if [[ ${option[cpus-per-task]} ]]; then # srun does not take it over from sbatch
  cpus=(--cpus-per-task=$((option[cpus-per-task] * processes / tasks)))
fi
gpus=()
((option[gpus-per-node] == 0)) || # every process sees all GPUs of its node and takes number LOCAL_RANK
  gpus=(--gpus-per-node="${option[gpus-per-node]}" --gpu-bind=none)

task=(bash "$scripts/slurm/task.sh" --source "$job_dir/source_dir" --python "${option[python]}"
  --env-setup "${option[env-setup]}" --nodes "${option[nodes]}" --processes "$processes")
[[ ! ${flag[torchrun]} ]] || task+=(--torchrun)

if [[ ! ${option[python]} ]]; then
  run srun --nodes=1 --ntasks=1 "${cpus[@]}" "${container[@]}" \
    --output="$job_dir/setup_log_$restart.txt" --error="$job_dir/setup_err_$restart.txt" "${task[@]}" --install
fi

launch=(srun --nodes="${option[nodes]}" --ntasks=$((option[nodes] * tasks)) --ntasks-per-node="$tasks"
  "${cpus[@]}" "${gpus[@]}" --kill-on-bad-exit=1 --wait=600 --label
  --output="$job_dir/srun_log_$restart.txt" --error="$job_dir/srun_err_$restart.txt"
  "${container[@]}" "${task[@]}" -- "${words[@]}")

if [[ ${flag[dry-run]} ]]; then
  quoted "${launch[@]}"
  note "and its first process:"
  SLURM_JOB_ID=$SLURM_JOB_ID SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_NTASKS=$((option[nodes] * tasks)) \
    "${task[@]}" --dry-run -- "${words[@]}"
  exit
fi

# sbatch --signal sends USR1 here some minutes before the time limit.
stopping=""
# shellcheck disable=SC2329 # the trap calls it
stop_and_requeue() {
  stopping=1
  note "the time limit is near: saving a checkpoint, then starting again"
  scancel --signal=TERM "$SLURM_JOB_ID" # the job's steps, not this shell
}
[[ ! $run_dir ]] || trap stop_and_requeue USR1

"${launch[@]}" &
status=0
wait $! || status=$?
if [[ $stopping ]]; then # the signal ended the first wait
  status=0
  wait $! || status=$?
fi

if ((status)); then note "start $restart ended with status $status: $job_dir/srun_err_$restart.txt"; fi
if [[ $stopping ]] || { ((status)) && [[ $run_dir && $(newest_checkpoint "$run_dir") != "$before" ]]; }; then
  scontrol requeue "$SLURM_JOB_ID"
elif ((status)) && [[ $run_dir ]]; then
  note "not started again: it saved no checkpoint since this start"
fi
exit "$status"
