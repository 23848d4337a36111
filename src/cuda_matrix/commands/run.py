"""Owns the verb `run`: which engine, which cells, where the results go. Builds the adapters."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from cuda_matrix.execute import Engine
    from cuda_matrix.plan import Plan, PlannedCell


@dataclass(frozen=True)
class Options:
    """The verb's options, as click gives them."""

    config: str | None
    plan_file: str | None
    select: tuple[str, ...]
    tier: str | None
    no_skip: bool
    lane: int | None
    max_jobs: int
    engine: str
    out: str
    python: str | None
    scenario: str | None


@click.command()
@click.option(
    "--config", metavar="PATH", help="Directory of YAML files, or one file. Default: matrix/, else cuda-matrix.yml."
)
@click.option(
    "--plan", "plan_file", metavar="FILE", help="Run this plan (of `plan --output`) instead of planning anew."
)
@click.option("--select", multiple=True, metavar="GLOB", help="Only cells that match; may be given several times.")
@click.option("--tier", metavar="NAME", help="Only the cells of this tier of the policy.")
@click.option(
    "--no-skip", is_flag=True, help="Run cells that are predicted to fail, whatever policy.skip_predicted says."
)
@click.option("--lane", type=click.IntRange(min=0), metavar="N", help="Only this lane of the plan.")
@click.option("--max-jobs", type=click.IntRange(1, 256), default=256, show_default=True, help="Most lanes of the plan.")
@click.option(
    "--engine", type=click.Choice(["docker", "local", "simulated"]), default="docker", help="Default: docker."
)
@click.option(
    "--out", default="results", show_default=True, metavar="DIR", help="Folder for plan.json and the results."
)
@click.option(
    "--python", metavar="PATH", help="--engine local: the interpreter. Default: the first with torch, else the first."
)
@click.option("--scenario", metavar="FILE", help="--engine simulated: the fleet. Default: the demo's.")
def command(**values: Any) -> None:
    """Run cells: launch each image, check and measure inside it.

    Each cell leaves one result file. Containers get all GPUs unless `container.gpus` or a runner without `gpu` says
    otherwise, and are removed on every path.
    A cell that fails is a result, not an error of this verb: it ends with 0 when every cell has its result.
    `report` turns the results into tables, `gate` into yes or no.
    """
    from cuda_matrix.commands import wiring

    options = Options(**values)
    plan, beside = _plan(options)
    cells = _cells(plan, options.lane)
    run_id = wiring.new_run_id(os.environ)
    engine, connect = _engine(options, plan, cells, run_id)
    out = Path(options.out)
    attempts = wiring.open_folder(out, plan, cells, beside)
    connect()
    wiring.run_and_record(engine, run_id, plan, cells, out, attempts)
    click.echo(f"{len(cells)} result(s); for the table: cuda-matrix report {shlex.quote(str(out))}", err=True)


def _plan(options: Options) -> tuple[Plan, Callable[[Plan], Plan] | None]:
    """The plan, and how the plan that the folder holds already goes together with it.

    Beside a part of a matrix, what was planned earlier stays planned, as the configuration says it now; beside a plan
    file, as it was; where the whole matrix is run, nothing stays.
    """
    from cuda_matrix import config_files, matrix
    from cuda_matrix.commands.foresight import foretold
    from cuda_matrix.errors import ConfigurationError
    from cuda_matrix.plan_union import cell_ids, only, refresh
    from cuda_matrix.result_files import read_plan

    if options.plan_file is None:
        loaded = config_files.load(options.config)
        plan = matrix.make_plan(
            loaded.expansion,
            loaded.config,
            select=options.select,
            tier=options.tier,
            max_jobs=options.max_jobs,
        )
        skip = loaded.config.policy.skip_predicted and not options.no_skip
        plan = foretold(plan, {}, skip=skip)
        if not options.select and options.tier is None:
            return plan, None

        def beside(earlier: Plan) -> Plan:
            lanes = max(matrix.MAX_JOBS, len(loaded.expansion.runners))
            whole = matrix.make_plan(loaded.expansion, loaded.config, max_jobs=lanes)
            return only(foretold(whole, {}, skip=skip), cell_ids(earlier) | cell_ids(plan))

        return plan, beside
    if options.select or options.tier or options.config or options.no_skip:
        msg = "--plan already says which cells run: it goes with neither --config, --select, --tier nor --no-skip"
        raise ConfigurationError(msg, hint="give these to `cuda-matrix plan`, or use --lane")
    plan = read_plan(Path(options.plan_file))
    return plan, lambda earlier: refresh(earlier, plan)


def _cells(plan: Plan, lane: int | None) -> tuple[PlannedCell, ...]:
    from cuda_matrix.errors import ConfigurationError

    cells = tuple(cell for cell in plan.cells if lane is None or cell.lane == lane)
    if not cells:
        what = f"lane {lane}" if lane is not None else "the plan"
        msg = f"{what} has no cell to run (the plan has {len(plan.lanes)} lane(s), counted from 0)"
        raise ConfigurationError(msg, hint="`cuda-matrix plan` shows the lanes and what is skipped")
    return cells


def _engine(
    options: Options, plan: Plan, cells: tuple[PlannedCell, ...], run_id: str
) -> tuple[Engine, Callable[[], None]]:
    """The engine, and what reaches for its machine."""
    from cuda_matrix.errors import ConfigurationError

    if options.python is not None and options.engine != "local":
        msg = "--python goes with --engine local"
        raise ConfigurationError(msg)
    if options.scenario is not None and options.engine != "simulated":
        msg = "--scenario goes with --engine simulated"
        raise ConfigurationError(msg)
    if options.engine == "simulated":
        from cuda_matrix.adapters.simulated_engine import SimulatedEngine
        from cuda_matrix.reference import load_reference
        from cuda_matrix.simulation import load_scenario

        scenario = load_scenario(Path(options.scenario) if options.scenario else None)
        simulated = SimulatedEngine(scenario, load_reference())
        simulated.prepare([(cell.image, cell.runner) for cell in cells])
        return simulated, lambda: None
    if options.engine == "local":
        from cuda_matrix.adapters.local_engine import LocalEngine, find_python

        return LocalEngine(options.python or find_python(os.environ), os.environ), lambda: None
    return _docker_engine(plan, cells, run_id)


def _docker_engine(plan: Plan, cells: tuple[PlannedCell, ...], run_id: str) -> tuple[Engine, Callable[[], None]]:
    import time

    from cuda_matrix.adapters.containers import Ownership, process_owner
    from cuda_matrix.adapters.docker_engine import DockerEngine

    ownership = Ownership(run_id=run_id, owner=process_owner(os.getpid()), now=time.time)
    engine = DockerEngine(ownership, os.environ)
    here = sorted({cell.runner for cell in cells if plan.runners[cell.runner].docker_host is None})
    if len(here) > 1:
        names = ", ".join(here)
        click.echo(f"note: cells of {names} all run on this one machine; --select '*@{here[0]}' takes one", err=True)
    hosts = {plan.runners[cell.runner].docker_host for cell in cells}
    return engine, lambda: engine.prepare(hosts, lambda text: click.echo(text, err=True))
