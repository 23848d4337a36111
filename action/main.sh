#!/usr/bin/env bash
# Maps the action's inputs to the command line. Inputs come by environment; each becomes one argument, never code.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONDONTWRITEBYTECODE=1

# Isolated (-I): no module of the checked-out repository can stand in for one of ours.
python() {
  "$CUDA_MATRIX_PYTHON" -I "$@"
}

# In the background, with signals passed on: when a job is cancelled the runner signals this shell alone.
cuda_matrix() {
  local main='import sys; sys.path.insert(0, sys.argv.pop(1)); from cuda_matrix.__main__ import main; main()' child status=0
  "$CUDA_MATRIX_PYTHON" -I -c "$main" "$root/src" "$@" & # no function here: the signal must reach Python itself
  child=$!
  trap 'kill -TERM "$child" 2>/dev/null' INT TERM HUP
  wait "$child" || status=$?
  while kill -0 "$child" 2>/dev/null; do
    status=0
    wait "$child" || status=$?
  done
  trap - INT TERM HUP
  return "$status"
}

# A random delimiter: no value can end its own block and forge another output.
output() {
  local delimiter
  delimiter="end-$(python -c 'import secrets; print(secrets.token_hex(16))')"
  printf '%s<<%s\n%s\n%s\n' "$1" "$delimiter" "$2" "$delimiter" >>"$GITHUB_OUTPUT"
}

selection=()
[ -z "${INPUT_CONFIG:-}" ] || selection+=(--config "$INPUT_CONFIG")
[ -z "${INPUT_TIER:-}" ] || selection+=(--tier "$INPUT_TIER")
while IFS= read -r glob; do
  [ -z "$glob" ] || selection+=(--select "$glob")
done <<<"${INPUT_SELECT:-}"
selection+=(--max-jobs "${INPUT_MAX_JOBS:-256}")

plan() {
  local options=("${selection[@]}" --format github --output "$INPUT_PLAN") matrix
  [ "${INPUT_OFFLINE:-false}" != true ] || options+=(--offline)
  mkdir -p "$(dirname "$INPUT_PLAN")"
  matrix=$(cuda_matrix plan "${options[@]}")
  output matrix "$matrix"
  output lanes "$(printf '%s' "$matrix" | python -c 'import json, sys; print(len(json.load(sys.stdin)["include"]))')"
  output plan "$INPUT_PLAN"
}

run() {
  local options=(--plan "$INPUT_PLAN" --engine "${INPUT_ENGINE:-docker}" --out "$INPUT_RESULTS")
  [ -z "${INPUT_LANE:-}" ] || options+=(--lane "$INPUT_LANE")
  # What runs prints is not ours: between these two lines the runner obeys no command in it.
  local token
  token="stop-$(python -c 'import secrets; print(secrets.token_hex(16))')"
  echo "::stop-commands::$token"
  local status=0
  cuda_matrix run "${options[@]}" || status=$?
  echo "::$token::"
  output results "$INPUT_RESULTS"
  return "$status"
}

report() {
  cuda_matrix report --out "$INPUT_REPORT" -- "$INPUT_RESULTS"
  output report "$INPUT_REPORT"
  local limit=1000000 # bytes; GitHub refuses a summary of more than 1 MiB
  if [ "$(wc -c <"$INPUT_REPORT/report.md")" -le "$limit" ]; then
    cat "$INPUT_REPORT/report.md" >>"$GITHUB_STEP_SUMMARY"
  else
    echo "The report is larger than a job summary may be; it is in the folder \`$INPUT_REPORT\`." >>"$GITHUB_STEP_SUMMARY"
  fi
  local status=0
  cuda_matrix gate -- "$INPUT_RESULTS" || status=$?
  case "$status:${1:-0}" in
    0:0) output verdict yes ;;
    *) output verdict no ;; # a run that was cut short releases nothing, whatever an earlier one has left
  esac
  [ "$status:${INPUT_GATE:-true}" != 1:false ] || status=0
  return "$status"
}

case "${INPUT_GATE:-true}" in
  true | false) ;;
  *)
    echo "::error::gate must be true or false"
    exit 2
    ;;
esac

case "${INPUT_MODE:-}" in
  plan) plan ;;
  run) run ;;
  report) report ;;
  all)
    plan
    status=0
    run || status=$?
    # What ran is reported whatever stopped the run.
    report "$status" || { reported=$?; [ "$status" -ne 0 ] || status=$reported; }
    exit "$status"
    ;;
  *)
    echo "::error::mode must be plan, run, report or all"
    exit 2
    ;;
esac
