"""Owns what is said of a cell before anything is pulled: one word, the rule that says it, and how sure that is.

Must not know how it is worked out (predict) or what becomes of it (matrix, report).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cuda_matrix.model import Frozen

# pass: every rule that could be tried lets it run. warn: it runs on a condition that the rule names. fail: the image
# does not run on such a machine. host-failed: the machine itself is out of order (its driver does not know its card),
# whatever the image. unknown: a fact that a rule needs is not known; never taken for a pass.
PredictedVerdict = Literal["pass", "warn", "fail", "host-failed", "unknown"]


class Prediction(Frozen):
    """What the facts say of one image on one card with one driver."""

    verdict: PredictedVerdict
    rule: str = Field(description="Id of the rule (data/rules.yml) that decided.")
    cause: str | None = Field(
        default=None, description="Code of the catalogue; None where nothing is expected to fail."
    )
    explanation: Annotated[str, Field(max_length=2_000)] = Field(description="One sentence with this cell's figures.")
    source: str = Field(description="Who says so: URL or document.")
    confidence: float = Field(ge=0, le=1)
    remarks: Annotated[tuple[Annotated[str, Field(max_length=500)], ...], Field(max_length=16)] = Field(
        default=(),
        description="What else follows from the facts, for example the limits of minor-version compatibility.",
    )
    needs_driver: str | None = Field(
        default=None, description="The oldest driver with which it would run, where known."
    )

    @property
    def fails(self) -> bool:
        """True where the cell is said not to work, whoever is to blame."""
        return self.verdict in {"fail", "host-failed"}

    @property
    def runs(self) -> bool:
        """True where the cell is said to work, with or without a condition."""
        return self.verdict in {"pass", "warn"}
