"""Owns the packing of cells into lanes (the jobs of a GitHub matrix), and how that matrix is written.

Pure. Must not know how cells were chosen (matrix).
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from cuda_matrix.errors import ConfigurationError
from cuda_matrix.plan import Lane, Plan

# Beside the payload's own limit: how long a pull may take, and start, stop and upload, before a lane counts as stuck.
_PULL_MINUTES = 45
_CELL_MINUTES = 5
_LANE_MINUTES = 10
_MOST_MINUTES = 5 * 24 * 60  # https://docs.github.com/actions/reference/limits: a job on a self-hosted runner


def pack(cells: Sequence[tuple[str, str, str]], jobs: Mapping[str, int], max_jobs: int) -> tuple[Lane, ...]:
    """Lanes of (cell id, image id, runner) in the order of `jobs`: runner → most lanes that it may have.

    Raises:
        ConfigurationError: more runners than `max_jobs`.
    """
    by_runner: dict[str, list[tuple[str, str]]] = {runner: [] for runner in jobs}
    for cell, image, runner in cells:
        by_runner[runner].append((cell, image))
    sizes = {runner: min(jobs[runner], len(found)) for runner, found in by_runner.items() if found}
    lanes: list[Lane] = []
    for runner, count in lane_counts(sizes, max_jobs).items():
        for chunk in _chunks(by_runner[runner], count):
            lanes.append(Lane(index=len(lanes), runner=runner, cells=chunk))
    return tuple(lanes)


def lane_counts(wanted: Mapping[str, int], max_jobs: int) -> dict[str, int]:
    """Runner → lanes, never more than wanted, never below one, all together at most `max_jobs`.

    Raises:
        ConfigurationError: more runners than `max_jobs`.
    """
    if len(wanted) > max_jobs:
        msg = f"{len(wanted)} runners have cells to run, but at most {max_jobs} jobs are allowed, one a runner"
        raise ConfigurationError(msg, hint="choose fewer with --select or --tier, or raise --max-jobs (GitHub: 256)")
    counts = dict(wanted)
    largest = [(-count, order, runner) for order, (runner, count) in enumerate(counts.items())]
    heapq.heapify(largest)
    for _ in range(sum(counts.values()) - max_jobs):
        negative, order, runner = heapq.heappop(largest)
        counts[runner] -= 1
        heapq.heappush(largest, (negative + 1, order, runner))
    return counts


def github_matrix(plan: Plan, environment: str = "") -> dict[str, Any]:
    """`strategy.matrix` of a workflow: one entry a lane; `labels` is JSON text for `runs-on: ${{ fromJSON(…) }}`.

    `slot` counts the lanes of a runner from 1 to its `jobs`: two jobs of one slot, of whatever run, share a machine.
    `environment` is the one whose reviewers let the jobs go; empty for none.
    """
    totals: dict[str, int] = {}
    for lane in plan.lanes:
        totals[lane.runner] = totals.get(lane.runner, 0) + 1
    seen: dict[str, int] = {}
    refs = {cell.id: plan.images[cell.image].ref for cell in plan.cells}
    entries = []
    for lane in plan.lanes:
        seen[lane.runner] = seen.get(lane.runner, 0) + 1
        amount = f"{len(lane.cells)} cell{'s' if len(lane.cells) != 1 else ''}"
        entries.append(
            {
                "lane": lane.index,
                "name": f"{lane.runner} {seen[lane.runner]}/{totals[lane.runner]} ({amount})",
                "runner": lane.runner,
                "labels": json.dumps(list(plan.runners[lane.runner].labels)),
                "cells": len(lane.cells),
                "slot": seen[lane.runner],
                "timeout_minutes": _minutes(lane, refs, plan.payload.timeout),
                "environment": environment,
            }
        )
    return {"include": entries}


def _minutes(lane: Lane, refs: Mapping[str, str], timeout_s: float) -> int:
    """The job's `timeout-minutes`: longer than everything in it may take, so that it only ends a job that hangs."""
    pulls = len({refs[cell] for cell in lane.cells})
    each = math.ceil(timeout_s / 60) + _CELL_MINUTES
    return min(_LANE_MINUTES + pulls * _PULL_MINUTES + len(lane.cells) * each, _MOST_MINUTES)


def _chunks(cells: Sequence[tuple[str, str]], count: int) -> list[tuple[str, ...]]:
    """Contiguous, nearly equal parts. A border inside one image moves back by one where that spares a second pull."""
    borders = [0]
    for number in range(1, count):
        even = round(number * len(cells) / count)
        lowest, highest = borders[-1] + 1, len(cells) - (count - number)
        allowed = [border for border in (even, even - 1) if lowest <= border <= highest]
        whole = [border for border in allowed if cells[border - 1][1] != cells[border][1]]
        borders.append((whole or allowed or [lowest])[0])
    borders.append(len(cells))
    return [tuple(cell for cell, _ in cells[start:end]) for start, end in pairwise(borders)]
