"""Owns asking a program of this machine one question: bounded in time and in what it may say, whatever it does.

Must not know what the answer means (host_rules, engine_rules).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cuda_matrix.examination import ProgramAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHUNK = 1 << 16
_LAST_S = 0.5  # for a program that was killed, or has closed its output, to be gone


@dataclass(frozen=True)
class Programs:
    """The programs along `search_path`. Each is asked for at most `limit_s` seconds and `limit_bytes` of output."""

    search_path: str
    environ: Mapping[str, str]
    limit_s: float = 6.0
    limit_bytes: int = 4 << 20

    def ask(self, name: str, *arguments: str) -> ProgramAnswer:
        """What it answers; never raises. Its whole process group is gone afterwards, where the kernel lets it go."""
        path = shutil.which(name, path=self.search_path)
        if path is None:
            return ProgramAnswer(name=name)
        environment = {**self.environ, "LC_ALL": "C", "PATH": self.search_path}
        try:
            process = subprocess.Popen(
                [path, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            return ProgramAnswer(name=name, path=path, why=error.strerror or str(error))
        assert process.stdout is not None
        assert process.stderr is not None
        with process.stdout, process.stderr:
            try:
                outputs, why = self._read(process, time.monotonic() + self.limit_s)
                if not why:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_LAST_S)
            finally:
                code = process.poll()
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                with contextlib.suppress(subprocess.TimeoutExpired):  # stuck inside the kernel: it ends when it can
                    process.wait(_LAST_S)
        out, err = (bytes(each).decode("utf-8", "replace") for each in outputs)
        if not why and code is None:
            why = "it does not end"
        return ProgramAnswer(name=name, path=path, code=code, out=out, err=err, why=why)

    def _read(self, process: subprocess.Popen[bytes], end: float) -> tuple[tuple[bytearray, bytearray], str]:
        """((stdout, stderr), why it was not read to its end)."""
        outputs = (bytearray(), bytearray())
        with selectors.DefaultSelector() as selector:
            for stream, output in zip((process.stdout, process.stderr), outputs, strict=True):
                assert stream is not None
                selector.register(stream.fileno(), selectors.EVENT_READ, output)
            while selector.get_map():
                ready = selector.select(timeout=max(0.0, end - time.monotonic()))
                if not ready or time.monotonic() > end:
                    return outputs, f"no answer within {self.limit_s:.0f} s"
                for key, _ in ready:
                    data = os.read(key.fd, _CHUNK)
                    if not data:
                        selector.unregister(key.fd)
                    key.data.extend(data)
                if sum(map(len, outputs)) > self.limit_bytes:
                    return outputs, f"it says more than {self.limit_bytes >> 20} MiB"
        return outputs, ""
