#!/usr/bin/env bash
# Makes the action's private Python environment, once per lock file and machine, and names it in GITHUB_OUTPUT. A runner
# without a usable Python gets the project's image instead, built once per content. Nothing of the runner's own Python
# is changed, and nothing lands on PATH.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=action/tokens.sh
. "$root/action/tokens.sh" # not launch.sh: its `python` would be found below
withhold_tokens
lock="$root/requirements.lock"

# Python >= 3.10 that can make a virtual environment (Debian's own cannot without python3-venv).
find_python() {
  local candidate
  for candidate in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -I -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

# The tag is the content, so that an image is built once, and never taken for another version's.
use_image() {
  local tag
  tag="cuda-matrix-action:$(cd "$root" && find Dockerfile requirements.lock src -type f ! -name '*.pyc' -print0 |
    LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c 1-20)"
  if ! docker image inspect "$tag" >/dev/null 2>&1; then
    echo "building $tag (once per version of cuda-matrix)"
    docker build --quiet --tag "$tag" "$root" >/dev/null ||
      { echo "::error::the image of cuda-matrix could not be built (above: why)"; exit 3; }
  fi
  echo "image=$tag" >>"$GITHUB_OUTPUT"
}

python=$(find_python) || {
  missing="no Python 3.10 or newer with its venv module on this runner"
  if command -v docker >/dev/null 2>&1 && docker version >/dev/null 2>&1; then
    echo "::notice::cuda-matrix found $missing: it runs from its own image instead (a little slower to start)"
    use_image
    exit
  fi
  echo "::error::cuda-matrix needs Python 3.10 or newer on this runner, or Docker to run from its own image: install python3 with its venv module (Debian, Ubuntu: apt install python3-venv), or run actions/setup-python first"
  exit 3
}

hash=$("$python" -I - "$lock" <<'PY'
import hashlib, platform, sys
digest = hashlib.sha256(open(sys.argv[1], "rb").read())
digest.update(f"{platform.machine()} {sys.version_info[:2]} {sys.executable}".encode())
print(digest.hexdigest()[:20])
PY
)
cache="${RUNNER_TOOL_CACHE:-${RUNNER_TEMP:-/tmp}}/cuda-matrix"
environment="$cache/$hash"

if [ ! -x "$environment/bin/python" ]; then
  mkdir -p "$cache"
  # Several runners of one machine may come here at once: each builds its own, the first rename wins.
  building=$(mktemp -d "$cache/building.XXXXXX")
  trap 'rm -rf "$building"' EXIT
  "$python" -I -m venv "$building/environment" || {
    echo "::error::$python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"
    exit 3
  }
  "$building/environment/bin/python" -I -m pip install --quiet --disable-pip-version-check --no-input \
    --require-hashes --requirement "$lock" || {
    echo "::error::the packages of cuda-matrix could not be installed (above: why); is PyPI, or the mirror of pip's configuration, in reach of this runner?"
    exit 3
  }
  mv -T "$building/environment" "$environment" 2>/dev/null || [ -x "$environment/bin/python" ]
fi

echo "python=$environment/bin/python" >>"$GITHUB_OUTPUT"
