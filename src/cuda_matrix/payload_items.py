"""Owns which checks and benchmarks the payload has, as the host knows them: ids, kinds, limits.

Must not know what an item does. The payload imports nothing of ours, so its table stands twice; a test compares them.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

Kind = Literal["check", "benchmark"]


class Item(NamedTuple):
    """One check or benchmark, its limits in seconds (smoke, standard, full), and whether it needs the device."""

    id: str
    kind: Kind
    limits: tuple[int, int, int]
    on_device: bool = False
    unit: str = ""
    needs_torch: bool = True


_QUICK, _WORK, _GEMM = (60, 60, 60), (120, 180, 300), (90, 180, 420)
ITEMS = (
    Item("python", "check", _QUICK, needs_torch=False),
    Item("host.driver", "check", _QUICK, needs_torch=False),
    Item("torch.import", "check", (120, 180, 180), needs_torch=False),
    Item("torch.cuda-build", "check", _QUICK),
    Item("cuda.runtimes", "check", _QUICK, needs_torch=False),
    Item("image.expect", "check", _QUICK),
    Item("first-kernel", "check", _WORK),
    Item("numerics.gemm.fp32", "check", _WORK, on_device=True),
    Item("numerics.gemm.fp16", "check", _WORK, on_device=True),
    Item("numerics.gemm.bf16", "check", _WORK, on_device=True),
    Item("training.cnn", "check", _WORK, on_device=True),
    Item("gemm.fp32", "benchmark", _GEMM, on_device=True, unit="TFLOP/s"),
    Item("gemm.fp16", "benchmark", _GEMM, on_device=True, unit="TFLOP/s"),
    Item("gemm.bf16", "benchmark", _GEMM, on_device=True, unit="TFLOP/s"),
    Item("resnet50.train", "benchmark", (180, 420, 1200), on_device=True, unit="images/s"),
)


def matches(item: str, glob: str) -> bool:
    """Whether a glob names an item: `numerics` and `numerics.*` name all of its kind, as in the payload."""
    parts = item.split(".")
    return any(fnmatchcase(".".join(parts[:end]), glob) for end in range(1, len(parts) + 1))
