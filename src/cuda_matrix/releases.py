"""Owns what PyTorch published: each release, its CUDA builds, and the machine code in each.

Must not know where the table is read from (reference) or what a missing build means for an image (predict).
"""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from cuda_matrix.config import Version
from cuda_matrix.facts import Certainty, Fact, Table, major_minor, version_key
from cuda_matrix.machine_names import kernel_name
from cuda_matrix.model import Frozen

Machine = Literal["x86_64", "aarch64"]
_MACHINES: dict[str, Machine] = {name: name for name in get_args(Machine)}


class Variant(Fact):
    """One CUDA build of one release, as published for Linux x86_64."""

    variant: str = Field(pattern=r"^cu\d{3}$")
    cuda: Version
    cudnn: Version | None = None
    nccl: Version | None = None
    sm: tuple[Version, ...] = Field(
        default=(), description="Capabilities with machine code of their own; none: not known."
    )


class TorchRelease(Fact):
    """One minor release of PyTorch. `certainty` is that of its list of builds."""

    torch: Version
    patch_releases: tuple[Version, ...] = Field(min_length=1)
    python_min: Version
    python_max: Version
    python_note: str = ""
    pypi_default: str = Field(description="The variant that a plain `pip install torch` gives on x86_64.")
    torchvision: Version
    variants: tuple[Variant, ...] = Field(min_length=1)


class Aarch64Builds(Fact):
    """The machine code of the builds for Linux aarch64 of some CUDA versions, from one release on."""

    cuda: tuple[Version, ...] = Field(min_length=1)
    since_torch: Version
    sm: tuple[Version, ...] = Field(min_length=1)


class TorchBuild(Frozen):
    """One build as a lookup gives it. An empty `capabilities` means "not known", never "none"."""

    torch: str
    variant: str
    cuda: str
    machine: Machine
    cudnn: str | None
    nccl: str | None
    capabilities: tuple[str, ...]
    certainty: Certainty
    sources: tuple[str, ...] = Field(description="In words, most often with an address.")
    note: str = ""

    @property
    def arch_list(self) -> tuple[str, ...]:
        """`8.6` → `sm_86`: what torch.cuda.get_arch_list() prints. The published wheels hold no PTX (rule no-ptx)."""
        return tuple(f"sm_{capability.replace('.', '')}" for capability in self.capabilities)


class ReleaseTable(Table):
    """data/torch-releases.yml."""

    sources: dict[str, str]
    releases: tuple[TorchRelease, ...]
    aarch64: tuple[Aarch64Builds, ...]

    def release(self, torch: str) -> TorchRelease | None:
        """The row of a version such as 2.5, 2.5.1+cu124 or 2.5.0a0+abc; None for a release that nobody listed."""
        wanted = major_minor(torch)
        return next((row for row in self.releases if row.torch == wanted), None)

    def build(self, torch: str, cuda: str, machine: str = "x86_64") -> TorchBuild | None:
        """The build of `torch` for `cuda`, each by major.minor; None where none is listed.

        None says "never published" only where `release(torch)` is a row (and `decides`); else the release is unknown.
        Where nobody listed the machine code of the builds for aarch64, the build has no capabilities.
        """
        release, version = self.release(torch), major_minor(cuda)
        row = next((row for row in release.variants if row.cuda == version), None) if release else None
        on = _MACHINES.get(kernel_name(machine))
        if release is None or row is None or on is None:
            return None
        listed = row if on == "x86_64" else self._aarch64_list(release, row)
        said_by, capabilities = listed or row, listed.sm if listed else ()
        return TorchBuild(
            torch=release.torch,
            variant=row.variant,
            cuda=row.cuda,
            machine=on,
            cudnn=row.cudnn,
            nccl=row.nccl,
            capabilities=capabilities,
            certainty=said_by.certainty if capabilities else "uncertain",
            sources=tuple(self.sources[key] for key in said_by.sources),
            note=said_by.note,
        )

    def _aarch64_list(self, release: TorchRelease, row: Variant) -> Aarch64Builds | None:
        key = version_key(release.torch)
        known = [one for one in self.aarch64 if row.cuda in one.cuda and version_key(one.since_torch) <= key]
        return max(known, key=lambda one: version_key(one.since_torch), default=None)
