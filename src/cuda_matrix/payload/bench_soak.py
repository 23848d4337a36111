"""Owns the soak: hours of ResNet-50 training, and whether it stays what it was in its first minutes.

Speed, memory, the loss, and a fixed product are read window by window. It ends a little before its time limit, so that
what a cell's end cuts short is judged too. On the CPU: tiny, which proves the path.
Must not know how the network is trained (bench_resnet50).
"""

from __future__ import annotations

import os
import time

from . import batches, bench_resnet50, learning, nvml, round_watch, samples
from .context import exception_line, failed, passed, result, warned

SEED = 20240507
PRODUCT_SIZES = {"cuda": 2048, "cpu": 256}  # rows and columns
WINDOWS = 200  # about as many, so that days of windows fit into memory
WINDOW_S = (1.0, 600.0)  # a window is at least and at most that long
QUEUE_S = 0.5  # seconds of work that may be queued before the host waits for it
MARGIN_S = (3.0, 90.0)  # left for the judgement and for the checks that follow
MARGIN_SHARE = 0.1
LEAST_WINDOWS = 10
MEMORIES = ("device", "reserved", "process")


class Record:
    """What a soak has shown, one value a window; memory in MB (1e6 bytes), rates in images/s."""

    def __init__(self):
        self.rates = []
        self.losses = []
        self.memory = {name: [] for name in MEMORIES}
        self.products_changed = 0
        self.weights_moved = False
        self.ended_by = ""  # the exception that ended it, in one line
        self.seconds = 0.0
        self.ecc_errors = None  # uncorrected ones that appeared; None where they cannot be counted


def train(context):
    """Train until the time is nearly over."""
    import torch

    started = time.monotonic()
    ends = started + budget_s(context.limit_s)
    device = torch.device(context.device)
    _, precision = bench_resnet50.usable(torch, device, "amp-fp16")
    setting = bench_resnet50.Setting(torch, device, precision)
    setting.turn_switches()
    if device.type == "cpu":
        torch.set_num_threads(1)
    first_batch = batches.chosen(torch, device, bench_resnet50.CUDA_BATCHES, bench_resnet50.CPU_BATCH)
    before = _ecc_uncorrected(context)
    batch, record = yield from batches.fitted(
        torch, device, first_batch, lambda batch: _run(context, setting, batch, ends)
    )
    numbers = {"batch": batch, "batch_halved": batch != first_batch, **setting.numbers()}
    if record is None:
        text = "one image does not fit into the GPU's memory"
        return failed(text, evidence=text, cause="gpu-oom", device=str(device), numbers=numbers)
    record.seconds = time.monotonic() - started
    after = _ecc_uncorrected(context)
    record.ecc_errors = appeared(before, after)
    return judge(record, numbers, context.thresholds, str(device))


def appeared(before, after):
    """How many errors a counter counted in between; None where it is not there, or was set back."""
    return None if before is None or after is None or after < before else after - before


def budget_s(limit_s: float) -> float:
    """Seconds of training in a time limit."""
    return limit_s - min(MARGIN_S[1], max(MARGIN_S[0], MARGIN_SHARE * limit_s))


def _run(context, setting, batch, ends):
    """The Record; yields after every window, so that the CUDA context is proved healthy in between."""
    record = Record()
    window_s = min(WINDOW_S[1], max(WINDOW_S[0], (ends - time.monotonic()) / WINDOWS))
    training = bench_resnet50.Training(setting, batch)
    products = Products(setting.torch, setting.device)
    watch = round_watch.RoundWatch(context.device)
    per_step = 1.0
    while not record.rates or time.monotonic() < ends:
        try:
            with watch:
                per_step = _window(setting, training, min(ends, time.monotonic() + window_s), per_step)
        except RuntimeError as error:
            if not record.rates:
                raise
            record.ended_by = exception_line(error)
            break
        record.rates.append(batch / per_step)
        training.note_loss()
        record.products_changed += not products.same()
        for name, value in _memory_mb(setting).items():
            record.memory[name].append(value)
        yield
    record.losses, record.weights_moved = training.losses, training.weights_moved()
    telemetry = watch.summary()
    if telemetry:
        context.keep(f"telemetry.{context.item_id}", telemetry)
    return record


def _window(setting, training, until, per_step):
    """Train until then; seconds per step."""
    steps = 0
    started = time.perf_counter()
    while not steps or time.monotonic() < until:
        for _ in range(max(1, int(QUEUE_S / per_step))):
            training.step()
            steps += 1
        if setting.device.type == "cuda":
            setting.torch.cuda.synchronize(setting.device)
        per_step = (time.perf_counter() - started) / steps
    return per_step


