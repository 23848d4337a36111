#!/usr/bin/env bash
# Sourced by main.sh and publish.sh: the options that say by which configuration, and which part of it. What is planned
# with them is judged with them, or the rest of the matrix would be missed.
# shellcheck disable=SC2034  # both are for those scripts

part=()
[ -z "${INPUT_TIER:-}" ] || part+=(--tier "$INPUT_TIER")
while IFS= read -r glob; do
  [ -z "$glob" ] || part+=(--select "$glob")
done <<<"${INPUT_SELECT:-}"
judged=() # without --config the plan's own word counts, and it knows its part
[ -z "${INPUT_CONFIG:-}" ] || judged=(--config "$INPUT_CONFIG" "${part[@]}")
