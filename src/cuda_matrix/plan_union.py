"""Owns how several plans become one, those of several lanes or of a second run into the same folder; and parts of one.

Must not know where plans lie (result_files).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cuda_matrix.plan import Lane, Plan, SkippedCell


def refresh(earlier: Plan, later: Plan) -> Plan:
    """The plan of a folder in which some cells are run again: no cell is forgotten, and the later word counts."""
    known = earlier.model_copy(
        update={
            "images": {**earlier.images, **later.images},
            "runners": {**earlier.runners, **later.runners},
            "payload": later.payload,
            "container": later.container,
            "policy": later.policy,
            "report": later.report,
            "matrix_cells": later.matrix_cells,
        }
    )
    return unite(known, later)


def cell_ids(plan: Plan) -> set[str]:
    """Every cell that the plan knows, to run or skipped."""
    return {cell.id for cell in plan.cells} | {cell.id for cell in plan.skipped}


def only(plan: Plan, cells: Collection[str]) -> Plan:
    """The plan without the cells that are not in `cells`."""
    lanes = [
        lane.model_copy(update={"cells": tuple(cell for cell in lane.cells if cell in cells)}) for lane in plan.lanes
    ]
    kept = tuple(cell for cell in plan.cells if cell.id in cells)
    skipped = tuple(cell for cell in plan.skipped if cell.id in cells)
    images = {cell.image for cell in kept} | {cell.image for cell in skipped}
    runners = {lane.runner for lane in lanes} | {cell.runner for cell in skipped}
    return plan.model_copy(
        update={
            "cells": kept,
            "skipped": skipped,
            "lanes": tuple(lanes),
            "images": {key: image for key, image in plan.images.items() if key in images},
            "runners": {key: runner for key, runner in plan.runners.items() if key in runners},
        }
    )


def without_cells(plan: Plan, skipped: Sequence[SkippedCell]) -> Plan:
    """The plan in which these cells do not run, each for its reason. Lanes keep their order; empty ones go."""
    if not skipped:
        return plan
    left_out = {cell.id for cell in skipped}
    lanes = [(lane, tuple(cell for cell in lane.cells if cell not in left_out)) for lane in plan.lanes]
    kept = [(lane, cells) for lane, cells in lanes if cells]
    number = {lane.index: index for index, (lane, _) in enumerate(kept)}
    return plan.model_copy(
        update={
            "cells": tuple(
                cell.model_copy(update={"lane": number[cell.lane]}) for cell in plan.cells if cell.id not in left_out
            ),
            "lanes": tuple(
                lane.model_copy(update={"index": number[lane.index], "cells": cells}) for lane, cells in kept
            ),
            "skipped": (*plan.skipped, *skipped),
        }
    )


def contradiction(first: Plan, second: Plan) -> str:
    """Why two plans cannot be one; empty where they can."""
    for key, image in second.images.items():
        known = first.images.get(key)
        if known and (known.ref, known.digest) != (image.ref, image.digest):
            here, there = image.digest or image.ref, known.digest or known.ref
            return f"contradicts an earlier plan: {key} is {here} here, {there} there"
    for runner, machine in second.runners.items():
        if first.runners.get(runner, machine) != machine:
            return f"contradicts an earlier plan: runner {runner} is described differently"
    if (second.payload, second.container) != (first.payload, first.container):
        return "contradicts an earlier plan: it asks for other checks, another profile or other limits"
    if second.policy != first.policy:
        return "contradicts an earlier plan: its policy is another one"
    return ""


def unite(first: Plan, second: Plan) -> Plan:
    """One plan of both; where both know a cell, an image or a runner, the first one's word counts."""
    known = {cell.id for cell in first.cells}
    names = {cell.id for cell in second.cells} - known
    # Only lanes with a new cell: without this a folder's plan would grow with every run into it.
    kept = [lane for lane in second.lanes if names.intersection(lane.cells)]
    number = {lane.index: len(first.lanes) + place for place, lane in enumerate(kept)}
    added = [cell.model_copy(update={"lane": number[cell.lane]}) for cell in second.cells if cell.id in names]
    cells = (*first.cells, *added)
    planned = known | names
    skipped = {cell.id: cell for cell in (*second.skipped, *first.skipped) if cell.id not in planned}
    lanes = [
        Lane(index=number[lane.index], runner=lane.runner, cells=tuple(cell for cell in lane.cells if cell in names))
        for lane in kept
    ]
    return first.model_copy(
        update={
            "images": {**first.images, **{key: row for key, row in second.images.items() if key not in first.images}},
            "runners": {
                **first.runners,
                **{key: row for key, row in second.runners.items() if key not in first.runners},
            },
            "cells": cells,
            "skipped": tuple(skipped.values()),
            "lanes": (*first.lanes, *lanes),
            "matrix_cells": max((n for n in (first.matrix_cells, second.matrix_cells) if n is not None), default=None),
        }
    )
