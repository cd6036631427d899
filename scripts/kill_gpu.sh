#!/usr/bin/env bash
# End your own processes on this machine's GPUs; other users' are left alone. They are listed first, and you are asked.
#
#   scripts/kill_gpu.sh
#
#   --force           do not ask
#   --grace SECONDS   between SIGTERM, on which a run saves a checkpoint after its step, and SIGKILL (60)
#   --dry-run         list them, end none
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

option=([grace]=60)
flag+=([force]="")
parse "$@"
((${#positional[@]} == 0)) || fail "there is no argument '${positional[0]}'; --help lists the options"
whole grace 0
command -v nvidia-smi >/dev/null || fail "no nvidia-smi here: a machine without NVIDIA GPUs"

# The user that a process belongs to; nothing if it has ended.
owner() { stat -c %u "/proc/$1" 2>/dev/null || true; }

# When a process started, which tells it from a later one of its number; nothing if it has ended.
started() { awk '{ sub(/.*\) /, ""); if ($1 != "Z") print $20 }' "/proc/$1/stat" 2>/dev/null || true; }

me=$(id -u)
declare -A own=() # PID -> when it started
others=0
listed=$(nvidia-smi --query-compute-apps=pid --format=csv,noheader,nounits) || fail "nvidia-smi failed: $listed"
while read -r pid; do
  [[ $pid =~ ^[1-9][0-9]*$ ]] || continue # "[N/A]" in some containers
  case $(owner "$pid") in
    "$me") own[$pid]=$(started "$pid") ;;
    "") ;; # has ended, or belongs to another container
    *) others=$((others + 1)) ;;
  esac
done < <(sort -un <<<"$listed")

((others == 0)) || note "$others process(es) of other users are left alone"
if ((${#own[@]} == 0)); then
  note "you have no process on a GPU"
  exit 0
fi
mapfile -t pids < <(printf '%s\n' "${!own[@]}" | sort -n)
for pid in "${pids[@]}"; do printf '%8s  %.150s\n' "$pid" "$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"; done
[[ ! ${flag[dry-run]} ]] || exit 0
if [[ ! ${flag[force]} ]]; then
  answer=""
  read -r -p "End these ${#pids[@]} process(es)? [y/N] " answer || true
  [[ $answer == [yY] || $answer == [yY][eE][sS] ]] || fail "nothing was ended"
fi

# send SIGNAL: to those that are still the ones that were listed. left: how many of them there are.
send() {
  local pid
  left=0
  for pid in "${pids[@]}"; do
    [[ $(started "$pid") == "${own[$pid]}" && $(owner "$pid") == "$me" ]] || continue
    left=$((left + 1))
    kill "-$1" "$pid" 2>/dev/null || true
  done
}

send TERM
deadline=$((SECONDS + option[grace]))
while send 0 && ((left && SECONDS <= deadline)); do sleep 0.2; done
if ((left)); then
  note "$left did not end within ${option[grace]} s: SIGKILL"
  send KILL
fi
note "done"
