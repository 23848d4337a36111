"""Owns where CUDA's libraries lie on disk and which of them a process has mapped.

Reads files and /proc only. Must not know what is right for an image.
"""

from __future__ import annotations

import glob
import os
import re

from .cgroup import read_text

# Libraries that decide whether CUDA work is right; everything else in /proc/self/maps is not reported.
_REPORTED = re.compile(
    r"lib(cuda|nvidia-|cudart|cublas|cudnn|cufft|curand|cusolver|cusparse|cupti|nccl|nvrtc|nvJitLink|nvToolsExt|torch|c10|gomp|iomp5"
    r"|mkl_rt|openblas|stdc\+\+)"
)
# Two of these in one process are a conflict: each must be the one that torch was built with.
ONE_ONLY = (
    "libcudart", "libcublas", "libcublasLt", "libcudnn", "libcufft", "libcurand", "libcusolver", "libcusparse",
    "libnccl", "libnvrtc", "libnvJitLink",
)  # fmt: skip
LIMIT = 256
RUNTIME_LIMIT = 64

_RUNTIME_GLOBS = (
    "/usr/local/cuda*/lib64/libcudart.so*",
    "/usr/local/cuda*/targets/*/lib/libcudart.so*",
    "/opt/conda/lib/libcudart.so*",
    "/opt/conda/envs/*/lib/libcudart.so*",
    "/usr/lib/*/libcudart.so*",
    "/usr/lib64/libcudart.so*",
)
_CUDNN_GLOBS = (
    "/usr/lib/*/libcudnn.so*",
    "/usr/lib64/libcudnn.so*",
    "/usr/local/cuda*/lib64/libcudnn.so*",
    "/opt/conda/lib/libcudnn.so*",
)
_SITE_GLOBS = (
    "nvidia/cuda_runtime/lib/libcudart.so*",  # wheels of CUDA 11.7 to 12
    "nvidia/cu*/lib/libcudart.so*",  # wheels since CUDA 13
    "torch/lib/libcudart*.so*",  # wheels that carry their own copy
)


def mapped(maps_text: str):
    """The libraries in a /proc/<pid>/maps: [{soname, path}], each path once, sorted."""
    paths = set()
    for line in maps_text.splitlines():
        path = line[line.find("/") :] if "/" in line else ""
        name = os.path.basename(path)
        if ".so" in name and _REPORTED.match(name):
            paths.add(path)
    return [{"soname": os.path.basename(path), "path": path} for path in sorted(paths)][:LIMIT]


def mapped_paths() -> list:
    """The paths of this process' own CUDA libraries, as `mapped` selects them."""
    return [library["path"] for library in mapped(read_text("/proc/self/maps", 1 << 24))]


def family(soname: str) -> str:
    """The library behind a file name: `libcudart-d0da41ae.so.11.0` and `libcudart.so.12` are both libcudart."""
    return re.sub(r"-[0-9a-f]{8}$", "", soname.partition(".so")[0])


def runtimes(site_directories, root: str = ""):
    """Every CUDA runtime on disk: [{path, version}], one entry per real file. `root` stands in for / in tests."""
    patterns = [root + pattern for pattern in _RUNTIME_GLOBS]
    patterns += [os.path.join(directory, pattern) for directory in site_directories for pattern in _SITE_GLOBS]
    found = {}
    for pattern in patterns:
        for path in sorted(glob.glob(pattern)):
            real = os.path.realpath(path)
            found.setdefault(real, {"path": real, "version": runtime_version(real)})
    return list(found.values())[:RUNTIME_LIMIT]


def runtime_version(path: str):
    """The version of a libcudart: from its own name, or from the pip package it came in; None where neither says."""
    full = re.search(r"\.so\.(\d+\.\d+(?:\.\d+)*)$", path)
    if full:
        return full.group(1)
    site = path.partition("/nvidia/")[0] if "/nvidia/" in path else None
    if site:
        for info in sorted(glob.glob(os.path.join(glob.escape(site), "nvidia_cuda_runtime*.dist-info"))):
            return os.path.basename(info)[: -len(".dist-info")].rpartition("-")[2]
    major = re.search(r"\.so\.(\d+)$", path)
    return major.group(1) if major else None


def cudnn_version(root: str = ""):
    """The version of a system's cuDNN, from the name of its file; None where there is none. `root` as above."""
    for pattern in _CUDNN_GLOBS:
        for path in sorted(glob.glob(root + pattern)):
            match = re.search(r"\.so\.(\d+\.\d+\.\d+)", os.path.realpath(path))
            if match:
                return match.group(1)
    return None


def on_path(library_path: str):
    """The libcudart that LD_LIBRARY_PATH would put first, or None. Wheels with an RPATH ignore it."""
    for directory in [entry for entry in library_path.split(":") if entry]:
        for path in sorted(glob.glob(os.path.join(glob.escape(directory), "libcudart.so*"))):
            return os.path.realpath(path)
    return None


def site_directories(search_path) -> list:
    """The directories of a `sys.path` in which torch or NVIDIA's packages are installed."""
    return [
        entry for entry in search_path if any(os.path.isdir(os.path.join(entry, name)) for name in ("torch", "nvidia"))
    ]


def torch_elsewhere() -> list:
    """Installed copies of torch that the running Python may not see."""
    patterns = (
        "/usr/lib/python3*/dist-packages/torch",
        "/usr/local/lib/python3*/*-packages/torch",
        "/opt/*/lib/python3*/site-packages/torch",
        "/opt/*/envs/*/lib/python3*/site-packages/torch",
        "/root/*conda*/lib/python3*/site-packages/torch",
        "/home/*/.local/lib/python3*/site-packages/torch",
        "/workspace/*/lib/python3*/site-packages/torch",
    )
    return sorted({path for pattern in patterns for path in glob.glob(pattern)})[:8]
