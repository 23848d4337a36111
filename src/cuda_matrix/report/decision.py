"""Owns how the decision is told: the headline, the sentences beside yes or no, one line per reason.

Must not know formats, nor decide anything: the gate has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cuda_matrix.gate import GOOD, GateReason, GateVerdict, Judgement, selected
from cuda_matrix.model import Verdict
from cuda_matrix.plan import Plan
from cuda_matrix.report import numbers
from cuda_matrix.report.escape import short
from cuda_matrix.report.view import CellView, ReasonLine, Row, WayOut

_TEXT = 1_000
_WAYS = 4


def headline(plan: Plan, gate: GateVerdict) -> str:
    """How many of the cells that had to run are good; of a part of the matrix, that it is one."""
    planned = sum(gate.counts.values()) - gate.counts[Verdict.SKIPPED]
    good = sum(gate.counts[verdict] for verdict in GOOD)
    part = selected(plan)
    if part is None:
        return f"GPU compatibility: {good:,} of {numbers.plural(planned, 'cell')} good"
    if good == planned:
        return f"GPU compatibility: {share(part)}, all good"
    return (
        f"GPU compatibility: {good:,} of {numbers.plural(planned, 'selected cell')} good (the matrix has {part[1]:,})"
    )


def share(part: tuple[int, int]) -> str:
    """`1 of 9 cells of the matrix`."""
    return f"{part[0]:,} of {part[1]:,} cells of the matrix"


def sentences(plan: Plan, gate: GateVerdict, cells: Sequence[Judgement]) -> tuple[str, ...]:
    """What follows `Release: yes` or `no` besides the reasons."""
    said = []
    if gate.released:
        required = any(cell.required and cell.verdict is not Verdict.SKIPPED for cell in cells)
        which = "required cell that was selected" if selected(plan) else "required cell"
        said.append(f"Every {which} is good or accepted." if required else "No required cell had to run.")
    accepted = gate.counts[Verdict.EXPECTED_FAIL]
    if accepted:
        said.append(f"{numbers.plural(accepted, 'cell fails', 'cells fail')} as expected.")
    skipped = gate.counts[Verdict.SKIPPED]
    if skipped:
        said.append(f"{numbers.plural(skipped, 'cell is', 'cells are')} skipped.")
    return tuple(said)


def reason_lines(gate: GateVerdict, rows: Iterable[Row]) -> tuple[ReasonLine, ...]:
    """The reasons, each with the images that can be used instead."""
    fields = {cell.cell: cell for row in rows for cell in row.cells if cell}
    return tuple(ReasonLine(short(reason.text, _TEXT), _ways_out(reason, fields)) for reason in gate.reasons)


def _ways_out(reason: GateReason, fields: dict[str, CellView]) -> tuple[WayOut, ...]:
    """Where one image helps every cell of the reason it stands alone, else each goes with its runner."""
    cells = [fields[name] for name in reason.cells if name in fields]
    images = {cell.alternative for cell in cells}
    if len(images) == 1:
        return tuple(WayOut(image, "") for image in images if image)
    found = dict.fromkeys((cell.alternative, cell.runner) for cell in cells if cell.alternative)
    return tuple(WayOut(image, runner) for image, runner in list(found)[:_WAYS])
