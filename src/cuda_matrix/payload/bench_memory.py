"""Owns the bandwidth benchmarks: copy and triad in the card's memory, and copies over PCIe to it and from it.

After every round the destination is verified and made worthless, so that the next round must write it anew. Must not
know how a step is timed.
"""

from __future__ import annotations

import time

from . import figures, samples, timing
from .context import skipped

SEED = 20240506
SCALAR = 0.4  # of the triad: destination = first + SCALAR × second
BYTES = 1 << 30  # of each array on a GPU, at least; and four times its L2 cache
CPU_BYTES = 32 << 20
FREE_SHARE = 5  # an array takes at most this part of the card's free memory; three are needed, and room for neighbours
LINK_BYTES = 512 << 20  # of one copy over PCIe
PAGEABLE_COPIES = 5
# GB/s of one PCIe lane in one direction, by generation: line rate less its coding.
LANE_GBS = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
_VERIFIED = 1 << 20  # elements that are compared at a time


def copy(context):
    """Read one array, write another."""
    return _in_memory(context, "copy", 2)


def triad(context):
    """Read two arrays, write a third."""
    return _in_memory(context, "triad", 3)


def h2d(context):
    """From pinned memory of the host to the card."""
    return _over_pcie(context, to_card=True)


def d2h(context):
    """From the card to pinned memory of the host."""
    return _over_pcie(context, to_card=False)


class Arrays:
    """Two sources and a destination of float32; `copy` and `triad` are the steps."""

    def __init__(self, torch, device, elements: int):
        self._torch = torch
        torch.manual_seed(SEED)
        self.first = torch.randn(elements, device=device)
        self.second = None
        self.destination = torch.full((elements,), float("nan"), device=device)
        self.wrong = ""

    def with_second(self):
        """The same, with what the triad needs."""
        self.second = self._torch.randn(len(self.first), device=self.first.device)
        return self

    def copy(self):
        """Destination = first."""
        self.destination.copy_(self.first)

    def triad(self):
        """Destination = first + SCALAR × second."""
        self._torch.add(self.first, self.second, alpha=SCALAR, out=self.destination)

    def verify(self) -> None:
        """Compare every element with what it must be, then spoil the destination."""
        for start in range(0, len(self.first), _VERIFIED):
            part = slice(start, start + _VERIFIED)
            expected = self.first[part].double()
            if self.second is not None:
                expected = expected + SCALAR * self.second[part].double()
            found = self.destination[part].double()
            # fp32 arithmetic, fused or not: a copy is exact, a triad within two roundings of its terms.
            slack = 0.0 if self.second is None else 1e-6 * (expected.abs() + 4.0)
            bad = ~((found - expected).abs() <= slack)
            if bool(bad.any()):
                at = start + int(bad.nonzero()[0])
                self.wrong = self.wrong or f"element {at} of {len(self.first)} is {float(self.destination[at])!r}"
        self.destination.fill_(float("nan"))


def _in_memory(context, name, passes):
    import torch

    device = torch.device(context.device)
    elements = _bytes(context, torch, device) // 4
    arrays = Arrays(torch, device, elements)
    if name == "triad":
        arrays.with_second()
    step = getattr(arrays, name)
    measurement = yield from timing.measured(context, torch, step, flush=True, after_round=arrays.verify)
    gigabytes = passes * 4 * elements / 1e9
    numbers = {"array_bytes": 4 * elements, "bytes_per_step": passes * 4 * elements}
    if device.type == "cpu":
        numbers["cpu_threads"] = timing.CPU_THREADS
    ran_on = str(arrays.destination.device)
    answer = figures.judged(context, measurement, gigabytes, numbers, ran_on, f"arrays of {4 * elements >> 20} MiB")
    answer = proved(answer, arrays.wrong)
    if device.type == "cpu" or answer["status"] == "fail":
        return answer
    return figures.against_peak(context, answer, figures.card_bandwidth(context.card))


