"""The test bed as an object: the tool as a subprocess, pointed at an engine and a registry (tests/docker)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

LABEL = "cuda-matrix.run"


@dataclass(frozen=True)
class Ended:
    """A finished process, and the most memory it held."""

    code: int
    stdout: str
    stderr: str
    max_rss_mib: float
    seconds: float


@dataclass
class Bed:
    """An engine, a registry, and the tool pointed at them."""

    registry: str
    docker_host: str
    card_file: Path | None = None
    work: Path = Path()
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def ref(self, image: str) -> str:
        return f"{self.registry}/cm/{image}:test"

    def docker(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker", *arguments], env=self._environ(), capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def containers(self, label: str = LABEL) -> list[str]:
        """Ids of our containers, running or not."""
        return self.docker("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}").split()

    def write_config(self, images: Sequence[str | dict[str, Any]], **sections: Any) -> Path:
        """A configuration with these images (names of tests/docker/images, or whole entries), in its own folder."""
        entries = [{"id": image, "ref": self.ref(image)} if isinstance(image, str) else image for image in images]
        document = {
            "version": 1,
            "images": entries,
            "runners": {"cpu": {"labels": ["cpu"]}},
            "payload": {"profile": "smoke", "checks": ["first-kernel"], "benchmarks": [], "timeout": "2m"},
            "container": {"shm_size": "1g", "memory": "4g"},
        }
        document.update(sections)
        path = self.work / f"config-{len(list(self.work.glob('config-*')))}.yml"
        path.write_text(json.dumps(document), encoding="utf-8")  # JSON is YAML
        return path

    def start(self, *arguments: str | Path, docker_host: str | None = None) -> subprocess.Popen[str]:
        """`cuda-matrix …`, not waited for."""
        process = subprocess.Popen(
            [sys.executable, "-m", "cuda_matrix", *map(str, arguments)],
            cwd=self.work,
            env=self._environ(docker_host),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, *arguments: str | Path, docker_host: str | None = None, code: int | None = 0) -> Ended:
        """`cuda-matrix …`, waited for; `code` is the exit code that it must have."""
        begin = time.monotonic()
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "cuda_matrix", *map(str, arguments)],
                cwd=self.work,
                env=self._environ(docker_host),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            err.seek(0)
            ended = Ended(process.returncode, out.read(), err.read(), usage.ru_maxrss / 1024, time.monotonic() - begin)
        assert code is None or ended.code == code, f"exit {ended.code}\n{ended.stdout}\n{ended.stderr}"
        return ended

    def results(self, config: Path, code: int = 0) -> dict[str, dict[str, Any]]:
        """Run a configuration into a fresh folder; cell id → result."""
        out = Path(f"{config}.results")
        self.run("run", "--config", config, "--out", out, code=code)
        return read_results(out)

    def _environ(self, docker_host: str | None = None) -> dict[str, str]:
        source = str(Path(__file__).parents[1] / "src")
        return {**os.environ, "DOCKER_HOST": docker_host or self.docker_host, "PYTHONPATH": source}


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Cell id → result, of every result file in a folder."""
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return {document["cell"]: document for document in documents if "cell" in document}


def cause(result: dict[str, Any]) -> str | None:
    """The cause code of a result."""
    return result["diagnosis"]["cause"] if result["diagnosis"] else None


def wait_until(what: str, condition: Callable[[], Any], seconds: float = 60) -> Any:
    """The first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    return pytest.fail(f"not within {seconds} s: {what}")
