"""Owns what `gate`, `report` and `demo` judge: results read together with their plan, and the decision over them.

Must not know how a decision is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cuda_matrix.errors import ConfigurationError
from cuda_matrix.gate import judge, newest_date
from cuda_matrix.result_files import PLAN_FILE, read_results

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from cuda_matrix.config import ReportOptions
    from cuda_matrix.config_files import LoadedConfig
    from cuda_matrix.errors import Problem
    from cuda_matrix.gate import GateVerdict
    from cuda_matrix.plan import Plan
    from cuda_matrix.result import CellResult


class Material(NamedTuple):
    """What a decision is made of: collected results that have a plan."""

    plan: Plan
    results: tuple[CellResult, ...]
    problems: tuple[Problem, ...]
    plan_problems: tuple[Problem, ...]


def collect(paths: Iterable[Path]) -> Material:
    """Read results and their plan.

    Raises:
        ConfigurationError: no plan was found, so that nothing says which cells are missing.
    """
    found = read_results(paths)
    if found.plan is None:
        msg = f"no {PLAN_FILE} could be read: nothing says which cells there should be"
        hint = "`cuda-matrix run` writes it beside the results; give its whole folder"
        raise ConfigurationError(msg, problems=found.problems, hint=hint)
    return Material(found.plan, found.results, found.problems, found.plan_problems)


def decide(material: Material) -> GateVerdict:
    """Judge on the day of the newest result, so that the same results always give the same answer."""
    return judge(material.plan, material.results, newest_date(material.results), material.plan_problems)


def decide_under(
    material: Material, loaded: LoadedConfig, tier: str | None, globs: Sequence[str]
) -> tuple[Material, GateVerdict]:
    """Judge by a configuration: its policy and report options, and its cells, of the part that was to be planned.

    Raises:
        ConfigurationError: there is no such tier, or a glob names no cell.
    """
    from cuda_matrix.demands import demanded, shortfalls, unvouched, with_reasons

    config, expansion = loaded.config, loaded.expansion
    cells = demanded(config, expansion, tier, globs)
    reasons = shortfalls(material.plan, config, expansion, cells)
    if any(cell.kind == "unchanged" for cell in material.plan.skipped):
        reasons += unvouched(material.plan, cells, _published(config.report))
    known = {"policy": config.policy, "report": config.report, "matrix_cells": len(expansion.cells)}
    plan = material.plan.model_copy(update=known)
    material = material._replace(plan=plan)
    return material, with_reasons(decide(material), reasons)


def _published(options: ReportOptions) -> tuple[CellResult, ...]:
    """The table that is in the checkout around the current folder, on its own branch where it has one."""
    from pathlib import Path

    from cuda_matrix.ledger import LEDGER_FILE

    if options.branch is None:
        return read_results([Path(options.dir) / LEDGER_FILE]).results
    from cuda_matrix.adapters.git_repository import here
    from cuda_matrix.ledger import LEDGER_LIMIT_BYTES, decode

    checkout = here()
    try:
        commit = checkout.remote_branch(options.branch)
    except ConfigurationError:  # there is no git
        return ()
    data = checkout.file(commit, f"{options.dir}/{LEDGER_FILE}", LEDGER_LIMIT_BYTES) if commit else None
    return decode(data).results if data is not None else ()
