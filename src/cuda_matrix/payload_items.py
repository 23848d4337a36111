"""Owns the table of checks and benchmarks (data/payload-items.yml) as types, and which of them a glob names.

Must not know what an item does: that is the payload's, which reads the same rows as items.json.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cuda_matrix.model import Frozen, Profile

Kind = Literal["check", "benchmark"]

_Text = Annotated[str, Field(min_length=1)]


class Item(Frozen):
    """One row; the header of the table explains the fields."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+([.-][a-z0-9]+)*$")]
    kind: Kind
    title: _Text
    run: Annotated[str, Field(pattern=r"^[a-z_0-9]+:[a-z_0-9]+$", description="module:function in the payload.")]
    needs: tuple[str, ...] = ()
    priority: Literal["P0", "P1"]
    limits_s: Annotated[dict[Profile, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    gpu: bool = False
    group: Annotated[str, Field(pattern=r"^[a-z-]+(/[a-z-]+)?$")] | None = None
    unit: str = ""
    higher_is_better: bool = True
    thresholds: dict[str, float | int | str] = Field(default={}, description="What the verdict compares with.")
    method: _Text
    fail_means: _Text
    source: _Text

    @property
    def child(self) -> str | None:
        """What the items share that run in one process; None for an item that has one to itself."""
        return self.group and self.group.partition("/")[0]

    @model_validator(mode="after")
    def _measured_in_something(self) -> Item:
        if (self.kind == "benchmark") != bool(self.unit):
            msg = f"{self.id}: a benchmark has a unit, a check has none"
            raise ValueError(msg)
        return self


class ItemTable(Frozen):
    """Every item in the order in which they run."""

    budgets_s: dict[Profile, float]
    items: tuple[Item, ...]

    @model_validator(mode="after")
    def _needs_stand_before(self) -> ItemTable:
        seen: dict[str, Item] = {}
        for item in self.items:
            for need in item.needs:
                if need not in seen or not set(item.limits_s) <= set(seen[need].limits_s):
                    msg = f"{item.id} needs {need}, which does not stand before it in every profile"
                    raise ValueError(msg)
                if item.child is not None and seen[need].child == item.child:
                    msg = f"{item.id} needs {need}, which shares its process: it may not have ended"
                    raise ValueError(msg)
            seen[item.id] = item
        return self

    def ids(self, kind: Kind) -> list[str]:
        """The ids of all checks, or of all benchmarks."""
        return [item.id for item in self.items if item.kind == kind]


def matches(item: str, glob: str) -> bool:
    """Whether a glob names an item: `numerics` and `numerics.*` name all of its kind, as in the payload."""
    parts = item.split(".")
    return any(fnmatchcase(".".join(parts[:end]), glob) for end in range(1, len(parts) + 1))
