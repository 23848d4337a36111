#!/usr/bin/env bash
# A private copy of the runner's Docker logins with one more in it, which ends with the job: the runner's own file is
# left alone. The password comes by environment and goes into a file that only this user may read.
set -euo pipefail
# shellcheck source=action/launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
withhold_tokens

[ -n "${INPUT_REGISTRY_USERNAME:-}" ] || fail 2 "registry-password needs a registry-username"
umask 077
config=$(mktemp -d "${RUNNER_TEMP:-/tmp}/cuda-matrix-docker.XXXXXX")
source=${DOCKER_CONFIG:-$HOME/.docker}/config.json
[ ! -r "$source" ] || cp "$source" "$config/config.json"
printf '%s\0%s\0%s' "${INPUT_REGISTRY:-docker.io}" "$INPUT_REGISTRY_USERNAME" "$INPUT_REGISTRY_PASSWORD" |
  CUDA_MATRIX_LOGINS="$config/config.json" python -c '
import base64, json, os, sys
registry, user, password = sys.stdin.read().split("\0")
path = os.environ["CUDA_MATRIX_LOGINS"]
document = json.load(open(path)) if os.path.exists(path) else {}
key = "https://index.docker.io/v1/" if registry in ("docker.io", "index.docker.io") else registry
login = base64.b64encode(f"{user}:{password}".encode()).decode()
document.setdefault("auths", {})[key] = {"auth": login}
document.get("credHelpers", {}).pop(key, None)  # a helper of this registry would be asked first
with open(path, "w") as stream:
    json.dump(document, stream)
' || fail 2 "the login for ${INPUT_REGISTRY:-docker.io} could not be written: is $source valid JSON?"
output config "$config"
