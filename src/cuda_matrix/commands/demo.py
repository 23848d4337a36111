"""Owns the verb `demo`: plan → run → report on what is built in. Needs no GPU, no Docker and no network."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cuda_matrix.execute import Engine
    from cuda_matrix.plan import Plan
    from cuda_matrix.result import CellResult

# What the fleet of data/demo-fleet.yml is there to show: cell → cause.
MEANT = {"torch2.2.0-cu121@a800": "driver-too-old", "torch2.9.1-cu130@a800": "driver-too-old"}
_TORCHLESS = "torch-missing"


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo-report"), show_default=True, metavar="DIR")
def command(out: Path) -> None:
    """Run the whole pipeline on a simulated fleet and on this machine.

    The fleet is that of the articles: an RTX 3090, an RTX 4090 and an A800 with an old driver, on which the CUDA 12.1
    image must fail. Its figures are simulated, and say so. This machine's own Python is measured.
    """
    from cuda_matrix.adapters.local_engine import LocalEngine, find_python
    from cuda_matrix.adapters.simulated_engine import SimulatedEngine
    from cuda_matrix.reference import load_reference
    from cuda_matrix.result_files import read_results
    from cuda_matrix.simulation import load_scenario

    results = out / "results"
    fleet = _plan("demo-config.yml")
    _run("a simulated fleet", SimulatedEngine(load_scenario(None), load_reference()), fleet, results / "fleet")
    here = _plan("demo-this-machine.yml")
    _run("this machine", LocalEngine(find_python(os.environ), os.environ), here, results / "this-machine")
    _report(results, out)
    click.echo(closing(read_results([results]).results))


def closing(results: Sequence[CellResult]) -> str:
    """One line: whether the red in the table is the red that belongs there, and what this machine lacks."""
    from cuda_matrix.gate import GOOD
    from cuda_matrix.model import EngineName

    bad = {result.cell: result for result in results if result.verdict not in GOOD}
    fleet = {cell: _cause(result) for cell, result in bad.items() if result.engine is EngineName.SIMULATED}
    here = ", ".join(_cause(result) for result in bad.values() if result.engine is EngineName.LOCAL)
    machine = f"this machine's own Python: {here or 'good'}"
    if fleet != MEANT:
        told = ", ".join(f"{cell} {cause}" for cell, cause in sorted(fleet.items())) or "nothing"
        return f"Not as intended: of the simulated fleet {told} fails; only the A800's driver should. And {machine}."
    lacks = " (it has no torch, which the demo does not need)" if here == _TORCHLESS else ""
    return f"As intended: the A800 fails where its driver is too old, every other card is good; {machine}{lacks}."


def _cause(result: CellResult) -> str:
    return result.diagnosis.cause if result.diagnosis else result.verdict.value


def _plan(name: str) -> Plan:
    from cuda_matrix import documents, matrix
    from cuda_matrix.commands.foresight import foretold
    from cuda_matrix.config import Config
    from cuda_matrix.reference import data_text

    config = documents.load_table(Config, data_text(name).encode(), name)
    return foretold(matrix.make_plan(matrix.expand(config), config), {}, skip=False)


def _run(what: str, engine: Engine, plan: Plan, out: Path) -> None:
    from cuda_matrix.commands import wiring

    click.echo(f"{what}:", err=True)
    attempts = wiring.open_folder(out, plan, plan.cells, beside=None)
    wiring.run_and_record(engine, wiring.new_run_id({}), plan, plan.cells, out, attempts)


def _report(results: Path, out: Path) -> None:
    from cuda_matrix.commands.material import collect, decide
    from cuda_matrix.report.build import build_view
    from cuda_matrix.report.console import render_console
    from cuda_matrix.report.render import render

    material = collect([results])
    view = build_view(material.plan, decide(material), material.problems)
    click.echo(render_console(view, colour=sys.stdout.isatty()))
    click.echo("Written:")
    for name, text in render(view).items():
        path = out / name
        path.write_text(text, encoding="utf-8", newline="\n")
        click.echo(f"  {path}")
    click.echo(f"  {results}/  (plan.json and one result file per cell)")
