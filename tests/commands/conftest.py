"""Folders that a verb is called in."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretold_fleet import write_fleet


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without nvidia-smi, a folder without a configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return tmp_path


@pytest.fixture
def fleet(empty_folder: Path) -> Path:
    """The same with a configuration of known fates."""
    return write_fleet(empty_folder)
