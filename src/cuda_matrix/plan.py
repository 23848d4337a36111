"""Owns the plan: which cells run, in which lane, and which do not and why. A versioned JSON document.

Must not know how it was made (matrix) or who runs it (execute). It is written beside the results, so that
a report can count what is missing: absent is failed.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from cuda_matrix.config import ContainerOptions, PayloadOptions, Policy, ReportOptions
from cuda_matrix.image_facts import ImageFacts
from cuda_matrix.model import CELL_PATTERN, Frozen, Moment, Sha256, cell_id
from cuda_matrix.prediction import Prediction

PLAN_VERSION: Literal[1] = 1

_PATH_LIMIT = 1_000  # characters


def _in_repository(path: str) -> str:
    """A plan may come from another machine, and this names a file to its reader: nothing outside the repository."""
    if not path or len(path) > _PATH_LIMIT or not path.isprintable() or "\\" in path:
        msg = "is no path of a file"
        raise ValueError(msg)
    if path.startswith("/") or not {"", ".", ".."}.isdisjoint(path.split("/")):
        msg = f"{path!r} is not relative to the repository: no leading '/', no '.' and no '..'"
        raise ValueError(msg)
    return path


class Place(Frozen):
    """Where something is configured: a file of the repository and a line, counted from 1."""

    file: Annotated[str, AfterValidator(_in_repository)]
    line: int = Field(ge=1, le=1_000_000)


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
    release: tuple[str, ...] = Field(default=(), description="References that `promote` gives to the digest.")
    place: Place | None = Field(default=None, description="Where it is configured, for remarks at that line.")
    facts: ImageFacts | None = Field(default=None, description="What is known of it without running it; see `origins`.")


def demand_sha256(image: PlannedImage, payload: PayloadOptions, container: ContainerOptions) -> str:
    """What is asked of a cell of this image, as one hash: a result of another demand does not answer this one."""
    asked = [image.env, image.expect, payload.model_dump(mode="json"), container.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


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
    prediction: Prediction | None = Field(default=None, description="What the facts say; None where nobody asked.")


class SkippedCell(Frozen):
    """One cell of the matrix that does not run, and why."""

    id: str
    image: str
    runner: str
    kind: Literal["excluded", "predicted", "unchanged"]
    reason: str
    prediction: Prediction | None = Field(default=None, description="Of a cell that is skipped because of it.")
    digest: Sha256 | None = Field(default=None, description="Of an unchanged cell: what its accepted result ran.")
    tested_at: Moment | None = Field(default=None, description="Of an unchanged cell: when that result started.")


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
    report: ReportOptions = Field(default=ReportOptions(), description="Where `publish` puts the report.")
    matrix_cells: int | None = Field(
        default=None, description="Cells of the whole configuration, before --select and --tier; None where unknown."
    )
    digests: Literal["offline", "resolved", "partly"] = Field(
        default="offline", description="Whether tags were resolved to digests; `partly` names the rest in `images`."
    )

    @model_validator(mode="after")
    def _whole(self) -> Plan:
        """A plan may come from another machine: what it names must be in it, and ids become file names."""
        named = [(cell.id, cell.image, cell.runner) for cell in self.cells]
        named += [(cell.id, cell.image, cell.runner) for cell in self.skipped]
        for name, image, runner in named:
            row = self.images.get(image)
            if row is None or runner not in self.runners:
                msg = f"the cell {name!r} is of an image or runner that the plan does not hold"
                raise ValueError(msg)
            if name != cell_id(row.id, row.variant, runner) or not CELL_PATTERN.fullmatch(name):
                msg = f"{name!r} is not the id of its cell"
                raise ValueError(msg)
        return self
