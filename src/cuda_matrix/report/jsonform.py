"""Owns the machine-readable report: `report.json`, a versioned document.

Must not know how it looks to a person. Keys are only added within one `report_version`.
"""

from __future__ import annotations

import math

from pydantic import Field

from cuda_matrix.model import Frozen, Verdict
from cuda_matrix.report.view import CellView, Foretold, Provenance, View, Way
from cuda_matrix.report.words import CPU, SIMULATED

REPORT_VERSION = 1


class GateForm(Frozen):
    """The decision."""

    released: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]


class RunnerForm(Frozen):
    """One column."""

    runner: str
    gpu: str
    details: tuple[str, ...]
    source: str = Field(description="measured, simulated or configured")


class CellForm(Frozen):
    """One cell."""

    cell: str
    image: str
    runner: str
    verdict: Verdict
    required: bool
    cause: str = Field(description="Cause or other exact word for the verdict.")
    reason: str
    images_per_s: float | None = Field(description="ResNet-50 training, median; None where there is no such figure.")
    fastest: bool = Field(description="The fastest image on this runner among figures of one kind.")
    cpu: bool
    simulated: bool
    alternative: str | None = Field(description="Another image of this matrix that works on this runner.")


class PerformanceForm(Frozen):
    """One line of the performance table, as shown."""

    cell: str
    gpu: str
    cuda: str
    torch: str
    images_per_s: str
    p5_p95: str
    memory_gb: str
    stable: str
    how: str


class ProvenanceForm(Frozen):
    """How the figures of one cell were made."""

    cell: str
    image: str
    digest: str
    card: str
    driver: str
    profile: str
    engine: str
    date: str
    attempt: int
    tool_version: str
    payload_sha256: str
    run_id: str


class UncheckedForm(Frozen):
    """Checks that were skipped, or came to no answer, in cells that are good."""

    checks: tuple[str, ...]
    status: str
    reason: str
    cells: tuple[str, ...]


class ForetellingForm(Frozen):
    """A cell that was not as predicted."""

    cell: str
    kind: str = Field(description="miss; right verdict, other cause; not foretold")
    predicted: str
    rule: str
    source: str
    measured: str
    note: str


class ForetoldForm(Frozen):
    """Predictions against what was measured; `right` of `comparable` cells were foretold."""

    right: int
    comparable: int
    other_cause: int = Field(description="Right verdict, other cause; among the comparable.")
    not_foretold: int = Field(description="Failed for a reason that no rule foresees; not among the comparable.")
    unknown: int = Field(description="A fact was missing, so nothing was predicted.")
    not_comparable: int = Field(description="Predicted, and no answer came.")
    notes: tuple[str, ...]
    cells: tuple[ForetellingForm, ...]


class WayStepForm(Frozen):
    """One question of the diagnosis tree (data/diagnosis-tree.yml) and its answer, empty where there is none."""

    node: str
    question: str
    answer: str
    how: str = Field(description="seen, or why the answer stands, or is missing, without having been seen")
    evidence: str


class WayForm(Frozen):
    """The way of one failed cell down the diagnosis tree; `leaf` is None where it ended before one."""

    cell: str
    steps: tuple[WayStepForm, ...]
    leaf: str | None
    end: str
    do: tuple[str, ...]


class ReportForm(Frozen):
    """The whole report."""

    report_version: int = REPORT_VERSION
    headline: str
    gate: GateForm
    simulated: str
    counts: dict[Verdict, int]
    runners: tuple[RunnerForm, ...]
    cells: tuple[CellForm, ...]
    performance: tuple[PerformanceForm, ...]
    provenance: tuple[ProvenanceForm, ...]
    unchecked: tuple[UncheckedForm, ...] = ()
    foretold: ForetoldForm | None = Field(default=None, description="None where no cell was predicted.")
    ways: tuple[WayForm, ...] = ()
    unreadable: tuple[str, ...]


def report_form(view: View) -> ReportForm:
    """The document. Texts are as they came: whoever shows them escapes them."""
    return ReportForm(
        headline=view.headline,
        gate=GateForm(released=view.released, reasons=tuple(r.text for r in view.gate_reasons), notes=view.gate_notes),
        simulated=view.simulated,
        counts=dict(view.counts),
        runners=tuple(
            RunnerForm(runner=column.runner, gpu=column.title, details=column.details, source=column.source)
            for column in view.columns
        ),
        cells=tuple(_cell(cell) for row in view.rows for cell in row.cells if cell),
        performance=tuple(
            PerformanceForm(
                cell=row.cell,
                gpu=row.gpu,
                cuda=row.cuda,
                torch=row.torch,
                images_per_s=row.images_per_s,
                p5_p95=row.spread,
                memory_gb=row.memory_gb,
                stable=row.stable,
                how=row.how,
            )
            for row in view.performance
        ),
        provenance=tuple(_provenance(row) for row in view.provenance),
        unchecked=tuple(
            UncheckedForm(checks=row.checks, status=row.status, reason=row.reason, cells=row.cells)
            for row in view.unchecked
        ),
        foretold=_foretold(view.foretold) if view.foretold.sentence else None,
        ways=tuple(way_form(section.cell, section.way) for section in view.failures if section.way),
        unreadable=tuple(f"{bad.file}: {bad.message}" for bad in view.unreadable),
    )


def render_json(view: View) -> str:
    """The document as text, ASCII only, ends with a newline."""
    return report_form(view).model_dump_json(indent=1, ensure_ascii=True) + "\n"


def _cell(cell: CellView) -> CellForm:
    finite = cell.images_per_s is not None and math.isfinite(cell.images_per_s)
    return CellForm(
        cell=cell.cell,
        image=cell.image,
        runner=cell.runner,
        verdict=cell.verdict,
        required=cell.required,
        cause=cell.word,
        reason=cell.reason,
        images_per_s=cell.images_per_s if finite else None,
        fastest=cell.bold,
        cpu=CPU in cell.marks,
        simulated=SIMULATED in cell.marks,
        alternative=cell.alternative or None,
    )


def _foretold(found: Foretold) -> ForetoldForm:
    cells = tuple(
        ForetellingForm(
            cell=row.cell,
            kind=row.kind,
            predicted=row.predicted,
            rule=row.rule,
            source=row.source,
            measured=row.measured,
            note=row.note,
        )
        for row in found.rows
    )
    return ForetoldForm(
        right=found.right,
        comparable=found.comparable,
        other_cause=found.other_cause,
        not_foretold=found.not_foretold,
        unknown=found.unknown,
        not_comparable=found.not_comparable,
        notes=found.notes,
        cells=cells,
    )


def way_form(cell: str, way: Way) -> WayForm:
    """The way of one cell, as data."""
    steps = tuple(
        WayStepForm(node=s.node, question=s.question, answer=s.answer, how=s.how, evidence=s.evidence)
        for s in way.steps
    )
    return WayForm(cell=cell, steps=steps, leaf=way.leaf or None, end=way.end, do=way.do)


def _provenance(row: Provenance) -> ProvenanceForm:
    return ProvenanceForm(
        cell=row.cell,
        image=row.image,
        digest=row.digest,
        card=row.card,
        driver=row.driver,
        profile=row.profile,
        engine=row.engine,
        date=row.date,
        attempt=int(row.attempt),
        tool_version=row.tool,
        payload_sha256=row.payload,
        run_id=row.run,
    )
