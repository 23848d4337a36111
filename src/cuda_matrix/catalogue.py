"""Owns the shape of the catalogue of causes: what a cause is, and by which signs it is recognised.

Must not know how evidence is weighed (diagnose) or where the catalogue is read from (reference).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cuda_matrix.model import Frozen
from cuda_matrix.result import Side

Phase = Literal["pull", "start", "import", "build", "run"]

# Facts that a cause's `context` may name (diagnose fills them in).
CONTEXT_FACTS = frozenset(
    {
        "image_cuda",
        "image_cuda_major",
        "driver_floor",
        "driver",
        "driver_cuda",
        "torch",
        "arch_list",
        "device_name",
        "device_capability",
    }
)

Priority = Annotated[int, Field(ge=0, le=110)]
Confidence = Annotated[float, Field(gt=0, lt=1)]


class Signature(Frozen):
    """Words that mean a cause: a case-insensitive regex for one line, and maybe one that another line must match."""

    pattern: str
    also: str | None = None
    priority: Priority
    confidence: Confidence


class ExitSign(Frozen):
    """What the end of the process alone may say. Every field that is set must hold."""

    code: int | None = None
    signal: int | None = None
    oom_killed: bool | None = None
    timed_out: bool | None = None
    priority: Priority
    confidence: Confidence


class Cause(Frozen):
    """One row of data/causes.yml, whose header explains every field."""

    code: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    title: str
    side: Side
    phase: Annotated[tuple[Phase, ...], Field(min_length=1)]
    symptom: bool = False
    explanation: str
    context: str = ""
    fix: Annotated[tuple[str, ...], Field(min_length=1)]
    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    signatures: tuple[Signature, ...] = ()
    exits: tuple[ExitSign, ...] = ()


class Catalogue(Frozen):
    """Every cause by its code. `unknown` is always among them."""

    causes: dict[str, Cause]
