#!/usr/bin/env bash
# The only script that is given a token: begins the check run (`publish.sh begin`), and publishes the report.
set -euo pipefail
# shellcheck source=action/launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
# shellcheck source=action/part.sh
. "$(dirname "${BASH_SOURCE[0]}")/part.sh"
token=${INPUT_TOKEN:-}
withhold_tokens
export GITHUB_TOKEN=$token # for the processes of this script alone

if [ "${1:-}" = begin ]; then
  # What is only shown must not stop what is measured.
  cuda_matrix publish --start -- "$INPUT_PLAN" || echo "::warning::the check run could not be begun (above: why)"
  exit
fi

boolean comment "${INPUT_COMMENT:-true}"
boolean check "${INPUT_CHECK:-true}"
options=(--results "$INPUT_RESULTS" "${judged[@]}")
[ "${INPUT_COMMENT:-true}" = true ] || options+=(--no-comment)
[ "${INPUT_CHECK:-true}" = true ] || options+=(--no-check)
case "${INPUT_COMMIT:-}" in
  true) options+=(--commit) ;;
  false) options+=(--no-commit) ;;
  "") ;; # on the default branch
  *) fail 2 "commit must be true, false, or empty" ;;
esac
cuda_matrix publish "${options[@]}" -- "$INPUT_REPORT"
