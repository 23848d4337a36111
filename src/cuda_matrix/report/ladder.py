"""Owns how a text gets within a limit of bytes: ever shorter renderings of the same, each whole, never a cut.

Must not know what is rendered. A text that is cut can end inside a fence, a table or `<details>`; a rung cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


def fitting(rungs: Iterable[Callable[[], str]], limit_bytes: int) -> str:
    """The first rendering of at most `limit_bytes` bytes of UTF-8; where none fits, the last.

    The last rung must be bounded by construction: what it lists is counted, and each text in it is short.
    """
    text = ""
    for render in rungs:
        text = render()
        if size_bytes(text) <= limit_bytes:
            break
    return text


def size_bytes(text: str) -> int:
    """Bytes of UTF-8, the unit of GitHub's limits."""
    return len(text.encode("utf-8", "replace"))
