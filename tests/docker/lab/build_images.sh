#!/usr/bin/env bash
# The driver lab's images, cm-lab/NAME:test, from what fetch.py has fetched; 5 GB, so they are never pushed.
# usage: build_images.sh FOLDER
set -euo pipefail

parts=$(cd "$1" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export DOCKER_BUILDKIT=0

say() { echo "lab: $* ($SECONDS s)"; }

# name, context; the Dockerfile comes on stdin, and names what it was made of, so that Docker's layer cache decides
build() {
  local log
  log=$(mktemp)
  cp /dev/stdin "$log.dockerfile"
  docker build --network host --tag "cm-lab/$1:test" --file "$log.dockerfile" "$2" >"$log" 2>&1 || {
    tail -n 40 "$log" >&2
    exit 1
  }
  rm -f "$log" "$log.dockerfile"
  say "$1"
}

# Copying 5 GB into the daemon takes a minute, and only what is new needs it: the label tells.
whole=$(cksum <"$parts/torch.made-of" | cut -d' ' -f1)
if [ "$(docker image inspect --format '{{index .Config.Labels "cm.lab"}}' cm-lab/torch220:test 2>/dev/null)" != "$whole" ]; then
  build torch220 "$parts/torch" <<DOCKERFILE
FROM cm-base:bookworm
RUN apt-get update -qq \\
 && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3 libstdc++6 \\
 && apt-get clean && rm -rf /var/lib/apt/lists/*
COPY . /opt/site
ENV PYTHONPATH=/opt/site
LABEL cm.lab=$whole
DOCKERFILE
fi
build cudnn-swapped "$parts/cudnn" <<'DOCKERFILE'
FROM cm-lab/torch220:test
COPY libcudnn_ops_train.so.8 /opt/site/nvidia/cudnn/lib/
DOCKERFILE
build cudart-shadowed "$parts/cudart" <<'DOCKERFILE'
FROM cm-lab/torch220:test
COPY nvidia/cuda_runtime/lib/libcudart.so.12 /opt/shadow/
ENV LD_LIBRARY_PATH=/opt/shadow
DOCKERFILE
build torchvision-other-abi "$parts/torchvision" <<'DOCKERFILE'
FROM cm-lab/torch220:test
COPY . /opt/site/
DOCKERFILE
build numpy2 "$parts/numpy" <<'DOCKERFILE'
FROM cm-lab/torch220:test
COPY . /opt/numpy2/
ENV PYTHONPATH=/opt/numpy2:/opt/site
DOCKERFILE
build torch-missing "$parts/numpy" <<'DOCKERFILE'
FROM cm-lab/torch220:test
ENV PYTHONPATH=/opt/nowhere
DOCKERFILE

stub=$(mktemp -d)
trap 'rm -rf "$stub"' EXIT
gcc -std=gnu11 -O1 -fPIC -shared -pthread -DDEFAULT_CUINIT=34 -Wl,-soname,libcuda.so.1 \
  -o "$stub/libcuda.so.1" "$here/../../lab/cuda.c" -ldl
touch -d @0 "$stub"/* # the same bytes, the same layer
build stub-libcuda "$stub" <<'DOCKERFILE'
FROM cm-lab/torch220:test
COPY libcuda.so.1 /usr/local/cuda/lib64/stubs/libcuda.so.1
ENV LD_LIBRARY_PATH=/usr/local/cuda/lib64/stubs
DOCKERFILE
