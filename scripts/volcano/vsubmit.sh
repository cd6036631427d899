#!/usr/bin/env bash
# Run an app of this repository as a Volcano job on Kubernetes: stage the source on a volume, create the job, follow it.
#
#   scripts/volcano/vsubmit.sh --job-name x --project gpt --image IMAGE --nodes 2 -- apps/pretrain gpt2-1.36b
#
#   --job-name NAME       lower-case letters, digits and -; also the name of a restartable run
#   --project NAME        folder on the volume ($PROJECT_NAME)
#   --namespace NAME      ($VOLCANO_NAMESPACE)
#   --pvc NAME            volume claim that all nodes can write, mounted at /data ($VOLCANO_DATA_PVC_NAME)
#   --image IMAGE         has bash, and uv or the dependencies ($VOLCANO_IMAGE)
#   --nodes N             pods, on different hosts (1)
#   --gpus N --cpus N --memory SIZE --rdma N   of each pod (8, 104, 2808Gi, 8); 0 GPUs: one process on CPUs; 0: no RDMA
#   --rdma-resource NAME  what the cluster calls it (rdma/hca)
#   --queue NAME          (default)
#   --env NAME[=VALUE]    variable for the pods, by default with its value here; can be repeated. Whoever may read the
#                         job can read it, so give keys as
#   --secret NAME         a Kubernetes secret whose entries become variables; can be repeated
#   --restartable         restart all pods when one fails or is evicted, --max-retry times (3), and continue from the last
#                         checkpoint: the app is given --general.run_name, .out_dir and, later, .init_from=resume
#   --python PATH         interpreter of the image that has the dependencies; else `uv sync` in each pod
#   --dirty               stage the working tree as it is, not the last commit
#   --no-follow           do not wait for the job
#   --dry-run             print the job's YAML, and as comments the commands; run none
#
# The app's working directory is /data/PROJECT: runs are in out/, data in data/ there.
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=../lib.sh
source "$scripts/lib.sh"
dry_prefix="# "

option=([job-name]="" [project]="${PROJECT_NAME:-}" [namespace]="${VOLCANO_NAMESPACE:-}"
  [pvc]="${VOLCANO_DATA_PVC_NAME:-}" [image]="${VOLCANO_IMAGE:-}" [nodes]=1 [gpus]=8 [cpus]=104 [memory]=2808Gi
  [rdma]=8 [rdma-resource]=rdma/hca [queue]=default [max-retry]=3 [python]="")
flag+=([restartable]="" [dirty]="" [no-follow]="")
many=([env]="" [secret]="")
parse "$@"
((${#positional[@]} == 0)) || fail "'${positional[0]}' stands before --; the app and its arguments go after it"

wanted job-name "the name of the job"
[[ ${option[job-name]} =~ ^[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?$ ]] || # pods are called NAME-worker-N, in 63 letters
  fail "--job-name '${option[job-name]}': expected at most 50 lower-case letters, digits and -, no - first or last"
wanted project "a folder on the volume, or set PROJECT_NAME"
[[ ${option[project]} =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*$ ]] ||
  fail "--project '${option[project]}' names a folder: use letters, digits, _ . and -"
wanted namespace "set it or VOLCANO_NAMESPACE"
wanted pvc "set it or VOLCANO_DATA_PVC_NAME"
wanted image "set it or VOLCANO_IMAGE"
whole nodes 1
whole gpus 0
whole cpus 1
whole rdma 0
whole max-retry 0
check_app "${scripts%/*}"

home=/data/${option[project]}
folder=${option[project]}/out/${option[job-name]}/$(date +%Y%m%d-%H%M%S) # on the volume
run_dir=""
[[ ! ${flag[restartable]} ]] || name_run "${option[job-name]}" "$home/out"

manifest=(python3 "$scripts/volcano/manifest.py" job --workdir "$home")
for name in namespace pvc image nodes gpus cpus memory rdma rdma-resource queue max-retry; do
  manifest+=("--$name=${option[$name]}")
done
manifest+=("--name=${option[job-name]}")
[[ ! ${flag[restartable]} ]] || manifest+=(--restartable)
mapfile -t variables < <(printf '%s' "${many[env]}")
for name in "${variables[@]}"; do
  [[ $name =~ ^[A-Za-z_][A-Za-z0-9_]*(=|$) ]] || fail "--env '$name': expected NAME or NAME=VALUE"
  if [[ $name != *=* ]]; then
    [[ -v $name ]] || fail "--env $name: there is no such variable here; use --env $name=VALUE"
    name+="=${!name}"
  fi
  manifest+=("--env=$name")
done
mapfile -t secrets < <(printf '%s' "${many[secret]}")
for name in "${secrets[@]}"; do manifest+=("--secret=$name"); done

manifest+=(-- bash "/data/$folder/scripts/volcano/pod.sh" --job-dir "/data/$folder" --run-dir "$run_dir"
  --processes "$((option[gpus] > 0 ? option[gpus] : 1))" --python "${option[python]}" -- "${words[@]}")

kubectl=(kubectl --namespace "${option[namespace]}")
if [[ ${flag[dry-run]} ]]; then staged=STAGED; else
  staged=$(mktemp -d)
  trap 'rm -rf "$staged"' EXIT
fi
stage_source "${scripts%/*}" "$staged/source_dir"
run cp -R "$scripts" "$staged/scripts"
run "$scripts/volcano/copy2pvc.sh" --namespace "${option[namespace]}" --pvc "${option[pvc]}" "$staged" "$folder"
if [[ ${flag[dry-run]} ]]; then
  run "${kubectl[@]}" create -f -
  "${manifest[@]}"
  exit
fi
"${manifest[@]}" | "${kubectl[@]}" create -f -
note "logs: /data/$folder/logs on the volume"
[[ ! ${flag[no-follow]} ]] || exit 0

job=${option[job-name]}
phase=""
lines=-1 # all, then only what is new after a restart or a lost connection
until [[ $phase =~ ^(Completed|Failed|Aborted|Terminated)$ ]]; do
  if "${kubectl[@]}" logs --follow --tail="$lines" "$job-master-0" 2>/dev/null; then lines=0; fi
  sleep 10
  phase=$("${kubectl[@]}" get jobs.batch.volcano.sh "$job" -o 'jsonpath={.status.state.phase}')
done
note "job $job: $phase"
[[ $phase != Completed ]] || exit 0

"${kubectl[@]}" get pods -l "volcano.sh/job-name=$job" --field-selector=status.phase=Failed -o name |
  while read -r pod; do
    note "the last lines of $pod, and what happened to it"
    "${kubectl[@]}" logs --tail=100 "$pod" || true
    "${kubectl[@]}" get events --field-selector="involvedObject.name=${pod#pod/}" || true
  done
exit 1
