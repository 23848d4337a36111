"""Owns what a prediction must know of a machine: card, driver, CPU architecture, how GPUs get into its containers.

Must not know how it was found out (adapters) or what follows from it (predict).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cuda_matrix.cards import Card
from cuda_matrix.model import Frozen

# hook: `--gpus` or the nvidia runtime in legacy mode, which evaluates NVIDIA_REQUIRE_*; cdi: it does not.
Access = Literal["hook", "cdi"]


class HostFacts(Frozen):
    """One machine. None means "not known"."""

    gpu: str | None = Field(default=None, description="The card as named by the user or by nvidia-smi.")
    card: Card | None = Field(default=None, description="Its row of data/gpus.yml, where the name means exactly one.")
    compute_capability: str | None = Field(default=None, description="8.6; of the card, or as measured.")
    driver: str | None = Field(default=None, description="For example 550.54.15.")
    driver_cuda: str | None = Field(
        default=None, description="The newest CUDA that the driver reports, where it is known without the table."
    )
    machine: str = Field(default="x86_64", description="uname -m.")
    machine_assumed: bool = Field(default=False, description="Nobody said it: it is what most machines are.")
    access: Access = "hook"
