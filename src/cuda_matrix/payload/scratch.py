"""Owns what is temporary on disk: folders that vanish, and compilers' caches that begin empty in one.

Must not know what is put there.
"""

from __future__ import annotations

import os
import shutil
import tempfile


class Folder:
    """A new folder in a `with`, and gone after it; `name` stands in its own name, for who finds it there meanwhile."""

    def __init__(self, name: str):
        self._name = name
        self._path = None

    def __enter__(self) -> str:
        self._path = tempfile.mkdtemp(prefix=f"cuda-matrix-{self._name}-")
        return self._path

    def __exit__(self, *_error):
        shutil.rmtree(self._path, ignore_errors=True)


def compiler_caches(folder: str):
    """The variables that let torch.compile and Triton keep what they make in a folder: (name, value) pairs.

    Caches of the image, or of an earlier run, would hide that nothing can be compiled here.
    """
    return [
        ("TORCHINDUCTOR_CACHE_DIR", os.path.join(folder, "inductor")),
        ("TRITON_CACHE_DIR", os.path.join(folder, "triton")),
    ]


class DriverCache:
    """An empty folder for what the driver compiles, in a `with`; where none can be made, nothing is cached.

    `environment`: the (name, value) pairs that make CUDA use it, if they are set before CUDA starts.
    """

    def __init__(self):
        self._folder = Folder("driver")
        self._path = None
        self.environment = [("CUDA_CACHE_DISABLE", "1")]

    def __enter__(self):
        try:
            self._path = self._folder.__enter__()
        except OSError:
            return self
        self.environment = [("CUDA_CACHE_PATH", self._path), ("CUDA_CACHE_DISABLE", None)]
        return self

    def __exit__(self, *error):
        if self._path is not None:
            self._folder.__exit__(*error)

    def written_bytes(self):
        """What the driver has compiled into it; None where that cannot be seen."""
        if self._path is None:
            return None
        total = 0
        for directory, _, names in os.walk(self._path):
            for name in names:
                try:
                    total += os.path.getsize(os.path.join(directory, name))
                except OSError:
                    continue
        return total
