#!/usr/bin/env bash
# A pod to work in, with the volume at /data.
#
#   scripts/volcano/devbox.sh up --gpus 1 --image IMAGE    # start it (no --gpus: on CPUs)
#   scripts/volcano/devbox.sh shell                        # a shell in it, as often as you like
#   scripts/volcano/devbox.sh down                         # remove it; /data stays
#
#   --name NAME           (devbox-$USER)
#   --namespace NAME      ($VOLCANO_NAMESPACE)
#   --pvc NAME            ($VOLCANO_DATA_PVC_NAME)
#   --image IMAGE         has bash ($VOLCANO_IMAGE)
#   --gpus N --cpus N --memory SIZE   (0, 8, 64Gi)
#   --dry-run             print the pod's YAML, and as comments the commands; run none
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=../lib.sh
source "$scripts/lib.sh"
dry_prefix="# "

option=([name]="devbox-${USER:-me}" [namespace]="${VOLCANO_NAMESPACE:-}" [pvc]="${VOLCANO_DATA_PVC_NAME:-}"
  [image]="${VOLCANO_IMAGE:-}" [gpus]=0 [cpus]=8 [memory]=64Gi)
parse "$@"
((${#positional[@]} == 1)) || fail "expected one of up, shell, down"
[[ ${option[name]} =~ ^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$ ]] ||
  fail "--name '${option[name]}': expected lower-case letters, digits and -"
wanted namespace "set it or VOLCANO_NAMESPACE"
kubectl=(kubectl --namespace "${option[namespace]}")
case ${positional[0]} in
  up)
    wanted pvc "set it or VOLCANO_DATA_PVC_NAME"
    wanted image "set it or VOLCANO_IMAGE"
    whole gpus 0
    whole cpus 1
    manifest=(python3 "$scripts/volcano/manifest.py" pod --workdir /data)
    for name in name namespace pvc image gpus cpus memory; do manifest+=("--$name=${option[$name]}"); done
    manifest+=(-- sleep infinity)
    if [[ ${flag[dry-run]} ]]; then "${manifest[@]}"; else "${manifest[@]}" | "${kubectl[@]}" create -f -; fi
    run "${kubectl[@]}" wait --for=condition=Ready --timeout=600s "pod/${option[name]}"
    ;;
  shell) run "${kubectl[@]}" exec -it "${option[name]}" -- bash ;;
  down) run "${kubectl[@]}" delete --grace-period=5 "pod/${option[name]}" ;;
  *) fail "'${positional[0]}': expected one of up, shell, down" ;;
esac
