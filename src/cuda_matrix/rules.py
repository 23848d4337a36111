"""Owns the rules that a prediction may cite, as sentences for people.

Must not know how a rule is applied (predict) or where the table is read from (reference).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cuda_matrix.facts import Certainty
from cuda_matrix.model import Frozen


class Rule(Frozen):
    """One row of data/rules.yml, whose header explains every field."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    title: Annotated[str, Field(max_length=80)]
    text: str
    certainty: Certainty
    sources: Annotated[tuple[str, ...], Field(min_length=1, description="In words, most often with an address.")]

    @property
    def source(self) -> str:
        """The first source: what a prediction names as the one who says so."""
        return self.sources[0]

    @property
    def decides(self) -> bool:
        """Whether a cell may fail by this rule alone."""
        return self.certainty != "uncertain"
