"""Owns the checks that decide the device: real work on it, verified, and proof of where it ran.

A GPU that is needed and cannot be used is a failure here, never a quiet run on the CPU.
Must not know how errors are judged (numerics), nor how a card is asked (nvml).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import warnings

from . import isolated, libraries, numerics, nvml, precisions, scratch
from .cgroup import read_text
from .context import exception_line, failed, passed, ran_elsewhere, skipped, warned

SIZE = 1000  # rows and columns of the first product
_MANY = 4096  # rows and columns of the products that prove where they ran; fewer on a card with little memory
_FEW = 1024
_ROOM = 5  # matrices that must fit into the free memory
_REPEATS = 10  # products between two events
_CHECKED_ROWS = 4  # rows of a large product that are compared with the CPU's
_BUSY_S = 1.0  # seconds of products while NVML watches
_IDLE_S = 0.3  # seconds of waiting before, for comparison
_POLL_S = 0.05
_ANSWER_S = 5.0  # a question to NVML that takes longer has no answer
_PASSES = 3  # at most, where the host's seconds are too many: it may have been held up
# Either lets cuBLAS compute single precision faster than the card's single precision units.
_FASTER = ("NVIDIA_TF32_OVERRIDE", "CUBLAS_EMULATE_SINGLE_PRECISION")


def first_kernel(context):
    """Step 4 of the diagnosis: is_available, device name, capability, a 1000×1000 product; with an empty JIT cache."""
    import torch

    with scratch.DriverCache() as cache:
        isolated.set_environment(cache.environment)  # before anything of CUDA reads it
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            available = bool(torch.cuda.is_available())
        context.fact("cuda_available", available)
        said = "\n".join(str(warning.message) for warning in caught)
        if available:
            sys.stderr.write(said)
            return _on_gpu(torch, context, cache)
        reason = why_not(torch)
    if context.gpu_needed:
        keys = {"device": "cpu", "numbers": {"is_available": False}, "evidence": reason or said, "log": said}
        if not keys["evidence"]:
            keys["cause"] = "silent-cpu-fallback"
            keys["evidence"] = "torch.cuda.is_available() is False, and torch.zeros(1).cuda() does not say why"
        return failed("torch cannot use the GPU: work would run on the CPU", **keys)
    return _on_cpu(torch, context, reason or said)


def why_not(torch) -> str:
    """PyTorch's own words: `is_available()` swallows them, real use does not."""
    try:
        torch.cuda.init()
        torch.zeros(1).cuda()
    except (RuntimeError, AssertionError, AttributeError) as error:
        return exception_line(error)
    return ""


def _on_gpu(torch, context, cache):
    started = time.perf_counter()
    device = torch.device("cuda:0")
    name = torch.cuda.get_device_name(0)
    capability = ".".join(str(part) for part in torch.cuda.get_device_capability(0))
    initialised = time.perf_counter()
    context.fact("device_name", name)
    context.fact("device_capability", capability)
    context.keep("device", {"name": name, "capability": capability})
    frobenius, ran_on = _product(torch, device)
    ended = time.perf_counter()
    _product(torch, device)
    context.fact("libraries", libraries.mapped(read_text("/proc/self/maps", 1 << 24)))
    numbers = {
        "is_available": True,
        "device_count": torch.cuda.device_count(),
        "driver_count": (context.kept.get("driver.init") or {}).get("cuda_count"),
        "device_name": name,
        "capability": capability,
        "frobenius": frobenius,
        "init_s": round(initialised - started, 3),
        "first_kernel_s": round(ended - started, 3),
        "second_kernel_s": round(time.perf_counter() - ended, 3),
        "jit_bytes": cache.written_bytes(),
    }
    context.keep("first-kernel", numbers)
    return judge_gpu(numbers, ran_on, context.thresholds)


