"""The articles' fleet as a configuration, for the verbs that foretell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FLEET = """\
version: 1
images:
  - id: torch{torch}-cu{cuda}
    ref: pytorch/pytorch:{torch}-cuda{cuda}-cudnn8-runtime
    axes: {torch: ["2.2.0"], cuda: ["11.8", "12.1"]}
  - {id: torch2.9.1-cu13.0, ref: "pytorch/pytorch:2.9.1-cuda13.0-cudnn9-runtime"}
runners:
  rtx3090: {labels: [rtx3090], gpu: RTX 3090, driver: "550.54.15"}
  a800: {labels: [a800], gpu: A800 80GB, driver: "470.129.06"}
  cpu: {labels: [cpu]}
"""


def write_fleet(folder: Path, more: str = "") -> Path:
    """A folder that is a user's repository."""
    (folder / "cuda-matrix.yml").write_text(FLEET + more)
    return folder


def with_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, rows: str) -> None:
    """From now on this machine has an nvidia-smi that answers every query with these rows."""
    tool = folder / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{rows}\nEND\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
