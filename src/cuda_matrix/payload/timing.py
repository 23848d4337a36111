"""Owns how long a step takes: warm-up, rounds, CUDA events on a GPU, a monotonic clock on the CPU.

Must not know what a step does. Time budgets per profile stand here.
"""

from __future__ import annotations

import time


class Budget:
    """How long one benchmark measures: seconds of warm-up, number of rounds, seconds per round."""

    def __init__(self, warmup_s: float, rounds: int, round_s: float):
        self.warmup_s = warmup_s
        self.rounds = rounds
        self.round_s = round_s


# smoke proves that the benchmark works (60 s for a whole payload on two CPU cores); standard is a measurement;
# full lets a card reach its working temperature first.
BUDGETS = {
    "smoke": Budget(0.5, 2, 1.5),
    "standard": Budget(5.0, 3, 6.0),
    "full": Budget(20.0, 3, 30.0),
}
ROUND_SAMPLES = 5  # at least, unless a round has already taken three times its seconds
# One sample spans as many steps as take this long: events and clocks cost nothing beside it.
SAMPLE_S = {"cuda": 0.02, "cpu": 0.1}
MAX_STEPS = 10000
# On a CPU that others use too, several threads wait for each other and vary tenfold; one thread does not.
CPU_THREADS = 1


class Measurement:
    """Seconds per step: one list of samples per round; `steps` in each sample."""

    def __init__(self, rounds, steps: int):
        self.rounds = rounds
        self.steps = steps

    @property
    def all(self):
        """Every sample of every round."""
        return [sample for samples in self.rounds for sample in samples]


class _CpuTimer:
    def __init__(self, step):
        self._step = step

    def sample(self, steps):
        """Seconds per step, over `steps` of them."""
        started = time.perf_counter()
        for _ in range(steps):
            self._step()
        return (time.perf_counter() - started) / steps


class _CudaTimer:
    def __init__(self, step, torch):
        self._step = step
        self._torch = torch

    def sample(self, steps):
        """Seconds per step on the device's own clock, over `steps` of them."""
        begin = self._torch.cuda.Event(enable_timing=True)
        end = self._torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(steps):
            self._step()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / steps


def measure(torch, device, step, budget: Budget, after_round=None) -> Measurement:
    """Warm up, then sample `step` round by round. `after_round` runs between rounds, outside the clock."""
    timer = _CudaTimer(step, torch) if device.type == "cuda" else _CpuTimer(step)
    per_step = _warm_up(timer, budget.warmup_s)
    steps = max(1, min(MAX_STEPS, int(SAMPLE_S[device.type] / max(per_step, 1e-9))))
    rounds = []
    for _ in range(budget.rounds):
        rounds.append(_round(timer, steps, budget.round_s))
        if after_round is not None:
            after_round()
    return Measurement(rounds, steps)


def _warm_up(timer, seconds):
    """Run until the time is over, at least twice; the last seconds per step."""
    until = time.monotonic() + seconds
    timer.sample(1)
    per_step = timer.sample(1)
    steps = 1
    while time.monotonic() < until:
        steps = max(1, min(2 * steps, int(0.1 / max(per_step, 1e-9))))
        per_step = timer.sample(steps)
    return per_step


def _round(timer, steps, seconds):
    started = time.monotonic()
    found = []
    while True:
        found.append(timer.sample(steps))
        spent = time.monotonic() - started
        if spent >= 3 * seconds or (spent >= seconds and len(found) >= ROUND_SAMPLES):
            return found
