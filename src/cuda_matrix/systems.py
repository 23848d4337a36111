"""Owns which C library an operating system has, and which one PyTorch's Linux wheels need.

Must not know where the table is read from (reference) or how an image's system is found out (image_facts).
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field

from cuda_matrix.config import Version
from cuda_matrix.facts import Fact, major_minor, version_key
from cuda_matrix.machine_names import kernel_name
from cuda_matrix.model import Frozen

_NAME = re.compile(r"([a-z][a-z-]*?)[ _:-]?(\d[\d.]*)", re.ASCII)


class System(Fact):
    """One release of a Linux distribution. `os` is written as in nvidia/cuda's tags: ubuntu22.04, rockylinux9, ubi9."""

    os: str = Field(pattern=r"^[a-z]+\d+(\.\d+)?$")
    glibc: Version


class WheelFloor(Fact):
    """What the published Linux wheels of torch need, from one release on."""

    since_torch: Version
    machine: Literal["x86_64", "aarch64"]
    cuda: tuple[Version, ...] = Field(
        default=(), description="Only the builds for these CUDA versions; none: every one."
    )
    glibc: Version
    tag: str = Field(description="As the wheels themselves say it.")


class SystemTable(Frozen):
    """data/systems.yml."""

    sources: dict[str, str]
    aliases: dict[str, str] = Field(description="Other names of a distribution: `rocky` → `rockylinux`.")
    systems: tuple[System, ...]
    wheels: tuple[WheelFloor, ...]

    def system(self, os: str) -> System | None:
        """`ubuntu22.04`, `Ubuntu 22.04.5`, `rocky:9.3`, `debian12` → its row; None where no row is of this release."""
        match = _NAME.fullmatch(os.strip().lower())
        if not match:
            return None
        name, parts = self.aliases.get(match[1], match[1]), match[2].split(".")
        wanted = {f"{name}{parts[0]}", f"{name}{'.'.join(parts[:2])}"}
        return next((row for row in self.systems if row.os in wanted), None)

    def wheel_floor(self, torch: str, cuda: str | None = None, machine: str = "x86_64") -> WheelFloor | None:
        """What a published wheel of `torch` for `cuda` needs; None for a release before the table.

        Rows of one CUDA win over rows of all; without `cuda`, only the latter count.
        """
        release, version = major_minor(torch), major_minor(cuda or "")
        machine = kernel_name(machine)
        rows = [
            row
            for row in self.wheels
            if release is not None
            and row.machine == machine
            and version_key(row.since_torch) <= version_key(release)
            and (not row.cuda or version in row.cuda)
        ]
        return max(rows, key=lambda row: (version_key(row.since_torch), bool(row.cuda)), default=None)
