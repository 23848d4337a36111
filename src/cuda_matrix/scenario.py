"""Owns the schema of a scenario: the fleet that the simulated engine pretends to be.

Must not know what follows from it (simulation) or where it is read from.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field

from cuda_matrix.config import Identifier, NonEmpty, Version
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.model import Frozen

FaultKind = Literal[
    "launch",
    "hang",
    "segfault",
    "oom",
    "gpu-oom",
    "ecc",
    "throttled",
    "flood",
    "no-hello",
    "cut-stream",
]


class Host(Frozen):
    """One simulated machine."""

    card: NonEmpty | None = Field(default=None, description="Id of data/gpus.yml; none for a machine without a card.")
    count: int = Field(default=1, ge=1, le=16)
    driver: Version | None = None
    os: NonEmpty = "Ubuntu 22.04.4 LTS"
    kernel: NonEmpty = "5.15.0-101-generic"
    cpu_count: int = Field(default=32, ge=1)
    memory_gb: float = Field(default=128.0, gt=0)


class SimulatedImage(Frozen):
    """What is inside the images that a glob names."""

    image: NonEmpty = Field(
        description="Glob on the image key, `image` or `image+variant`; the first that matches wins."
    )
    torch: Version
    cuda: Version | None = Field(description="null for a CPU build.")
    cudnn: Version | None = None
    nccl: Version | None = None
    python: Version
    arch_list: tuple[NonEmpty, ...] = Field(default=(), description="Machine code inside, as torch names it: sm_86.")
    glibc: Version
    size_gb: float = Field(gt=0, description="Unpacked, 1e9 bytes.")
    source: NonEmpty


class Figure(Frozen):
    """A published figure: the centre around which the simulated samples lie."""

    card: NonEmpty
    image: NonEmpty = "*"
    benchmark: NonEmpty
    value: float = Field(gt=0, description="In the benchmark's unit.")
    memory_gb: float | None = Field(default=None, gt=0)
    batch: int | None = None
    source: NonEmpty


class Scaling(Frozen):
    """Where nothing is published: the figure as a factor times one of the card's peaks."""

    benchmark: NonEmpty
    by: Literal["bandwidth_gbs", "fp32", "fp16", "bf16"]
    factor: float = Field(gt=0)
    source: NonEmpty


class Fault(Frozen):
    """Something that goes wrong on purpose."""

    cell: NonEmpty = Field(description="Glob on the cell id.")
    kind: FaultKind
    item: NonEmpty | None = Field(default=None, description="The check or benchmark that it strikes.")
    message: NonEmpty | None = Field(default=None, description="For `launch`: id of data/messages.yml.")


class Scenario(Frozen):
    """A whole simulated fleet."""

    scenario_version: Literal[1]
    title: NonEmpty
    hosts: Annotated[dict[Identifier, Host], Field(min_length=1)]
    images: Annotated[tuple[SimulatedImage, ...], Field(min_length=1)]
    figures: tuple[Figure, ...] = ()
    scaling: tuple[Scaling, ...] = ()
    faults: tuple[Fault, ...] = ()

    def host_of(self, runner: str) -> Host:
        """The machine behind a runner.

        Raises:
            ConfigurationError: the scenario has none.
        """
        if runner not in self.hosts:
            msg = f"the scenario has no host for the runner {runner!r}"
            raise ConfigurationError(msg, hint=f"it has {', '.join(self.hosts)}")
        return self.hosts[runner]

    def image_of(self, key: str) -> SimulatedImage:
        """What is inside an image.

        Raises:
            ConfigurationError: the scenario does not say.
        """
        for image in self.images:
            if fnmatchcase(key, image.image):
                return image
        msg = f"the scenario has no image for {key!r}"
        raise ConfigurationError(msg, hint=f"it has {', '.join(image.image for image in self.images)}")

    def figure_of(self, card: str, image: str, benchmark: str) -> Figure | None:
        """The published figure for one card, image and benchmark; the first that matches."""
        return next(
            (f for f in self.figures if f.card == card and f.benchmark == benchmark and fnmatchcase(image, f.image)),
            None,
        )

    def faults_of(self, cell: str) -> tuple[Fault, ...]:
        """Everything that shall go wrong in one cell."""
        return tuple(fault for fault in self.faults if fnmatchcase(cell, fault.cell))
