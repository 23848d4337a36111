"""Owns the wiring that `run` and `demo` share: clocks, random ids, progress and recording.

Must not know which engine runs (the verbs build it) nor what a result means.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import sys
import time
from datetime import datetime, timezone
from functools import cache
from typing import TYPE_CHECKING

from cuda_matrix import protocol, result_files
from cuda_matrix.adapters.console_progress import ConsoleProgress
from cuda_matrix.adapters.kernel_log import HostKernelLog, Places
from cuda_matrix.adapters.signals import deferred
from cuda_matrix.execute import Run, after, run_cells, worth_again
from cuda_matrix.model import EngineName
from cuda_matrix.reference import load_reference
from cuda_matrix.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cuda_matrix.execute import Engine
    from cuda_matrix.plan import Plan, PlannedCell
    from cuda_matrix.result import CellResult


def new_run_id(environ: Mapping[str, str]) -> str:
    """The workflow run where there is one, and always a random part: two lanes of one run are two runs."""
    prefix = "-".join(environ[name] for name in ("GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT") if environ.get(name))
    random = secrets.token_hex(6)
    return re.sub(r"[^A-Za-z0-9_.-]", "-", f"{prefix}-{random}" if prefix else random)


def open_folder(
    out: Path, plan: Plan, cells: tuple[PlannedCell, ...], beside: Callable[[Plan], Plan] | None
) -> dict[str, int]:
    """Make `out` ready for a run: cell id → number of its attempt.

    `beside` makes one plan of the one that the folder holds and this one (absent is failed: a run of a part must not
    make the rest unasked for); without it, this one replaces that. Earlier results of the cells to run are set aside
    before anything else: a run that is killed, or never reaches Docker, must not leave them looking like its own.
    """
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # two lanes of one machine may share a folder
        file = out / result_files.PLAN_FILE
        if beside is not None and file.exists():
            plan = beside(result_files.read_plan(file))
        attempts = result_files.set_aside(out, [cell.id for cell in cells])
        result_files.write_plan(out, plan)
    finally:
        os.close(folder)
    return attempts


def run_and_record(
    engine: Engine, run_id: str, plan: Plan, cells: tuple[PlannedCell, ...], out: Path, attempts: Mapping[str, int]
) -> None:
    """Run cells of a plan; write each result as it comes. What the machine broke is tried once more, at the end."""
    # On stderr: stdout belongs to results.
    announce = engine.name is not EngineName.SIMULATED
    progress = ConsoleProgress(sys.stderr, len(cells), time.monotonic, announce=announce)
    what = f"{len(cells)} cell{'s' if len(cells) != 1 else ''}, engine {engine.name.value}, results in {out}"
    progress.note(what)
    run = Run(
        engine=engine,
        run_id=run_id,
        tool_version=__version__,
        sources=protocol.payload_sources(load_reference()),
        reference=load_reference(),
        clock=lambda: datetime.now(timezone.utc),
        elapsed=time.monotonic,
        new_marker=lambda: secrets.token_hex(16),
        progress=progress,
        shield=deferred,
        kernel_log=_kernel_log(engine.name, os.environ),
    )
    first: dict[str, CellResult] = {}

    def record(result: CellResult) -> None:
        first[result.cell] = result
        result_files.write_result(out, result)

    run_cells(run, plan, cells, attempts, record)
    again = tuple(cell for cell in cells if engine.name is EngineName.DOCKER and worth_again(first[cell.id]))
    if not again:
        return
    names = ", ".join(cell.id for cell in again)
    progress.second_round(len(again), f"once more, since the machine or the registry failed: {names}")
    attempts = {cell.id: result_files.set_aside(out, [cell.id])[cell.id] for cell in again}
    run_cells(
        run, plan, again, attempts, lambda result: result_files.write_result(out, after(first[result.cell], result))
    )


def _kernel_log(engine: EngineName, environ: Mapping[str, str]) -> HostKernelLog | None:
    """The log of this machine, and which daemons are of it; a simulated cell runs on none."""
    if engine is EngineName.SIMULATED:
        return None

    def address(docker_host: str | None) -> str | None:
        if engine is EngineName.LOCAL:
            return None
        from cuda_matrix.adapters.endpoint import endpoint

        return endpoint(environ, docker_host).get("base_url")

    return HostKernelLog(Places(search_path=environ.get("PATH", os.defpath)), cache(address))
