#!/usr/bin/env bash
# What srun starts: once per process, or with --torchrun once per node. Turns Slurm's variables into those that
# gpt_core.distributed reads and becomes the app. job.sh calls it.
#
#   --source DIR          the staged source
#   --nodes N --processes N   nodes, and processes on each
#   --python PATH         interpreter with the dependencies; empty: .venv of the source, made by --install
#   --env-setup FILE      sourced first; empty: none
#   --torchrun            become torchrun, which starts the processes of this node
#   --install             only make .venv
#   --dry-run             print the environment and the command
#   -- APP [ARGUMENT...]
set -euo pipefail
# shellcheck source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

option=([source]="" [nodes]=1 [processes]=1 [python]="" [env-setup]="")
flag+=([torchrun]="" [install]="")
parse "$@"
wanted source "the folder that submit.sh staged"
source_dir=${option[source]}
processes=${option[processes]}

if [[ ${option[env-setup]} ]]; then
  if [[ ${flag[dry-run]} ]]; then
    quoted source "${option[env-setup]}"
  else
    set +eu # such files are seldom written for strict shells
    # shellcheck disable=SC1090
    source "${option[env-setup]}"
    set -eu
  fi
fi

if [[ ${flag[install]} ]]; then
  [[ ${flag[dry-run]} ]] || command -v uv >/dev/null ||
    fail "no uv on $(hostname): put it on PATH with --env-setup, or give --python an interpreter with the dependencies"
  run uv sync --locked --no-dev --project "$source_dir"
  exit
fi

variables=(PYTHONUNBUFFERED=1)
python=${option[python]:-$source_dir/.venv/bin/python}
if [[ ${option[python]} ]]; then # its dependencies, but the packages of the staged source
  packages=("$source_dir"/packages/*/src)
  variables+=(PYTHONPATH="$(IFS=: && echo "${packages[*]}")${PYTHONPATH:+:$PYTHONPATH}")
fi

app=("$source_dir/${words[0]}" "${words[@]:1}")
if [[ ${flag[torchrun]} ]]; then
  launcher=(-m torch.distributed.run --nnodes="${option[nodes]}" --nproc-per-node="$processes"
    --shutdown-timeout=600) # after SIGTERM: Slurm itself decides how long the processes may save
  if ((option[nodes] == 1)); then
    launcher+=(--standalone)
  else # node 0 is the host by number: comparing host names fails where nodes have several
    launcher+=(--rdzv-id="$SLURM_JOB_ID" --rdzv-backend=c10d --rdzv-endpoint="$MASTER_ADDR:$MASTER_PORT"
      --rdzv-conf=is_host=$((SLURM_NODEID == 0)))
  fi
  command=("$python" "${launcher[@]}" "${app[@]}")
else
  variables+=(RANK="$SLURM_PROCID" LOCAL_RANK="$SLURM_LOCALID" WORLD_SIZE="$SLURM_NTASKS"
    LOCAL_WORLD_SIZE="$processes" NODE_RANK="$SLURM_NODEID" MASTER_ADDR="$MASTER_ADDR" MASTER_PORT="$MASTER_PORT")
  if ((processes > 1)); then # else each takes all cores; torchrun does the same
    variables+=(OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}")
  fi
  command=("$python" "${app[@]}")
fi

if [[ ${flag[dry-run]} ]]; then
  quoted export "${variables[@]}"
  quoted "${command[@]}"
  exit
fi
export "${variables[@]}"
exec "${command[@]}"
