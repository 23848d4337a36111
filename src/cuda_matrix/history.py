"""Owns the history: one file per run with a line per cell, never edited; and the reading of a series out of them.

`history/<yyyy>/<mm>/<run id>-<attempt>.jsonl` below the report's folder. Two runs never write the same file, so the
history needs no merging. Must not know where the files lie (commit_back) or what a series means (a regression).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from cuda_matrix.gate import GateVerdict, Judgement, cause_of, utc
from cuda_matrix.model import CheckStatus, Frozen, Verdict
from cuda_matrix.plan import Plan
from cuda_matrix.result import BENCHMARK_LIMIT, CellResult, Finite, Text

HISTORY_VERSION: Literal[1] = 1
FOLDER = "history"
_LINE_LIMIT_BYTES = 256 << 10
_FILE_LIMIT_BYTES = 32 << 20
_PATH = re.compile(r"(?:.*/)?history/(\d{4}/\d{2})/(\d{1,20})-(\d{1,20})\.jsonl")
_COUNTS = frozenset({CheckStatus.PASS, CheckStatus.WARN})


class Point(Frozen):
    """What one run says of one cell. `date` is None where the cell has no result."""

    history_version: Literal[1] = HISTORY_VERSION
    cell: Text
    verdict: Verdict
    cause: Text | None = None
    date: datetime | None = None
    digest: Text | None = None
    card: Text | None = Field(default=None, description="As found, not as configured.")
    card_hash: Text | None = Field(default=None, description="Tells two cards of one kind apart.")
    driver: Text | None = None
    engine: Text | None = None
    profile: Text | None = None
    payload: Text | None = Field(default=None, description="Hash of what ran in the image.")
    medians: Annotated[dict[Text, Finite], Field(max_length=BENCHMARK_LIMIT)] = Field(
        default={}, description="Benchmark → median, in the unit of the benchmark; only where it passed."
    )


@dataclass(frozen=True)
class Series:
    """Figures that may be compared: one benchmark of one cell, on one card, driver, engine, profile and payload."""

    cell: str
    benchmark: str
    card_hash: str | None = None
    driver: str | None = None
    engine: str | None = None
    profile: str | None = None
    payload: str | None = None

    def value(self, point: Point) -> float | None:
        """The figure of this series that a point holds, if any. What the series leaves open, may be anything."""
        if point.cell != self.cell:
            return None
        for name in ("card_hash", "driver", "engine", "profile", "payload"):
            if getattr(self, name) not in {None, getattr(point, name)}:
                return None
        return point.medians.get(self.benchmark)


def path_of(run_id: str, attempt: str, results: Iterable[CellResult]) -> str:
    """Where the file of a run goes, below the report's folder; empty where the run has no result to date it by."""
    moments = [utc(result.started_at) for result in results]
    return f"{FOLDER}/{min(moments):%Y/%m}/{int(run_id)}-{int(attempt)}.jsonl" if moments else ""


def encode(plan: Plan, gate: GateVerdict) -> bytes:
    """A line for every cell that the plan runs, sorted; those without a result are not forgotten."""
    points = [_point(gate.cells[cell]) for cell in sorted(cell.id for cell in plan.cells)]
    return b"".join(point.model_dump_json(exclude_none=True).encode() + b"\n" for point in points)


def decode(data: bytes) -> Iterator[Point]:
    """Every line that is a point; whoever may push can write anything into it, so the others are left out."""
    for line in data[:_FILE_LIMIT_BYTES].split(b"\n"):
        if line and len(line) <= _LINE_LIMIT_BYTES:
            try:
                yield Point.model_validate_json(line)
            except ValidationError:
                continue


def last(
    paths: Iterable[str], read: Callable[[str], bytes], series: Series, count: int
) -> list[tuple[datetime, float]]:
    """The newest `count` figures of a series, oldest first. No more months are read than that takes."""
    months: dict[str, list[str]] = {}
    for path in paths:
        found = _PATH.fullmatch(path)
        if found:
            months.setdefault(found[1], []).append(path)
    figures: list[tuple[datetime, float]] = []
    for month in sorted(months, reverse=True):
        if len(figures) >= count:
            break
        points = (point for path in sorted(months[month]) for point in decode(read(path)))
        figures += [(utc(p.date), value) for p in points if p.date and (value := series.value(p)) is not None]
    return sorted(figures)[-count:] if count > 0 else []


def _point(judged: Judgement) -> Point:
    result = judged.result
    if result is None:
        return Point(cell=judged.cell, verdict=judged.verdict)
    card = next(iter(result.facts.gpus), None)
    return Point(
        cell=judged.cell,
        verdict=judged.verdict,
        cause=(judged.cause or cause_of(result)) or None,
        date=utc(result.started_at),
        digest=result.image.digest,
        card=card.name if card else None,
        card_hash=(card.uuid_hash or None) if card else None,
        driver=result.facts.driver,
        engine=result.engine.value,
        profile=result.profile,
        payload=result.payload_sha256,
        medians=_medians(result),
    )


def _medians(result: CellResult) -> Mapping[str, float]:
    passed = (bench for bench in result.benchmarks if bench.status in _COUNTS)
    return {bench.id: bench.samples.median for bench in passed if bench.samples is not None}
