"""Owns the building of the view: which facts of plan, results and decision a report shows, in which order.

Must not know formats, files or the clock. Same arguments, same view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cuda_matrix.errors import Problem
from cuda_matrix.gate import GOOD, GateVerdict, Judgement, blocking, utc
from cuda_matrix.model import Verdict
from cuda_matrix.plan import Plan, PlannedRunner
from cuda_matrix.report import numbers, sections
from cuda_matrix.report.escape import short
from cuda_matrix.report.performance import charts, fastest, figure, marks, performance_rows
from cuda_matrix.report.view import CellView, Column, LegendEntry, Links, Row, Section, Unreadable, View
from cuda_matrix.report.words import CPU, CPU_MEANING, EMPTY_MEANING, SIMULATED, SIMULATED_MEANING, WORDS
from cuda_matrix.result import CellResult

NO_LINKS = Links()

_VENDOR = ("NVIDIA GeForce ", "NVIDIA ")


def build_view(plan: Plan, gate: GateVerdict, problems: Sequence[Problem] = (), links: Links = NO_LINKS) -> View:
    """Everything that a report says. `gate` is the decision over the same plan and its results."""
    cells = _with_reasons(list(gate.cells.values()), problems)
    columns = tuple(_column(runner, [c for c in cells if c.runner == runner.id]) for runner in plan.runners.values())
    rows = _rows(plan, cells)
    failures = tuple(_failures(cells))
    return View(
        headline=_headline(gate),
        released=gate.released,
        release=_release(gate, cells),
        gate_reasons=tuple(short(reason.text, 1_000) for reason in gate.reasons),
        gate_notes=tuple(short(note.text, 1_000) for note in gate.notes),
        all_green=_all_green(cells, columns),
        simulated=_simulated(cells),
        scope=_scope(plan, cells),
        links=links,
        columns=columns,
        rows=rows,
        performance=performance_rows(plan, cells, {column.runner: column for column in columns}, sections.word),
        failures=failures,
        not_run=tuple(sections.not_run(c) for c in cells if c.verdict is Verdict.NOT_RUN),
        remarks=tuple(remark for cell in cells if cell.verdict in GOOD for remark in sections.remarks(cell)),
        skipped=tuple(sections.skipped(cell) for cell in cells if cell.verdict is Verdict.SKIPPED),
        unreadable=tuple(Unreadable(problem.file, problem.message) for problem in problems),
        legend=_legend(rows),
        charts=charts(columns, rows),
        provenance=tuple(made for cell in cells if (made := sections.provenance(cell))),
        counts=gate.counts,
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


def _headline(gate: GateVerdict) -> str:
    planned = sum(gate.counts.values()) - gate.counts[Verdict.SKIPPED]
    good = sum(gate.counts[verdict] for verdict in GOOD)
    return f"GPU compatibility: {good:,} of {numbers.plural(planned, 'cell')} good"


def _release(gate: GateVerdict, cells: list[Judgement]) -> tuple[str, ...]:
    """Sentences after `Release: yes` or `no`."""
    sentences = []
    for verdict in dict.fromkeys(reason.verdict for reason in gate.reasons if reason.verdict):
        reasons = [reason for reason in gate.reasons if reason.verdict is verdict]
        causes = ", ".join(f"{short(reason.cause, 60)} ×{len(reason.cells)}" for reason in reasons if reason.cause)
        head = blocking(verdict, sum(len(reason.cells) for reason in reasons))
        sentences.append(f"{head}: {causes}." if causes else f"{head}.")
    sentences += [f"{reason.text[0].upper()}{reason.text[1:]}." for reason in gate.reasons if reason.verdict is None]
    if gate.released:
        required = sum(cell.required and cell.verdict is not Verdict.SKIPPED for cell in cells)
        sentences.append("Every required cell is good or accepted." if required else "No required cell had to run.")
    accepted = gate.counts[Verdict.EXPECTED_FAIL]
    if accepted:
        sentences.append(f"{numbers.plural(accepted, 'cell fails', 'cells fail')} as expected.")
    skipped = gate.counts[Verdict.SKIPPED]
    if skipped:
        sentences.append(f"{numbers.plural(skipped, 'cell is', 'cells are')} skipped.")
    return tuple(sentences)


def _all_green(cells: list[Judgement], columns: tuple[Column, ...]) -> str:
    if not cells or any(cell.verdict is not Verdict.PASS for cell in cells):
        return ""
    images = len({cell.image for cell in cells})
    return f"All green: {numbers.plural(images, 'image')} on {numbers.plural(len(columns), 'runner')}."


def _simulated(cells: list[Judgement]) -> str:
    results = [cell.result for cell in cells if cell.result]
    count = sum(result.simulated for result in results)
    if not count:
        return ""
    share = "all" if count == len(results) else f"{count:,} of {len(results):,}"
    return f"Simulated: {share} results. No figure marked simulated was measured."


def _scope(plan: Plan, cells: list[Judgement]) -> str:
    runners = [plan.runners[name] for name in dict.fromkeys(cell.runner for cell in cells)]
    cards = len({runner.gpu for runner in runners if runner.gpu})
    parts = [numbers.plural(cards, "card")] if cards else []
    if any(runner.gpu is None for runner in runners):
        parts.append("CPU")
    parts.append(numbers.plural(len({cell.image for cell in cells}), "image"))
    results = [cell.result for cell in cells if cell.result]
    if results:
        parts.append(f"{'simulated' if all(r.simulated for r in results) else 'measured'} {_when(results)}")
    return " · ".join(parts)


def _when(results: list[CellResult]) -> str:
    moments = sorted(utc(result.started_at) for result in results)
    first, last = moments[0], moments[-1]
    newest = f"{last:%Y-%m-%d %H:%M} UTC"
    return newest if first.date() == last.date() else f"{first:%Y-%m-%d} to {newest}"


def _column(runner: PlannedRunner, cells: list[Judgement]) -> Column:
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
    if seen and source == SIMULATED:
        details.append(SIMULATED)
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
    best = {cell for runner in plan.runners for cell in fastest(c for c in cells if c.runner == runner)}
    rows = []
    for image in plan.images:
        found = [at.get((image, runner)) for runner in plan.runners]
        if any(found):
            fields = tuple(_field(cell, cells, best) if cell else None for cell in found)
            simulated = {cell.result.simulated for cell in found if cell and cell.result} == {True}
            rows.append(Row(image, plan.images[image].ref, fields, simulated))
    return tuple(rows)


def _field(judged: Judgement, cells: list[Judgement], best: set[str]) -> CellView:
    found = figure(judged.result) if judged.verdict in GOOD else None
    others = sections.works_here(judged, cells) if judged.verdict is Verdict.FAIL else []
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
    if CPU in in_use:
        entries.append(LegendEntry(f"{CPU}:", CPU_MEANING))
    if None in fields:
        entries.append(LegendEntry(numbers.NONE, EMPTY_MEANING))
    return tuple(entries)
