"""What a check of a table has found: differences, and what could not be asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Outcome:
    """One table against its sources. A difference is for a person to decide; what was not reached says nothing."""

    table: str
    compared: int = 0
    differences: list[str] = field(default_factory=list)
    unreachable: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report on this table, most important first."""
        said = [f"{self.table}: {self.compared} compared, {len(self.differences)} differ"]
        said += [f"  differs: {text}" for text in self.differences]
        hosts: dict[str, list[str]] = {}
        for url in self.unreachable:
            hosts.setdefault(urlsplit(url).netloc, []).append(url)
        for _, urls in sorted(hosts.items()):
            rest = f", and {len(urls) - 1} more there" if len(urls) > 1 else ""
            said.append(f"  could not be reached: {urls[0]} ({self.unreachable[urls[0]]}){rest}")
        return said + [f"  note: {text}" for text in self.notes]
