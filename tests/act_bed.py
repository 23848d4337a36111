"""A workflow of a user's repository, run by act on this host: our reusable workflow, our action, real containers.

`.ci/run` installs act; by hand: GOBIN=/var/cache/cuda-matrix-ci/bin go install github.com/nektos/act@v0.2.89, and that
folder on PATH.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from container_bed import Bed
from github_bed import GithubBed

ROOT = Path(__file__).parent.parent
STAND_INS = ROOT / "tests/docker/act"
HOW = "needs act: GOBIN=/var/cache/cuda-matrix-ci/bin go install github.com/nektos/act@v0.2.89, and that folder on PATH"
LIMIT_S = 240
_SHIPPED = ("action.yml", "action", "src", "requirements.lock", "Dockerfile", ".dockerignore", ".github/workflows")


def released(folder: Path) -> Path:
    """Our repository as a release would have it: a git checkout of what the action needs.

    Less `queue: max`, which GitHub's own parser knows and the schema that act holds workflows against does not.
    """
    for name in _SHIPPED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    workflow = folder / ".github/workflows/matrix.yml"
    text = workflow.read_text(encoding="utf-8")
    assert "queue: max" in text
    workflow.write_text(re.sub(r"\n *queue: max", "", text), encoding="utf-8")
    commit_all(folder)
    return folder


def commit_all(folder: Path) -> str:
    """A new repository with one commit of everything, older than any result of its files; its id."""
    environ = {**os.environ, "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z"}
    shutil.rmtree(folder / ".git", ignore_errors=True)
    name = ["-c", "user.name=dana", "-c", "user.email=dana@example.org", "-c", "init.defaultBranch=main"]
    for arguments in (["init", "--quiet"], ["add", "--all"], [*name, "commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *name, *arguments], cwd=folder, check=True, capture_output=True, env=environ)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True)
    return head.stdout.strip()


@dataclass
class Ran:
    """One run of a workflow: act's exit code and log."""

    code: int
    log: str

    def job(self, name: str) -> str:
        """The lines of one job, by the end of its name."""
        return "\n".join(line for line in self.log.splitlines() if re.match(rf"\[[^\]]*{re.escape(name)} *\]", line))

    def ended(self, name: str) -> str:
        """`succeeded`, `failed`, or empty where the job did not run."""
        found = re.findall(r"🏁  Job (\w+)", self.job(name))
        return found[-1] if found else ""


@dataclass
class Workflow:
    """A caller's repository beside an emulated GitHub and a Docker Engine."""

    bed: Bed
    github: GithubBed
    ours: Path
    home: Path  # act's cache, and with it the tool cache of its runners
    run_id: int = 100
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def caller(self) -> Path:
        return self.bed.work / "caller"

    @property
    def artifacts(self) -> Path:
        return self.bed.work / "artifacts"

    def write(self, caller: str, config: Mapping[str, Any]) -> str:
        """A repository with one of our callers and this configuration; its commit."""
        target = self.caller / ".github/workflows/gpu.yml"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "workflows" / caller, target)
        (self.caller / "cuda-matrix.yml").write_text(json.dumps(config), encoding="utf-8")
        return commit_all(self.caller)

    def stand_at(self, sha: str) -> None:
        """Let the checkout say that it is at this commit of the emulated GitHub: act asks it for GITHUB_SHA."""
        (self.caller / ".git/refs/heads/main").write_text(f"{sha}\n", encoding="ascii")

    def pull_event(self, number: int, base: str, *, head: str = "", fork: str = "") -> dict[str, Any]:
        """As GitHub tells of a pull request; `base` is a commit of the caller's checkout."""
        here = {"full_name": self.github.repository}
        pull = self.github.ask("GET", self.github.here(f"/pulls/{number}"))
        source = {"sha": head or pull["head"]["sha"], "ref": "work", "repo": {"full_name": fork} if fork else here}
        target = {"sha": base, "ref": "main", "repo": here}
        return {
            "action": "opened",
            "number": number,
            "pull_request": {"number": number, "head": source, "base": target},
            "repository": here,
        }

    def start(
        self, event: str, payload: Mapping[str, Any], *, token: str = "", options: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        """Act, not waited for."""
        file = self.bed.work / "event.json"
        file.write_text(json.dumps(payload), encoding="utf-8")
        self.artifacts.mkdir(exist_ok=True)
        environment = {
            "GITHUB_API_URL": self.github.url,
            "GITHUB_GRAPHQL_URL": f"{self.github.url}/graphql",
            "GITHUB_REPOSITORY": self.github.repository,
            "GITHUB_RUN_ID": str(self.run_id),
            "CUDA_MATRIX_ACT_ARTIFACTS": str(self.artifacts),
            "DOCKER_HOST": self.bed.docker_host,
        }
        command = ["act", event, "--eventpath", str(file), "--secret", "GITHUB_TOKEN", "--concurrent-jobs", "1"]
        command += ["--local-repository", f"org/cuda-matrix@v1={self.ours}"]
        for action, commit in re.findall(r"actions/([a-z-]+)@([0-9a-f]{40})", self._texts()):
            if (STAND_INS / action).is_dir():
                command += ["--local-repository", f"actions/{action}@{commit}={STAND_INS / action}"]
        for label in ("ubuntu-24.04", "self-hosted", "cpu", "rtx3090"):
            command += ["-P", f"{label}=-self-hosted"]
        for name, value in environment.items():
            command += ["--env", f"{name}={value}"]
        process = subprocess.Popen(
            [*command, *options],
            cwd=self.caller,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "GITHUB_TOKEN": token or self.github.bot,
                "LC_ALL": "C.UTF-8",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, event: str, payload: Mapping[str, Any], *, token: str = "", options: Sequence[str] = ()) -> Ran:
        """Act, waited for."""
        process = self.start(event, payload, token=token, options=options)
        log, _ = process.communicate(timeout=LIMIT_S)
        (self.bed.work / f"act-{self.run_id}.log").write_text(log, encoding="utf-8")
        return Ran(process.returncode, log)

    def cleanup(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.communicate()

    def _texts(self) -> str:
        files = [*self.caller.rglob("*.yml"), *(self.ours / ".github/workflows").glob("*.yml")]
        return "\n".join(file.read_text(encoding="utf-8") for file in files)

    def results(self) -> dict[str, dict[str, Any]]:
        """Cell → result, of every lane that uploaded."""
        found = [json.loads(path.read_text(encoding="utf-8")) for path in self.artifacts.glob("*-lane-*/*.json")]
        return {one["cell"]: one for one in found if "cell" in one}
