"""Owns what a run changes in the ledger: which plan and which result of each cell counts from then on.

Must not know how a ledger is written (ledger) or committed (commit_back). Two runs of different cells give the same
ledger in either order, and the same run twice changes nothing: so it can be done again at a head that has moved.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Literal, TypeVar

from cuda_matrix.gate import newest, utc
from cuda_matrix.ledger import Ledger
from cuda_matrix.plan import Lane, Plan, PlannedCell, SkippedCell
from cuda_matrix.result import CellResult

_CLOCKS_APART = timedelta(days=1)  # a result from later than that is of a broken clock, and would stay for ever
_Row = TypeVar("_Row")


def merge(head: Ledger | None, run: Ledger, now: datetime) -> Ledger:
    """The ledger after a run.

    - A cell that the run asked for has the run's result. One that gave no answer has none: absent is failed, and an
      old pass must not hide it. Where the ledger's result is newer, because a later run was published first, it stays.
    - A cell that the run did not ask for (another tier, `--select`, unchanged) keeps its last result.
    - A cell that the configuration no longer has goes. Only a plan of the whole configuration shows that.

    Args:
        head: What is published; None where nothing is.
        run: The plan and the results of one run.
        now: Results from the future are dropped from `head`.
    """
    asked = {cell.id for cell in run.plan.cells}
    mine = {result.cell: result for result in newest(run.results.values()).values() if result.cell in asked}
    run = Ledger(run.plan, mine)
    if head is None:
        plan = _settled(run.plan, run.plan.cells, run.plan.skipped, is_sorted=not _is_whole(run.plan))
        return Ledger(plan, _sorted(mine))
    theirs = {cell: result for cell, result in head.results.items() if utc(result.started_at) <= now + _CLOCKS_APART}
    head = Ledger(head.plan, theirs)
    is_late = _is_late(run, head)
    plan = _plan(run, head, head.plan) if is_late else _plan(head, run, head.plan)
    unanswered = set() if is_late else asked - mine.keys()
    kept = newest([*theirs.values(), *mine.values()])
    named = {cell.id for cell in plan.cells} - unanswered
    return Ledger(plan, _sorted({cell: result for cell, result in kept.items() if cell in named}))


def _sorted(results: Mapping[str, CellResult]) -> dict[str, CellResult]:
    return {cell: results[cell] for cell in sorted(results)}


def _is_late(run: Ledger, head: Ledger) -> bool:
    """Whether a later run of the same cells is published already."""
    asked = {cell.id for cell in run.plan.cells}
    published = [utc(result.started_at) for cell, result in head.results.items() if cell in asked]
    mine = [utc(result.started_at) for result in run.results.values()]
    return bool(mine and published) and max(published) > max(mine)


def _is_whole(plan: Plan) -> bool:
    count = len(plan.cells) + sum(skipped.kind != "excluded" for skipped in plan.skipped)
    return plan.matrix_cells is not None and count >= plan.matrix_cells


def _plan(earlier: Ledger, later: Ledger, published: Plan) -> Plan:
    """The later word counts; the earlier plan gives the cells that a partial later one does not speak of.

    `published` is one of the two: its order stays where nothing is new.
    """
    before = {cell.id: cell for cell in earlier.plan.cells}
    is_whole = _is_whole(later.plan)
    planned = {} if is_whole else dict(before)
    skipped = {} if is_whole else {cell.id: cell for cell in earlier.plan.skipped}
    for cell in later.plan.cells:
        planned[cell.id] = cell
        skipped.pop(cell.id, None)
    for left_out in later.plan.skipped:
        if left_out.kind == "unchanged" and left_out.id in earlier.results:
            planned[left_out.id] = before.get(left_out.id) or _again(left_out)  # its result still holds: shown with it
            skipped.pop(left_out.id, None)
        else:
            skipped[left_out.id] = left_out
            planned.pop(left_out.id, None)
    if is_whole:
        return _settled(later.plan, planned.values(), skipped.values(), is_sorted=False)
    images = {**earlier.plan.images, **later.plan.images}
    runners = {**earlier.plan.runners, **later.plan.runners}
    is_new = len(images) > len(published.images) or len(runners) > len(published.runners)
    images = {name: images[name] for name in (*published.images, *images)}
    runners = {name: runners[name] for name in (*published.runners, *runners)}
    plan = later.plan.model_copy(update={"images": images, "runners": runners})
    return _settled(plan, planned.values(), skipped.values(), is_sorted=is_new)


def _again(cell: SkippedCell) -> PlannedCell:
    return PlannedCell(id=cell.id, image=cell.image, runner=cell.runner, lane=0, prediction=cell.prediction)


def _settled(plan: Plan, cells: Iterable[PlannedCell], skipped: Iterable[SkippedCell], *, is_sorted: bool) -> Plan:
    """One order and one lane per runner, whoever came first. A part of the matrix does not know the whole's order."""
    cells, skipped = list(cells), list(skipped)
    used_images = {cell.image for cell in cells} | {cell.image for cell in skipped}
    used_runners = {cell.runner for cell in cells} | {cell.runner for cell in skipped}
    images = _used(plan.images, used_images, is_sorted=is_sorted)
    runners = _used(plan.runners, used_runners, is_sorted=is_sorted)
    row, column = ({name: place for place, name in enumerate(names)} for names in (images, runners))
    cells.sort(key=lambda cell: (row[cell.image], column[cell.runner]))
    skipped.sort(key=lambda cell: (row[cell.image], column[cell.runner]))
    working = [name for name in runners if any(cell.runner == name for cell in cells)]
    lane = {name: index for index, name in enumerate(working)}
    digests = {image.digest is not None for image in images.values()}
    state: Literal["offline", "resolved", "partly"] = "partly" if len(digests) > 1 else "offline"
    return plan.model_copy(
        update={
            "images": images,
            "runners": runners,
            "cells": tuple(cell.model_copy(update={"lane": lane[cell.runner]}) for cell in cells),
            "skipped": tuple(skipped),
            "lanes": tuple(
                Lane(index=lane[name], runner=name, cells=tuple(cell.id for cell in cells if cell.runner == name))
                for name in working
            ),
            "digests": "resolved" if digests == {True} else state,
        }
    )


def _used(rows: Mapping[str, _Row], names: Container[str], *, is_sorted: bool) -> dict[str, _Row]:
    return {name: rows[name] for name in (sorted(rows) if is_sorted else rows) if name in names}
