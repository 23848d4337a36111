"""Owns the matrix's side of `predict`: every cell of a configuration, and what another driver would change.

Must not know how a prediction is worked out (predict) nor when a cell turns (forecast).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cuda_matrix.forecast import Turn
    from cuda_matrix.plan import Plan, PlannedRunner
    from cuda_matrix.prediction import Prediction
    from cuda_matrix.result import CellResult
    from cuda_matrix.tables import Reference

ROWS_SHOWN = 200  # of one table; the document has all
_HEADS: dict[Turn, str] = {
    "green": "Turns green",
    "red": "Turns red",
    "unknown": "What changes cannot be said",
    "stays": "Stays as it is",
}


class Question(NamedTuple):
    """What is asked; every part but `offline` may be left out."""

    config: str | None
    gpu: str | None
    driver: str | None
    results: Path | None
    offline: bool


class Line(NamedTuple):
    """One cell: as it is now, and with the other driver where one is asked for.

    `measured`: its verdict and cause, as a run showed them; `simulated`: no card was asked for that verdict.
    """

    cell: str
    image: str
    runner: str
    gpu: str | None
    driver: str | None
    before: Prediction
    after: Prediction | None
    turn: Turn | None
    measured: str
    simulated: bool = False

    @property
    def shown(self) -> str:
        """`measured pass`, `simulated pass`; empty where no run showed anything."""
        return f"{'simulated' if self.simulated else 'measured'} {self.measured}" if self.measured else ""


def show(question: Question, reference: Reference, *, as_json: bool) -> None:
    """Print the answer.

    Raises:
        ConfigurationError: there is no configuration, or no runner of it has the card.
    """
    plan = _plan(question, reference)
    lines = list(_lines(question, plan, reference))
    if as_json:
        click.echo(json.dumps(_document(question, lines), indent=2))
    else:
        told = _table(lines, plan) if question.driver is None else _turns(question.driver, lines)
        click.echo("\n".join(told))


def _plan(question: Question, reference: Reference) -> Plan:
    from cuda_matrix import config_files, matrix
    from cuda_matrix.commands import foresight
    from cuda_matrix.errors import ConfigurationError
    from cuda_matrix.plan_union import only
    from cuda_matrix.predict import host_facts

    try:
        loaded = config_files.load(question.config)
    except ConfigurationError as error:
        if question.config is None and not error.problems:
            hint = f"{error.hint}; or ask about one image: --image REF --gpu NAME --driver V"
            raise ConfigurationError(str(error), hint=hint) from error
        raise
    lanes = max(matrix.MAX_JOBS, len(loaded.expansion.runners))
    plan = matrix.make_plan(loaded.expansion, loaded.config, max_jobs=lanes)
    if question.gpu is not None:
        asked = host_facts(question.gpu, None, reference)
        runners = {key for key, row in plan.runners.items() if foresight.is_same_card(asked, row.gpu, reference)}
        if not runners:
            cards = ", ".join(sorted({row.gpu for row in plan.runners.values() if row.gpu})) or "none"
            msg = f"no runner of the configuration has the card {question.gpu!r}"
            raise ConfigurationError(msg, hint=f"cards of its runners: {cards}")
        plan = only(plan, {cell.id for cell in plan.cells if cell.runner in runners})
    answers = {} if question.offline else foresight.ask_registries({row.ref for row in plan.images.values()})
    foresight.show_unanswered(answers)
    return foresight.foretold(plan, answers, skip=False)


def _lines(question: Question, plan: Plan, reference: Reference) -> Iterator[Line]:
    from functools import cache

    from cuda_matrix.commands import foresight
    from cuda_matrix.forecast import Machine, machine_of, said_of, turn
    from cuda_matrix.result_files import read_results

    found = read_results([question.results]) if question.results else None
    foresight.show_unread(found.problems if found else ())
    results = {result.cell: result for result in found.results} if found else {}
    drivers = _measured_drivers(results)

    @cache  # many cells are of one image on machines that do not differ
    def foretell(image: str, machine: Machine) -> Prediction:
        return said_of(plan.images[image], machine, reference)

    for cell in plan.cells:
        if cell.prediction is None:
            continue
        runner = plan.runners[cell.runner]
        machine = machine_of(runner, plan.container)
        now = drivers.get(runner.id, machine.driver)
        before = cell.prediction if now == machine.driver else foretell(cell.image, machine._replace(driver=now))
        after, turned = None, None
        result = results.get(cell.id)
        works, measured = _measured(result, runner, now)
        if question.driver is not None:
            after = foretell(cell.image, machine._replace(driver=question.driver))
            turned = turn(before, after, works)
        simulated = result is not None and result.simulated
        yield Line(cell.id, cell.image, runner.id, runner.gpu, now, before, after, turned, measured, simulated)


def _measured_drivers(results: dict[str, CellResult]) -> dict[str, str]:
    """Runner → the driver that its newest result saw."""
    from cuda_matrix.gate import utc

    found: dict[str, str] = {}
    for result in sorted(results.values(), key=lambda r: utc(r.started_at)):
        if result.facts.driver:
            found[result.runner] = result.facts.driver
    return found


def _measured(result: CellResult | None, runner: PlannedRunner, driver: str | None) -> tuple[bool | None, str]:
    """Whether the cell works now, and its verdict; nothing for a result of another card or driver."""
    from cuda_matrix.gate import GOOD, cause_of
    from cuda_matrix.model import Verdict

    if result is None or result.gpu != runner.gpu or result.facts.driver not in {None, driver}:
        return None, ""
    if result.verdict in GOOD:
        return True, result.verdict.value
    if result.verdict in {Verdict.FAIL, Verdict.HOST_FAILED, Verdict.EXPECTED_FAIL}:
        cause = cause_of(result)
        return False, f"{result.verdict.value}: {cause}" if cause else result.verdict.value
    return None, result.verdict.value


def _counts(lines: list[Line]) -> dict[str, int]:
    counts = {turned: sum(line.turn == turned for line in lines) for turned in _HEADS}
    stays = [line for line in lines if line.turn == "stays" and line.after is not None]
    green = sum(line.after.runs for line in stays if line.after)
    return {
        "turn_green": counts["green"],
        "turn_red": counts["red"],
        "stay_green": green,
        "stay_red": len(stays) - green,
        "unknown": counts["unknown"],
    }


def _document(question: Question, lines: list[Line]) -> dict[str, Any]:
    cells = []
    for line in lines:
        form: dict[str, Any] = {"cell": line.cell, "image": line.image, "gpu": line.gpu, "driver": line.driver}
        if line.measured:
            form |= {"measured": line.measured, "simulated": line.simulated}
        if line.after is None:
            form |= line.before.model_dump(mode="json")
        else:
            form |= {"turn": line.turn, "before": line.before.model_dump(mode="json")}
            form["after"] = line.after.model_dump(mode="json")
        cells.append(form)
    if question.driver is None:
        return {"cells": cells}
    return {"driver": question.driver, "summary": _counts(lines), "cells": cells}


def _table(lines: list[Line], plan: Plan) -> Iterator[str]:
    from tabulate import tabulate

    from cuda_matrix.commands.foresight import driverless, said, symbol, wrapped

    headers = ("Cell", "Driver", "Predicted", "Shown by a run")
    columns = len(headers) if any(line.measured for line in lines) else 3
    rows = [
        (line.cell, line.driver or "–", f"{symbol(line.before)} {said(line.before)}", line.shown or "–")[:columns]
        for line in lines[:ROWS_SHOWN]
    ]
    yield tabulate(rows, headers=headers[:columns], disable_numparse=True)
    if len(lines) > ROWS_SHOWN:
        yield f"… and {len(lines) - ROWS_SHOWN} more (--json shows all)"
    known = {line.runner for line in lines if line.driver is not None}  # by the results, if not by the configuration
    yield from (wrapped(text, 2) for text in driverless(plan, known))
    reasons = (line.before for line in lines if line.before.fails or (line.before.verdict == "unknown" and line.driver))
    for text in dict.fromkeys(f"{each.explanation} (rule {each.rule})" for each in reasons):
        yield wrapped(text, 2)
    fails = sum(line.before.fails for line in lines)
    unknown = sum(line.before.verdict == "unknown" for line in lines)
    yield f"{len(lines)} cells: {sum(line.before.runs for line in lines)} run, {fails} fail, {unknown} unknown"


def _turns(driver: str, lines: list[Line]) -> Iterator[str]:
    from cuda_matrix.commands.foresight import wrapped
    from cuda_matrix.report.numbers import plural

    counts = _counts(lines)
    green = plural(counts["turn_green"], "cell turns", "cells turn")
    red = f"{counts['turn_red']} {'turns' if counts['turn_red'] == 1 else 'turn'}"
    stays = counts["stay_green"] + counts["stay_red"]
    summary = f"With driver {driver}: {green} green, {red} red; "
    summary += f"{stays} {'stays' if stays == 1 else 'stay'} ({counts['stay_green']} green, {counts['stay_red']} red)"
    yield summary + (f", {counts['unknown']} unknown" if counts["unknown"] else "")
    for turned, head in _HEADS.items():
        found = [line for line in lines if line.turn == turned and line.after is not None]
        if not found:
            continue
        yield f"\n{head}:"
        yield from (wrapped(f"{line.cell}: {_change(line, driver)}", 2) for line in found[:ROWS_SHOWN])
        if len(found) > ROWS_SHOWN:
            yield f"  … and {len(found) - ROWS_SHOWN} more (--json shows all)"
    yield from (wrapped(text) for text in _of_unknown_drivers(driver, lines))


def _of_unknown_drivers(driver: str, lines: list[Line]) -> Iterator[str]:
    """Why nothing can be said to change, where nobody knows which driver a runner has today."""
    for runner in dict.fromkeys(line.runner for line in lines if line.driver is None):
        own = [line.after for line in lines if line.runner == runner and line.after is not None]
        runs = f"{sum(after.runs for after in own)} of its {len(own)} cells are predicted to run with {driver}"
        yield ""
        yield (
            f"{runner} has no `driver:`: {runs}, and what that changes cannot be said. Add it to the runner, or give "
            "--results of a run there."
        )


def _change(line: Line, driver: str) -> str:
    """What is said with the other driver, and of what it is a change."""
    from cuda_matrix.commands.foresight import said

    assert line.after is not None
    after = said(line.after)
    if line.driver is None:
        reason = f" ({line.after.explanation})" if not line.after.runs else ""
        return f"{after} with {driver}{reason}"
    if line.turn == "stays":
        return after
    seen = f", {line.shown}" if line.measured else ""
    return f"{said(line.before)} with {line.driver}{seen} → {after}{_because(line)}"


def _because(line: Line) -> str:
    """The sentence that a turn for the worse, or no answer, needs."""
    after = line.after
    if after is None or line.turn not in {"red", "unknown"}:
        return ""
    if line.turn == "unknown" and line.measured and "unknown" not in {line.before.verdict, after.verdict}:
        shown = "simulated" if line.simulated else "measured"
        return f" (what was {shown} is not what the rules foretold, so they cannot say what a driver changes)"
    return f" ({(line.before if line.before.verdict == 'unknown' else after).explanation})"
