"""Fixtures for every test: golden files, an emulated GitHub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from github_bed import emulated_github, github_bed

__all__ = ["emulated_github", "github_bed"]  # fixtures

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden/ anew instead of comparing")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)`: text must equal tests/golden/<name>, byte for byte."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")
        assert text == path.read_bytes().decode(), f"{name} differs; after a look at it: pytest --update-golden"

    return compare
