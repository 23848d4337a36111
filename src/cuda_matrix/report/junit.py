"""Owns the JUnit form: one suite per runner, one test case per cell, for systems that read only that.

Must not know more of a cell than the view says. Absent is an error, an accepted failure is skipped with its reason.
"""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from cuda_matrix.model import Verdict
from cuda_matrix.report.escape import one_line, printable
from cuda_matrix.report.view import CellView, Section, View

_KIND = {
    Verdict.FAIL: "failure",
    Verdict.HOST_FAILED: "error",
    Verdict.INCONCLUSIVE: "error",
    Verdict.NOT_RUN: "error",
    Verdict.SKIPPED: "skipped",
    Verdict.EXPECTED_FAIL: "skipped",
}


def render_junit(view: View) -> str:
    """XML 1.0, UTF-8. Verdicts that are good have no child element but their figures."""
    sections = {section.cell: section for section in view.failures}
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<testsuites name={_attribute(view.headline)}>"]
    for column in view.columns:
        cells = [cell for row in view.rows for cell in row.cells if cell and cell.runner == column.runner]
        lines.append(_suite(column.runner, cells))
        for cell in cells:
            lines += _case(cell, sections.get(cell.cell))
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>"]) + "\n"


def _suite(runner: str, cells: list[CellView]) -> str:
    kinds = [_KIND.get(cell.verdict, "") for cell in cells]
    return (
        f'  <testsuite name={_attribute(runner)} tests="{len(cells)}" failures="{kinds.count("failure")}" '
        f'errors="{kinds.count("error")}" skipped="{kinds.count("skipped")}">'
    )


def _case(cell: CellView, section: Section | None) -> list[str]:
    opening = f"    <testcase classname={_attribute(cell.runner)} name={_attribute(cell.image)}"
    body = []
    kind = _KIND.get(cell.verdict)
    if kind:
        message = cell.word if cell.word.endswith(cell.reason) else f"{cell.word}: {cell.reason}"
        type_ = "" if kind == "skipped" else f" type={_attribute(cell.verdict.value)}"
        body.append(f"      <{kind} message={_attribute(message)}{type_}>{_details(section)}</{kind}>")
    if cell.number or cell.marks:
        figures = " ".join(part for part in (cell.number, "images/s" if cell.number else "", *cell.marks) if part)
        body.append(f"      <system-out>{_text(figures)}</system-out>")
    return [f"{opening}>", *body, "    </testcase>"] if body else [f"{opening}/>"]


def _details(section: Section | None) -> str:
    if section is None:
        return ""
    steps = [f"{index}. {step}" for index, step in enumerate(section.steps, 1)]
    parts = (section.evidence, section.explanation, *steps, section.repro)
    return _text("\n".join(part for part in parts if part))


def _text(text: str) -> str:
    return escape(printable(text))


def _attribute(text: str) -> str:
    return quoteattr(one_line(text))
