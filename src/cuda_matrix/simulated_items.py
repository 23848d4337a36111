"""Owns what each check and benchmark of a simulated cell would report, decided by rules and published figures.

Must not know the event stream that carries it (simulation).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from cuda_matrix.cards import Card
from cuda_matrix.facts import version_key
from cuda_matrix.scenario import Fault, Host, Scenario, SimulatedImage
from cuda_matrix.tables import Reference

Result = dict[str, Any]

# Where a fault strikes unless the scenario says so.
STRUCK = {
    "hang": "first-kernel",
    "segfault": "training.cnn",
    "oom": "resnet50.train",
    "gpu-oom": "resnet50.train",
    "ecc": "numerics.gemm.fp32",
    "throttled": "resnet50.train",
    "cut-stream": "gemm.fp32",
}
_THROTTLED_SHARE = 0.8
# Relative Frobenius error: typical, and the limit of the payload's own check.
PRODUCTS = frozenset({"numerics.gemm.fp32", "numerics.gemm.fp16", "numerics.gemm.bf16"})
_ERRORS = {"fp32": (4.5e-7, 1e-5), "fp16": (2.1e-4, 1e-3), "bf16": (1.7e-3, 6e-3)}


@dataclass(frozen=True)
class SimulatedCell:
    """One cell with everything that decides how it ends. `device` is what the work runs on, or None: it cannot."""

    id: str
    image_key: str
    host: Host
    card: Card | None
    image: SimulatedImage
    faults: tuple[Fault, ...]
    scenario: Scenario
    reference: Reference
    gpu_required: bool

    @property
    def device(self) -> str | None:
        """`cuda:0`, `cpu` where no card is required, or None where the image cannot use the card."""
        if self.card is None or self.image.cuda is None:
            return None if self.gpu_required else "cpu"
        if self.obstacle is None:
            return "cuda:0"
        return None if self.gpu_required else "cpu"

    @property
    def obstacle(self) -> str | None:
        """Id of the message that the first kernel ends with, or None.

        Rules: the driver's CUDA major must reach the runtime's; then machine code for the card must be inside.
        """
        if self.card is None:
            return "no-driver"
        if self.image.cuda is None:
            return "cpu-only-torch"
        driver_cuda = self.driver_cuda
        if driver_cuda is not None and not self.reference.drivers.runs(driver_cuda, self.image.cuda):
            return "driver-too-old"
        if not any(covers(arch, self.card.cc) for arch in self.image.arch_list):
            return "arch-no-kernel"
        return None

    @property
    def driver_cuda(self) -> str | None:
        """The CUDA version that the host's driver reports."""
        return self.reference.drivers.cuda_of(self.host.driver) if self.host.driver else None

    def words(self, message: str) -> str:
        """The real software's text for what went wrong."""
        card, major_minor = self.card, version_key(self.driver_cuda or "0.0")
        return self.reference.messages[message].text.format(
            found=1000 * major_minor[0] + 10 * major_minor[1],
            device_name=reported_name(card) if card else "",
            capability=f"sm_{card.cc.replace('.', '')}" if card else "",
            arch_list=" ".join(self.image.arch_list),
            image=self.image_key,
            image_cuda=".".join((self.image.cuda or "").split(".")[:2]),
        )

    def strikes(self, kind: str, item: str) -> bool:
        """Whether a fault of this kind hits this item."""
        return any(f.kind == kind and (f.item or STRUCK.get(kind)) == item for f in self.faults)


def covers(arch: str, capability: str) -> bool:
    """Whether machine code of `sm_86` runs on a card: same major, and a minor not above the card's.

    A suffix `a` (sm_90a) is for exactly that card, `f` for its family.
    https://docs.nvidia.com/cuda/cuda-programming-guide/ (binary compatibility)
    """
    match = re.fullmatch(r"sm_(\d+)(\d)([af]?)", arch)
    if not match:
        return False  # compute_NN is PTX: the published wheels carry none
    major, minor = version_key(capability)
    ours = int(match[1]), int(match[2])
    return ours == (major, minor) if match[3] == "a" else ours[0] == major and ours[1] <= minor


