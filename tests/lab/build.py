"""Owns how the C doubles of NVIDIA's two libraries are compiled: `libcuda.so.1` and `libnvidia-ml.so.1` in a folder.

    python3 tests/lab/build.py FOLDER

The folder goes first on LD_LIBRARY_PATH. cuda.c and nvml.c say which environment variables rule them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARIES = {"libcuda.so.1": "cuda.c", "libnvidia-ml.so.1": "nvml.c"}  # file name → source
FLAGS = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-pthread")


def build(folder: Path, libraries=tuple(LIBRARIES)) -> Path:
    """Compile the doubles into `folder`, and give it back."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in libraries:
        source = HERE / LIBRARIES[name]
        command = ["gcc", *FLAGS, f"-Wl,-soname,{name}", "-o", str(folder / name), str(source), "-ldl"]
        subprocess.run(command, check=True)
    return folder


if __name__ == "__main__":
    build(Path(sys.argv[1]))
