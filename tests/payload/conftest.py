"""The payload as it is deployed, driven as a subprocess; doubles are an items table, a torch and an nvidia-smi."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cuda_matrix.protocol import Request, deployment, payload_sources

MARKER = "0123456789abcdef" * 2


@dataclass
class Run:
    """What one run of the payload has said."""

    code: int
    stdout: bytes
    stderr: bytes
    seconds: float
    events: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        prefix = MARKER.encode() + b" "
        for line in self.stdout.split(b"\n"):
            if line.startswith(prefix):
                assert len(line) < 64 * 1024
                self.events.append(json.loads(line[len(prefix) :], parse_constant=_refuse))

    def kinds(self) -> list[str]:
        return [event["event"] for event in self.events]

    def ends(self) -> dict[str, dict[str, Any]]:
        return {event["id"]: event for event in self.events if event["event"] == "end"}

    def end(self, item: str) -> dict[str, Any]:
        return self.ends()[item]

    def statuses(self) -> dict[str, str]:
        return {item: event["status"] for item, event in self.ends().items()}

    def facts(self) -> dict[str, Any]:
        return {event["name"]: event["value"] for event in self.events if event["event"] == "fact"}

    def planned(self) -> list[str]:
        (plan,) = [event for event in self.events if event["event"] == "plan"]
        return [item["id"] for item in plan["items"]]


def _refuse(name: str) -> None:
    message = f"{name} is not JSON"
    raise ValueError(message)


class Deployed:
    """One deployed payload in a directory of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root / "cuda-matrix"
        self.bin = root / "bin"
        self.site = root / "site"
        self.home = root / "home"
        for directory in (self.root / "cuda_matrix_payload", self.bin, self.site, self.home):
            directory.mkdir(parents=True)
        self._sources = payload_sources()

    def items(self, table: str, checks: str = "") -> None:
        """Replace the table of items, and add a module `checks_stub` that it may refer to."""
        source = f"from .table import Item\nITEMS = ({table},)\n"
        self._sources["cuda_matrix_payload/items.py"] = source.encode()
        self._sources["cuda_matrix_payload/checks_stub.py"] = checks.encode()

    def script(self, edit) -> None:
        """Change start.sh."""
        self._sources["start.sh"] = edit(self._sources["start.sh"].decode()).encode()

    def torch(self, source: str) -> None:
        """Install a stand-in for torch."""
        (self.site / "torch").mkdir()
        (self.site / "torch" / "__init__.py").write_text(source)

    def executable(self, name: str, script: str) -> Path:
        """Put an executable on PATH."""
        path = self.bin / name
        path.write_text(script)
        path.chmod(0o755)
        return path

    def environment(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        return {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(self.home),
            "PYTHONPATH": str(self.site),
            **(extra or {}),
        }

    def write(self, **request: Any) -> None:
        settings = {"profile": "smoke", "checks": ("*",), "benchmarks": ("*",), "gpu_required": False, "expect": {}}
        whole = Request(**{"marker": MARKER, "limit_s": 60.0, **settings, **request})
        for name, content in deployment(self._sources, whole).items():
            (self.root / name).write_bytes(content)

    def command(self) -> list[str]:
        return [sys.executable, "-B", "-u", str(self.root / "__main__.py")]

    def run(
        self,
        command: list[str] | None = None,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        **request: Any,
    ) -> Run:
        """Deploy and run to the end."""
        self.write(**request)
        started = time.monotonic()
        done = subprocess.run(
            command or self.command(),
            env=self.environment(env),
            cwd=cwd or self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )
        return Run(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


@pytest.fixture
def deployed(tmp_path: Path) -> Deployed:
    return Deployed(tmp_path)


@pytest.fixture
def pyenv():
    """A function that gives the interpreter of one Python version, or skips the test by its name."""

    def find(version: str) -> str:
        root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        for path in sorted(root.glob(f"{version}*/bin/python")):
            return str(path)
        pytest.skip(f"Python {version} is not installed under {root}")

    return find
