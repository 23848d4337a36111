"""Owns that our modules are compiled while torch is imported: by the supervisor, which has nothing else to do then.

No bytecode is written into an image, so each run compiles what it uses of twelve thousand lines: a tenth of the
seconds of `import torch`. The code reaches the worker through memory that both have; no process and no descriptor is
there for an image to stumble over. Whatever is missing, Python compiles as it always does.
Must not know what the modules do.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import marshal
import os
import sys

try:
    import mmap
    import zlib
except ImportError:  # an incomplete Python, which compiles as it always does
    mmap = None

_MEMORY = 4 << 20  # bytes; the code of all modules has 0.6 MB
_HEAD = 16  # bytes: the code's length and its checksum


class Ahead:
    """The code of the modules that are not imported yet: `compile_next` in the supervisor, `take` in its worker."""

    def __init__(self):
        self._codes = {}
        self._waiting = []
        self._memory = None
        with contextlib.suppress(AttributeError, OSError):  # a system that does not tell its CPUs, or gives no memory
            if mmap is not None and len(os.sched_getaffinity(0)) > 1:  # with one CPU it would only take torch's time
                self._memory = mmap.mmap(-1, _MEMORY)
                self._waiting = _not_imported()

    def compile_next(self) -> bool:
        """Compile one module, and hand all over after the last; whether there is another."""
        if self._waiting:
            module, path = self._waiting.pop()
            loader = importlib.machinery.SourceFileLoader(module, path)
            with contextlib.suppress(OSError, SyntaxError, ValueError):  # whoever imports it will see that, and say it
                self._codes[module] = path, loader.source_to_code(loader.get_data(path), path)
            if not self._waiting:
                self._hand_over(marshal.dumps(self._codes))
        return bool(self._waiting)

    def _hand_over(self, data):
        if _HEAD + len(data) <= _MEMORY:
            self._memory[_HEAD : _HEAD + len(data)] = data
            self._memory[:_HEAD] = b"%08x%08x" % (len(data), zlib.crc32(data))

    def take(self) -> None:
        """Have what was handed over used at the next imports."""
        if self._memory is None:
            return
        head = self._memory[:_HEAD]
        length = int(head[:8], 16) if head.strip(b"\0") else 0
        data = self._memory[_HEAD : _HEAD + length]
        if length and zlib.crc32(data) == int(head[8:], 16):  # a part of it would crash the reader
            finder = _Finder(marshal.loads(data))  # noqa: S302 - our own supervisor wrote it
            sys.meta_path = [finder, *sys.meta_path]  # an image may have made it a tuple


def _not_imported():
    """(module, file) of each of our modules that this process has not imported."""
    folder = os.path.dirname(os.path.abspath(__file__))
    names = [name for name, extension in map(os.path.splitext, sorted(os.listdir(folder))) if extension == ".py"]
    modules = [(f"{__package__}.{name}", os.path.join(folder, name + ".py")) for name in names]
    return [(module, path) for module, path in modules if module not in sys.modules]


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
