"""Owns the GEMM benchmarks: TFLOP/s of a square product of random matrices, and its share of what the card can do.

Must not know how a product is computed or verified (products), nor how it is timed.
"""

from __future__ import annotations

from . import batches, figures, precisions, products, timing
from .context import exception_line, skipped

CPU_SIZE = 256  # rows and columns: half precision is slow on a CPU
# From this many bytes of GPU memory on, this size. Six products of it may lie in memory at once.
CUDA_SIZES = ((60e9, 16384), (8e9, 8192), (2e9, 4096), (0.0, 2048))
# Without tensor cores a larger one takes too long for twenty samples; fp8 sums lose digits with the size.
LARGEST = {"fp32": 8192, "fp8": 8192}
TF32_FROM = 5e-5  # relative Frobenius error: TF32 has more, IEEE single precision less
_CUDA_ONLY = ("tf32", "fp8", "int8")


def fp32(context):
    """IEEE single precision (TF32 off)."""
    return _benchmark(context, "fp32")


def tf32(context):
    """Single precision operands, rounded to TF32 by the tensor cores."""
    return _benchmark(context, "tf32")


def fp16(context):
    """Half precision."""
    return _benchmark(context, "fp16")


def bf16(context):
    """bfloat16."""
    return _benchmark(context, "bf16")


def fp8(context):
    """float8_e4m3fn, one scale per operand."""
    return _benchmark(context, "fp8")


def int8(context):
    """8-bit integers, exact."""
    return _benchmark(context, "int8")


def _benchmark(context, name):
    import torch

    device = torch.device(context.device)
    reason = lacking(torch, device, name)
    if reason:
        return skipped(reason, device=str(device))
    precisions.set_strict(torch, tf32=name == "tf32")
    size = _size(torch, device, name)
    numbers = {"size": size, "precision": name}
    if device.type == "cpu":
        numbers["cpu_threads"] = timing.CPU_THREADS
    try:
        product = products.made(torch, device, size, name)
        product.step()
    except (RuntimeError, NotImplementedError) as error:
        if not _not_implemented(error):
            raise
        text = f"{name} products are not implemented on {device} in this torch"
        return skipped(text, device=str(device), evidence=exception_line(error))
    product.put_aside()
    measurement = yield from timing.measured(context, torch, product.step, after_round=product.put_aside)
    numbers["frobenius"], numbers["max_over_mean"] = product.errors()
    return judge(context, measurement, numbers, product.ran_on, name)


def judge(context, measurement, numbers, ran_on, name) -> dict:
    """The result for samples in seconds per product, and for the errors of the rows that were verified."""
    size = numbers["size"]
    answer = figures.judged(context, measurement, 2.0 * size**3 / 1e12, numbers, ran_on, f"{size}×{size}")
    limits = {limit: context.thresholds[limit] for limit in _limits(context, ran_on)}
    answer["thresholds"].update(limits)
    if answer.get("cause"):  # it ran elsewhere
        return answer
    wrong = judge_product(numbers, limits)
    if wrong:
        return figures.refuted(answer, f"the {name} products that were timed are wrong", wrong)
    if name == "tf32" and numbers["frobenius"] < TF32_FROM:
        text = "TF32 was switched on and not used: F = {:.2g}".format(numbers["frobenius"])
        return figures.worsen(answer, "warn", text)
    if not ran_on.startswith("cuda"):
        return answer
    return figures.against_peak(context, answer, figures.card_peak(context.card, name))


def judge_product(numbers, limits) -> str:
    """What is wrong with the verified rows, or ""."""
    for name in ("frobenius", "max_over_mean"):
        limit = limits.get(name + "_cpu", limits.get(name))
        if limit is not None and not numbers[name] <= limit:
            return "{} = {:.3g}, above {:g}".format("F" if name == "frobenius" else "M", numbers[name], limit)
    return ""


def lacking(torch, device, name) -> str:
    """Why there is no such product on this device with this torch, or ""."""
    if device.type == "cpu":
        return f"needs a GPU: {name} products are the tensor cores'" if name in _CUDA_ONLY else ""
    missing = precisions.missing(torch, name)
    if missing:
        return missing
    return precisions.needs(torch, device, name) if precisions.too_old(torch, device, name) else ""


def _limits(context, ran_on):
    suffix = "_cpu" if ran_on.startswith("cpu") and "frobenius_cpu" in context.thresholds else ""
    names = ("frobenius" + suffix, "max_over_mean" + suffix)
    return [name for name in names if name in context.thresholds]


def _not_implemented(error) -> bool:
    """Narrow on purpose: on a card that has the format, "not supported" is a failure and no reason to skip."""
    return "not implemented for" in str(error) or "Could not run" in str(error)


def _size(torch, device, name):
    size = batches.chosen(torch, device, CUDA_SIZES, CPU_SIZE)
    return min(size, LARGEST.get(name, size))
