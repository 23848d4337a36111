"""Owns how a run looks while it goes on: one living line on a terminal, plain lines in a CI log.

Must not know what the cells do. Texts may come from a registry: control characters are removed.
"""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, TextIO

from cuda_matrix.model import Verdict
from cuda_matrix.report.escape import console_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from cuda_matrix.result import CellResult

_GOOD = {Verdict.PASS, Verdict.WARN}
_QUIET_S = 10.0  # a CI log gets no more than one line of progress in this time


class ConsoleProgress:
    """Writes to `stream`; `elapsed` gives monotonic seconds. `announce` says that a cell begins: cells take long."""

    def __init__(self, stream: TextIO, total: int, elapsed: Callable[[], float], *, announce: bool = True) -> None:
        self._stream = stream
        self._total = total
        self._elapsed = elapsed
        self._done = 0
        self._announce = announce
        self._cell = ""
        self._living = stream.isatty()
        self._last_line = elapsed()

    def note(self, text: str) -> None:
        """A message about the run as a whole."""
        self._line(text)

    def second_round(self, total: int, text: str) -> None:
        """The run goes on with these many cells once more: they are counted from one again."""
        self._done, self._total = 0, total
        self._line(text)

    def stage(self, cell: str, text: str) -> None:
        """What the cell is doing now."""
        text = console_text(text)
        line = f"[{self._done + 1}/{self._total}] {cell}  {text}"
        if self._living:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r\x1b[2K{line[:width]}")
            return
        if (self._announce and cell != self._cell) or self._elapsed() - self._last_line >= _QUIET_S:
            self._cell = cell
            self._line(line)

    def finished(self, result: CellResult) -> None:
        """One cell has its result."""
        self._done += 1
        cause = f" · {result.diagnosis.cause}" if result.diagnosis and result.verdict not in _GOOD else ""
        marked = " (simulated)" if result.simulated else ""
        reason = console_text(result.reason)
        self._line(
            f"[{self._done}/{self._total}] {result.cell}  {result.verdict.value}{cause}{marked}"
            f"  {result.timings.total_s:.1f} s{'  ' + reason if reason else ''}"
        )

    def _line(self, text: str) -> None:
        self._last_line = self._elapsed()
        self._write(f"\r\x1b[2K{text}\n" if self._living else f"{text}\n")

    def _write(self, text: str) -> None:
        # Nobody may be reading any more; the run goes on, its results are files.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()
