#!/usr/bin/env bash
# Copy a file or a folder's contents onto a volume, through a pod that lives as long as the copy.
#
#   scripts/volcano/copy2pvc.sh data/shakespeare datasets/shakespeare
#
#   SOURCE TARGET         here, and a folder on the volume
#   --namespace NAME      ($VOLCANO_NAMESPACE)
#   --pvc NAME            ($VOLCANO_DATA_PVC_NAME)
#   --image IMAGE         anything with sh and tar (busybox:1.36)
#   --dry-run             print the pod's YAML, and as comments the commands; run none
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=../lib.sh
source "$scripts/lib.sh"
dry_prefix="# "

option=([namespace]="${VOLCANO_NAMESPACE:-}" [pvc]="${VOLCANO_DATA_PVC_NAME:-}" [image]="busybox:1.36")
parse "$@"
((${#positional[@]} == 2)) || fail "expected SOURCE and TARGET, got ${#positional[@]} arguments; --help"
source_path=${positional[0]}
target=${positional[1]}
wanted namespace "set it or VOLCANO_NAMESPACE"
wanted pvc "set it or VOLCANO_DATA_PVC_NAME"
[[ ${flag[dry-run]} || -e $source_path ]] || fail "there is no '$source_path'"
[[ $target && $target != /* && /$target/ != */../* ]] || fail "TARGET '$target': expected a path inside the volume"

if [[ -f $source_path ]]; then
  pack=(tar -C "$(dirname "$source_path")" -cf - -- "$(basename "$source_path")")
else
  pack=(tar -C "$source_path" -cf - .)
fi
pod=copy2pvc-$(date +%Y%m%d-%H%M%S)-$$
kubectl=(kubectl --namespace "${option[namespace]}")
manifest=(python3 "$scripts/volcano/manifest.py" pod --name "$pod" --namespace "${option[namespace]}"
  --pvc "${option[pvc]}" --image "${option[image]}" --cpus 1 --memory 1Gi -- sleep 86400)
unpack=("${kubectl[@]}" exec -i "$pod" -- tar -xf - -C "/data/$target")

if [[ ${flag[dry-run]} ]]; then
  run "${kubectl[@]}" create -f -
  run "${kubectl[@]}" wait --for=condition=Ready --timeout=300s "pod/$pod"
  run "${kubectl[@]}" exec "$pod" -- mkdir -p "/data/$target"
  note "$(quoted "${pack[@]}") | $(quoted "${unpack[@]}")"
  run "${kubectl[@]}" delete --wait=false --grace-period=1 "pod/$pod"
  "${manifest[@]}"
  exit
fi
trap '"${kubectl[@]}" delete --wait=false --grace-period=1 "pod/$pod" >&2' EXIT
"${manifest[@]}" | "${kubectl[@]}" create -f -
"${kubectl[@]}" wait --for=condition=Ready --timeout=300s "pod/$pod"
"${kubectl[@]}" exec "$pod" -- mkdir -p "/data/$target"
"${pack[@]}" | "${unpack[@]}"
