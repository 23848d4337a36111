#!/usr/bin/env bash
# Makes the action's private Python environment, once per lock file and machine, and names it in GITHUB_OUTPUT.
# Nothing of the runner's own Python is changed, and nothing lands on PATH.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
lock="$root/requirements.lock"

find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python3.10 python; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -I -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

python=$(find_python) || {
  echo "::error::cuda-matrix needs Python 3.10 or newer on this runner; install python3 with its venv module, or run actions/setup-python first"
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
    --require-hashes --requirement "$lock"
  mv -T "$building/environment" "$environment" 2>/dev/null || [ -x "$environment/bin/python" ]
fi

echo "python=$environment/bin/python" >>"$GITHUB_OUTPUT"
