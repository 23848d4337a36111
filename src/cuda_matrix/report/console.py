"""Owns the report for a terminal or a job log: words instead of symbols, whose width differs between terminals.

Must not know whether it is a terminal: the caller says whether colour is wanted.
"""

from __future__ import annotations

import textwrap

from tabulate import tabulate

from cuda_matrix.model import Verdict
from cuda_matrix.report.escape import console_text, short
from cuda_matrix.report.numbers import NONE
from cuda_matrix.report.view import CellView, Foretold, Performance, ReasonLine, Row, Section, Unchecked, View
from cuda_matrix.report.words import CONTESTED, DRIFT_MEANING, FASTEST_MEANING, INSTEAD_MEANING, PERFORMANCE, WORDS

_WORD = 60
_WIDTH = 100  # columns of prose; a table is as wide as its cells
_RED, _GREEN, _YELLOW, _MAGENTA, _BOLD, _RESET = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[35m", "\x1b[1m", "\x1b[0m"
_COLOURS = {
    Verdict.PASS: _GREEN,
    Verdict.WARN: _YELLOW,
    Verdict.FAIL: _RED,
    Verdict.HOST_FAILED: _RED,
    Verdict.INCONCLUSIVE: _YELLOW,
    Verdict.NOT_RUN: _RED,
    Verdict.SKIPPED: "",
    Verdict.EXPECTED_FAIL: _MAGENTA,
    Verdict.UNEXPECTED_PASS: _YELLOW,
}
_LEADS = {
    Verdict.FAIL: "FAIL",
    Verdict.HOST_FAILED: "MACHINE",
    Verdict.INCONCLUSIVE: "INCONCLUSIVE",
    Verdict.WARN: "remark",
}


def render_console(view: View, *, colour: bool) -> str:
    """Plain text with aligned tables, `colour` adds SGR sequences. Ends with a newline."""
    paint = _paint if colour else _plain
    decision = f"Release: {'yes' if view.released else 'no'}."
    parts = [
        paint(console_text(view.headline), _BOLD),
        _decision(view, paint(decision, _GREEN if view.released else _RED)),
        console_text(f"{view.simulated}." if view.simulated else ""),
        console_text(view.all_green),
        console_text(view.scope),
        _compatibility(view, colour=colour),
        _legend(view),
        _performance(view.performance),
        DRIFT_MEANING if view.has_drift else "",
        *(_section(section, colour=colour) for section in view.failures),
        _list("Did not run", [f"{console_text(r.cell)}: {console_text(r.text)}" for r in view.not_run]),
        _list("Could not be read", [console_text(f"{bad.file}: {bad.message}") for bad in view.unreadable]),
        _list("Remarks", [f"{console_text(r.cell)}: {console_text(r.text)}" for r in view.remarks]),
        _list("Notes", [console_text(note) for note in view.other_notes]),
        _foretold(view.foretold),
        _list("Not checked", [_unchecked(row) for row in view.unchecked]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _compatibility(view: View, *, colour: bool) -> str:
    header = ["Image", *("\n".join(_heading(c.title, c.details, c.runner)) for c in view.columns)]
    body = [
        [f"{console_text(row.image)} {row.mark}".rstrip(), *(_field(row, cell, colour=colour) for cell in row.cells)]
        for row in view.rows
    ]
    return tabulate(body, header, tablefmt="simple", disable_numparse=True) if body else ""


def _heading(title: str, details: tuple[str, ...], runner: str) -> list[str]:
    return [short(console_text(line), 40) for line in (title, *details, runner) if line]


def _decision(view: View, yes_or_no: str) -> str:
    rest = console_text(" ".join(view.release))
    if not view.gate_reasons:
        return f"{yes_or_no} {rest}".rstrip()
    lines = [yes_or_no, *(_reason(reason) for reason in view.gate_reasons), _prose(rest, "  ") if rest else ""]
    return "\n".join(line for line in lines if line)


def _reason(reason: ReasonLine) -> str:
    line = reason.text
    for index, way in enumerate(reason.ways):
        line += f"{', ' if index else ' -> '}{way.image}{f' on {way.runner}' if way.runner else ''}"
    return _prose(console_text(line), "  ")


def _legend(view: View) -> str:
    text = "Numbers: ResNet-50 training, images/s, median."
    if view.has_bold:
        text += f" *: {FASTEST_MEANING}"
    elif view.contested:
        text += f" {CONTESTED}"
    alternatives = any(cell and cell.alternative for row in view.rows for cell in row.cells)
    return _prose(f"{text} ->: {INSTEAD_MEANING}." if alternatives else text)


def _foretold(found: Foretold) -> str:
    """One line, and one more for each cell that was not as predicted."""
    if not found.sentence:
        return ""
    head = " ".join(["Predicted and measured:", found.sentence, *found.notes])
    rows = [
        f"{row.cell}, {row.kind}: predicted {row.predicted} by rule {row.rule}; measured {row.measured}"
        f"{f'; {row.note}' if row.note else ''}"
        for row in found.rows
    ]
    return "\n".join([_prose(console_text(head)), *(_prose(console_text(row), "  ") for row in rows)])


def _unchecked(row: Unchecked) -> str:
    cells = "every good cell" if row.everywhere else ", ".join(row.cells)
    return console_text(f"{', '.join(row.checks)} ({row.status}): {row.reason} [{cells}]")


def _field(row: Row, cell: CellView | None, *, colour: bool) -> str:
    if cell is None:
        return NONE
    word = short(console_text(cell.word), _WORD)
    lead = _LEADS.get(cell.verdict, "")
    if lead:
        word = lead if word == WORDS[cell.verdict].word else f"{lead} {word}"
    parts = [word, cell.number + ("*" if cell.bold else ""), *row.own_marks(cell)]
    lines = [" ".join(part for part in parts if part)]
    lines += [f"-> {console_text(cell.alternative)}"] if cell.alternative else []
    return "\n".join(_paint(line, _COLOURS[cell.verdict]) if colour else line for line in lines)


def _performance(rows: tuple[Performance, ...]) -> str:
    body = [
        [
            short(console_text(value), _WORD)
            for value in (
                row.gpu,
                row.cuda,
                row.torch,
                row.images_per_s,
                row.spread,
                row.memory_gb,
                row.stable,
                row.how,
                row.image,
            )
        ]
        for row in rows
    ]
    align = ("left", "left", "left", "right", "right", "right", "left", "left", "left")
    return tabulate(body, PERFORMANCE, tablefmt="simple", disable_numparse=True, colalign=align) if body else ""


def _section(section: Section, *, colour: bool) -> str:
    words = dict.fromkeys((section.verdict.value, short(console_text(section.word), 80)))
    head = f"{console_text(section.cell)}: {', '.join(words)}"
    lines = [_paint(head, _COLOURS[section.verdict] or _BOLD) if colour else head]
    if section.evidence:
        lines.append(_prose(short(console_text(section.evidence), 400), "  > "))
    told = (section.explanation or section.reason, section.note)
    lines += [_prose(console_text(text), "  ", deeper="") for text in told if text]
    lines += [
        _prose(f"{index}. {console_text(step)}", "  ", deeper="   ") for index, step in enumerate(section.steps, 1)
    ]
    if section.repro:
        lines.append(f"  $ {console_text(section.repro)}")
    return "\n".join(lines)


def _list(title: str, lines: list[str]) -> str:
    return "\n".join([f"{title}:", *(_prose(line, "  ") for line in lines)]) if lines else ""


def _prose(text: str, indent: str = "", *, deeper: str = "  ") -> str:
    """Broken at blanks, its further lines indented `deeper` than the first; `> ` stands before each line."""
    quoted = indent if indent.endswith("> ") else indent + deeper * bool(indent)
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=quoted,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _paint(text: str, colour: str) -> str:
    return f"{colour}{text}{_RESET}" if colour else text


def _plain(text: str, _: str) -> str:
    return text
