# What the scripts share; sourced, never run.
# shellcheck shell=bash

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || {
  echo "these scripts need bash 4.4 or newer, this is $BASH_VERSION" >&2
  exit 2
}

# A script fills these tables with its defaults and calls `parse "$@"`.
declare -A option=()          # --NAME VALUE
declare -A flag=([dry-run]="") # --NAME
declare -A many=()            # --NAME VALUE, again and again: one value a line
declare -a positional=()      # what stands before --
declare -a words=()           # what stands after --: the app and its arguments, untouched

fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 2
}

note() { printf '# %s\n' "$*"; }

# The comment at the top of the script.
usage() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0"; }

parse() {
  local name
  while (($#)); do
    [[ $1 == --?*=* ]] && set -- "${1%%=*}" "${1#*=}" "${@:2}"
    name=${1#--}
    if [[ $1 == -- ]]; then
      words=("${@:2}")
      return
    elif [[ $1 == -h || $1 == --help ]]; then
      usage
      exit 0
    elif [[ $1 != -* ]]; then
      positional+=("$1")
      shift
      continue
    elif [[ $1 != --* || ! $name =~ ^[a-z][a-z-]*$ ]]; then
      fail "there is no option '$1'; --help lists them"
    elif [[ -v flag[$name] ]]; then
      flag[$name]=1
      shift
      continue
    elif [[ ! -v option[$name] && ! -v many[$name] ]]; then
      fail "there is no option --$name; --help lists them (options of the app go after --)"
    fi
    (($# > 1)) || fail "--$name needs a value"
    if [[ -v option[$name] ]]; then option[$name]=$2; else many[$name]+="$2"$'\n'; fi
    shift 2
  done
}

# whole NAME LEAST: the option is a whole number of at least LEAST.
whole() {
  [[ ${option[$1]} =~ ^(0|[1-9][0-9]{0,8})$ ]] && ((${option[$1]} >= $2)) && return
  fail "--$1 is '${option[$1]}', expected a whole number of at least $2"
}

# wanted NAME WHAT: the option has a value.
wanted() { [[ ${option[$1]} ]] || fail "--$1 is missing: $2"; }

quoted() {
  local line
  printf -v line '%q ' "$@"
  printf '%s\n' "${line% }"
}

# Run a command; in a dry run, print it as a shell would read it, after `dry_prefix`.
dry_prefix=""
run() { if [[ ${flag[dry-run]} ]]; then printf '%s%s\n' "$dry_prefix" "$(quoted "$@")"; else "$@"; fi; }

# check_app ROOT: words[0] is something of this repository that can be staged and run.
check_app() {
  local app=${words[0]-}
  [[ $app ]] || fail "no app: add it after --, for example -- apps/pretrain gpt2-124m"
  [[ $app != /* && -e $1/$app ]] ||
    fail "there is no '$app' in $1, expected a path in it such as: $(cd "$1" && printf '%s ' apps/*/)"
  if [[ ! ${flag[dirty]} ]] && is_checkout "$1"; then
    git -C "$1" cat-file -e "HEAD:${app%/}" 2>/dev/null || fail "'$app' is not in the last commit; commit it or add --dirty"
  fi
}

# True for the top folder of a git checkout, not for a plain folder inside somebody else's.
is_checkout() { [[ $(git -C "$1" rev-parse --show-toplevel 2>/dev/null) == "$(cd "$1" && pwd -P)" ]]; }

# stage_source ROOT TARGET: the last commit, as a shallow clone so that runs record its revision. With --dirty, the files
# of the working tree on top of it. Without git, all files but environments, data and runs.
stage_source() {
  local root=$1 target=$2 changes
  if ! is_checkout "$root"; then
    run mkdir -p "$target"
    run cp_tree "$root" "$target"
    return
  fi
  changes=$(git -C "$root" status --porcelain)
  run git clone --quiet --no-local --depth 1 "$root" "$target"
  if [[ ${flag[dirty]} ]]; then
    run overlay "$root" "$target"
  elif [[ $changes ]]; then
    printf 'not part of the job, because not committed (--dirty takes it along):\n%s\n' "$changes" >&2
  fi
}

cp_tree() { tar -C "$1" --exclude=.git --exclude=.venv --exclude=./data --exclude=./out -cf - . | tar -C "$2" -xf -; }

# Make a clone equal to the working tree: changed and new files that git does not ignore, and no deleted ones.
overlay() {
  local path
  git -C "$1" ls-files -z --deleted | (cd "$2" && xargs -0 rm -f --)
  git -C "$1" ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' path; do
      if [[ -e $1/$path || -L $1/$path ]]; then printf '%s\0' "$path"; fi
    done | tar -C "$1" --null --no-recursion -T - -cf - | tar -C "$2" -xf -
}

# argument NAME...: the last value that the app is given for one of these keys, as --NAME=VALUE or --NAME VALUE.
argument() {
  local index name value=""
  for index in "${!words[@]}"; do
    for name in "$@"; do
      [[ ${words[index]} == "--$name="* ]] && value=${words[index]#*=}
      [[ ${words[index]} == "--$name" ]] && value=${words[index + 1]-}
    done
  done
  printf '%s' "$value"
}

# name_run RUN_NAME OUT_DIR: give the app a run folder that a restarted job finds again, in `run_dir`. What the app's
# arguments say goes first.
name_run() {
  local name out
  name=$(argument run_name general.run_name)
  out=$(argument out_dir general.out_dir)
  [[ "$name$out" != *[\$~]* ]] || fail "a restartable job needs run_name and out_dir without \$ and ~: '$name', '$out'"
  [[ $name ]] || words+=("--general.run_name=${name:=$1}")
  [[ $out ]] || words+=("--general.out_dir=${out:=$2}")
  # shellcheck disable=SC2034 # for the script that called
  run_dir=$out/$name
}

# The newest complete checkpoint of a run folder; nothing where there is none.
newest_checkpoint() {
  local found=("$1"/checkpoints/step_*/meta.json)
  if [[ -e ${found[0]} ]]; then printf '%s\n' "${found[@]%/meta.json}" | sort -V | tail -n 1; fi
}
