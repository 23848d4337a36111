"""Owns what an NVIDIA driver can run: branch → CUDA version, floors, the driver packaged with each toolkit.

Must not know where the table is read from (reference) or what follows for an image (diagnose).
Rules: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field

from cuda_matrix.config import Version
from cuda_matrix.model import Frozen

Certainty = Literal["verified", "documented", "secondary", "uncertain"]


class _Row(Frozen):
    certainty: Certainty
    sources: tuple[str, ...] = Field(min_length=1, description="Keys of `sources` of the table.")
    note: str = ""


class Branch(_Row):
    """The CUDA version that the drivers of one branch report."""

    branch: Version
    cuda: Version


class Floor(_Row):
    """The oldest driver that runs applications built with any toolkit of one CUDA major."""

    cuda_major: Version
    driver: Version


class Toolkit(_Row):
    """The driver packaged with one toolkit release: needed for all of its features."""

    cuda: Version
    release: Version
    driver: Version


class DriverTable(Frozen):
    """data/drivers.yml."""

    sources: dict[str, str]
    branches: tuple[Branch, ...]
    floors: tuple[Floor, ...]
    toolkits: tuple[Toolkit, ...]

    def cuda_of(self, driver: str) -> str | None:
        """`470.129.06` → `11.4`; None for a branch that the table does not have (a guess would be no fact)."""
        branch = driver.split(".", maxsplit=1)[0]
        return next((row.cuda for row in self.branches if row.branch == branch), None)

    def floor_of(self, cuda: str) -> str | None:
        """`12.1` → `525.60.13`: the minor-version floor; None before CUDA 11, which has none."""
        major = cuda.split(".", maxsplit=1)[0]
        return next((row.driver for row in self.floors if row.cuda_major == major), None)

    def runs(self, driver_cuda: str, image_cuda: str) -> bool:
        """Whether a driver of CUDA `driver_cuda` lets a runtime of CUDA `image_cuda` start.

        From 11 on the major decides (measured with NVIDIA's own libcudart 12 and 13); before, the whole version.
        """
        ours, theirs = version_key(driver_cuda), version_key(image_cuda)
        first_with_minor_compatibility = 11
        return ours[:1] >= theirs[:1] if theirs[0] >= first_with_minor_compatibility else ours >= theirs


def version_key(version: str) -> tuple[int, ...]:
    """`525.60.13` → (525, 60, 13): versions compare by number, not by text. Suffixes are left out."""
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+", maxsplit=1)[0]))


def cuda_of_number(number: int) -> str:
    """CUDA's own coding of a version, 1000 x major + 10 x minor: 11040 → `11.4`."""
    return f"{number // 1000}.{number % 1000 // 10}"
