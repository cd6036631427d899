#!/usr/bin/env bash
# What a pod of a Volcano job runs: install once, then one torchrun that starts the processes of this node. vsubmit.sh
# puts it into the job. Volcano's pytorch plugin sets MASTER_ADDR, MASTER_PORT and, counting pods and not processes,
# WORLD_SIZE and RANK; torchrun gives each process the variables that gpt_core.distributed reads.
#
#   --job-dir DIR         staged source, scripts and logs
#   --run-dir DIR         the run of a restartable job; empty: not restartable
#   --processes N         on this node
#   --python PATH         interpreter with the dependencies; empty: `uv sync` makes one in the pod
#   --dry-run             print the commands
#   -- APP [ARGUMENT...]
set -euo pipefail
# shellcheck source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

option=([job-dir]="" [run-dir]="" [processes]=1 [python]="")
parse "$@"
wanted job-dir "the folder that vsubmit.sh made"
((${#words[@]})) || fail "no app: it goes after --"
source_dir=${option[job-dir]}/source_dir
printf -v restart %03d "${JOB_RESTART_COUNT:-0}"

variables=(PYTHONUNBUFFERED=1)
python=${option[python]}
if [[ $python ]]; then # its dependencies, but the packages of the staged source
  packages=("$source_dir"/packages/*/src)
  variables+=(PYTHONPATH="$(IFS=: && echo "${packages[*]}")${PYTHONPATH:+:$PYTHONPATH}")
else # in the pod, not on the volume, where pods would write it at the same time
  environment=${TMPDIR:-/tmp}/gpt-venv
  python=$environment/bin/python
  run env UV_PROJECT_ENVIRONMENT="$environment" uv sync --locked --no-dev --project "$source_dir"
fi

# Every pod looks by itself, before any of them can have saved a new one.
if [[ ${option[run-dir]} && $(newest_checkpoint "${option[run-dir]}") ]]; then words+=(--general.init_from=resume); fi

# Kubernetes kills 120 seconds after SIGTERM (manifest.py), torchrun's own 30 are few for a save.
logs=${option[job-dir]}/logs/restart_$restart/node_$RANK
run mkdir -p "$logs"
run exec env "${variables[@]}" "$python" -m torch.distributed.run \
  --nnodes="$WORLD_SIZE" --node-rank="$RANK" --nproc-per-node="${option[processes]}" \
  --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT" --log-dir="$logs" --tee=3 --shutdown-timeout=110 \
  "$source_dir/${words[0]}" "${words[@]:1}"
