"""Owns what one rule says of an image on a machine, and how several rules' words become one prediction.

Must not know any rule (driver_rules, code_rules, image_rules).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cuda_matrix.facts import Certainty, version_key
from cuda_matrix.prediction import PredictedVerdict, Prediction
from cuda_matrix.rules import Rule

# How far a prediction is trusted that rests on a row of this certainty (of 1).
CONFIDENCE: dict[Certainty, float] = {"verified": 0.98, "documented": 0.95, "secondary": 0.75, "uncertain": 0.5}
# A definite answer wins over "not known", and what the machine itself lacks over what the image lacks.
_RANK: dict[PredictedVerdict, int] = {"host-failed": 0, "fail": 1, "unknown": 2, "warn": 3, "pass": 4}
_FAILS = frozenset({"fail", "host-failed"})
_REMARKS, _REMARK_LENGTH, _EXPLANATION_LENGTH = 16, 500, 2_000


class Finding(NamedTuple):
    """One rule's answer. `certainty` is that of the least certain row that it rests on."""

    verdict: PredictedVerdict
    rule: str
    explanation: str
    certainty: Certainty
    cause: str | None = None
    needs_driver: str | None = None
    remarks: tuple[str, ...] = ()


def least(*certainties: Certainty) -> Certainty:
    """The least of some certainties."""
    return min(certainties, key=CONFIDENCE.__getitem__)


def settled(finding: Finding) -> Finding:
    """A row that nobody confirmed never fails a cell on its own: such a finding is a doubt."""
    if finding.verdict in {"fail", "host-failed"} and finding.certainty == "uncertain":
        text = f"Not certain: {finding.explanation}"
        return finding._replace(verdict="unknown", cause=None, explanation=text)
    return finding


def prediction(findings: Sequence[Finding], rules: dict[str, Rule]) -> Prediction:
    """The gravest finding decides, the first of equals; what the others have to say stands in its remarks.

    A pass is only as sure as the least sure finding, for it needs them all; a failure is as sure as the surest, for one
    is enough; "unknown" has no confidence at all.
    """
    said = [settled(finding) for finding in findings]
    best = min(said, key=lambda finding: _RANK[finding.verdict])
    fails = best.verdict in _FAILS
    others = [finding for finding in said if finding is not best and not (fails and finding.verdict == "pass")]
    also = [finding.explanation for finding in others if finding.verdict != "pass"]
    remarks = [*best.remarks, *also, *(remark for finding in others for remark in finding.remarks)]
    return Prediction(
        verdict=best.verdict,
        rule=best.rule,
        cause=best.cause,
        explanation=best.explanation[:_EXPLANATION_LENGTH],
        source=rules[best.rule].source,
        confidence=_confidence(best, said),
        remarks=tuple(remark[:_REMARK_LENGTH] for remark in dict.fromkeys(remarks))[:_REMARKS],
        needs_driver=_needs_driver(best, said),
    )


def _confidence(best: Finding, said: Sequence[Finding]) -> float:
    if best.verdict == "unknown":
        return 0.0
    fails = [CONFIDENCE[finding.certainty] for finding in said if finding.verdict in _FAILS]
    return max(fails) if fails else min(CONFIDENCE[finding.certainty] for finding in said)


def _needs_driver(best: Finding, said: Sequence[Finding]) -> str | None:
    """The newest of the drivers that the findings ask for; None where something fails that no driver helps."""
    if best.verdict == "pass" or any(each.verdict in _FAILS and not each.needs_driver for each in said):
        return None
    return max((each.needs_driver for each in said if each.needs_driver), key=version_key, default=None)
