"""Owns the first-kernel check: real work on the device, verified, and proof of where it ran.

A GPU that is needed and cannot be used is a failure here, never a quiet run on the CPU.
"""

from __future__ import annotations

import sys
import time
import warnings

from . import libraries, numerics
from .cgroup import read_text
from .context import exception_line, failed, passed, skipped, warned

SIZE = 1000  # rows and columns of the matrix product
SLOW_FIRST_KERNEL_S = 20.0  # slower than this, kernels were compiled at first use


def first_kernel(context):
    """Step 4 of the diagnosis: is_available, device name, capability, and a 1000×1000 product."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = bool(torch.cuda.is_available())
    context.fact("cuda_available", available)
    said = "\n".join(str(warning.message) for warning in caught)
    if available:
        sys.stderr.write(said)
        return _on_gpu(torch, context)
    reason = why_not(torch)
    if context.gpu_needed:
        keys = {"device": "cpu", "numbers": {"is_available": False}, "evidence": reason or said, "log": said}
        if not keys["evidence"]:
            keys["cause"] = "silent-cpu-fallback"
            keys["evidence"] = "torch.cuda.is_available() is False, and torch.zeros(1).cuda() does not say why"
        return failed("torch cannot use the GPU: work would run on the CPU", **keys)
    return _on_cpu(torch, reason or said)


def why_not(torch) -> str:
    """PyTorch's own words: `is_available()` swallows them, real use does not."""
    try:
        torch.cuda.init()
        torch.zeros(1).cuda()
    except (RuntimeError, AssertionError, AttributeError) as error:
        return exception_line(error)
    return ""


def _on_gpu(torch, context):
    started = time.perf_counter()
    device = torch.device("cuda:0")
    name = torch.cuda.get_device_name(0)
    capability = ".".join(str(part) for part in torch.cuda.get_device_capability(0))
    context.fact("device_name", name)
    context.fact("device_capability", capability)
    frobenius, ran_on = _product(torch, device)
    seconds = time.perf_counter() - started
    try:
        _touch_libraries(torch, device)
    finally:  # where cuDNN fails, the list of what was loaded is the proof
        loaded = libraries.mapped(read_text("/proc/self/maps", 1 << 24))
        context.fact("libraries", loaded)
    numbers = {
        "is_available": True,
        "device_count": torch.cuda.device_count(),
        "device_name": name,
        "capability": capability,
        "frobenius": frobenius,
        "first_kernel_s": round(seconds, 3),
    }
    return judge_gpu(numbers, ran_on, libraries.conflicts(loaded))


def judge_gpu(numbers, ran_on, conflicts):
    """The verdict on a product that was computed where CUDA is available."""
    thresholds = {"frobenius": numerics.LIMITS["tf32"].frobenius, "first_kernel_s": SLOW_FIRST_KERNEL_S}
    keys = {"device": ran_on, "numbers": numbers, "thresholds": thresholds}
    if not ran_on.startswith("cuda"):
        text = f"asked for cuda:0, the result lies on {ran_on}"
        return failed(text, evidence=text, cause="silent-cpu-fallback", **keys)
    if not numbers["frobenius"] <= thresholds["frobenius"]:
        text = "the product is wrong: relative error {:.3g}".format(numbers["frobenius"])
        return failed(text, evidence=text, cause="numerics-wrong", **keys)
    if conflicts:
        name, paths = next(iter(conflicts.items()))
        return warned(f"works, but two copies of {name} are loaded", evidence="\n".join(paths), **keys)
    if numbers["first_kernel_s"] > SLOW_FIRST_KERNEL_S:
        text = "works, but the first kernel took {first_kernel_s:.0f} s: compiled at first use".format(**numbers)
        return warned(text, evidence=text, **keys)
    return passed("{device_name}, compute capability {capability}: a product, verified".format(**numbers), **keys)


def _on_cpu(torch, reason):
    if not hasattr(torch, "matmul"):
        return skipped("this torch has no matmul", evidence=reason)
    frobenius, ran_on = _product(torch, torch.device("cpu"))
    numbers = {"is_available": False, "frobenius": frobenius}
    thresholds = {"frobenius": numerics.LIMITS["fp32"].frobenius}
    keys = {"device": ran_on, "numbers": numbers, "thresholds": thresholds}
    if not frobenius <= thresholds["frobenius"]:
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


def _touch_libraries(torch, device):
    """A convolution and a transform load cuDNN and cuFFT, so that the list of mapped libraries is the real one."""
    image = torch.randn(1, 3, 32, 32, device=device)
    torch.nn.functional.conv2d(image, torch.randn(4, 3, 3, 3, device=device))
    torch.fft.rfft(image)
    torch.cuda.synchronize()
