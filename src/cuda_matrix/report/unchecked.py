"""Owns what a good cell does not show: its checks that were skipped or came to no answer, and why.

Must not know formats. Cells that failed show every check in their own section.
"""

from __future__ import annotations

from collections.abc import Sequence

from cuda_matrix.gate import GOOD, Judgement
from cuda_matrix.model import CheckStatus
from cuda_matrix.report.escape import short
from cuda_matrix.report.view import Unchecked

NO_REASON = "no reason was given"

_SAYS_NOTHING = (CheckStatus.SKIP, CheckStatus.UNKNOWN)
_REASON_LENGTH = 300


def unchecked(cells: Sequence[Judgement]) -> tuple[Unchecked, ...]:
    """Groups of checks that say the same of the same cells, in the order in which they were met."""
    good = [cell for cell in cells if cell.verdict in GOOD and cell.result]
    where: dict[tuple[str, str, str], list[str]] = {}  # check, status, reason → cells
    for cell in good:
        for item in (*cell.result.checks, *cell.result.benchmarks) if cell.result else ():
            if item.status in _SAYS_NOTHING:
                reason = short(item.summary or item.evidence or NO_REASON, _REASON_LENGTH)
                where.setdefault((item.id, item.status.value, reason), []).append(cell.cell)
    groups: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for (check, status, reason), names in where.items():
        groups.setdefault((status, reason, tuple(names)), []).append(check)
    return tuple(
        Unchecked(tuple(checks), status, reason, names, everywhere=1 < len(names) == len(good))
        for (status, reason, names), checks in groups.items()
    )
