"""Owns how the words of a failure are gathered: an exception with all that stands behind it, and what went to stderr.

Compilers and loader workers are other processes: what was wrong stands on stderr alone, and the exception knows only
that they ended. Must not know what any of the words mean.
"""

from __future__ import annotations

import os
import sys
import tempfile

LENGTH_LIMIT = 2000  # characters of one exception or line
CHAIN_LIMIT = 10  # exceptions


def exception_chain(error):
    """`Type: message` of an exception and of every one behind it, the innermost first."""
    chain = []
    while error is not None and len(chain) < CHAIN_LIMIT:
        chain.append(f"{type(error).__name__}: {error}"[:LENGTH_LIMIT])
        error = error.__cause__ or getattr(error, "inner_exception", None) or error.__context__
    return chain[::-1]


def line_of(text: str, found) -> str:
    """The whole line of a regular expression's match."""
    start = text.rfind("\n", 0, found.start()) + 1
    end = text.find("\n", found.end())
    return text[start : end if end >= 0 else len(text)].strip(" \0\t")[:LENGTH_LIMIT]


class Stderr:
    """While open, what this process and its children write to stderr goes to a file; afterwards it is `text` as well.

    It is written to the real stderr at the end, so that the log loses nothing but its order.
    """

    def __init__(self):
        self._file = None
        self._saved = None
        self.text = ""

    def __enter__(self):
        sys.stderr.flush()
        self._file = tempfile.TemporaryFile()
        self._saved = os.dup(2)
        os.dup2(self._file.fileno(), 2)
        return self

    def __exit__(self, *_):
        sys.stderr.flush()
        os.dup2(self._saved, 2)
        os.close(self._saved)
        self._file.seek(0)
        self.text = self._file.read().decode("utf-8", "replace").replace("\0", "")
        self._file.close()
        sys.stderr.write(self.text)
        sys.stderr.flush()