def judge_gpu(numbers, ran_on, thresholds):
    """The verdict on a product that was computed where CUDA is available."""
    keys = {"device": ran_on, "numbers": numbers}
    if not ran_on.startswith("cuda"):
        return ran_elsewhere("cuda:0", **keys)
    if not numbers["frobenius"] <= thresholds["frobenius"]:
        text = "the product is wrong: relative error {:.3g}".format(numbers["frobenius"])
        return failed(text, evidence=text, cause="numerics-wrong", **keys)
    if numbers["first_kernel_s"] > thresholds["first_kernel_s"]:
        text = "works, but the first kernel took {first_kernel_s:.0f} s: compiled at first use".format(**numbers)
        return warned(text, evidence=text, **keys)
    if numbers.get("driver_count") not in (None, numbers["device_count"]):
        text = "works, but torch counts {device_count} cards, and the driver {driver_count}".format(**numbers)
        return warned(text, evidence=text, **keys)
    return passed("{device_name}, compute capability {capability}: a product, verified".format(**numbers), **keys)


def _on_cpu(torch, context, reason):
    if not hasattr(torch, "matmul"):
        return skipped("this torch has no matmul", evidence=reason)
    frobenius, ran_on = _product(torch, torch.device("cpu"))
    keys = {"device": ran_on, "numbers": {"is_available": False, "frobenius": frobenius}}
    if not frobenius <= context.thresholds["frobenius_cpu"]:
        text = f"the product on the CPU is wrong: relative error {frobenius:.3g}"
        return failed(text, evidence=text, cause="numerics-wrong", **keys)
    return passed("on the CPU, since no GPU is required: a product, verified", log=reason, **keys)


def _product(torch, device):
    """(relative Frobenius error against float64 on the CPU, device that the result lies on)."""
    generator = torch.Generator().manual_seed(1)
    left = torch.randn(SIZE, SIZE, generator=generator)
    right = torch.randn(SIZE, SIZE, generator=generator)
    product = left.to(device) @ right.to(device)
    ran_on = str(product.device)
    frobenius, _ = numerics.errors(product, left.double() @ right.double())
    return frobenius, ran_on


def silent_cpu(context):
    """Proof that work which is asked of the GPU is done by it: place, events, memory, and what NVML sees."""
    import torch

    device = torch.device(context.device)
    return judge_proof(
        _prove(torch, device, context.thresholds), context.thresholds, _peak(torch, device, context.card)
    )


def _peak(torch, device, card):
    """TFLOP/s of products in single precision, in the mode that is on; None for an unknown card."""
    peaks = (card or {}).get("peak_tflops") or {}
    try:
        strict = not precisions.tf32_on(torch, device)
    except RuntimeError:  # torch 2.9: somebody has set it by the new interface
        strict = False
    strict = strict and not any(os.environ.get(name, "0") != "0" for name in _FASTER)
    strict = strict and "fp32" not in (card or {}).get("uncertain", ())
    names = ("fp32",) if strict and peaks.get("fp32") else ("fp32", "tf32")
    return max([peaks[name] for name in names if peaks.get(name)], default=None)


def _timed(torch, multiply, thresholds):
    """(seconds by the events, by the host) of some products; repeated where the host's are suspiciously many."""
    passes = []
    while len(passes) < _PASSES:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        started = time.perf_counter()
        begin.record()
        multiply()
        end.record()
        end.synchronize()
        wall_s = time.perf_counter() - started
        passes.append((begin.elapsed_time(end) / 1e3, wall_s))
        if not runs_short(*passes[-1], thresholds):
            return passes[-1]
    return min(passes, key=lambda each: each[1])


def runs_short(event_s, wall_s, thresholds):
    """Whether the events measured too little: both clocks bracket the same products, and hardly anything else."""
    return wall_s >= thresholds["compared_from_s"] and event_s < wall_s * thresholds["event_over_wall_least"]


