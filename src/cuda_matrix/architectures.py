"""Owns the generations of cards: their compute capabilities, the toolkits that make code for them, their last driver.

Must not know where the table is read from (reference), single cards (cards) or what follows for an image (predict).
Rules: https://docs.nvidia.com/datacenter/tesla/drivers/cuda-toolkit-driver-and-architecture-matrix.html
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cuda_matrix.config import Version
from cuda_matrix.facts import Fact, Table, version_key


class Capability(Fact):
    """One compute capability. None: not known (`first_toolkit`), or not so far (`removed_in`)."""

    capability: Version
    first_toolkit: Version | None = Field(default=None, description="The first CUDA whose compiler makes code for it.")
    removed_in: Version | None = Field(default=None, description="The first CUDA whose compiler makes none any more.")
    family: str | None = Field(default=None, description="Cards of one family run each other's `f` code (sm_120f).")
    exact: bool = Field(
        default=False, description="Silicon apart (Jetson): runs only code for exactly this capability."
    )
    machine: Literal["aarch64"] | None = Field(
        default=None, description="The only CPU that such cards come with; None: any."
    )


class Architecture(Fact):
    """One generation. `certainty` is that of `last_branch`."""

    name: str
    last_branch: Version | None = Field(
        default=None, description="The last driver branch that knows such cards; None: every later branch so far."
    )
    capabilities: tuple[Capability, ...] = Field(min_length=1)


class ArchitectureTable(Table):
    """data/architectures.yml."""

    sources: dict[str, str]
    rows: tuple[Architecture, ...]

    @property
    def exact(self) -> tuple[str, ...]:
        """Capabilities that run code made for exactly them, and whose code fits no other."""
        return tuple(row.capability for architecture in self.rows for row in architecture.capabilities if row.exact)

    def architecture(self, capability: str) -> Architecture | None:
        """The generation of a card with this compute capability (`8.6`); None where the table has none."""
        return next((a for a in self.rows if any(c.capability == capability for c in a.capabilities)), None)

    def capability(self, capability: str) -> Capability | None:
        """What is known of one compute capability."""
        rows = (row for architecture in self.rows for row in architecture.capabilities)
        return next((row for row in rows if row.capability == capability), None)

    def knows(self, driver: str, capability: str) -> bool | None:
        """Whether a driver is not too new for a card: its branch is at most the last one. None: nobody told.

        Whether it is new enough is another question (`first_toolkit` against the driver's CUDA).
        """
        architecture = self.architecture(capability)
        if architecture is None or not version_key(driver):
            return None
        last = architecture.last_branch
        return last is None or version_key(driver)[0] <= version_key(last)[0]

    def compiles(self, cuda: str, capability: str) -> bool | None:
        """Whether the toolkit `cuda` makes code for a card, up to `removed_in`. None: nobody told."""
        row = self.capability(capability)
        version = version_key(cuda)[:2]
        if row is None or not version:
            return None
        if row.removed_in is not None and version >= version_key(row.removed_in):
            return False
        return None if row.first_toolkit is None else version >= version_key(row.first_toolkit)