def reported_name(card: Card) -> str:
    """The card as nvidia-smi would print it; the table's names leave the maker out."""
    return f"NVIDIA {card.name.removeprefix('NVIDIA ').removeprefix('Tesla ')}"


def spread(seed: str, low: float, high: float) -> float:
    """A number between two bounds that is the same for the same seed, on every machine."""
    draw = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:6], "big") / float(1 << 48)
    return low + (high - low) * draw


def host_driver(cell: SimulatedCell) -> Result:
    """Step 1: does the driver answer, and for which cards?"""
    if cell.card is None:
        if cell.gpu_required:
            return {"status": "fail", "summary": "no GPU here", "cause": "gpu-not-exposed"}
        return {"status": "skip", "summary": "no NVIDIA driver here, and none is required"}
    names = ", ".join([reported_name(cell.card)] * cell.host.count)
    numbers = {"driver": cell.host.driver, "gpus": cell.host.count, "compute_capability": cell.card.cc}
    return {"status": "pass", "summary": f"driver {cell.host.driver}: {names}", "numbers": numbers}


def cuda_build(cell: SimulatedCell, expect: dict[str, str]) -> Result:
    """Step 2: which CUDA torch was built with."""
    image = cell.image
    if image.cuda is None:
        evidence = f"torch.version.cuda is None (torch {image.torch})"
        if cell.gpu_required:
            summary = "a CPU build: it cannot use an NVIDIA GPU"
            return {"status": "fail", "summary": summary, "evidence": evidence, "cause": "cpu-only-torch"}
        status = "pass" if expect.get("cuda") == "none" else "skip"
        return {"status": status, "summary": "a CPU build", "evidence": evidence}
    numbers = {"cuda": image.cuda, "cudnn": image.cudnn, "nccl": image.nccl, "arch_list": " ".join(image.arch_list)}
    return {"status": "pass", "summary": f"built for CUDA {image.cuda}", "numbers": numbers}


def image_expect(cell: SimulatedCell, expect: dict[str, str]) -> Result:
    """Are the versions those that the configuration expects?"""
    image = cell.image
    found = {"torch": image.torch, "cuda": image.cuda or "none", "cudnn": image.cudnn or "", "python": image.python}
    if not expect:
        return {"status": "skip", "summary": "the configuration expects no versions"}
    strange = sorted(expect.keys() - found.keys())
    if strange:
        return {"status": "unknown", "summary": f"the scenario does not say which {', '.join(strange)} the image has"}
    wrong = [key for key in sorted(expect) if not _agrees(expect[key], found[key])]
    if not wrong:
        return {"status": "pass", "summary": ", ".join(f"{key} {found[key]}" for key in sorted(expect))}
    evidence = "; ".join(f"{key}: expected {expect[key]}, found {found[key]}" for key in wrong)
    summary = ", ".join(wrong) + " is not what was expected"
    return {"status": "fail", "summary": summary, "evidence": evidence, "cause": "expectation-mismatch"}


def _agrees(expected: str, found: str) -> bool:
    bare = found if "+" in expected else found.split("+", maxsplit=1)[0]
    return bare == expected or bare.startswith(f"{expected}.")


def first_kernel(cell: SimulatedCell) -> Result:
    """Step 4: a product on the device, or the words with which it ended."""
    device = cell.device
    if device is None:
        obstacle = cell.obstacle or "no-driver"
        if obstacle == "cpu-only-torch":
            text = "AssertionError: Torch not compiled with CUDA enabled"
        else:
            text = cell.words(obstacle)
        lines = text.splitlines()
        summary = "torch cannot use the GPU: work would run on the CPU"
        return {"status": "fail", "summary": summary, "device": "cpu", "evidence": lines[-1], "log": text}
    where = reported_name(cell.card) if cell.card and device != "cpu" else "the CPU"
    numbers = {"is_available": device != "cpu", "frobenius": spread(f"{cell.id} first-kernel", 4.2e-7, 4.8e-7)}
    summary = f"{where}: a 1000×1000 product, verified"
    return {"status": "pass", "summary": summary, "device": device, "numbers": numbers}


