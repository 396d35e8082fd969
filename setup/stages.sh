#!/usr/bin/env bash
# setup/stages.sh NAME COMMAND [NAME COMMAND]...: runs stages in order, stops at the first that fails,
# names it, and shows the time of each.
set -uo pipefail
cd "$(dirname "$0")/.."

names=() times=()
summary() {
  local i
  printf '\n%-10s %8s\n' stage seconds
  for i in "${!names[@]}"; do printf '%-10s %8d\n' "${names[i]}" "${times[i]}"; done
}

while [ $# -gt 0 ]; do
  name=$1 command=$2
  shift 2
  printf '\n== %s: %s\n' "$name" "$command"
  began=$SECONDS
  bash -euo pipefail -c "$command"
  status=$?
  names+=("$name")
  times+=($((SECONDS - began)))
  if [ $status != 0 ]; then
    summary
    printf 'FAILED: stage %s (exit status %d)\n' "$name" "$status"
    exit 1
  fi
done
summary
printf 'passed: %d stages in %d s\n' "${#names[@]}" "$SECONDS"
