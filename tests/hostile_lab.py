"""What tests/docker/images/hostile tries to get into every page, and whether it did."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser

from markdown_lab import assert_whole, parse

_LIVE = re.compile(r"(?:https?://|www\.)evil|(?<!\w)@(?:acme|olga)|(?<!\w)#1\b|\bGH-1\b", re.IGNORECASE)
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
_COMMAND = re.compile(r"##\[|::(?:add-mask|set-output|set-env|error|stop-commands)\b")
# What act shows in front of a command that it obeys.
_OBEYED = re.compile(r"(?:⚙|❗|🚧|💬|❓)\s+::.*")


def assert_harmless_markdown(text: str) -> None:
    """It names the attack, and only as text: no tag, link, mention, heading or table of the image."""
    assert "EVIL" in text
    assert not _UNSEEN.search(text)
    assert_whole(f"{text.rstrip()}\n")
    tokens = parse(text)
    for before, token in itertools.pairwise(tokens):
        if before.type == "heading_open":
            assert "EVIL" not in token.content
        for child in token.children or ():
            assert child.type != "image"
            assert "evil" not in str(child.attrs.get("href", ""))
            if child.type == "text":
                assert not _LIVE.search(child.content), child.content


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attacked = [name for name, value in attrs if "evil" in str(value).lower()]
        assert all(name == "title" or name.startswith("data-") for name in attacked), f"<{tag} {attrs}>"
        self.open.append(tag)

    def handle_data(self, data: str) -> None:
        if "EVIL" in data or "alert(1)" in data:
            assert self.open[-1] not in {"script", "style", "h1"}, self.open[-1]
            self.said.append(data)

    def handle_comment(self, data: str) -> None:
        assert "EVIL" not in data


def assert_harmless_html(text: str) -> None:
    assert not _UNSEEN.search(text)
    page = _Page()
    page.feed(text)
    page.close()
    assert page.said, "the page names the attack"


def assert_harmless_log(log: str) -> None:
    """Act obeyed nothing of it: no output, no annotation, and no mask, which would show as stars."""
    obeyed = _OBEYED.findall(log)
    assert any("::stop-commands::stop-" in line for line in obeyed)
    assert [line for line in obeyed if "EVIL" in line or "add-mask" in line] == []
    assert "***" not in log
    # A runner of GitHub obeys `##[…]` anywhere in a line, which act does not know.
    free = re.sub(r"::stop-commands::(stop-[0-9a-f]+)\n.*?::\1::", "", log, flags=re.DOTALL)
    said = [line for line in free.splitlines() if re.match(r"\[[^\]]*\]   \| ", line)]
    assert any("EVIL" in line for line in said)
    assert [line for line in said if _COMMAND.search(line)] == []
    assert not any("\u202e" in line for line in said)
