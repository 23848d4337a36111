"""A bug report can be pasted in public; what is taken out of it is tested with `redaction`."""

from __future__ import annotations

from cuda_matrix.bug_report import write_bug_report


def test_report_holds_what_a_maintainer_needs_and_no_secret() -> None:
    try:
        msg = "boom ghp_abcdefghij0123456789"
        raise RuntimeError(msg)
    except RuntimeError as error:
        path = write_bug_report(error, ["run", "--select", "x", "https://user:hunter2@registry.example/v2/"])
    text = path.read_text(encoding="utf-8")
    path.unlink()
    assert "RuntimeError: boom [removed]" in text
    assert "hunter2" not in text
    assert "--select" in text
    assert "python:" in text