def proved(answer, wrong: str) -> dict:
    """The result, or a failure where the data did not arrive as they were sent."""
    return figures.refuted(answer, "what was written is wrong: " + wrong, wrong) if wrong else answer


def _bytes(context, torch, device):
    if device.type == "cpu":
        return CPU_BYTES
    return _fitting(torch, device, max(BYTES, 4 * timing.l2_bytes(context, torch)))


def _fitting(torch, device, wanted):
    """As many bytes as wanted, or the card's share where it has less to give; whole MiB."""
    free, _total = torch.cuda.mem_get_info(device)
    return int(min(wanted, free // FREE_SHARE)) >> 20 << 20


class Link:
    """Copies of one buffer between the host and the card."""

    def __init__(self, torch, device, to_card: bool):
        self._torch = torch
        self.bytes = _fitting(torch, device, LINK_BYTES)
        torch.manual_seed(SEED)
        self.pattern = torch.randint(0, 256, (self.bytes,), dtype=torch.uint8, device=device)
        on_card = torch.zeros(self.bytes, dtype=torch.uint8, device=device)
        pinned = torch.zeros(self.bytes, dtype=torch.uint8).pin_memory()
        self._to_card = to_card
        if to_card:
            pinned.copy_(self.pattern)
            self._source, self.destination = pinned, on_card
        else:
            on_card.copy_(self.pattern)
            self._source, self.destination = on_card, pinned
        self.wrong = ""

    def step(self):
        """Copy once; the host does not wait."""
        self.destination.copy_(self._source, non_blocking=True)

    def after_round(self) -> None:
        """Verify, then spoil the destination."""
        self._torch.cuda.synchronize()
        arrived = self.destination.to(self.pattern.device)
        if not self._torch.equal(arrived, self.pattern):
            differing = int((arrived != self.pattern).sum())
            self.wrong = f"{differing} of {self.bytes} bytes differ"
        self.destination.zero_()

    def pageable_gbs(self) -> float:
        """The median GB/s of copies from or to memory that is not pinned, by the host's clock."""
        pageable = self._torch.zeros(self.bytes, dtype=self._torch.uint8)
        card = self.destination if self._to_card else self._source
        found = []
        for _ in range(PAGEABLE_COPIES + 1):
            self._torch.cuda.synchronize()
            started = time.perf_counter()
            if self._to_card:
                card.copy_(pageable)
            else:
                pageable.copy_(card)
            self._torch.cuda.synchronize()
            found.append(time.perf_counter() - started)
        return self.bytes / 1e9 / samples.median(found[1:])  # the first touches the pages


def _over_pcie(context, to_card):
    import torch

    device = torch.device(context.device)
    if device.type != "cuda":
        return skipped("needs a GPU", device=str(device))
    link = Link(torch, device, to_card)
    measurement = yield from timing.measured(context, torch, link.step, after_round=link.after_round)
    numbers = {"bytes": link.bytes, "pageable_gbs": round(link.pageable_gbs(), 3)}
    for name in ("pcie_generation", "pcie_width"):  # an idle card lowers its link: seen while the copies were running
        numbers[name] = measurement.telemetry.get(name + "_seen")
    # A copy to the host ends there; what must be on the card is its other end.
    ran_on = str(link.destination.device if to_card else link.pattern.device)
    answer = figures.judged(context, measurement, link.bytes / 1e9, numbers, ran_on, "pinned memory")
    answer = proved(answer, link.wrong)
    if answer["status"] == "fail":
        return answer
    return figures.against_peak(context, answer, link_peak(numbers), "the negotiated PCIe link could not be read")


def link_peak(numbers: dict):
    """The figures.Peak of a link in one direction, in GB/s; None where its generation or width is not known."""
    lane = LANE_GBS.get(numbers["pcie_generation"])
    width = numbers["pcie_width"]
    return figures.Peak(lane * width) if lane and width else None
