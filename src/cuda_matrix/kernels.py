"""Owns which machine code runs on which card: SASS, PTX, and the suffixes that bind either to a chip.

Must not know where a list of architectures comes from (image_facts, releases) or what a gap means (predict).
Rules: https://docs.nvidia.com/cuda/cuda-programming-guide/ (binary and PTX compatibility),
https://developer.nvidia.com/blog/nvidia-blackwell-and-nvidia-cuda-12-9-introduce-family-specific-architecture-features/
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Literal, NamedTuple

Coverage = Literal["sass", "ptx"]
Capability = tuple[int, int]

# `sm_90a`, `compute_120f`, `8.6`, `sm_86+PTX`: as torch.cuda.get_arch_list() and TORCH_CUDA_ARCH_LIST write them.
_ENTRY = re.compile(
    r"(?P<kind>sm_|compute_)?(?:(?P<dotted>\d{1,2}\.\d)|(?P<joined>\d{2,3}))(?P<suffix>[af])?(?P<ptx>\+ptx)?",
    re.IGNORECASE,
)


class Code(NamedTuple):
    """One kind of machine code that an image has: real (SASS) or to be compiled by the driver (PTX)."""

    real: bool
    capability: Capability
    suffix: str = ""

    @property
    def name(self) -> str:
        """sm_90a, compute_120: as torch.cuda.get_arch_list() writes it."""
        return f"{'sm' if self.real else 'compute'}_{self.capability[0]}{self.capability[1]}{self.suffix}"


def codes(entries: Iterable[str]) -> tuple[Code, ...]:
    """What the entries mean; one that names no NVIDIA architecture (`gfx90a`) means nothing here."""
    return tuple(code for entry in entries for code in _read(entry))


@lru_cache(maxsize=1_024)  # a plan of 10,000 cells reads the same few entries a million times
def _read(entry: str) -> tuple[Code, ...]:
    match = _ENTRY.fullmatch(entry.strip())
    if not match:
        return ()
    digits = (match["dotted"] or match["joined"]).replace(".", "")
    capability, suffix = (int(digits[:-1]), int(digits[-1])), (match["suffix"] or "").lower()
    real = (match["kind"] or "sm_").lower() == "sm_"
    code = Code(real, capability, suffix)
    return (code, Code(False, capability, suffix)) if real and match["ptx"] else (code,)


def coverage(entries: Iterable[str], capability: str, exact: Collection[str] = ()) -> Coverage | None:
    """How a card of this compute capability (`8.9`) runs the code: as it is, after compilation by the driver, or not.

    `exact`: capabilities of chips apart (Jetson), whose SASS fits no other and that take no other's.
    """
    card = parsed(capability)
    apart = {parsed(each) for each in exact}
    having = codes(entries)
    if any(code.real and _runs(code, card, apart) for code in having):
        return "sass"
    return "ptx" if any(not code.real and _compiles(code, card) for code in having) else None


def parsed(capability: str) -> Capability:
    """`8.6` → (8, 6).

    Raises:
        ValueError: not `major.minor`.
    """
    major, minor = capability.split(".")
    return int(major), int(minor)


def _runs(code: Code, card: Capability, apart: set[Capability]) -> bool:
    if code.suffix == "a" or code.capability in apart or card in apart:
        return code.capability == card
    return _same_family_or_newer(code.capability, card)


def _compiles(code: Code, card: Capability) -> bool:
    if code.suffix == "a":
        return code.capability == card
    if code.suffix == "f":
        return _same_family_or_newer(code.capability, card)
    return card >= code.capability


def _same_family_or_newer(code: Capability, card: Capability) -> bool:
    return code[0] == card[0] and card[1] >= code[1]
