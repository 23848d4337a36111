"""Owns running a cell in an interpreter of this host: the bare-metal and Conda case of the articles.

Must not know checks or verdicts. The image of the cell is only a name here: what ran is in the facts.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from cuda_matrix.errors import ConfigurationError
from cuda_matrix.execute import LaunchFailed, planned_identity
from cuda_matrix.model import EngineName
from cuda_matrix.result import Exit, ImageIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cuda_matrix.execute import Channel, Job

# What an interpreter and CUDA need. An allow-list, because a runner's environment holds tokens.
_KEEP = {
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TMPDIR",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "PYTHONHOME",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
}
_KEEP_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "NCCL_", "CONDA_", "OMP_", "MKL_", "OPENBLAS_", "TORCH_", "PYTORCH_")
_FIND_TORCH = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)"
_FIND_TIMEOUT_S = 20
_CHUNK = 1 << 16
_LAST_WORDS_S = 2.0  # to drain the pipes of a process that has ended


def find_python(environ: Mapping[str, str]) -> str | None:
    """The first interpreter that has torch, else the first one at all, else None.

    Order: the active virtual or Conda environment, then `python3` and `python` along PATH.
    """
    folders = [Path(environ[name]) / "bin" for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if environ.get(name)]
    folders += [Path(folder) for folder in environ.get("PATH", os.defpath).split(os.pathsep) if folder]
    seen: dict[str, str] = {}
    for folder in folders:
        for name in ("python3", "python"):
            found = shutil.which(name, path=str(folder))
            if found:
                seen.setdefault(os.path.realpath(found), found)
    for candidate in seen.values():
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            answer = subprocess.run(
                [candidate, "-c", _FIND_TORCH], timeout=_FIND_TIMEOUT_S, capture_output=True, check=False
            )
            if answer.returncode == 0:
                return candidate
    return next(iter(seen.values()), None)


class LocalSession:
    """One payload process of this host, in a process group of its own."""

    def __init__(self, process: subprocess.Popen[bytes], identity: ImageIdentity) -> None:
        self._process = process
        self.identity = identity
        self.pull_s = 0.0
        self.start_s = 0.0

    def chunks(self) -> Iterator[tuple[Channel, bytes]]:
        """Output until both pipes are closed or the process has ended."""
        streams: dict[int, Channel] = {}
        with selectors.DefaultSelector() as selector:
            pipes: dict[Channel, IO[bytes] | None] = {"stdout": self._process.stdout, "stderr": self._process.stderr}
            for channel, pipe in pipes.items():
                assert pipe is not None
                selector.register(pipe.fileno(), selectors.EVENT_READ)
                streams[pipe.fileno()] = channel
            last_call: float | None = None
            while streams:
                ready = selector.select(timeout=0.2)
                if self._process.poll() is not None:
                    # A grandchild may hold the pipe open, and talk, for ever; the payload itself has ended.
                    last_call = last_call or time.monotonic() + _LAST_WORDS_S
                    if not ready or time.monotonic() > last_call:
                        return
                for key, _events in ready:
                    data = os.read(key.fd, _CHUNK)
                    if data:
                        yield streams[key.fd], data
                    else:
                        selector.unregister(key.fd)
                        del streams[key.fd]

    def kill(self) -> None:
        """Kill the whole process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self) -> Exit:
        """Exit code or signal of the payload."""
        code = self._process.wait()
        return Exit(code=code, signal=-code if code < 0 else None)


class LocalEngine:
    """Runs cells with `python`, or with whatever the payload's start script finds when it is None."""

    name = EngineName.LOCAL

    def __init__(self, python: str | None, environ: Mapping[str, str]) -> None:
        if python is not None and shutil.which(python, path=environ.get("PATH")) is None:
            msg = f"{python} is not a program on this machine"
            raise ConfigurationError(msg, hint="give --python the path of an interpreter")
        self._python = python
        self._environ = environ

    @contextlib.contextmanager
    def launch(self, job: Job, progress: Callable[[str], None]) -> Iterator[LocalSession]:
        """Start the payload from a temporary directory; kill its process group and remove the directory afterwards."""
        begin = time.monotonic()
        identity = planned_identity(job.image)
        with tempfile.TemporaryDirectory(prefix="cuda-matrix-") as folder:
            for name, content in job.files.items():
                path = Path(folder) / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            command = [self._python, "-B", "-u", folder] if self._python else ["/bin/sh", f"{folder}/start.sh"]
            environment = {**_environment(self._environ), **job.image.env}
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise LaunchFailed(stage="start", text=str(error), identity=identity) from error
            session = LocalSession(process, identity)
            session.start_s = time.monotonic() - begin
            progress(f"running with {self._python or 'the first Python found'}")
            try:
                yield session
            finally:
                session.kill()
                process.wait()
                for pipe in (process.stdout, process.stderr):
                    assert pipe is not None
                    pipe.close()


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name in _KEEP or name.startswith(_KEEP_PREFIXES)}
