"""Owns how long a step takes: warm-up, rounds, the stop rule, CUDA events on a GPU, a monotonic clock on the CPU.

A benchmark measures with `measurement = yield from timing.measured(context, torch, step)`: every round ends with a
yield, so that the rounds of neighbours can be interleaved. What is global in torch (precision flags, threads) is
turned back for every turn by whoever interleaves them.

Must not know what a step does, nor what the figures mean. The time that each profile gives to a benchmark stands here.
"""

from __future__ import annotations

import os
import time

from . import samples
from .round_watch import RoundWatch


class Plan:
    """How long one benchmark measures, in seconds.

    Warm-up lasts (at least, at most) `cold_s` for the first benchmark of a process, which finds a cold card, and
    `warm_s` for the next ones; in between it ends when the clock of two windows of `window_s` agrees. Each of `rounds`
    takes at least and at most `round_s`.
    """

    def __init__(self, cold_s, warm_s, round_s):
        self.cold_s = cold_s
        self.warm_s = warm_s
        self.window_s = min(1.0, warm_s[0])
        self.rounds = 3
        self.round_s = round_s


# smoke proves that the benchmark works (60 s for a whole payload); standard is a measurement; full lets the card reach
# its working temperature and its clock settle.
PLANS = {
    "smoke": Plan((0.3, 0.4), (0.1, 0.2), (0.25, 0.45)),
    "standard": Plan((3.0, 6.0), (0.5, 1.5), (0.7, 1.2)),
    "full": Plan((5.0, 30.0), (2.0, 6.0), (2.0, 4.0)),
}
SETTLED = 0.01  # the clock has settled when the medians of two windows differ by less than this share
STEADY_IQR = 0.02  # a round may end when the middle half of its samples lies within this share of their median
ROUND_SAMPLES = 20  # a round has at least this many, unless its seconds are used up
LEAST_SAMPLES = 2  # a round has these, however long they take
# One sample spans as many steps as take this long: events and clocks cost nothing beside it. Longer on a CPU, where
# whoever else runs takes it away for some milliseconds at a time.
SAMPLE_S = {"cuda": 0.02, "cpu": 0.05}
WARM_SAMPLE_S = 0.1
MAX_STEPS = 10000
FLUSH_BYTES = 256 << 20  # at least; twice the L2 cache where that is larger
# The host's seconds bracket both events, so that the events cannot measure more; what is above 1 is room for rounding.
EVENTS_OVER_HOST = 1.05
# Nor much less, since the host only queues the steps and waits for them; a host that is often held up in its waiting
# still sees this share. Rounds of fewer of the host's seconds (unit: s) may be mostly queueing, and are not compared.
EVENTS_UNDER_HOST = 0.3
COMPARED_FROM_S = 0.2
# On a CPU that others use too, several threads wait for each other and vary tenfold; one thread does not.
CPU_THREADS = 1

_warmed = set()  # ids of the processes in which a benchmark has warmed the card up; a forked child has an id of its own


class Measurement:
    """Seconds per step: one list of samples per round, `steps` in each sample; and the telemetry of the rounds.

    `disagreement`: how the card's clock and the host's contradict each other, or "".
    """

    def __init__(self, rounds, steps: int = 1, telemetry=None, warm_up=None):
        self.rounds = rounds
        self.steps = steps
        self.telemetry = telemetry or {}
        self.warm_up = warm_up or {}
        self.disagreement = ""

    @property
    def all(self):
        """Every sample of every round."""
        return [sample for each in self.rounds for sample in each]


def measured(context, torch, step, flush=False, after_round=None, sample_s=None):
    """Warm up, then sample `step` round by round; yields after every round and returns a `Measurement`.

    `flush`: empty the card's L2 cache before every sample, which is then one step. `after_round()` runs between
    rounds, outside the clock. `sample_s`: seconds that one sample shall span, for steps that must not be cut finer.
    """
    plan = PLANS.get(context.profile, PLANS["standard"])
    watch = RoundWatch(context.device)
    if not context.on_gpu:
        torch.set_num_threads(CPU_THREADS)
    timer = _timer(context, torch, step, flush)
    warmed = _warm_up(timer, plan, watch)
    wanted_s = SAMPLE_S["cuda" if context.on_gpu else "cpu"] if sample_s is None else sample_s
    steps = timer.steps_in(wanted_s, warmed.pop("per_step"))
    rounds, disagreement = [], ""
    for _ in range(plan.rounds):
        timer.sample(steps)  # not counted: since the last round, neighbours have used the card
        timer.forget()
        with watch:
            rounds.append(sample_round(timer, steps, plan))
        disagreement = disagreement or timer.disagreement()
        if after_round is not None:
            after_round()
        yield
    telemetry = watch.summary()
    if telemetry:
        context.keep(f"telemetry.{context.item_id}", telemetry)
    measurement = Measurement(rounds, steps, telemetry, warmed)
    measurement.disagreement = disagreement
    return measurement


def steps_in(seconds: float, per_step: float) -> int:
    """How many steps take that long; 1 where the clock gave nonsense, which the judge will name."""
    return max(1, min(MAX_STEPS, int(seconds / per_step))) if per_step > 0 else 1


