"""Owns the facts that cost only file reads: no process is started, nothing slow is imported.

What needs `nvidia-smi` or torch is reported by the checks that use them. Must not know what a fact means.
"""

from __future__ import annotations

import os
import sys

from . import cgroup, nvidia, versions
from .cgroup import read_text

# The variables that steer CUDA, PyTorch and the loader. Never the whole environment: it may hold secrets.
VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "CUDA_PATH", "CUDA_VERSION", "CUDA_CACHE_PATH",
    "CUDA_CACHE_DISABLE", "CUDA_MODULE_LOADING", "CUDA_LAUNCH_BLOCKING", "CUDA_DISABLE_PTX_JIT", "CUDA_FORCE_PTX_JIT",
    "CUDA_MPS_PIPE_DIRECTORY", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_REQUIRE_CUDA", "NVIDIA_DISABLE_REQUIRE", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TORCH_CUDA_ARCH_LIST", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_NVML_BASED_CUDA_CHECK",
    "NCCL_P2P_DISABLE", "NCCL_IB_DISABLE", "NCCL_SOCKET_IFNAME", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH",
    "PYTHONWARNINGS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
)  # fmt: skip


def cheap(environment) -> dict:
    """Every fact that can be had for a few file reads: name → value, without what was not seen."""
    found = {
        "python": versions.python(),
        "python_path": sys.executable or None,
        "os": _os_name(read_text("/etc/os-release") or read_text("/usr/lib/os-release")),
        "kernel": os.uname().release,
        "machine": os.uname().machine,
        "cpu_model": _after(read_text("/proc/cpuinfo", 4096), "model name"),
        "cpu_count": _cpu_count(),
        "memory_gb": _memory_gb(),
        "shm_gb": _shm_gb(),
        "glibc": _glibc(),
        "user": f"{os.getuid()}:{os.getgid()}",
        "driver": nvidia.kernel_driver(read_text(nvidia.PROC_VERSION)),
        "environment": {name: environment[name][:2000] for name in VARIABLES if name in environment},
    }
    return {name: value for name, value in found.items() if value is not None}


def _os_name(text):
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip().strip("\"'")
    return None


def _after(text, key):
    """The value of the first `key : value` line."""
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() == key:
            return value.strip()
    return None


def _cpu_count():
    """CPUs that may be used: the affinity mask, or the cgroup's quota where that is less."""
    try:
        count = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        count = os.cpu_count() or 1
    quota = cgroup.cpu_quota()
    return count if quota is None else max(1, min(count, int(quota + 0.999)))


def _memory_gb():
    total = _after(read_text("/proc/meminfo", 4096), "MemTotal")
    amounts = [int(total.split()[0]) * 1024] if total else []
    limit = cgroup.memory_limit_bytes()
    if limit is not None:
        amounts.append(limit)
    return round(min(amounts) / 1e9, 3) if amounts else None


def _shm_gb():
    try:
        shm = os.statvfs("/dev/shm")  # noqa: S108 - its size is the fact; nothing is written there
    except OSError:
        return None
    return round(shm.f_frsize * shm.f_blocks / 1e9, 3)


def _glibc():
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):  # another C library, musl for one
        return None
    return text.split()[-1] if text else None
