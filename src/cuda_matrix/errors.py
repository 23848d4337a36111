"""Owns the exceptions a user can meet, one per exit code; must not know who raises or prints them.

A cell's failure is data (a `Verdict`), never an exception: exceptions mean a wrong configuration,
broken infrastructure, an interruption, or a bug of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every verb (documented in README.md)."""

    GOOD = 0
    GATE_SAYS_NO = 1
    CONFIGURATION = 2
    INFRASTRUCTURE = 3
    BUG = 4
    INTERRUPTED = 130


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a user's file. `line` and `column` count from 1; 0 means "the whole file"."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class CudaMatrixError(Exception):
    """Base of every expected error: a message, and a hint that says the way out."""

    exit_code = ExitCode.BUG

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigurationError(CudaMatrixError):
    """The user's files or arguments are wrong; `problems` holds every one found, in file order."""

    exit_code = ExitCode.CONFIGURATION

    def __init__(self, message: str, *, problems: tuple[Problem, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class InfrastructureError(CudaMatrixError):
    """Docker, a registry or GitHub is out of reach: nothing can be said about any image."""

    exit_code = ExitCode.INFRASTRUCTURE


class Interrupted(BaseException):
    """Ctrl-C, SIGTERM or SIGHUP. Raised by the signal handler, so that every `with` block cleans up.

    No `Exception`: libraries that catch those would swallow it.
    """
