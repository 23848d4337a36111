"""Owns the wiring that `run` and `demo` share: clocks, random ids, progress and recording.

Must not know which engine runs (the verbs build it) nor what a result means.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from cuda_matrix import protocol, result_files
from cuda_matrix.adapters.console_progress import ConsoleProgress
from cuda_matrix.execute import Run, run_cells
from cuda_matrix.model import EngineName
from cuda_matrix.plan_union import only, refresh
from cuda_matrix.reference import load_reference
from cuda_matrix.version import __version__

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from cuda_matrix.execute import Engine
    from cuda_matrix.plan import Plan, PlannedCell


def new_run_id(environ: Mapping[str, str]) -> str:
    """The workflow run where there is one, and always a random part: two lanes of one run are two runs."""
    prefix = "-".join(environ[name] for name in ("GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT") if environ.get(name))
    random = secrets.token_hex(6)
    return re.sub(r"[^A-Za-z0-9_.-]", "-", f"{prefix}-{random}" if prefix else random)


def plan_for_folder(plan: Plan, out: Path, matrix_cells: Collection[str]) -> Plan:
    """The plan to keep in `out` when a part of the matrix is run into it: what was planned there stays planned.

    Cells of another matrix do not: two matrices in one folder would make a table of a third one.
    """
    file = out / result_files.PLAN_FILE
    if not file.exists():
        return plan
    return refresh(only(result_files.read_plan(file), matrix_cells), plan)


def run_and_record(engine: Engine, run_id: str, plan: Plan, cells: tuple[PlannedCell, ...], out: Path) -> None:
    """Run cells of a plan; write plan.json first and each result as it comes.

    Earlier results of the same cells are set aside before the first cell starts: a run that is killed must not
    leave them looking like its own.
    """
    # On stderr: stdout belongs to results.
    announce = engine.name is not EngineName.SIMULATED
    progress = ConsoleProgress(sys.stderr, len(cells), time.monotonic, announce=announce)
    what = f"{len(cells)} cell{'s' if len(cells) != 1 else ''}, engine {engine.name.value}, results in {out}"
    progress.note(what)
    attempts = result_files.set_aside(out, [cell.id for cell in cells])
    result_files.write_plan(out, plan)
    run = Run(
        engine=engine,
        run_id=run_id,
        tool_version=__version__,
        sources=protocol.payload_sources(),
        reference=load_reference(),
        clock=lambda: datetime.now(timezone.utc),
        elapsed=time.monotonic,
        new_marker=lambda: secrets.token_hex(16),
        progress=progress,
    )
    run_cells(run, plan, cells, attempts, lambda result: result_files.write_result(out, result))


def environment() -> Mapping[str, str]:
    """The process' environment, for the adapters that need some of it."""
    return os.environ
