#!/usr/bin/env bash
# Sourced by the action's other scripts: how Python and the tool are started (in the private environment, or in the
# image where this runner has no usable Python), and how an output is written.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONDONTWRITEBYTECODE=1

# shellcheck source=action/tokens.sh
. "$root/action/tokens.sh"

# `docker run` with what the tool needs of this runner, each thing at its own path: the workspace, the runner's files,
# Docker's socket and logins. Names of variables only, never values: arguments are seen by every user of a machine.
in_image() { # entrypoint, argument…
  local options=(run --rm --interactive --init --pid host --user "$(id -u):$(id -g)" --entrypoint "$1") name place
  local socket=/var/run/docker.sock config=${DOCKER_CONFIG:-$HOME/.docker}
  case "${DOCKER_HOST:-}" in unix://*) socket=${DOCKER_HOST#unix://} ;; esac
  # --pid host: a run names its process on each container, and the next run asks whether that still lives.
  if [ -S "$socket" ]; then
    options+=(--volume "$socket:$socket" --group-add "$(stat -c %g "$socket")")
  fi
  for place in "${GITHUB_WORKSPACE:-$PWD}" "${RUNNER_TEMP:-}" "$PWD"; do
    [ -z "$place" ] || options+=(--volume "$place:$place")
  done
  for place in "$(dirname "${GITHUB_EVENT_PATH:-/}")" "$config"; do
    if [ "$place" != / ] && [ -d "$place" ]; then options+=(--volume "$place:$place:ro"); fi
  done
  while IFS= read -r name; do
    case "$name" in
      GITHUB_ENV | GITHUB_PATH | GITHUB_OUTPUT | GITHUB_STATE) ;; # written by these scripts, never by the tool
      GITHUB_* | RUNNER_* | CUDA_MATRIX_* | DOCKER_* | *_proxy | *_PROXY | CI | TZ | PYTHONDONTWRITEBYTECODE)
        options+=(--env "$name")
        ;;
    esac
  done < <(compgen -e)
  [ -n "${DOCKER_CONFIG:-}" ] || options+=(--env "DOCKER_CONFIG=$config")
  options+=(--network host --workdir "$PWD" "$CUDA_MATRIX_IMAGE")
  shift
  exec docker "${options[@]}" "$@"
}

# Isolated (-I): no module of the checked-out repository can stand in for one of ours.
python() {
  if [ -n "${CUDA_MATRIX_PYTHON:-}" ]; then
    "$CUDA_MATRIX_PYTHON" -I "$@"
  else
    (in_image /opt/cuda-matrix/bin/python -I "$@")
  fi
}

# In the background, with signals passed on: when a job is cancelled the runner signals this shell alone.
cuda_matrix() {
  local main='import sys; sys.path.insert(0, sys.argv.pop(1)); from cuda_matrix.__main__ import main; main()' child status=0
  # No function inside: the signal must reach Python itself (or the docker client, which passes it on).
  if [ -n "${CUDA_MATRIX_PYTHON:-}" ]; then
    "$CUDA_MATRIX_PYTHON" -I -c "$main" "$root/src" "$@" &
  else
    in_image /opt/cuda-matrix/bin/python -I -m cuda_matrix "$@" &
  fi
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

random() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

# A random delimiter: no value can end its own block and forge another output.
output() {
  local delimiter
  delimiter="end-$(random)"
  printf '%s<<%s\n%s\n%s\n' "$1" "$delimiter" "$2" "$delimiter" >>"$GITHUB_OUTPUT"
}

fail() { # exit code, text
  echo "::error::$2"
  exit "$1"
}

# `true` and `false` alone: a switch that is misspelt must not mean the opposite.
boolean() { # name, value
  case "$2" in
    true | false) ;;
    *) fail 2 "$1 must be true or false" ;;
  esac
}
