"""Owns the words everything else speaks: verdicts, statuses, cell ids, durations and sizes.

Must not know of files, YAML, Docker, GitHub or the clock.
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

# What of the payload runs, and how long it measures: the profiles of data/payload-items.yml.
Profile = Literal["smoke", "standard", "full", "soak"]
PROFILES: tuple[Profile, ...] = ("smoke", "standard", "full", "soak")


class Frozen(BaseModel):
    """Base of every value: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Verdict(str, Enum):
    """What is said of one cell (README.md, "Reading the report", explains each)."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    HOST_FAILED = "host-failed"
    INCONCLUSIVE = "inconclusive"
    NOT_RUN = "not-run"
    SKIPPED = "skipped"
    EXPECTED_FAIL = "expected-fail"
    UNEXPECTED_PASS = "unexpected-pass"


class CheckStatus(str, Enum):
    """What is said of one check or benchmark; `invalid` is for benchmarks alone."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"
    CRASH = "crash"
    INVALID = "invalid"


class EngineName(str, Enum):
    """How a cell is run; `simulated` marks every figure that was not measured."""

    DOCKER = "docker"
    LOCAL = "local"
    SIMULATED = "simulated"


def image_key(image: str, variant: str | None) -> str:
    """`image` or `image+variant`: the left half of a cell id and the row of the report."""
    return f"{image}+{variant}" if variant else image


def cell_id(image: str, variant: str | None, runner: str) -> str:
    """`image[+variant]@runner`: stable, used in commands, file names, logs and links."""
    return f"{image_key(image, variant)}@{runner}"


# One path component on every system and one word in every shell: ids become file names and arguments.
ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

CELL_PATTERN = re.compile(rf"{ID_PATTERN.pattern}(\+{ID_PATTERN.pattern})?@{ID_PATTERN.pattern}")

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)\s*(s|m|h|d)$")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?b?|b)", re.IGNORECASE)
_BYTES = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_MOST_BYTES = 1 << 62


def _plausible(moment: datetime) -> datetime:
    if not 2000 <= moment.year <= 2200:
        msg = "no cell ran in that year"
        raise ValueError(msg)
    return moment


def seconds(text: Any) -> float:
    """`90s`, `20m`, `1.5h`, `14d` → seconds. A bare number is refused: its unit would be a guess."""
    if type(text) in {float, int}:
        # Already parsed (a plan read back); YAML's own numbers are yaml_values.PlainInt and PlainFloat.
        return float(text)
    match = _DURATION.fullmatch(str(text).strip())
    if not match or float(match[1]) <= 0:
        msg = f"{str(text)!r} is not a duration: write a number above 0 with its unit, such as 90s, 20m, 1.5h or 14d"
        raise ValueError(msg)
    return float(match[1]) * _SECONDS[match[2]]


def size_bytes(text: Any) -> int:
    """`8g`, `512m` → bytes, in powers of 1024 as Docker reads them. A bare number is refused: few mean bytes."""
    if type(text) is int:
        return text  # already parsed, as above
    match = _SIZE.fullmatch(str(text).strip())
    if not match or float(match[1]) <= 0:
        msg = f"{str(text)!r} is not a size: write a number above 0 with its unit, for example 8g or 512m"
        raise ValueError(msg)
    amount = float(match[1]) * _BYTES[match[2][0].lower()]
    if amount > _MOST_BYTES:
        msg = f"{str(text)[:40]!r} is no size of this world"
        raise ValueError(msg)
    return int(amount)


Seconds = Annotated[
    float,
    BeforeValidator(seconds),
    WithJsonSchema({"type": "string", "pattern": _DURATION.pattern, "examples": ["90s", "20m", "1.5h", "14d"]}),
]
Bytes = Annotated[
    int,
    BeforeValidator(size_bytes),
    WithJsonSchema(
        {"type": "string", "pattern": r"^\d+(\.\d+)?\s*([kmgtKMGT][iI]?[bB]?|[bB])$", "examples": ["8g", "512m"]}
    ),
]
Moment = Annotated[datetime, AfterValidator(_plausible)]
Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
