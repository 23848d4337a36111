"""Owns the launch benchmark: microseconds per launch of a kernel that does next to nothing.

The kernel adds one to a number, so that the number says at the end how many launches really ran. Must not know how a
step is timed.
"""

from __future__ import annotations

import time

from . import figures, samples, timing
from .context import exception_line

GRAPH_KERNELS = 100  # launches in one CUDA graph
GRAPH_REPLAYS = 50
ROUND_TRIPS = 50  # launches after each of which the host waits


class Counter:
    """A number on the device, and how often the host has asked for it to be raised."""

    def __init__(self, torch, device):
        self._torch = torch
        self.number = torch.zeros(1, dtype=torch.int64, device=device)
        self.launched = 0

    def step(self):
        """Launch one kernel."""
        self.number.add_(1)
        self.launched += 1

    def wrong(self) -> str:
        """What does not add up, or ""."""
        counted = int(self.number)
        if counted == self.launched:
            return ""
        return f"{self.launched} kernels were launched, the card counted {counted}"

    def round_trip_us(self) -> float:
        """The median microseconds from a launch to the host's knowing that it has ended."""
        found = []
        for _ in range(ROUND_TRIPS):
            started = time.perf_counter()
            self.step()
            self._torch.cuda.synchronize()
            found.append(time.perf_counter() - started)
        return samples.median(found) * 1e6

    def graph_us(self) -> float:
        """Microseconds per kernel where a CUDA graph replays GRAPH_KERNELS of them."""
        number = self._torch.zeros_like(self.number)
        graph = self._torch.cuda.CUDAGraph()
        self._torch.cuda.synchronize()
        with self._torch.cuda.graph(graph):
            for _ in range(GRAPH_KERNELS):
                number.add_(1)
        number.zero_()
        graph.replay()
        begin = self._torch.cuda.Event(enable_timing=True)
        end = self._torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(GRAPH_REPLAYS):
            graph.replay()
        end.record()
        end.synchronize()
        self.launched += GRAPH_KERNELS * (GRAPH_REPLAYS + 1)
        self.number.add_(number)
        return begin.elapsed_time(end) * 1e3 / GRAPH_REPLAYS / GRAPH_KERNELS


def launch(context):
    """Time launches one after another; then round trips, and the same kernel in a CUDA graph."""
    import torch

    device = torch.device(context.device)
    counter = Counter(torch, device)
    measurement = yield from timing.measured(context, torch, counter.step)
    numbers = {}
    if device.type == "cuda":
        numbers["round_trip_us"] = round(counter.round_trip_us(), 3)
        try:
            numbers["graph_us"] = round(counter.graph_us(), 3)
        except (AttributeError, RuntimeError) as error:
            numbers["graph"] = "not measured: " + exception_line(error)
    else:
        numbers["cpu_threads"] = timing.CPU_THREADS
    ran_on = str(counter.number.device)
    answer = figures.judged(context, measurement, 1.0, numbers, ran_on, "one kernel after another")
    return judge(context, answer, counter.wrong())


def judge(context, answer: dict, wrong: str) -> dict:
    """Add the verdict on the launches that got lost, and on slow ones."""
    if wrong and answer["status"] != "fail":
        return figures.refuted(answer, "launches are lost", wrong)
    limit = context.thresholds["launch_us_warn"]
    answer["thresholds"]["launch_us_warn"] = limit
    if "samples" in answer and answer["samples"]["median"] > limit:
        figures.worsen(answer, "warn", f"more than {limit:g} us a launch: small kernels will wait for the host")
    return answer
