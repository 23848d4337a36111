#!/usr/bin/env bash
# Builds every test image from nothing but Debian's archive, and pushes it to a registry as REGISTRY/cm/NAME:test.
# What has not changed is not built again (Docker's own layer cache).   usage: build_images.sh REGISTRY
set -euo pipefail

registry=$1
images=$(cd "$(dirname "${BASH_SOURCE[0]}")/images" && pwd)
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { echo "images: $* ($SECONDS s)"; }

retry() {
  for wait in 3 10 0; do
    if "$@"; then return; fi
    [ "$wait" = 0 ] || sleep "$wait"
  done
  return 1
}

logged() { # log, command…: the log is shown only where the command fails
  local log=$1
  shift
  retry "$@" >"$log" 2>&1 || {
    tail -n 40 "$log" >&2
    echo "images: failed: $*" >&2
    return 1
  }
}

# One of Debian's releases, without documents: a smaller image is a quicker push.
build_base() {
  local suite=$1 root=$work/$1
  docker image inspect "cm-base:$suite" >/dev/null 2>&1 && return
  logged "$work/$suite.log" bootstrap "$suite" "$root"
  printf 'force-unsafe-io\npath-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\npath-exclude=/usr/share/locale/*\n' \
    >"$root/etc/dpkg/dpkg.cfg.d/small"
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
  tar -C "$root" -c . | docker import --change 'CMD ["/bin/sh"]' - "cm-base:$suite" >/dev/null
  rm -rf "$root"
  say "cm-base:$suite from $mirror"
}

bootstrap() { # suite, folder; begins afresh after a failed try
  rm -rf "$2"
  local script=/usr/share/debootstrap/scripts/$1
  [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid # a release newer than this debootstrap
  debootstrap --variant=minbase "$1" "$2" "$mirror" "$script"
}

build() {
  local name=$1
  # The classic builder needs no plugin; the host's network, because the test engine has no other.
  DOCKER_BUILDKIT=0 logged "$work/$name.log" docker build --network host --tag "cm-test/$name" "$images/$name"
  docker tag "cm-test/$name" "$registry/cm/$name:test"
  logged "$work/$name.push.log" docker push "$registry/cm/$name:test"
  say "$name"
}

all() { # run every argument as a command at the same time; fail if one does
  local pids=() failed=0
  for command in "$@"; do
    $command &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
  return $failed
}

all "build_base bookworm" "build_base trixie" "build_base forky"
all "build torch113" "build torch26" "build torch-newest" "build bare" # what others are derived from
for folder in "$images"/*/; do
  name=$(basename "$folder")
  case $name in torch113 | torch26 | torch-newest | bare) ;; *) build "$name" ;; esac
done
