#!/usr/bin/env bash
# Maps the action's inputs to the command line. Inputs come by environment; each becomes one argument, never code.
# `main.sh plan` plans; without an argument it does the rest of the mode. No token is known here: what speaks to GitHub
# is publish.sh.
set -euo pipefail
# shellcheck source=action/launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
# shellcheck source=action/part.sh
. "$(dirname "${BASH_SOURCE[0]}")/part.sh"
withhold_tokens
[ -z "${CUDA_MATRIX_DOCKER_CONFIG:-}" ] || export DOCKER_CONFIG=$CUDA_MATRIX_DOCKER_CONFIG

selection=()
[ -z "${INPUT_CONFIG:-}" ] || selection+=(--config "$INPUT_CONFIG")
selection+=("${part[@]}")
[ -z "${INPUT_CHANGED_SINCE:-}" ] || selection+=(--changed-since "$INPUT_CHANGED_SINCE")
selection+=(--max-jobs "${INPUT_MAX_JOBS:-256}")

plan() {
  local options=("${selection[@]}" --format github --output "$INPUT_PLAN") matrix lanes
  [ "${INPUT_OFFLINE:-false}" != true ] || options+=(--offline)
  mkdir -p -- "$(dirname -- "$INPUT_PLAN")"
  matrix=$(cuda_matrix plan "${options[@]}")
  lanes=$(printf '%s' "$matrix" | python -c 'import json, sys; print(len(json.load(sys.stdin)["include"]))')
  output matrix "$matrix"
  output lanes "$lanes"
  output plan "$INPUT_PLAN"
  [ "$lanes" != 0 ] || echo "::notice::nothing to run: no cell of the matrix is chosen, or none has changed"
}

run() {
  local options=(--plan "$INPUT_PLAN" --engine "${INPUT_ENGINE:-docker}" --out "$INPUT_RESULTS")
  [ -z "${INPUT_LANE:-}" ] || options+=(--lane "$INPUT_LANE")
  # What runs prints is not ours: between these two lines the runner obeys no command in it.
  local token status=0
  token="stop-$(random)"
  echo "::stop-commands::$token"
  cuda_matrix run "${options[@]}" || status=$?
  echo "::$token::"
  output results "$INPUT_RESULTS"
  return "$status"
}

report() { # exit code of the run before it
  cuda_matrix report --out "$INPUT_REPORT" -- "$INPUT_RESULTS" || return # `set -e` does not hold inside `||`
  output report "$INPUT_REPORT"
  local status=0
  cuda_matrix gate "${judged[@]}" -- "$INPUT_RESULTS" || status=$?
  case "$status:${1:-0}" in
    0:0) output verdict yes ;;
    *) output verdict no ;; # a run that was cut short releases nothing, whatever an earlier one has left
  esac
  if [ "$status:${1:-0}" = 0:0 ] && [ "${INPUT_PROMOTE:-false}" != false ]; then
    promote
    return
  fi
  [ "$status:${INPUT_GATE:-true}" != 1:false ] || status=0
  return "$status"
}

promote() {
  local options=() attestation="$INPUT_REPORT/attestation.json"
  [ -z "${INPUT_CONFIG:-}" ] || options+=(--config "$INPUT_CONFIG")
  if [ "$INPUT_PROMOTE" = dry-run ]; then
    cuda_matrix promote "${options[@]}" --dry-run -- "$INPUT_RESULTS"
  else
    cuda_matrix promote "${options[@]}" --attestation "$attestation" -- "$INPUT_RESULTS" || return
    output attestation "$attestation"
  fi
}

boolean gate "${INPUT_GATE:-true}"
boolean offline "${INPUT_OFFLINE:-false}"
[ "${INPUT_PROMOTE:-false}" = dry-run ] || boolean "promote (if not dry-run)" "${INPUT_PROMOTE:-false}"

case "${1:-}:${INPUT_MODE:-}" in
  plan:plan | plan:all) plan ;;
  :run) run ;;
  :report) report ;;
  :all)
    status=0
    run || status=$?
    # What ran is reported whatever stopped the run.
    report "$status" || { reported=$?; [ "$status" -ne 0 ] || status=$reported; }
    exit "$status"
    ;;
  *) fail 2 "mode must be plan, run, report or all" ;;
esac
