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
from cuda_matrix.reference import load_reference

MARKER = "0123456789abcdef" * 2
LAB = Path(__file__).resolve().parent.parent / "lab"

# A sitecustomize.py: wraps the loader of torch so that something is done as soon as torch is there.
AFTER_TORCH = """
import importlib.abc, importlib.machinery, json, os, sys

def after(torch):
    CALLS

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "torch":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module
            def exec_module(module):
                sys.meta_path[:] = [each for each in sys.meta_path if each is not self]
                load(module)
                after(module)
            spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""


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
        self._sources = payload_sources(load_reference())
        self._search_path = [self.site]
        self._hooks: dict[str, str] = {}
        self.variables: dict[str, str] = {}

    def items(self, *rows: dict[str, Any], checks: str = "", budgets_s: dict[str, float] | None = None) -> None:
        """Replace the table of items, and add a module `checks_stub` that it may refer to."""
        self._sources["items.json"] = json.dumps({"items": rows, "budgets_s": budgets_s or {}}).encode()
        self._sources["cuda_matrix_payload/checks_stub.py"] = checks.encode()

    def module(self, name: str, source: str) -> None:
        """Add or replace a module of the payload."""
        self._sources[f"cuda_matrix_payload/{name}.py"] = source.encode()

    def cards(self, *rows: dict[str, Any]) -> None:
        """Replace the table of cards."""
        self._sources["cards.json"] = json.dumps(rows).encode()

    def script(self, edit) -> None:
        """Change start.sh."""
        self._sources["start.sh"] = edit(self._sources["start.sh"].decode()).encode()

    def torch(self, source: str) -> None:
        """Install a stand-in for torch."""
        (self.site / "torch").mkdir()
        (self.site / "torch" / "__init__.py").write_text(source)

    def use(self, site: Path) -> None:
        """Let the payload find the packages of another site directory, after those of its own."""
        self._search_path.append(site)

    def mutate(self, source: str) -> None:
        """Break torch: `source` defines `mutate(torch)`, which every payload process calls right after its import."""
        (self.site / "mutation.py").write_text(source)
        self._hook("mutation", "mutate(torch)")

    def pretend_cuda(self, **settings: Any) -> None:
        """Let a torch without a card behave as if it had some (tests/lab/pretend_cuda.py)."""
        for part in (LAB / "pretend_cuda.py", *LAB.glob("pretend_cuda_*.py")):
            (self.site / part.name).write_bytes(part.read_bytes())
        self.variables["CM_PRETEND_CUDA"] = json.dumps(settings)
        self._hook("pretend_cuda", "install(torch, json.loads(os.environ['CM_PRETEND_CUDA']))")

    def _hook(self, module: str, call: str) -> None:
        """Have `module.call` done after `import torch`; a mutation after the pretence."""
        self._hooks[module] = call
        order = sorted(self._hooks, key=["pretend_cuda", "mutation"].index)
        calls = "".join(f"import {name}; {name}.{self._hooks[name]}\n    " for name in order)
        (self.site / "sitecustomize.py").write_text(AFTER_TORCH.replace("CALLS", calls))

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
            "PYTHONPATH": os.pathsep.join(map(str, self._search_path)),
            # Threads of small operations wait for each other where several tests run at a time.
            "OMP_NUM_THREADS": "1",
            **self.variables,
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
            timeout=280,  # less than pytest's own
            check=False,
        )
        return Run(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


@pytest.fixture
def deployed(tmp_path: Path) -> Deployed:
    return Deployed(tmp_path)


@pytest.fixture(scope="session")
def real_torch() -> Path:
    """A site directory with a real PyTorch for this Python: $CUDA_MATRIX_TEST_TORCH."""
    place = os.environ.get("CUDA_MATRIX_TEST_TORCH")
    if not place:
        pytest.skip("needs a real PyTorch: set CUDA_MATRIX_TEST_TORCH to a site directory (tests/README.md)")
    return Path(place)


@pytest.fixture
def pyenv():
    """A function that gives the interpreter of one Python version, or skips the test by its name."""

    def find(version: str) -> str:
        root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        for path in sorted(root.glob(f"{version}*/bin/python")):
            return str(path)
        pytest.skip(f"Python {version} is not installed under {root}")

    return find
