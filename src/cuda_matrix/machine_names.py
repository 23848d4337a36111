"""Owns the names of CPU architectures: the kernel's (uname -m) and those of container platforms and GitHub's labels.

Must not know who runs where. Docker's own list: https://docs.docker.com/build/building/multi-platform/
"""

from __future__ import annotations

_PLATFORM = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le"}
_KERNEL = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}


def kernel_name(name: str) -> str:
    """`amd64`, `x64` → x86_64, `arm64` → aarch64, as `uname -m` says it; any other name is its own."""
    return _KERNEL.get(name, name)


def platform_name(name: str) -> str:
    """`x86_64` → amd64, `aarch64` → arm64, as in linux/amd64; any other name is its own."""
    name = kernel_name(name)
    return _PLATFORM.get(name, name)
