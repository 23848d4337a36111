"""Owns the Markdown report: GitHub's dialect, for a file or a job summary. What is shorter is `brief`'s.

Must not know what the figures mean, only how they are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from cuda_matrix.model import Verdict
from cuda_matrix.report import mermaid, words
from cuda_matrix.report.escape import Markdown, fence, link, markdown, short, table_code
from cuda_matrix.report.numbers import NONE, plural
from cuda_matrix.report.templating import markdown_environment
from cuda_matrix.report.view import CellView, Column, Performance, Provenance, Row, Section, Unchecked, View
from cuda_matrix.report.words import INSTEAD

_BLANK_LINES = re.compile(r"\n{3,}")
_TEXT = 160  # characters of one field: a table stays a table, the section holds the whole
_WORD = 80
_NOTHING = Markdown("")
_UNBOUNDED = 1 << 30  # of what a whole report lists


def render_markdown(view: View, news: Markdown = _NOTHING) -> str:
    """The whole report. Ends with a newline. `news` is a paragraph after the head."""
    return _whole(view, "", charts=mermaid.CHARTS, with_head=True, news=news)


def render_body(view: View, sections: str | None) -> str:
    """The whole report without its head, which somebody else shows, and without charts, which nobody draws there."""
    return _whole(view, sections, charts=0, with_head=False, news=_NOTHING)


def _whole(view: View, sections: str | None, *, charts: int, **more: Any) -> str:
    return rendered(
        "report.md.j2",
        view,
        **more,
        compatibility=compatibility(view, view.rows, sections),
        performance=_performance(view.performance),
        provenance=_provenance(view.provenance),
        checks=_checks,
        way=_way,
        with_chart={section.anchor for section in _ways(view)[:charts]},
        unchecked=_unchecked(view.unchecked),
        words=words,
    )


def rendered(template: str, view: View, **more: Any) -> str:
    """One of our templates, filled; several blank lines become one. Values are escaped unless they are Markdown."""
    basis = {"level": Markdown("#"), "most": _UNBOUNDED, "reason_limit": _UNBOUNDED, "sha": "", "plural": plural}
    context = {**basis, "view": view, "legend": _legend(view), **more}
    text = markdown_environment().get_template(template).render(context)
    return _BLANK_LINES.sub("\n\n", text).strip("\n") + "\n"


def _table(header: Sequence[str], align: Sequence[str], rows: Iterable[Sequence[str]]) -> Markdown:
    """Fields are Markdown already. Not padded: a committed report would change in every line with one long name."""
    lines = [header, align, *rows]
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))


def compatibility(view: View, rows: Iterable[Row], sections: str | None) -> Markdown:
    """The table of images and runners, with some of its rows.

    `sections` is the address of the page with what the fields link to: empty for the same page, None for nowhere.
    """
    header = ["Image", *(_heading(column) for column in view.columns)]
    body = [[_image(row), *(_field(row, cell, sections) for cell in row.cells)] for row in rows]
    return _table(header, ["---", *(":-:" for _ in view.columns)], body)


def _heading(column: Column) -> Markdown:
    lines = [f"**{_text(column.title)}**", _text(" · ".join(column.details)), table_code(column.runner)]
    return Markdown("<br>".join(line for line in lines if line))


def _image(row: Row) -> Markdown:
    return Markdown(f"{table_code(row.image)} {row.mark}".rstrip())


def _field(row: Row, cell: CellView | None, sections: str | None) -> Markdown:
    if cell is None:
        return Markdown(NONE)
    number = f"**{cell.number}**" if cell.bold and cell.number else cell.number
    parts: list[str] = [cell.symbol]
    if cell.verdict is not Verdict.PASS or not number:
        word = _text(cell.word, _TEXT if cell.verdict is Verdict.SKIPPED else _WORD)
        parts.append(link(word, f"{sections}#{cell.anchor}") if cell.anchor and sections is not None else word)
    parts += [number] if number else []
    parts += row.own_marks(cell)
    if cell.alternative:
        parts.append(f"{INSTEAD} {table_code(cell.alternative)}")
    return Markdown(" ".join(parts))


def _performance(rows: Iterable[Performance]) -> Markdown:
    align = ["---", "---", "---", "--:", "--:", "--:", "---", "---", "---"]
    body = [
        [
            *(_text(value, _WORD) for value in (row.gpu, row.cuda, row.torch)),
            *(_text(value) for value in (row.images_per_s, row.spread, row.memory_gb, row.stable, row.how)),
            table_code(row.image),
        ]
        for row in rows
    ]
    return _table(words.PERFORMANCE, align, body)


def _provenance(rows: Iterable[Provenance]) -> Markdown:
    header = ["Cell", "image", "card", "driver", "profile", "engine", "date", "attempt", "tool", "payload"]
    body = [
        [
            table_code(row.cell),
            Markdown(f"{table_code(row.image)}<br>{table_code(row.digest) if row.digest else 'no digest'}"),
            *(_text(v) for v in (row.card, row.driver, row.profile, row.engine, row.date, row.attempt, row.tool)),
            table_code(short(row.payload, 19)),
        ]
        for row in rows
    ]
    return _table(header, ["---"] * len(header), body)


def _checks(section: Section) -> Markdown:
    header = ["Check", "status", "device", "what it saw", "figures", "took"]
    body = [
        [
            table_code(short(check.id, _WORD)),
            *(_text(v) for v in (check.status, check.device, check.summary, check.figures, check.took)),
        ]
        for check in section.checks
    ]
    return _table(header, ["---", "---", "---", "---", "---", "--:"], body)


def _ways(view: View) -> list[Section]:
    return [section for section in view.failures if section.way]


def _way(section: Section, charted: bool) -> Markdown:
    """The way down the diagnosis tree: as a chart, or in one line where the page has charts enough."""
    way = section.way
    if way is None:
        return Markdown("")
    if charted:
        return fence(mermaid.chart(way), "mermaid")
    steps = " → ".join(f"{_text(step.question, _TEXT)} *{_text(step.answer or step.how, _WORD)}*" for step in way.steps)
    return Markdown(f"{steps} → **{_text(way.end, _TEXT)}**")


def _unchecked(rows: Iterable[Unchecked]) -> Markdown:
    header = ["Check", "status", "why", "cells"]
    body = [
        [
            Markdown(", ".join(table_code(short(check, _WORD)) for check in row.checks)),
            _text(row.status),
            _text(row.reason),
            Markdown("every good cell" if row.everywhere else ", ".join(table_code(cell) for cell in row.cells)),
        ]
        for row in rows
    ]
    return _table(header, ["---"] * len(header), body)


def _legend(view: View) -> Markdown:
    return Markdown(" · ".join(f"{entry.symbol} {markdown(entry.meaning)}" for entry in view.legend))


def _text(text: str, limit: int = _TEXT) -> Markdown:
    return markdown(short(text, limit))
