"""Owns what CUDA's libraries say of themselves when they are asked by ctypes: versions, and cuDNN's own checks.

None of it needs a card. A broken library may crash whoever asks, so every function here is called in a child that may
die (isolated.py). Must not know what is right for an image.
"""

from __future__ import annotations

import ctypes
import os

from . import libraries
from . import versions as version_texts

# The functions with which cuDNN itself compares one of its parts with those that it rests on (8, then 9).
CUDNN_CHECKS = (
    "cudnnOpsInferVersionCheck", "cudnnOpsTrainVersionCheck", "cudnnCnnInferVersionCheck", "cudnnCnnTrainVersionCheck",
    "cudnnAdvInferVersionCheck", "cudnnAdvTrainVersionCheck",
    "cudnnGraphVersionCheck", "cudnnOpsVersionCheck", "cudnnCnnVersionCheck", "cudnnAdvVersionCheck",
)  # fmt: skip
_PROPERTY = {  # NVIDIA's math libraries answer get_property(0 major, 1 minor, 2 patch)
    "libcublas": "cublasGetProperty",
    "libcublasLt": "cublasLtGetProperty",
    "libcufft": "cufftGetProperty",
    "libcurand": "curandGetProperty",
    "libcusolver": "cusolverGetProperty",
    "libcusparse": "cusparseGetProperty",
}


def versions(paths) -> dict:
    """Version by path, as the library says it; a library that cannot be asked is left out."""
    found = {}
    for path in paths:
        try:
            version = _version(libraries.family(os.path.basename(path)), ctypes.CDLL(path))
        except (OSError, AttributeError, ValueError):
            continue
        if version:
            found[path] = version
    return found


def _version(family, library):
    first, second, third = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if family in _PROPERTY:
        ask = getattr(library, _PROPERTY[family])
        if any(ask(index, ctypes.byref(number)) for index, number in enumerate((first, second, third))):
            return None
        return f"{first.value}.{second.value}.{third.value}"
    if family in ("libcudart", "libnccl"):
        ask = library.cudaRuntimeGetVersion if family == "libcudart" else library.ncclGetVersion
        text = version_texts.cuda if family == "libcudart" else version_texts.library
        return None if ask(ctypes.byref(first)) else text(first.value)
    if family in ("libnvrtc", "libnvJitLink"):
        ask = library.nvrtcVersion if family == "libnvrtc" else library.nvJitLinkVersion
        return None if ask(ctypes.byref(first), ctypes.byref(second)) else f"{first.value}.{second.value}"
    return _cudnn_part(family, library) if family.startswith("libcudnn_") else None


def _cudnn_part(family, library):
    """The version that a part of cuDNN carries as a number (0x080902 is 8.9.2); parts without one have a check only."""
    for symbol in (family[3:] + "_version", family[3:] + "_infer_version"):
        try:
            number = ctypes.c_int.in_dll(library, symbol).value
        except ValueError:
            continue
        return f"{number >> 16}.{number >> 8 & 255}.{number & 255}"
    return None


def cudnn_check(shim: str, function: str) -> dict:
    """One of cuDNN's own checks: its code (0 is good), cuDNN's word for it, and what was loaded to answer."""
    library = ctypes.CDLL(shim)
    code = int(getattr(library, function)())
    text = ""
    if code:
        library.cudnnGetErrorString.restype = ctypes.c_char_p
        text = (library.cudnnGetErrorString(code) or b"").decode("ascii", "replace")
    parts = [path for path in libraries.mapped_paths() if os.path.basename(path).startswith("libcudnn")]
    return {"code": code, "text": text, "versions": versions(parts), "paths": parts}


def cudnn_checks_of(shim: str) -> list:
    """Which of the checks this cuDNN has."""
    library = ctypes.CDLL(shim)
    return [name for name in CUDNN_CHECKS if hasattr(library, name)]


def cudnn_runtime(shim: str):
    """cudnnGetVersion: 8902, 90100."""
    library = ctypes.CDLL(shim)
    library.cudnnGetVersion.restype = ctypes.c_size_t
    return int(library.cudnnGetVersion())


def driver_library() -> dict:
    """The libcuda that the loader finds, and the code of its cuInit; {} where there is none."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return {"error": str(error)} if "libcuda.so.1: cannot open" not in str(error) else {}
    paths = [path for path in libraries.mapped_paths() if os.path.basename(path).startswith("libcuda.so")]
    code = library.cuInit(0) if hasattr(library, "cuInit") else None
    return {"path": paths[0] if paths else "", "cuinit": code}
