"""Reads the tables of an HTML page as rows of cells; a line break inside a cell stays one."""

from __future__ import annotations

from html.parser import HTMLParser


def table_rows(html: str) -> list[list[str]]:
    """The text of every cell of every row, in order, whatever table it stands in."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.rows


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[list[str]] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - its signature
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"} and self.rows:
            self.rows[-1].append("")
            self._open = True
        elif tag in {"br", "p", "li"} and self._open and self.rows[-1]:
            self.rows[-1][-1] += "\n"

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th", "tr", "table"} and self._open:
            self._open = False
            self.rows[-1][-1:] = ["\n".join(part.strip() for part in self.rows[-1][-1].split("\n") if part.strip())]

    def handle_data(self, data: str) -> None:
        if self._open and self.rows[-1]:
            self.rows[-1][-1] += " ".join(data.split()) if data.strip() else " "
