"""Asks one of NVIDIA's own CUDA runtimes, in a process of its own, what it thinks of the driver that it finds.

python3 tests/lab/cudart.py LIBCUDART   → one line of JSON. The stand-in libcuda (cuda.c) goes first on LD_LIBRARY_PATH.
"""

from __future__ import annotations

import ctypes
import json
import sys


def ask(library: str) -> dict[str, object]:
    """Its version, the driver's, and the answer of cudaGetDeviceCount() with NVIDIA's name and words for it."""
    runtime = ctypes.CDLL(library)
    for name in ("cudaGetErrorName", "cudaGetErrorString"):
        getattr(runtime, name).restype = ctypes.c_char_p
    version, driver, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    runtime.cudaRuntimeGetVersion(ctypes.byref(version))
    runtime.cudaDriverGetVersion(ctypes.byref(driver))
    code = runtime.cudaGetDeviceCount(ctypes.byref(count))
    return {
        "runtime": version.value,
        "driver": driver.value,
        "code": code,
        "name": runtime.cudaGetErrorName(code).decode(),
        "words": runtime.cudaGetErrorString(code).decode(),
    }


if __name__ == "__main__":
    print(json.dumps(ask(sys.argv[1])))
