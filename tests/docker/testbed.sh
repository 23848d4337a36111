#!/usr/bin/env bash
# The test bed: our own Docker Engine with a simulated GPU, and a registry. Never touches the machine's own engine.
#
#   sudo tests/docker/testbed.sh up      start both, build and push the images, print what the tests need to know
#   sudo tests/docker/testbed.sh down    stop both
#   sudo tests/docker/testbed.sh bare    start only an engine, empty and without GPU support (tests/docker/conftest.py)
#
# Use:  eval "$(sudo tests/docker/testbed.sh up)" && make test
# Images and layers stay in $CUDA_MATRIX_TESTBED (default /var/cache/cuda-matrix-ci), so a second start is quick.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
store=${CUDA_MATRIX_TESTBED:-/var/cache/cuda-matrix-ci}
state=${CUDA_MATRIX_TESTBED_STATE:-/run/cuda-matrix-testbed}
hook=$state/hook
export DOCKER_HOST=unix://$state/docker.sock
unset DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH

die() {
  echo "testbed: $*" >&2
  exit 1
}

# A pid may be a zombie, or belong to somebody else by now: only a command line that names our folder counts.
alive() { [ -s "$1" ] && grep -qsF "$state/" "/proc/$(cat "$1")/cmdline"; }

stop() { # pidfile, seconds
  alive "$1" || return 0
  local pid
  pid=$(cat "$1")
  kill "$pid"
  for ((i = 0; i < $2 * 5; i++)); do
    alive "$1" || break
    sleep 0.2
  done
  if alive "$1"; then kill -9 "$pid"; fi
  rm -f "$1"
}

wait_for() { # seconds, what, log, command…
  local limit=$1 what=$2 log=$3
  shift 3
  for ((i = 0; i < limit * 5; i++)); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.2
  done
  tail -n 30 "$log" >&2
  die "$what did not answer within $limit s; its log is above"
}

# dockerd offers --gpus only when it finds the hook on its PATH while it starts.
add_gpu_support() {
  mkdir -p "$hook"
  install -m 755 "$here/nvidia-hook/nvidia-container-runtime-hook" "$hook/"
  install -m 644 "$here/nvidia-hook/nvidia-smi.sh" "$hook/"
  python3 "$here/../lab/build.py" "$hook"
  PATH=$hook:$PATH
  export CUDA_MATRIX_TEST_GPU_FILE=$state/gpu
}

# A second engine on one machine: own socket, data, state, containerd namespace; no bridge, so that it leaves the
# machine's packet filter and docker0 alone (tests run with network none, image builds with network host).
start_engine() {
  alive "$state/docker.pid" && return
  local name
  name=cuda-matrix-$(basename "$state" | tr -cd '[:alnum:]') # containerd refuses a name that ends in _, as mkdtemp's may
  # After a kill, dockerd would wait for a containerd that has ended but was not yet reaped.
  stop "$state/exec/containerd/containerd.pid" 10
  rm -f "$state/docker.pid" "$state/exec/containerd/containerd.pid"
  echo '{}' >"$state/daemon.json"                   # not the machine's own /etc/docker/daemon.json
  mountpoint -q /sys/fs/cgroup || cgroupfs-mount    # a bare machine without systemd
  setsid dockerd --host "$DOCKER_HOST" --config-file "$state/daemon.json" --pidfile "$state/docker.pid" \
    --data-root "$store/docker" --exec-root "$state/exec" \
    --containerd-namespace "$name" --containerd-plugins-namespace "$name-plugins" \
    --bridge none --iptables=false --ip6tables=false >>"$state/dockerd.log" 2>&1 </dev/null &
  wait_for 60 dockerd "$state/dockerd.log" docker version
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start_registry() {
  alive "$state/registry.pid" && return
  local port
  port=$(free_port)
  mkdir -p "$store/registry"
  cat >"$state/registry.yml" <<CONFIG
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $store/registry}, delete: {enabled: true}}
http: {addr: "127.0.0.1:$port"}
CONFIG
  setsid docker-registry serve "$state/registry.yml" >>"$state/registry.log" 2>&1 </dev/null &
  echo $! >"$state/registry.pid"
  echo "127.0.0.1:$port" >"$state/registry"
  wait_for 20 docker-registry "$state/registry.log" python3 -c \
    'import sys, urllib.request; urllib.request.urlopen(f"http://{sys.argv[1]}/v2/", timeout=2)' "127.0.0.1:$port"
}

# What dockerd keeps mounted after its end: its network namespace, and its data folder upon itself.
release_mounts() {
  awk -v state="$state/" -v data="$store/docker" \
    'index($2, state) == 1 || $2 == data || index($2, data "/") == 1 { print $2 }' /proc/mounts | sort -r |
    while read -r place; do umount "$place" || true; done
}

case ${1:-} in
  up)
    [ "$(id -u)" = 0 ] || die "dockerd needs root"
    for tool in docker dockerd docker-registry debootstrap python3; do
      command -v "$tool" >/dev/null || die "$tool is missing: apt-get install docker.io docker-registry debootstrap python3"
    done
    mkdir -p "$store" "$state"
    add_gpu_support
    start_engine
    start_registry
    "$here/build_images.sh" "$(cat "$state/registry")" >&2
    echo "export DOCKER_HOST=$DOCKER_HOST CUDA_MATRIX_TEST_DOCKER=1 CUDA_MATRIX_TEST_REGISTRY=$(cat "$state/registry") CUDA_MATRIX_TESTBED_STATE=$state"
    ;;
  down)
    stop "$state/registry.pid" 5
    stop "$state/docker.pid" 30
    release_mounts
    ;;
  bare)
    mkdir -p "$store" "$state"
    start_engine
    ;;
  *) die "usage: testbed.sh up|down|bare" ;;
esac