def _prove(torch, device, thresholds):
    """What products leave behind: where the result lies, what events and memory say, what NVML saw."""
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    side = _MANY if free > _ROOM * _MANY * _MANY * 4 else _FEW
    allocated = torch.cuda.memory_allocated(device)
    left, right = torch.randn(side, side, device=device), torch.randn(side, side, device=device)
    product = left @ right
    torch.cuda.synchronize(device)

    def multiply():
        for _ in range(_REPEATS):
            torch.matmul(left, right, out=product)

    event_s, wall_s = _timed(torch, multiply, thresholds)
    rows = slice(0, _CHECKED_ROWS)
    frobenius, _ = numerics.errors(product[rows], left[rows].cpu().double() @ right.cpu().double())
    seen = {
        "ran_on": str(product.device),
        "frobenius": frobenius,
        "event_s": event_s,
        "wall_s": wall_s,
        "tflops": 2.0 * side**3 * _REPEATS / event_s / 1e12 if event_s > 0 else None,
        "allocated_bytes": torch.cuda.memory_allocated(device) - allocated,
        "used_bytes": total - torch.cuda.mem_get_info(device)[0],
        "expected_bytes": 3 * side * side * 4,
    }
    if "PYTORCH_NO_CUDA_MEMORY_CACHING" in os.environ and not torch.cuda.memory_allocated(device):
        # Torch counts nothing then. What the driver counts must have grown.
        seen.update(allocated_bytes=None, used_bytes=free - torch.cuda.mem_get_info(device)[0])

    def busy():
        multiply()
        torch.cuda.synchronize(device)

    seen.update(_watch(busy, device.index or 0))
    return seen


def _watch(busy, ordinal):
    """NVML before and during a second of products: None for what it does not tell, and why."""
    nothing = {"utilisation": None, "power_idle_w": None, "power_busy_w": None, "clock_idle_mhz": None}
    nothing.update(clock_busy_mhz=None, nvml=None)
    try:
        library, reason = _asked(nvml.open_library)
        if library is None:
            return {**nothing, "nvml": reason}
        card, reason = _asked(library.device_of_cuda, ordinal)
        seen = {**nothing, "nvml": reason} if card is None else _readings(card, busy)
    except _NoAnswerError:
        return {**nothing, "nvml": "NVML does not answer"}
    with contextlib.suppress(_NoAnswerError):  # what it told before stays told
        _asked(library.close)
    return seen


class _NoAnswerError(Exception):
    """NVML took too long."""


