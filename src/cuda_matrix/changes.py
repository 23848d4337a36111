"""Owns which cells need not run again: everything that their last accepted result depends on is as it was.

Must not know where the results lie, who says which files changed, or what a plan looks like when it is packed.
Whatever is in doubt runs: each rule below gives a reason to run, and a cell is unchanged when none does.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from cuda_matrix.gate import ACCEPTED, utc
from cuda_matrix.globs import matches, may_meet
from cuda_matrix.model import EngineName
from cuda_matrix.plan import Plan, PlannedCell, PlannedImage, PlannedRunner, SkippedCell, demand_sha256
from cuda_matrix.plan_union import without_cells
from cuda_matrix.promote import CLOCKS_APART
from cuda_matrix.result import CellResult


@dataclass(frozen=True)
class Since:
    """What is compared with: the accepted results at a revision, and the files that changed since then.

    `earlier`: cell → files that differ from what was there when its result was made; None where that is not known.
    `runners`: the machines as they were described for these results.
    """

    revision: str
    accepted: Mapping[str, CellResult]
    files: tuple[str, ...]
    earlier: Mapping[str, tuple[str, ...] | None]
    runners: Mapping[str, PlannedRunner]


@dataclass(frozen=True)
class Today:
    """What runs now: the hash of the payload, the version of the tool, the moment and the oldest result that counts."""

    payload_sha256: str
    tool_version: str
    now: datetime
    max_age: timedelta


class Compared(NamedTuple):
    """The plan without its unchanged cells, and why each of the others runs, in its order."""

    plan: Plan
    reasons: tuple[str, ...]


def without_unchanged(plan: Plan, since: Since, today: Today) -> Compared:
    """The plan with its unchanged cells skipped, each with the day and the digest of the result that still holds."""
    skipped, reasons = [], []
    for cell in plan.cells:
        reason = reason_to_run(plan, cell, since, today)
        if reason:
            reasons.append(reason)
            continue
        result = since.accepted[cell.id]
        when = f"{utc(result.started_at):%Y-%m-%d}"
        held = f"{result.verdict.value} on {when} with the same image, card, driver, payload and configuration"
        skipped.append(
            SkippedCell(
                id=cell.id,
                image=cell.image,
                runner=cell.runner,
                kind="unchanged",
                reason=held,
                digest=result.image.digest,
                tested_at=result.started_at,
            )
        )
    return Compared(without_cells(plan, skipped), tuple(reasons))


def reason_to_run(plan: Plan, cell: PlannedCell, since: Since, today: Today) -> str:
    """Why this cell runs all the same; empty where its last accepted result still holds."""
    image, runner = plan.images[cell.image], plan.runners[cell.runner]
    result = since.accepted.get(cell.id)
    if result is None:
        return f"no accepted result at {since.revision}"
    doubts = (
        _of_result(result, today),
        _of_files(image, since.files),
        _of_image(image, result),
        _of_machine(runner, result),
        _of_description(runner, since.runners.get(runner.id)),
        _of_earlier(image, since.earlier.get(cell.id)),
    )
    first = next((doubt for doubt in doubts if doubt), "")
    if first:
        return first
    if result.demand_sha256 != demand_sha256(image, plan.payload, plan.container):
        return "the configuration asks for something else than before"
    return ""


def touched(image: PlannedImage, files: Iterable[str]) -> str:
    """The first changed file that the image is built from; empty where there is none.

    A name that ends in `/` is a folder of which nobody knows what changed in it: a submodule.
    """
    return _touched(image.paths, tuple(files))


@lru_cache(maxsize=1024)  # an image has a cell on every runner
def _touched(globs: tuple[str, ...], files: tuple[str, ...]) -> str:
    plain = [_plain(glob) for glob in globs]
    return next((file for file in files if any(_covers(glob, file) for glob in plain)), "")


def _covers(glob: str, file: str) -> bool:
    """`dir/**` covers everything below `dir`; `*` stops nowhere, so that a wide glob errs on the side of running."""
    if file.endswith("/"):
        return may_meet(f"{file}*", glob) or may_meet(f"{file}*", f"{glob}/*") or _covers(glob, file.rstrip("/"))
    return matches(file, glob) or matches(file, f"{glob}/*")


def _plain(glob: str) -> str:
    """From the top, as git names files: `.` is everything, `a/../b` is `b`, and `**/` may stand for no folder."""
    top = posixpath.normpath(f"/{glob}").lstrip("/")
    return top.replace("**/", "*") if top else "*"


def _of_result(result: CellResult, today: Today) -> str:
    age = today.now - utc(result.started_at)
    doubts = {
        f"its last result is {result.verdict.value}": result.verdict not in ACCEPTED,
        f"its last result is of the {result.engine.value} engine": result.engine is not EngineName.DOCKER,
        f"its last result is {age.days} days old": age > today.max_age,
        "its last result is from the future": age < -CLOCKS_APART,
        "the payload has changed": result.payload_sha256 != today.payload_sha256,
        f"its last result is of cuda-matrix {result.tool_version}": result.tool_version != today.tool_version,
    }
    return next((doubt for doubt, holds in doubts.items() if holds), "")


def _of_files(image: PlannedImage, files: Iterable[str]) -> str:
    file = touched(image, files)
    return f"{file} has changed" if file else ""


def _of_earlier(image: PlannedImage, files: tuple[str, ...] | None) -> str:
    """A change that was merged after the result was made is no change of this proposal, and counts all the same."""
    if not image.paths:
        return ""
    if files is None:
        return "this checkout does not hold the files that its last result was made of"
    file = touched(image, files)
    return f"{file} has changed since its last result" if file else ""


def _of_image(image: PlannedImage, result: CellResult) -> str:
    if image.ref != result.image.ref:
        return f"its last result is of {result.image.ref}"
    if image.digest is None:
        return "the digest of its image is not known"
    if image.digest != result.image.digest:
        return "its image was pushed again"
    return ""


def _of_description(runner: PlannedRunner, before: PlannedRunner | None) -> str:
    if before is None or (runner.labels, runner.docker_host) != (before.labels, before.docker_host):
        return f"the runner {runner.id} may be another machine: its labels or docker_host have changed"
    return ""


def _of_machine(runner: PlannedRunner, result: CellResult) -> str:
    if runner.gpu != result.gpu:
        return f"its last result is of {result.gpu or 'no card'}"
    if runner.gpu is None:
        return ""
    if runner.driver is None:
        return f"the driver of {runner.id} is not declared (`driver:` under `runners:`), so it may have changed"
    if runner.driver != result.facts.driver:
        return f"its last result is of driver {result.facts.driver or 'unknown'}, {runner.driver} is declared"
    return ""