def numerics(cell: SimulatedCell, dtype: str) -> Result:
    """A matrix product against float64."""
    typical, limit = _ERRORS[dtype]
    error = typical * spread(f"{cell.id} numerics {dtype}", 0.95, 1.05)
    numbers = {"frobenius": error, "max_over_mean": 9 * error, "identity_exact": True, "repeats_equal": True}
    return {
        "status": "pass",
        "summary": f"{dtype} on {cell.device}: F {error:.2g}",
        "device": cell.device,
        "numbers": numbers,
        "thresholds": {"frobenius": limit},
    }


def training(cell: SimulatedCell) -> Result:
    """A small network learns."""
    first, last = 2.31, 2.31 * spread(f"{cell.id} training", 0.28, 0.36)
    numbers = {"first_loss": first, "last_loss": round(last, 4), "steps": 30}
    summary = f"on {cell.device}: loss {first:.3g} → {last:.3g} in 30 steps"
    return {"status": "pass", "summary": summary, "device": cell.device, "numbers": numbers}


def benchmark(cell: SimulatedCell, item: str, unit: str) -> Result:
    """Samples around a published figure, or around a share of the card's peak; which of the two is said."""
    if cell.card is None or cell.device == "cpu":
        return {"status": "skip", "summary": "not measured on the CPU", "unit": unit}
    figure = cell.scenario.figure_of(cell.card.id, cell.image_key, item)
    scaling = next((s for s in cell.scenario.scaling if s.benchmark == item), None)
    if figure:
        centre, source = figure.value, figure.source
    else:
        peak = None if scaling is None else _peak(cell.card, scaling.by)
        if scaling is None or peak is None:
            return {"status": "skip", "summary": "no figure for this card", "unit": unit}
        seed = f"{cell.image_key} {cell.card.id} {item}"
        centre, source = scaling.factor * peak * spread(seed, 0.985, 1.015), scaling.source
    return _measured(cell, item, unit, centre, source)


def _measured(cell: SimulatedCell, item: str, unit: str, centre: float, source: str) -> Result:
    throttled = cell.strikes("throttled", item)
    centre *= _THROTTLED_SHARE if throttled else 1.0
    width = spread(f"{cell.id} {item} width", 0.002, 0.008)
    samples = {
        "n": 30,
        "median": round(centre, 4),
        "p5": round(centre * (1 - width), 4),
        "p95": round(centre * (1 + width), 4),
        "cv": round(width / 1.645, 6),  # of a normal distribution with this 5th percentile
    }
    numbers: Result = {"source": source}
    if item == "resnet50.train":
        figure = cell.scenario.figure_of(cell.card.id, cell.image_key, item) if cell.card else None
        drift = round(spread(f"{cell.id} {item} drift", -0.004, 0.004), 5)
        numbers |= {"precision": "amp", "rounds": 3, "drift": drift, "stable": True}
        if figure and figure.batch:
            numbers["batch"] = figure.batch
        if figure and figure.memory_gb:
            numbers["peak_memory_gb"] = figure.memory_gb
    summary = f"{centre:,.1f} {unit}, simulated around: {source}"
    if throttled:
        numbers["throttle"] = "sw_thermal_slowdown"
        summary = f"{centre:,.1f} {unit}: the clocks were held down (thermal), simulated around: {source}"
    return {
        "status": "warn" if throttled else "pass",
        "summary": summary,
        "device": cell.device,
        "numbers": numbers,
        "unit": unit,
        "higher_is_better": True,
        "samples": samples,
    }


def _peak(card: Card, by: str) -> float | None:
    if by == "bandwidth_gbs":
        return card.bandwidth_gbs
    peak: float | None = getattr(card.peak_tflops, by)
    return peak
