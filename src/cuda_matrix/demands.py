"""Owns what a configuration demands of a plan that somebody else made: which of its cells are missing or asked less.

Pure. A plan says itself which cells it holds, what they ask and what was left out; where a fork made it, none of that
decides. Must not know how a plan is judged otherwise (gate) or where both come from (commands).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from cuda_matrix.config import Config
from cuda_matrix.explain import listed
from cuda_matrix.gate import ACCEPTED, GateReason, GateVerdict, requires
from cuda_matrix.matrix import Cell, Expansion, select, tier_globs
from cuda_matrix.plan import Plan, PlannedCell, SkippedCell
from cuda_matrix.result import CellResult


def demanded(config: Config, expansion: Expansion, tier: str | None, globs: Sequence[str]) -> tuple[Cell, ...]:
    """The cells that the configuration requires, of all or of the part that was to be planned.

    Raises:
        ConfigurationError: there is no such tier, or a glob names no cell.
    """
    cells: Sequence[Cell] = expansion.cells
    for chosen in (tier_globs(config, tier) if tier is not None else (), globs):
        if chosen:
            cells = select(cells, chosen, expansion.skipped)
    return tuple(cell for cell in cells if requires(config.policy, cell.id))


def shortfalls(plan: Plan, config: Config, expansion: Expansion, cells: Iterable[Cell]) -> tuple[GateReason, ...]:
    """Why this plan does not answer what the configuration demands; empty where it does.

    A cell may be left out as unchanged (`unvouched` looks at those), and as predicted to fail where the policy allows
    that; never as excluded, since these cells are those that the configuration does not exclude.
    """
    planned = {cell.id for cell in plan.cells}
    accepted = {"unchanged", "predicted"} if config.policy.skip_predicted else {"unchanged"}
    planned |= {cell.id for cell in plan.skipped if cell.kind in accepted}
    cells = tuple(cells)
    missing = tuple(cell.id for cell in cells if cell.id not in planned)
    here = [cell for cell in cells if cell.id in planned]
    return (*_missing(missing), *_others(plan, config, expansion, here))


def unvouched(plan: Plan, cells: Iterable[Cell], published: Iterable[CellResult]) -> tuple[GateReason, ...]:
    """Required cells that the plan left out as unchanged although no published result is good with that digest."""
    good = {(result.cell, result.image.digest) for result in published if result.verdict in ACCEPTED}
    asked = {cell.id for cell in cells}
    left_out = [cell for cell in plan.skipped if cell.kind == "unchanged" and cell.id in asked]
    found = tuple(cell.id for cell in left_out if cell.digest is None or (cell.id, cell.digest) not in good)
    if not found:
        return ()
    text = f"left out as unchanged, but the table in this checkout holds no such good result: {listed(found)}"
    return (GateReason(text, found),)


def with_reasons(verdict: GateVerdict, reasons: Sequence[GateReason]) -> GateVerdict:
    """The decision with further reasons against a release."""
    if not reasons:
        return verdict
    return replace(verdict, released=False, reasons=(*reasons, *verdict.reasons))


def _missing(cells: tuple[str, ...]) -> Iterator[GateReason]:
    if cells:
        text = f"required by the configuration, but not in the plan: {listed(cells)}"
        yield GateReason(f"{text} (if only a part was to be planned, say which with --tier or --select)", cells)


def _others(plan: Plan, config: Config, expansion: Expansion, cells: Sequence[Cell]) -> Iterator[GateReason]:
    """What the plan asks otherwise than the configuration."""
    for name in ("payload", "container"):
        if cells and getattr(plan, name) != getattr(config, name):
            yield GateReason(f"the plan was made with another `{name}:` than the configuration has")
    # The plan's own word says of which image and machine its cell is: an id alone proves nothing.
    demands = {cell.id: (expansion.images[cell.image], expansion.runners[cell.runner]) for cell in cells}
    found: dict[str, list[str]] = {}
    planned: tuple[PlannedCell | SkippedCell, ...] = (*plan.cells, *plan.skipped)
    for cell in planned:
        if cell.id not in demands:
            continue
        row, machine = plan.images[cell.image], plan.runners[cell.runner]
        configured, runner = demands[cell.id]
        names = [what for what in ("ref", "env", "expect") if getattr(row, what) != getattr(configured, what)]
        names += ["digest"] if configured.digest and row.digest != configured.digest else []
        if names:
            found.setdefault(f"another {', '.join(names)} of the image {cell.image}", []).append(cell.id)
        if machine.gpu != runner.gpu:
            found.setdefault(f"another card of the runner {cell.runner}", []).append(cell.id)
    for what, which in found.items():
        yield GateReason(f"the plan has {what} than the configuration: {listed(which)}", tuple(which))
