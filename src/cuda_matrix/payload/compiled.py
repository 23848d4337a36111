"""Owns that our modules are compiled while torch is imported: in a process of its own, where there is a second CPU.

No bytecode is written into an image, so each run compiles what it uses of twelve thousand lines: a tenth of the
seconds of `import torch`, which nobody needs to wait for. Whatever goes wrong here, Python compiles as it always does.
Must not know what the modules do.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import marshal
import os
import select
import sys

from . import events, processes

_PATIENCE_S = 0.5  # for a process that is long done, unless the host is starved
_CHUNK = 1 << 20


class Ahead:
    """A process that compiles every module of this package that is not imported yet. End it with `take` or `stop`."""

    def __init__(self):
        self._pid = self._read = None
        self._kill = True
        if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
            return
        try:
            self._read, write = os.pipe()
        except OSError:
            return
        try:
            self._pid = os.fork()
        except OSError:  # no process to be had is nothing that a check could be charged with
            self.stop()
        if self._pid == 0:
            _write_code(write)
        os.close(write)

    def take(self) -> None:
        """Have what it compiled used at the next imports."""
        if self._read is None:
            return
        try:
            codes = marshal.loads(self._all())  # noqa: S302 - a process of ours wrote it
        except (EOFError, OSError, TypeError, ValueError):  # it did not get to its end, or torch closed the pipe
            return
        finally:
            self.stop()
        sys.meta_path.insert(0, _Finder(codes))

    def _all(self) -> bytes:
        data = []
        poller = select.poll()
        poller.register(self._read, select.POLLIN)
        while poller.poll(1e3 * _PATIENCE_S):
            data.append(os.read(self._read, _CHUNK))
            if not data[-1]:
                self._kill = False  # it has ended: where the image reaps our children, its number may be another's
                break
        return b"".join(data)

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self._pid is not None:
            processes.end(self._pid, kill=self._kill)
        if self._read is not None:
            with contextlib.suppress(OSError):
                os.close(self._read)
        self._pid = self._read = None


def _write_code(descriptor):
    """{module: (file, code)} into the pipe, and out: nothing of the worker's own may run here."""
    try:
        found = {}
        folder = os.path.dirname(os.path.abspath(__file__))
        for entry in sorted(os.listdir(folder)):
            name, extension = os.path.splitext(entry)
            module, path = f"{__package__}.{name}", os.path.join(folder, entry)
            if extension == ".py" and module not in sys.modules:
                loader = importlib.machinery.SourceFileLoader(module, path)
                found[module] = path, loader.source_to_code(loader.get_data(path), path)
        events.write_all(descriptor, marshal.dumps(found))
    finally:
        os._exit(0)


class _Finder:
    """Finds the modules of which the code is here; every other finder stands behind it."""

    def __init__(self, codes: dict):
        self._codes = codes

    def find_spec(self, name, _path=None, _target=None):
        """As importlib asks for it."""
        if name not in self._codes:
            return None
        path, code = self._codes[name]
        return importlib.util.spec_from_file_location(name, path, loader=_Loader(name, path, code))


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from its code; its source is read only for a traceback."""

    def __init__(self, name: str, path: str, code):
        super().__init__(name, path)
        self._code = code

    def get_code(self, _fullname):
        """As importlib asks for it."""
        return self._code
