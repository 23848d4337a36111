"""The compiled doubles of libnvidia-ml and libcuda (tests/lab), and the file that rules the first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab import build

SOURCES = Path(__file__).resolve().parent.parent / "src"


class FakeNvml:
    """Cards with the given counters; `folder` holds the compiled libraries."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self.file = root / "nvml.conf"
        self.set()

    def set(self, *lines: str) -> FakeNvml:
        """Write the file anew; the keys are in tests/lab/nvml.c."""
        self.file.write_text("".join(line + "\n" for line in lines))
        Path(f"{self.file}.inits").unlink(missing_ok=True)
        return self

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self.folder), "CM_FAKE_NVML": str(self.file)}

    def ask(self, source: str, **variables: str) -> Any:
        """Run Python code in a process of its own, which finds the fake; what it prints, as JSON."""
        environment = {**os.environ, "PYTHONPATH": str(SOURCES), **self.environment, **variables}
        done = subprocess.run(
            [sys.executable, "-B", "-c", source],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def compiled(folder: Path, *defines: str) -> Path:
    """The libraries, with preprocessor names: OLD_DRIVER."""
    flags = build.FLAGS
    try:
        build.FLAGS = (*flags, *(f"-D{name}" for name in defines))
        return build.build(folder)
    finally:
        build.FLAGS = flags