def disagreement(events_s: float, host_s: float, queued: bool = False) -> str:
    """How the card's clock contradicts the host's over the same steps, or "".

    `queued`: the card had work before the first event, which only the host's seconds hold.
    """
    short = not queued and host_s >= COMPARED_FROM_S and events_s < host_s * EVENTS_UNDER_HOST
    if not short and not events_s > host_s * EVENTS_OVER_HOST:
        return ""
    return f"the card's clock and the host's disagree: {events_s:.4g} s by its events, {host_s:.4g} s by the host"


def sample_round(timer, steps: int, plan: Plan):
    """The samples of one round: until they are steady, enough, and long enough; or until the round's time is over."""
    least_s, most_s = plan.round_s
    started = time.monotonic()
    found = []
    while True:
        found.append(timer.sample(steps))
        spent = time.monotonic() - started
        if len(found) < LEAST_SAMPLES or spent < least_s:
            continue
        enough = len(found) >= ROUND_SAMPLES and samples.iqr_share(found) <= STEADY_IQR
        if enough or spent >= most_s:
            return found


def _warm_up(timer, plan, watch):
    """Run windows until the card's clock (or, where it cannot be read, the time per step) changes no more."""
    cold = watch.on_gpu and os.getpid() not in _warmed
    _warmed.add(os.getpid())
    least_s, most_s = plan.cold_s if cold else plan.warm_s
    started = time.monotonic()
    timer.sample(1)  # libraries load and choose their kernels here
    per_step = timer.sample(1)
    before = None
    while True:
        with watch:
            per_step = _window(timer, plan.window_s, per_step)
        now = watch.last_clock_mhz() or per_step
        spent = time.monotonic() - started
        settled = before is not None and abs(now - before) < SETTLED * abs(before)
        # A CPU's time per step never settles to a hundredth on a machine that others use.
        if spent >= least_s and (settled or not watch.on_gpu or spent >= most_s):
            watch.forget()
            told = {"settled": settled} if watch.on_gpu else {}
            return {"per_step": per_step, "warmup_s": round(spent, 2), **told}
        before = now


def _window(timer, seconds, per_step):
    """The median seconds per step over `seconds` of samples."""
    until = time.monotonic() + seconds
    found = []
    while not found or time.monotonic() < until:
        found.append(timer.sample(timer.steps_in(WARM_SAMPLE_S, per_step)))
        per_step = samples.median(found)
    return per_step


def _timer(context, torch, step, flush):
    if not context.on_gpu:
        return CpuTimer(step)
    return CudaTimer(step, torch, _flusher(context, torch) if flush else None)


class CpuTimer:
    """Times steps with the host's clock."""

    def __init__(self, step):
        self._step = step

    def steps_in(self, seconds, per_step):
        """How many steps take that long."""
        return steps_in(seconds, per_step)

    def sample(self, steps):
        """Seconds per step, over `steps` of them."""
        started = time.perf_counter()
        for _ in range(steps):
            self._step()
        return (time.perf_counter() - started) / steps

    def forget(self):
        """Begin a round."""

    def disagreement(self):
        """There is no second clock."""
        return ""


class CudaTimer:
    """Times steps with the device's own clock, by events; `flush` empties its cache before each sample."""

    def __init__(self, step, torch, flush=None):
        self._step = step
        self._torch = torch
        self._flush = flush
        self._host_per_step = 0.0  # seconds, by the host's clock, of the last sample
        self.forget()

    def forget(self):
        """Begin a round: both clocks' seconds are summed from here on."""
        self._events_s = self._host_s = 0.0

    def disagreement(self):
        """How the two clocks contradicted each other in this round, or ""."""
        return disagreement(self._events_s, self._host_s, queued=self._flush is not None)

    def steps_in(self, seconds, per_step):
        """How many steps take that long; one where the cache must be empty, since the second finds it full."""
        if self._flush is not None:
            return 1
        if per_step > 0:  # a clock that runs short would ask for thousands of steps
            per_step = max(per_step, self._host_per_step * EVENTS_UNDER_HOST)
        return steps_in(seconds, per_step)

    def sample(self, steps):
        """Seconds per step, over `steps` of them."""
        begin = self._torch.cuda.Event(enable_timing=True)
        end = self._torch.cuda.Event(enable_timing=True)
        if self._flush is not None:
            self._flush()  # keeps the card busy, too, while the host queues the step
        started = time.perf_counter()
        begin.record()
        for _ in range(steps):
            self._step()
        end.record()
        end.synchronize()
        host_s = time.perf_counter() - started
        events_s = begin.elapsed_time(end) / 1e3
        self._host_per_step = host_s / steps
        self._host_s += host_s
        self._events_s += events_s
        return events_s / steps


def l2_bytes(context, torch) -> int:
    """Bytes of the card's L2 cache, by the cards table and by the card itself; 0 where neither knows."""
    card = context.card or {}
    properties = torch.cuda.get_device_properties(context.device)
    return max(int((card.get("l2_mb") or 0) * (1 << 20)), getattr(properties, "L2_cache_size", 0))


def _flusher(context, torch):
    """A function that overwrites more than the card's L2 cache holds."""
    size = max(FLUSH_BYTES, 2 * l2_bytes(context, torch))
    return torch.empty(size, dtype=torch.int8, device=context.device).zero_
