"""Owns the GEMM benchmarks: TFLOP/s of one square product of random matrices."""

from __future__ import annotations

from . import samples, timing
from .checks_numerics import lacks
from .context import exception_line, failed, result, skipped

SEED = 20240503
CPU_SIZE = 512  # rows and columns
CUDA_SIZES = ((6e9, 8192), (0.0, 4096))  # from this many bytes of GPU memory on, this size
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def fp32(context):
    """IEEE single precision (TF32 off)."""
    return _benchmark(context, "fp32")


def fp16(context):
    """Half precision."""
    return _benchmark(context, "fp16")


def bf16(context):
    """bfloat16."""
    return _benchmark(context, "bf16")


def _benchmark(context, dtype_name):
    import torch

    device = torch.device(context.device)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
    else:
        torch.set_num_threads(timing.CPU_THREADS)
    size = _size(torch, device)
    budget = timing.BUDGETS[context.profile]
    try:
        measurement, sound, ran_on = _measure(torch, device, getattr(torch, _DTYPES[dtype_name]), size, budget)
    except RuntimeError as error:
        if not lacks(torch, device, dtype_name, error):
            raise
        text = f"{dtype_name} products are not implemented on {device} in this torch"
        return skipped(text, device=str(device), evidence=exception_line(error))
    numbers = {"size": size, "rounds": budget.rounds, "steps_per_sample": measurement.steps, "precision": dtype_name}
    if device.type == "cpu":
        numbers["cpu_threads"] = timing.CPU_THREADS
    if ran_on != context.device:
        text = f"asked for {context.device}, the result lies on {ran_on}"
        return failed(text, evidence=text, cause="silent-cpu-fallback", device=ran_on, numbers=numbers)
    if not sound:
        text = "the product is not finite, or all zero"
        return failed(text, evidence=text, cause="numerics-wrong", device=ran_on, numbers=numbers)
    return judge(measurement, 2.0 * size**3 / 1e12, numbers, ran_on)


def judge(measurement, tflop_per_step, numbers, ran_on):
    """The result for samples in seconds per product."""
    keys = {"device": ran_on, "numbers": numbers}
    wrong = samples.impossible(measurement.all)
    if wrong:
        return result("invalid", wrong, evidence=wrong, **keys)
    rates = [[tflop_per_step / seconds for seconds in each] for each in measurement.rounds]
    summary = samples.summarise([rate for each in rates for rate in each])
    numbers["drift"] = samples.drift(rates)
    device_type = ran_on.partition(":")[0]
    status, remark = samples.judge_spread(summary, device_type)
    text = "{:.4g} TFLOP/s on {}, {}×{}".format(summary["median"], ran_on, numbers["size"], numbers["size"])
    if remark:
        text += ": " + remark
    return result(status, text, samples=summary, thresholds=samples.bounds(device_type), **keys)


def _size(torch, device):
    if device.type == "cpu":
        return CPU_SIZE
    memory = torch.cuda.get_device_properties(device).total_memory
    return next(size for least, size in CUDA_SIZES if memory >= least)


def _measure(torch, device, dtype, size, budget):
    """(measurement, whether the product is finite and not zero, device that it lies on)."""
    generator = torch.Generator().manual_seed(SEED)
    left = torch.randn(size, size, generator=generator).to(device=device, dtype=dtype)
    right = torch.randn(size, size, generator=generator).to(device=device, dtype=dtype)
    product = left @ right

    def step():
        torch.matmul(left, right, out=product)

    measurement = timing.measure(torch, device, step, budget)
    values = product.float()
    sound = bool(values.isfinite().all()) and float(values.abs().max()) > 0
    return measurement, sound, str(product.device)