class Products:
    """Two fixed products, fp32 and, on a GPU, fp16: whether they are bitwise what they were at first."""

    def __init__(self, torch, device):
        self._torch = torch
        size = PRODUCT_SIZES[device.type]
        generator = torch.Generator().manual_seed(SEED)
        pair = [torch.randn(size, size, generator=generator).to(device) for _ in range(2)]
        self._pairs = [pair] + ([[each.half() for each in pair]] if device.type == "cuda" else [])
        self._first = self._multiplied()

    def same(self) -> bool:
        """Multiply again and compare."""
        return all(self._torch.equal(first, again) for first, again in zip(self._first, self._multiplied()))

    def _multiplied(self):
        return [self._torch.matmul(left, right) for left, right in self._pairs]


def judge(record: Record, numbers: dict, thresholds: dict, device: str) -> dict:
    """The verdict on a soak."""
    on_gpu = device.startswith("cuda")
    seen = judge_windows(record)
    growth_limits = {name: thresholds[name + "_growth_mb"] for name in MEMORIES}
    drift_limit = thresholds["drift" if on_gpu else "drift_cpu"]
    numbers = {**numbers, **seen, "hours": round(record.seconds / 3600, 4), "windows": len(record.rates)}
    long_enough = record.seconds >= thresholds["stable_from_s"]
    numbers.update(products_changed=record.products_changed, stable=False)
    numbers["ecc_uncorrected_new"] = "unknown" if record.ecc_errors is None else record.ecc_errors
    limits = {"drift": drift_limit, "stable_from_s": thresholds["stable_from_s"]}
    limits.update({name + "_growth_mb": limit for name, limit in growth_limits.items()})
    keys = {"device": device, "numbers": numbers, "thresholds": limits}
    wrong, cause = complaint(record, seen, growth_limits)
    if record.rates and not samples.impossible(record.rates):
        keys["samples"] = samples.summarise(record.rates[len(record.rates) // 10 :])
    if wrong:
        more = {"cause": cause} if cause else {}
        return failed(wrong, evidence=wrong, **more, **keys)
    if "samples" not in keys:
        text = samples.impossible(record.rates)
        return result("invalid", text, evidence=text, **keys)
    text = "{:.4g} images/s on {} for {:.3g} h".format(keys["samples"]["median"], device, record.seconds / 3600)
    if "drift" not in seen:
        numbers["stable"] = None
        return warned(f"{text}: only {len(record.rates)} windows, too short to say stable", **keys)
    if abs(seen["drift"]) > drift_limit:
        return warned("{}: not stable: the last tenth is {:+.1%} off the first".format(text, seen["drift"]), **keys)
    if not long_enough:
        numbers["stable"] = None
        return warned(text + ": as it was at first, but too short to say stable", **keys)
    numbers["stable"] = True
    return passed(text + ": speed, memory and results stayed what they were", **keys)


def judge_windows(record: Record) -> dict:
    """The last tenth of the windows against the first after warm-up: drift and growths; {} where they are too few."""
    count = len(record.rates)
    if count < LEAST_WINDOWS or samples.impossible(record.rates):
        return {}
    tenth = count // 10

    def ends(values):
        return samples.median(values[tenth : 2 * tenth]), samples.median(values[-tenth:])

    first, last = ends(record.rates)
    found = {"drift": (last - first) / first}
    for name, values in record.memory.items():
        if len(values) == count:
            first, last = ends(values)
            found[name + "_growth_mb"] = round(last - first, 1)
    return found


def complaint(record: Record, seen: dict, growth_limits: dict):
    """(what is wrong, its cause), or ("", None). What says most about the rest comes first."""
    if record.ecc_errors is not None and record.ecc_errors > 0:
        return f"{record.ecc_errors} uncorrectable ECC errors appeared", "gpu-ecc"
    if record.products_changed:
        text = "a fixed product was not bitwise what it was at first, after {} of {} windows"
        return text.format(record.products_changed, len(record.rates)), "numerics-wrong"
    wrong = learning.complaint(record.losses, record.weights_moved)
    if wrong:
        return wrong, "training-diverged"
    for name, limit in growth_limits.items():
        growth = seen.get(name + "_growth_mb", 0.0)
        if growth > limit:
            return f"memory grows: {name} {growth:+.0f} MB from the first tenth to the last, above {limit} MB", None
    if record.ended_by:
        text = f"ended after {record.seconds / 3600:.3g} h: {record.ended_by}"
        return text, "gpu-oom" if batches.does_not_fit(record.ended_by) else None
    return "", None


def _memory_mb(setting) -> dict:
    found = {}
    if setting.device.type == "cuda":
        found["device"] = setting.torch.cuda.memory_allocated(setting.device) / 1e6
        found["reserved"] = setting.torch.cuda.memory_reserved(setting.device) / 1e6
    with open("/proc/self/statm") as stream:
        found["process"] = int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return found


def _ecc_uncorrected(context):
    """The card's counter of uncorrectable errors; None where it has none, or does not tell."""
    if not context.on_gpu:
        return None
    library, _ = nvml.open_library()
    if library is None:
        return None
    with library:
        device, _ = library.device_of_cuda(0)
        return None if device is None else device.ecc_uncorrected()
