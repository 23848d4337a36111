"""Owns what every row of a table of facts has: who says so, and how sure that is; and the order of versions.

Must not know any table.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from pydantic import Field

from cuda_matrix.model import Frozen

# verified: the artefact itself was examined. documented: the vendor's page. secondary: a copy or a third party's table.
# uncertain: plausible, not confirmed; never enough to fail a cell on its own.
Certainty = Literal["verified", "documented", "secondary", "uncertain"]


class Table(Frozen):
    """Base of a whole table. It is hashed by identity, so that what is looked up in it again and again can be kept."""

    def __hash__(self) -> int:
        return id(self)


class Fact(Frozen):
    """Base of a row: it has sources, and says how certain it is."""

    certainty: Certainty
    sources: tuple[str, ...] = Field(min_length=1, description="Keys of `sources` of the row's table.")
    note: str = ""

    @property
    def decides(self) -> bool:
        """Whether a cell may fail on this row alone."""
        return self.certainty != "uncertain"


@lru_cache(maxsize=4_096)  # a plan of 10,000 cells compares the same few hundred versions a million times
def version_key(version: str) -> tuple[int, ...]:
    """`525.60.13` → (525, 60, 13): versions compare by number, not by text. What follows a `+` is left out."""
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+", maxsplit=1)[0]))


@lru_cache(maxsize=4_096)
def major_minor(version: str) -> str | None:
    """`2.5.1+cu124`, `2.5.0a0+abc`, `v2.5` → `2.5`; `12.4.1` → `12.4`; None where no two numbers lead the text."""
    match = re.match(r"v?(\d{1,4})\.(\d{1,4})(?!\d)", version.strip(), re.ASCII)
    return f"{int(match[1])}.{int(match[2])}" if match else None
