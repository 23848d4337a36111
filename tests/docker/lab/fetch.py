#!/usr/bin/env python3
"""Fetches what the driver lab is made of into one folder, once.   usage: fetch.py FOLDER

FOLDER/torch: a site directory with torch 2.2.0, PyPI's CUDA 12.1 build, and its NVIDIA libraries (5 GB).
FOLDER/<part>: what the broken images are broken with: a libcudart, a torchvision, a numpy that belong to others, one
part of another cuDNN. Everything is for CPython 3.11 on x86-64, whatever Python runs this.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

TORCH = ["torch==2.2.0", "numpy==1.26.4", "nvidia-cudnn-cu12==8.9.2.26"]
PARTS = {
    "cudart": ["nvidia-cuda-runtime-cu12==12.4.127"],
    # made for torch 2.1.0; the rest is what it wants to be imported
    "torchvision": [
        *("torchvision==0.16.0", "pillow==10.4.0", "requests==2.32.3", "urllib3==2.2.3", "idna==3.10"),
        *("certifi==2024.8.30", "charset-normalizer==3.4.0"),
    ],
    "numpy": ["numpy==2.1.3"],
}
# One file out of a wheel of 700 MB: the smallest part of the cuDNN after the one that torch 2.2.0 brings.
CUDNN_WHEEL = (
    "https://files.pythonhosted.org/packages/79/fb/8071b1c82db9b38dccbd11dfaa16aaa4b239d2deff5af711d8b01467554f/"
    "nvidia_cudnn_cu12-8.9.7.29-py3-none-manylinux1_x86_64.whl"
)
CUDNN_PART = "nvidia/cudnn/lib/libcudnn_ops_train.so.8"
_PIP = [
    sys.executable,
    "-m",
    "pip",
    "install",
    "--quiet",
    "--disable-pip-version-check",
    "--no-compile",
    "--retries",
    "5",
]
_FOR = ["--python-version", "3.11", "--implementation", "cp", "--only-binary=:all:"]


class RemoteFile(io.RawIOBase):
    """A file on a web server, read by ranges: a zip's directory and one member instead of all of it."""

    def __init__(self, url: str) -> None:
        self._url = url
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=30) as answer:
            self._size = int(answer.headers["Content-Length"])
        self._at = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        request = urllib.request.Request(self._url, headers={"Range": f"bytes={self._at}-{end - 1}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            data = answer.read()
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def fetch_member(url: str, member: str, folder: Path) -> None:
    """Put one file of a wheel into `folder`."""
    wheel = zipfile.ZipFile(io.BufferedReader(RemoteFile(url), 16 << 20))
    with wheel.open(member) as source, (folder / Path(member).name).open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def once(folder: Path, made_of: list[str], fill) -> None:
    """Fill a folder, unless it is there and made of the same; leave nothing half filled."""
    label = folder.with_suffix(".made-of")
    if folder.exists() and label.exists() and label.read_text() == "\n".join(made_of):
        return
    partial = folder.with_suffix(".partial")
    for old in (partial, folder):
        shutil.rmtree(old, ignore_errors=True)
    partial.mkdir(parents=True)
    fill(partial)
    partial.rename(folder)
    label.write_text("\n".join(made_of))
    print(f"lab: {folder}", flush=True)


def install(requirements: list[str], *options: str):
    return lambda folder: subprocess.run([*_PIP, *_FOR, *options, "--target", str(folder), *requirements], check=True)


def main(folder: Path) -> None:
    for name, requirements in PARTS.items():
        once(folder / name, requirements, install(requirements, "--no-deps"))
    once(folder / "cudnn", [CUDNN_WHEEL, CUDNN_PART], lambda part: fetch_member(CUDNN_WHEEL, CUDNN_PART, part))
    once(folder / "torch", TORCH, install(TORCH))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
