"""Owns the paste-ready report of a bug of ours; must not know the verbs. Written without secrets."""

from __future__ import annotations

import platform
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from cuda_matrix.redaction import redact
from cuda_matrix.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence


def write_bug_report(error: BaseException, arguments: Sequence[str]) -> Path:
    """Write versions, arguments and traceback to a new file and return its path."""
    text = "\n".join(
        [
            "cuda-matrix bug report",
            f"version:   {__version__}",
            f"python:    {sys.version.splitlines()[0]}",
            f"platform:  {platform.platform()}",
            f"arguments: {list(arguments)}",
            "",
            *traceback.format_exception(error),
        ]
    )
    with tempfile.NamedTemporaryFile(
        "w", prefix="cuda-matrix-bug-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(redact(text))
    return Path(file.name)
