"""Owns the plan: which cells run, in which lane, and which do not and why. A versioned JSON document.

Must not know how it was made (matrix) or who runs it (execute). It is written beside the results, so that
a report can count what is missing: absent is failed.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cuda_matrix.config import ContainerOptions, PayloadOptions, Policy
from cuda_matrix.model import Frozen, Sha256

PLAN_VERSION: Literal[1] = 1


class PlannedImage(Frozen):
    """One row of the report: an image, started in one way."""

    id: str
    variant: str | None = None
    ref: str
    digest: Sha256 | None = None
    unresolved: str = Field(default="", description="Why `digest` is unknown, where it is.")
    env: dict[str, str] = {}
    expect: dict[str, str] = {}
    paths: tuple[str, ...] = ()


class PlannedRunner(Frozen):
    """One column of the report: a kind of machine."""

    id: str
    labels: tuple[str, ...]
    gpu: str | None = None
    driver: str | None = None
    docker_host: str | None = None


class PlannedCell(Frozen):
    """One cell to run: `image` and `runner` are keys of the plan's tables, `lane` an index of its lanes."""

    id: str
    image: str
    runner: str
    lane: int


class SkippedCell(Frozen):
    """One cell of the matrix that does not run, and why."""

    id: str
    image: str
    runner: str
    kind: Literal["excluded", "predicted", "unchanged"]
    reason: str


class Lane(Frozen):
    """One job of the matrix: cells that run one after another on one machine."""

    index: int
    runner: str
    cells: tuple[str, ...]


class Plan(Frozen):
    """A whole plan. Orders are those of the configuration and therefore stable."""

    plan_version: Literal[1] = PLAN_VERSION
    images: dict[str, PlannedImage]
    runners: dict[str, PlannedRunner]
    cells: tuple[PlannedCell, ...]
    skipped: tuple[SkippedCell, ...] = ()
    lanes: tuple[Lane, ...]
    payload: PayloadOptions
    container: ContainerOptions
    policy: Policy
    digests: Literal["offline", "resolved", "partly"] = Field(
        default="offline", description="Whether tags were resolved to digests; `partly` names the rest in `images`."
    )
