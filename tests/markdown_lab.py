"""What GitHub would make of a Markdown text: whether it is whole, and which HTML of ours or of others it holds."""

from __future__ import annotations

import re

from markdown_it import MarkdownIt
from markdown_it.token import Token

OURS = re.compile(
    r"</?details>|</?summary>|<br>|</?code>|</a>|<a id=\"cell-[\w.-]+\">|<details><summary>[\w, ]+</summary>"
    r"|<!-- cuda-matrix[:\w-]+ ?[\w./-]* -->"
)


def parse(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(text)


def html_of(tokens: list[Token]) -> list[str]:
    """Every piece of HTML that would reach the page, in order."""
    found: list[str] = []
    for token in tokens:
        if token.type == "html_block":
            found += [line.strip() for line in token.content.splitlines() if line.strip()]
        found += [child.content for child in token.children or () if child.type == "html_inline"]
    return found


def assert_whole(text: str) -> None:
    """Every fence is closed, every <details> too, no table is torn, and all HTML is ours."""
    tokens, lines = parse(text), text.splitlines()
    for token in tokens:
        if token.type == "fence":
            assert token.map is not None
            assert lines[token.map[1] - 1].strip() == token.markup, f"an open fence: {token.content[:80]!r}"
    pieces = html_of(tokens)
    assert [piece for piece in pieces if not OURS.fullmatch(piece)] == []
    depth = 0
    for piece in pieces:
        depth += piece.count("<details>") - piece.count("</details>")
        assert depth in {0, 1}
    assert depth == 0, "an open <details>"
    rows = [token for token in tokens if token.type == "tr_open"]
    written = [line for line in _outside_fences(tokens, lines) if line.startswith("| ") and line.endswith(" |")]
    assert len(rows) == len(written) - sum(line.startswith(("| ---", "| :-")) for line in written)
    assert text.endswith("\n")
    assert text.endswith("\n\n") is False


def _outside_fences(tokens: list[Token], lines: list[str]) -> list[str]:
    inside = {n for token in tokens if token.type == "fence" and token.map for n in range(*token.map)}
    return [line for number, line in enumerate(lines) if number not in inside]
