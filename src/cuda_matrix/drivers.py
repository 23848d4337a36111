"""Owns what an NVIDIA driver can run: branch → CUDA version, floors, the driver packaged with each toolkit.

Must not know where the table is read from (reference) or what follows for an image (diagnose).
Rules: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cuda_matrix.config import Version
from cuda_matrix.facts import Fact, Table, major_minor, version_key

# How long NVIDIA keeps a branch: long-term support, production, new feature.
BranchKind = Literal["lts", "production", "new-feature"]


class Branch(Fact):
    """The CUDA version that the drivers of one branch report."""

    branch: Version
    cuda: Version


class Support(Fact):
    """How long NVIDIA maintains one branch. Nothing that is listed here stops a driver from working."""

    branch: Version
    kind: BranchKind | None = None
    eol: str | None = Field(default=None, pattern=r"^\d{4}-\d{2}$", description="The month in which it ends, or ended.")
    ended: bool = Field(default=False, description="It has ended, though the month is not known.")


class CompatClass(Fact):
    """Whether the forward-compatibility packages are for one kind of card (cards.Card.kind)."""

    kind: Literal["datacenter", "workstation", "consumer"]
    supported: Literal["yes", "some", "no"]


class CompatBranches(Fact):
    """The driver branches that the package of one CUDA stands in for."""

    cuda: Version
    branches: tuple[Version, ...] = Field(min_length=1)


class ForwardCompatibility(Fact):
    """The packages cuda-compat-X-Y: a newer user-mode driver over an older kernel driver."""

    first_cuda: Version
    classes: tuple[CompatClass, ...]
    accepts: tuple[CompatBranches, ...]


class Floor(Fact):
    """The oldest driver that runs applications built with any toolkit of one CUDA major."""

    cuda_major: Version
    driver: Version


class Toolkit(Fact):
    """The driver packaged with one toolkit release: needed for all of its features."""

    cuda: Version
    release: Version
    driver: Version


class Brands(Fact):
    """What the driver may call the cards of one kind, as `brand=` of NVIDIA_REQUIRE_* means it."""

    kind: Literal["datacenter", "workstation", "consumer"]
    brands: tuple[str, ...] = Field(min_length=1)


class DriverTable(Table):
    """data/drivers.yml."""

    sources: dict[str, str]
    branches: tuple[Branch, ...]
    floors: tuple[Floor, ...]
    toolkits: tuple[Toolkit, ...]
    support: tuple[Support, ...]
    forward: ForwardCompatibility
    brands: tuple[Brands, ...]

    @property
    def first_minor_compatible(self) -> int:
        """The first CUDA major whose programs run on every driver of that major."""
        return min(int(row.cuda_major) for row in self.floors)

    def cuda_of(self, driver: str) -> str | None:
        """`470.129.06` → `11.4`; None for a branch that the table does not have (a guess would be no fact)."""
        branch = driver.split(".", maxsplit=1)[0]
        return next((row.cuda for row in self.branches if row.branch == branch), None)

    def floor_of(self, cuda: str) -> str | None:
        """`12.1` → `525.60.13`: the minor-version floor; None before CUDA 11, which has none."""
        major = cuda.split(".", maxsplit=1)[0]
        return next((row.driver for row in self.floors if row.cuda_major == major), None)

    def compat(self, kind: str) -> CompatClass | None:
        """Whether forward compatibility is for cards of this kind (cards.Card.kind); None for an unlisted kind."""
        return next((row for row in self.forward.classes if row.kind == kind), None)

    def compat_accepts(self, cuda: str, driver: str) -> bool | None:
        """Whether the forward-compatibility package of CUDA `cuda` takes this driver's branch; None: nobody says."""
        wanted, branch = major_minor(cuda), driver.split(".", maxsplit=1)[0]
        row = next((row for row in self.forward.accepts if row.cuda == wanted), None)
        return None if row is None else branch in row.branches

    def brands_of(self, kind: str) -> tuple[str, ...]:
        """What `brand=` may be held against for cards of this kind (cards.Card.kind)."""
        return next((row.brands for row in self.brands if row.kind == kind), ())

    def runs(self, driver_cuda: str, image_cuda: str) -> bool:
        """Whether a driver of CUDA `driver_cuda` lets a runtime of CUDA `image_cuda` start.

        From 11 on the major decides (measured with NVIDIA's own libcudart 12 and 13); before, the whole version.
        """
        ours, theirs = version_key(driver_cuda), version_key(image_cuda)
        return ours[:1] >= theirs[:1] if theirs[0] >= self.first_minor_compatible else ours >= theirs


def cuda_of_number(number: int) -> str:
    """CUDA's own coding of a version, 1000 x major + 10 x minor: 11040 → `11.4`."""
    return f"{number // 1000}.{number % 1000 // 10}"
