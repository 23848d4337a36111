#!/usr/bin/env bash
# Maps the action's inputs to the command line. Inputs come by environment; each becomes one argument, never code.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$root/src" PYTHONDONTWRITEBYTECODE=1

cuda_matrix() {
  "$CUDA_MATRIX_PYTHON" -m cuda_matrix "$@"
}

# A random delimiter: no value can end its own block and forge another output.
output() {
  local delimiter
  delimiter="end-$("$CUDA_MATRIX_PYTHON" -c 'import secrets; print(secrets.token_hex(16))')"
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
  output lanes "$(printf '%s' "$matrix" | "$CUDA_MATRIX_PYTHON" -c 'import json, sys; print(len(json.load(sys.stdin)["include"]))')"
  output plan "$INPUT_PLAN"
}

run() {
  local options=(--plan "$INPUT_PLAN" --engine "${INPUT_ENGINE:-docker}" --out "$INPUT_RESULTS")
  [ -z "${INPUT_LANE:-}" ] || options+=(--lane "$INPUT_LANE")
  # What runs prints is not ours: between these two lines the runner obeys no command in it.
  local token
  token="stop-$("$CUDA_MATRIX_PYTHON" -c 'import secrets; print(secrets.token_hex(16))')"
  echo "::stop-commands::$token"
  local status=0
  cuda_matrix run "${options[@]}" || status=$?
  echo "::$token::"
  output results "$INPUT_RESULTS"
  return "$status"
}

report() {
  cuda_matrix report "$INPUT_RESULTS" --out "$INPUT_REPORT"
  output report "$INPUT_REPORT"
  local limit=1000000 # bytes; GitHub refuses a summary of more than 1 MiB
  if [ "$(wc -c <"$INPUT_REPORT/report.md")" -le "$limit" ]; then
    cat "$INPUT_REPORT/report.md" >>"$GITHUB_STEP_SUMMARY"
  else
    echo "The report is larger than a job summary may be; it is in the folder \`$INPUT_REPORT\`." >>"$GITHUB_STEP_SUMMARY"
  fi
  local options=() status=0
  [ -z "${INPUT_CONFIG:-}" ] || options+=(--config "$INPUT_CONFIG")
  cuda_matrix gate "$INPUT_RESULTS" "${options[@]}" || status=$?
  case "$status" in
    0) output verdict yes ;;
    1)
      output verdict no
      [ "${INPUT_GATE:-true}" = true ] || status=0
      ;;
  esac
  return "$status"
}

case "${INPUT_MODE:-}" in
  plan) plan ;;
  run) run ;;
  report) report ;;
  all)
    plan
    status=0
    run || status=$?
    # What ran is reported whatever stopped the run.
    report || { reported=$?; [ "$status" -ne 0 ] || status=$reported; }
    exit "$status"
    ;;
  *)
    echo "::error::mode must be plan, run, report or all"
    exit 2
    ;;
esac