def _asked(question, *arguments):
    """The answer of NVML: asked in a thread, since a driver that hangs must not cost the check its verdict."""
    answers = []

    def ask():
        try:
            answers.append((question(*arguments), None))
        except Exception as error:  # raised where the answer is wanted
            answers.append((None, error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_ANSWER_S)
    if not answers:
        raise _NoAnswerError
    answer, error = answers[0]
    if error is not None:
        raise error
    return answer


def _readings(card, busy):
    """What NVML tells of a moment of waiting and of a second of products."""
    energy, started, clock = _asked(card.energy_mj), time.monotonic(), _asked(card.sm_clock_mhz)
    time.sleep(_IDLE_S)
    idle_w = _power(energy, _asked(card.energy_mj), time.monotonic() - started)
    energy, started, used, clocks = _asked(card.energy_mj), time.monotonic(), [], []
    polled = 0.0
    while time.monotonic() - started < _BUSY_S:
        busy()
        if time.monotonic() - polled >= _POLL_S:
            polled = time.monotonic()
            used.append(_asked(card.utilisation))
            clocks.append(_asked(card.sm_clock_mhz))
    busy_w = _power(energy, _asked(card.energy_mj), time.monotonic() - started)
    return {
        "utilisation": max([each for each in used if each is not None], default=None),
        "power_idle_w": idle_w,
        "power_busy_w": busy_w,
        "clock_idle_mhz": clock,
        "clock_busy_mhz": max([each for each in clocks if each is not None], default=None),
        "nvml": None,
    }


def _power(before_mj, after_mj, seconds):
    """Watts between two readings of the energy counter; None where the card has none."""
    if before_mj is None or after_mj is None or seconds <= 0:
        return None
    return round((after_mj - before_mj) / 1e3 / seconds, 1)


def judge_proof(seen: dict, thresholds: dict, peak_tflops) -> dict:
    """The verdict on what the products left behind. What NVML does not tell is said, and proves nothing."""
    keys = {"device": seen["ran_on"], "numbers": {key: value for key, value in seen.items() if key != "ran_on"}}
    wrong = contradiction(seen, thresholds, peak_tflops)
    if wrong:
        return failed("the work did not run on the GPU: " + wrong, evidence=wrong, cause="silent-cpu-fallback", **keys)
    if not seen["frobenius"] <= thresholds["frobenius"]:
        text = "the products are wrong: relative error {frobenius:.3g}".format(**seen)
        return failed(text, evidence=text, cause="numerics-wrong", **keys)
    signs = moved(seen, thresholds)
    told = [name for name, value in signs.items() if value is not None]
    if told and not any(signs.values()):
        text = "NVML saw nothing of a second of products ({})".format(", ".join(told))
        return failed("the work did not run on the GPU: " + text, evidence=text, cause="silent-cpu-fallback", **keys)
    silent = [name for name in signs if name not in told]
    rose = ", ".join(name for name in told if signs[name])
    summary = f"on {seen['ran_on']}: events, memory" + (f", NVML ({rose})" if rose else "")
    if silent:
        summary += "; not told by NVML: " + ", ".join(silent) + (" ({nvml})".format(**seen) if seen["nvml"] else "")
    return passed(summary, **keys)


def contradiction(seen: dict, thresholds: dict, peak_tflops) -> str:
    """What says that the products did not run on the card, or ""."""
    if not seen["ran_on"].startswith("cuda"):
        return f"the result lies on {seen['ran_on']}"
    wrong = _speed(seen, thresholds, peak_tflops)
    if wrong:
        return wrong
    for name in ("allocated_bytes", "used_bytes"):
        if seen[name] is not None and seen[name] < seen["expected_bytes"]:
            return "{} is {}, and the matrices have {}".format(name, seen[name], seen["expected_bytes"])
    return ""


def _speed(seen: dict, thresholds: dict, peak_tflops) -> str:
    """What no card's clock can say of the products, or ""."""
    if not seen["event_s"] > 0:
        return "CUDA events measured {event_s} s".format(**seen)
    if seen["event_s"] > seen["wall_s"] * thresholds["event_over_wall"]:
        return "CUDA events measured {event_s:.4f} s, the clock {wall_s:.4f} s".format(**seen)
    most = thresholds["tflops"] if peak_tflops is None else peak_tflops * thresholds["peak_share"]
    if seen["tflops"] > most:
        return f"{seen['tflops']:.0f} TFLOP/s is more than this card can do ({most:.0f})"
    if runs_short(seen["event_s"], seen["wall_s"], thresholds):
        return "CUDA events measured only {event_s:.4f} s, the clock {wall_s:.4f} s".format(**seen)
    return ""


def moved(seen: dict, thresholds: dict) -> dict:
    """What rose while the products ran: name → True or False, or None where NVML does not tell."""
    utilisation, idle_w, busy_w = seen["utilisation"], seen["power_idle_w"], seen["power_busy_w"]
    idle_mhz, busy_mhz = seen["clock_idle_mhz"], seen["clock_busy_mhz"]
    return {
        "utilisation": None if utilisation is None else utilisation >= thresholds["utilisation"],
        "energy": None if idle_w is None or busy_w is None else busy_w >= idle_w * thresholds["power_ratio"],
        # A card that was at work just now has not slowed down yet: a clock that stays says nothing.
        "clock": True if idle_mhz is not None and busy_mhz is not None and busy_mhz > idle_mhz else None,
    }
