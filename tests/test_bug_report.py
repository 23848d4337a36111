"""A bug report can be pasted in public."""

from __future__ import annotations

import pytest

from cuda_matrix.bug_report import redact, write_bug_report


@pytest.mark.parametrize(
    "secret",
    [
        "ghp_abcdefghij0123456789",
        "ghs_abcdefghij0123456789",
        "github_pat_11ABC_def",
        "https://user:hunter2@registry.example/v2/",
        "TOKEN=abc123",
        "password=abc123",
    ],
)
def test_secrets_are_removed(secret: str) -> None:
    cleaned = redact(f"before {secret} after")
    assert "[removed]" in cleaned
    assert cleaned.startswith("before ")
    assert cleaned.endswith(" after")
    assert not any(part in cleaned for part in ("hunter2", "abc123", "abcdefghij", "11ABC"))


def test_ordinary_text_stays() -> None:
    text = "docker://registry.example/cm:test failed with exit code 3"
    assert redact(text) == text


def test_report_holds_what_a_maintainer_needs() -> None:
    try:
        msg = "boom ghp_abcdefghij0123456789"
        raise RuntimeError(msg)
    except RuntimeError as error:
        path = write_bug_report(error, ["run", "--select", "x"])
    text = path.read_text(encoding="utf-8")
    path.unlink()
    assert "RuntimeError: boom [removed]" in text
    assert "--select" in text
    assert "python:" in text
