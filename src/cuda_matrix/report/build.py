"""Owns the building of the view: which facts of plan, results and decision a report shows, in which order.

Must not know formats, files or the clock. Same arguments, same view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cuda_matrix.errors import Problem
from cuda_matrix.gate import GOOD, GateVerdict, Judgement, selected, simulated_note, utc
from cuda_matrix.model import Verdict
from cuda_matrix.plan import Plan, PlannedRunner
from cuda_matrix.report import decision, numbers, sections
from cuda_matrix.report.escape import short
from cuda_matrix.report.foretold import foretold
from cuda_matrix.report.performance import (
    charts,
    contested,
    engine_mark,
    fastest,
    figure,
    marks,
    performance_rows,
)
from cuda_matrix.report.unchecked import unchecked
from cuda_matrix.report.view import CellView, Column, LegendEntry, Links, Row, Section, Unreadable, View
from cuda_matrix.report.words import (
    CPU,
    CPU_MEANING,
    EMPTY_MEANING,
    INSTEAD,
    INSTEAD_MEANING,
    LOCAL,
    LOCAL_MEANING,
    SIMULATED,
    SIMULATED_MEANING,
    WORDS,
)
from cuda_matrix.result import CellResult

NO_LINKS = Links()

_VENDOR = ("NVIDIA GeForce ", "NVIDIA ")


def build_view(plan: Plan, gate: GateVerdict, problems: Sequence[Problem] = (), links: Links = NO_LINKS) -> View:
    """Everything that a report says. `gate` is the decision over the same plan and its results."""
    cells = _with_reasons(list(gate.cells.values()), problems)
    rows = _rows(plan, cells)
    columns = tuple(
        _column(runner, [c for c in cells if c.runner == runner.id], rows) for runner in plan.runners.values()
    )
    failures = tuple(_failures(cells))
    return View(
        headline=decision.headline(plan, gate),
        released=gate.released,
        release=decision.sentences(plan, gate, cells),
        gate_reasons=decision.reason_lines(gate, rows),
        gate_notes=tuple(short(note.text, 1_000) for note in gate.notes),
        all_green="" if selected(plan) else _all_green(cells, columns),
        simulated=simulated_note(cells),
        scope=_scope(plan, cells),
        links=links,
        columns=columns,
        rows=rows,
        performance=performance_rows(plan, cells, {column.runner: column for column in columns}, sections.word),
        failures=failures,
        not_run=tuple(sections.not_run(c) for c in cells if c.verdict is Verdict.NOT_RUN),
        remarks=tuple(remark for cell in cells if cell.verdict in GOOD for remark in sections.remarks(cell)),
        skipped=tuple(sections.skipped(cell) for cell in cells if cell.verdict is Verdict.SKIPPED),
        unchecked=unchecked(cells),
        foretold=foretold(cells),
        unreadable=tuple(Unreadable(problem.file, problem.message) for problem in problems),
        legend=_legend(rows),
        charts=charts(columns, rows),
        provenance=tuple(made for cell in cells if (made := sections.provenance(cell))),
        counts=gate.counts,
        contested=any(contested(c for c in cells if c.runner == runner) for runner in plan.runners),
    )


def _with_reasons(cells: list[Judgement], problems: Sequence[Problem]) -> list[Judgement]:
    """Say of a cell that did not run whether a file of it was there, but could not be read."""
    unread = {problem.file.rpartition("/")[2].removesuffix(".json"): problem.message for problem in problems}
    return [
        replace(cell, reason=f"its result could not be read: it {unread[cell.cell]}")
        if cell.verdict is Verdict.NOT_RUN and cell.cell in unread
        else cell
        for cell in cells
    ]


def _all_green(cells: list[Judgement], columns: tuple[Column, ...]) -> str:
    if not cells or any(cell.verdict is not Verdict.PASS for cell in cells):
        return ""
    images = len({cell.image for cell in cells})
    return f"All green: {numbers.plural(images, 'image')} on {numbers.plural(len(columns), 'runner')}."


def _scope(plan: Plan, cells: list[Judgement]) -> str:
    runners = [plan.runners[name] for name in dict.fromkeys(cell.runner for cell in cells)]
    cards = len({runner.gpu for runner in runners if runner.gpu})
    part = selected(plan)
    parts = [decision.share(part)] if part else []
    parts += [numbers.plural(cards, "card")] if cards else []
    if any(runner.gpu is None for runner in runners):
        parts.append("CPU")
    parts.append(numbers.plural(len({cell.image for cell in cells}), "image"))
    parts += _origin([cell.result for cell in cells if cell.result])
    return " · ".join(parts)


def _origin(results: list[CellResult]) -> list[str]:
    """When the figures were made; "measured" only where one was."""
    real = [result for result in results if not result.simulated]
    if not real:
        return [f"{SIMULATED} {_when(results)}"] if results else []
    measured = [result for result in real if figure(result) or any(b.samples for b in result.benchmarks)]
    return [f"measured {_when(measured)}" if measured else f"run {_when(real)}"]


def _when(results: list[CellResult]) -> str:
    moments = sorted(utc(result.started_at) for result in results)
    first, last = moments[0], moments[-1]
    newest = f"{last:%Y-%m-%d %H:%M} UTC"
    return newest if first.date() == last.date() else f"{first:%Y-%m-%d} to {newest}"


def _column(runner: PlannedRunner, cells: list[Judgement], rows: tuple[Row, ...]) -> Column:
    results = [cell.result for cell in cells if cell.result]
    measured = [result for result in results if not result.simulated and (result.facts.gpus or result.facts.driver)]
    seen = measured or [result for result in results if result.facts.gpus or result.facts.driver]
    cards = list(dict.fromkeys(_card(result) for result in seen if result.facts.gpus))
    drivers = list(dict.fromkeys(result.facts.driver for result in seen if result.facts.driver))
    details = list(dict.fromkeys(_memory(result) for result in seen if result.facts.gpus and _memory(result)))
    if runner.gpu is None and not cards:
        details += dict.fromkeys(result.facts.cpu_model for result in results if result.facts.cpu_model)
    if drivers:
        details.append(f"driver {', '.join(drivers)}")
    elif runner.driver:
        details.append(f"driver {runner.driver} (configured)")
    source = "measured" if measured else SIMULATED if seen else "configured"
    unsaid = {
        mark for row in rows for cell in row.cells if cell and cell.runner == runner.id for mark in row.own_marks(cell)
    }
    if source == SIMULATED and SIMULATED in unsaid:
        details.append(SIMULATED)
    elif LOCAL in unsaid and all(engine_mark(result) == LOCAL for result in results):
        details.append(LOCAL)
    title = ", ".join(cards) or runner.gpu or "CPU only"
    return Column(runner.id, short(title, 60), tuple(short(detail, 80) for detail in details), source)


def _card(result: CellResult) -> str:
    names = [gpu.name for gpu in result.facts.gpus]
    for prefix in _VENDOR:
        names = [name.removeprefix(prefix) for name in names]
    counted = {name: names.count(name) for name in names}
    return ", ".join(name if count == 1 else f"{count}{numbers.SPACE}× {name}" for name, count in counted.items())


def _memory(result: CellResult) -> str:
    sizes = dict.fromkeys(gpu.memory_mib for gpu in result.facts.gpus if gpu.memory_mib)
    return ", ".join(f"{mib / 1024:,.0f}{numbers.SPACE}GiB" for mib in sizes)


def _rows(plan: Plan, cells: list[Judgement]) -> tuple[Row, ...]:
    at = {(cell.image, cell.runner): cell for cell in cells}
    best = {fastest(c for c in cells if c.runner == runner) for runner in plan.runners}
    rows = []
    for image in plan.images:
        found = [at.get((image, runner)) for runner in plan.runners]
        if any(found):
            fields = tuple(_field(cell, cells, best) if cell else None for cell in found)
            origins = {engine_mark(cell.result) for cell in found if cell and cell.result}
            rows.append(Row(image, plan.images[image].ref, fields, origins.pop() if len(origins) == 1 else ""))
    return tuple(rows)


def _field(judged: Judgement, cells: list[Judgement], best: set[str]) -> CellView:
    found = figure(judged.result) if judged.verdict in GOOD else None
    others = [] if judged.verdict is Verdict.EXPECTED_FAIL else sections.works_here(judged, cells)
    exact = sections.word(judged)
    has_section = judged.verdict in sections.WITH_SECTION or judged.verdict is Verdict.NOT_RUN
    return CellView(
        cell=judged.cell,
        image=judged.image,
        runner=judged.runner,
        verdict=judged.verdict,
        symbol=WORDS[judged.verdict].symbol,
        word=exact,
        number=numbers.number(found.images_per_s) if found else "",
        images_per_s=found.images_per_s if found else None,
        marks=marks(judged.result),
        anchor=sections.anchor(judged.cell) if has_section or sections.remarks(judged) else "",
        alternative=others[0].image if others else "",
        reason=judged.reason,
        bold=judged.cell in best,
        required=judged.required,
    )


def _failures(cells: list[Judgement]) -> list[Section]:
    """Sections: what blocks first, accepted failures last."""
    chosen = [cell for cell in cells if cell.verdict in sections.WITH_SECTION]
    chosen.sort(key=lambda cell: (cell.verdict is Verdict.EXPECTED_FAIL, not cell.required))
    return [sections.section(cell, sections.works_here(cell, cells)) for cell in chosen]


def _legend(rows: tuple[Row, ...]) -> tuple[LegendEntry, ...]:
    """Only what this report uses."""
    fields = [cell for row in rows for cell in row.cells]
    used = {cell.verdict for cell in fields if cell}
    in_use = {mark for cell in fields if cell for mark in cell.marks}
    entries = [LegendEntry(WORDS[verdict].symbol, WORDS[verdict].meaning) for verdict in Verdict if verdict in used]
    if SIMULATED in in_use:
        entries.append(LegendEntry(f"{SIMULATED}:", SIMULATED_MEANING))
    if LOCAL in in_use:
        entries.append(LegendEntry(f"{LOCAL}:", LOCAL_MEANING))
    if any(cell and cell.alternative for cell in fields):
        entries.append(LegendEntry(INSTEAD, INSTEAD_MEANING))
    if CPU in in_use:
        entries.append(LegendEntry(f"{CPU}:", CPU_MEANING))
    if None in fields:
        entries.append(LegendEntry(numbers.NONE, EMPTY_MEANING))
    return tuple(entries)
