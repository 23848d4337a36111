#!/usr/bin/env python3
"""Fetches NVIDIA's own CUDA runtimes (libcudart) into one folder, once.   usage: fetch_cudart.py FOLDER

FOLDER/<version>/…/libcudart.so.N, 2 to 4 MB each. The wheels come from PyPI by version and SHA-256: what NVIDIA's
runtime answers is the truth that the predictor is held to, so it must be NVIDIA's.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

# The runtimes of CUDA 12 that bar 1 names, and the newest of every minor of 13 on PyPI (2026-11). x86-64 Linux.
WHEELS = {
    "12.1.105": "6e258468ddf5796e25f1dc591a31029fa317d97a0a94ed93468fc86301d61e40",
    "12.4.127": "64403288fa2136ee8e467cdc9c9427e0434110899d07c779f25b5c068934faa5",
    "12.8.90": "adade8dcbd0edf427b7204d480d6066d33902cab2a4707dcfc48a2d0fd44ab90",
    "12.9.79": "25bba2dfb01d48a9b59ca474a1ac43c6ebf7011f1b0b8cc44f54eb6ac48a96c3",
    "13.0.96": "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
    "13.1.80": "dac25b52e69050e5a7a84957e6df470a85b185f8f648a99a1ab1dfce027576cf",
    "13.2.75": "72bf454902da594e0b833cadeddc8b7100ce1c7cf7ed9023943931be1aa913b7",
    "13.3.29": "e04420616e72f563167a7733272992d7e6df6dc5cb54b2f94f9f1520ea9e30c1",
    "13.4.92": "9641f797da20ce1dd8e779b6e96d08cf9ba564cec8e8225458811ee26423f3a5",
    "13.5.37": "df2b79a8852f10d1fef8c848489c49eebb5754051bf870202a862831412b179d",
}
_PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps"]
_PLATFORMS = ["manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64"]


def fetch(version: str, sha256: str, folder: Path) -> None:
    """Put one runtime into `folder/version`, unless this very wheel is there; leave nothing half filled."""
    target, label = folder / version, folder / f"{version}.sha256"
    if target.is_dir() and label.is_file() and label.read_text() == sha256:
        return
    shutil.rmtree(target, ignore_errors=True)
    partial = folder / f"{version}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    name = "nvidia-cuda-runtime-cu12" if version.startswith("12.") else "nvidia-cuda-runtime"
    wanted = partial / "requirements.txt"
    wanted.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
    platforms = [part for platform in _PLATFORMS for part in ("--platform", platform)]
    options = ["--retries", "5", "--require-hashes", "--only-binary=:all:", *platforms, "--target", str(partial)]
    subprocess.run([*_PIP, *options, "-r", str(wanted)], check=True)
    partial.rename(target)
    label.write_text(sha256)
    print(f"cudart: {target}", flush=True)


def main(folder: Path) -> None:
    for version, sha256 in WHEELS.items():
        fetch(version, sha256, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
