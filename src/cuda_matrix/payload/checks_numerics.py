"""Owns the GEMM numerics checks: products in one precision against float64 of the same rounded inputs."""

from __future__ import annotations

from . import numerics
from .context import exception_line, failed, passed, skipped

SEED = 20240501
CPU_SHAPES = ((512, 512, 512), (257, 193, 131))  # rows, inner, columns
CUDA_SHAPES = ((1024, 1024, 1024), (4096, 4096, 4096), (257, 193, 131))
CPU_REFERENCE_UP_TO = 1024  # larger references are computed on the GPU, after its float64 agreed with the CPU's
FP64_AGREEMENT = 1e-12  # relative Frobenius error between the two float64 products
REPEATS = {"cpu": 5, "cuda": 20}

_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_BF16_FROM = (8, 0)  # compute capability; cuBLAS on older cards may refuse bfloat16


def fp32(context):
    """IEEE single precision, TF32 switched off."""
    return _check(context, "fp32")


def fp16(context):
    """Half precision, sums kept in single precision."""
    return _check(context, "fp16")


def bf16(context):
    """bfloat16, sums kept in single precision."""
    return _check(context, "bf16")


def strict_math(torch) -> None:
    """Switch off every shortcut that trades precision for speed.

    Only by the old flags: mixing them with the API of torch 2.9 raises.
    """
    matmul = getattr(getattr(torch.backends, "cuda", None), "matmul", None)
    for name in ("allow_tf32", "allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction"):
        try:
            setattr(matmul, name, False)
        except (AttributeError, AssertionError):  # older than the flag
            continue
    if hasattr(torch.backends, "cudnn"):
        torch.backends.cudnn.allow_tf32 = False


def lacks(torch, device, dtype_name: str, error: Exception) -> bool:
    """Whether the exception says that this device has no such operation in this precision.

    Narrow on purpose: on a card that has the precision, "not supported" is a failure and no reason to skip.
    """
    if device.type == "cpu" or "not implemented for" in str(error):
        return "not implemented for" in str(error) or "supported" in str(error)
    return dtype_name == "bf16" and torch.cuda.get_device_capability(device) < _BF16_FROM


def _check(context, dtype_name):
    import torch

    strict_math(torch)
    device = torch.device(context.device)
    dtype = getattr(torch, _DTYPES[dtype_name])
    thresholds = numerics.LIMITS[dtype_name].as_thresholds()
    try:
        measured = _measure(torch, device, dtype)
    except RuntimeError as error:
        if not lacks(torch, device, dtype_name, error):
            raise
        text = f"{dtype_name} products are not implemented on {device} in this torch"
        return skipped(text, device=str(device), evidence=exception_line(error))
    wrong = numerics.judge(dtype_name, measured)
    keys = {"device": measured.pop("ran_on"), "numbers": measured, "thresholds": thresholds}
    if keys["device"] != context.device:
        text = "asked for {}, the result lies on {}".format(context.device, keys["device"])
        return failed(text, evidence=text, cause="silent-cpu-fallback", **keys)
    if wrong:
        return failed(f"{dtype_name} products are wrong", evidence=wrong, cause="numerics-wrong", **keys)
    summary = "{} on {device}: F {frobenius:.2g}, M {max_over_mean:.2g}".format(
        dtype_name, device=keys["device"], **measured
    )
    return passed(summary, **keys)


def _measure(torch, device, dtype):
    """The worst errors over every shape, and the two exact properties."""
    generator = torch.Generator().manual_seed(SEED)
    shapes = CUDA_SHAPES if device.type == "cuda" else CPU_SHAPES
    worst = (0.0, 0.0)
    for rows, inner, columns in shapes:
        left = torch.randn(rows, inner, generator=generator).to(device=device, dtype=dtype)
        right = torch.randn(inner, columns, generator=generator).to(device=device, dtype=dtype)
        product = left @ right
        ran_on = str(product.device)
        found = numerics.errors(product, _reference(left, right, max(rows, inner, columns)))
        worst = (max(worst[0], found[0]), max(worst[1], found[1]))
    size = shapes[0][0]
    square = torch.randn(size, size, generator=generator).to(device=device, dtype=dtype)
    other = torch.randn(size, size, generator=generator).to(device=device, dtype=dtype)
    repeats = REPEATS[device.type]
    first = square @ other
    return {
        "frobenius": worst[0],
        "max_over_mean": worst[1],
        "identity_exact": torch.equal(square @ torch.eye(size).to(device=device, dtype=dtype), square),
        "repeats_equal": all(torch.equal(square @ other, first) for _ in range(repeats)),
        "repeats": repeats,
        "shapes": ", ".join("x".join(str(side) for side in shape) for shape in shapes),
        "ran_on": ran_on,
    }


def _reference(left, right, largest):
    """The product in float64, on the CPU; a large one on the GPU, once its float64 has shown to be right."""
    if left.device.type == "cpu" or largest <= CPU_REFERENCE_UP_TO:
        return left.cpu().double() @ right.cpu().double()
    part = slice(0, CPU_REFERENCE_UP_TO)
    small_left, small_right = left[part, part].double(), right[part, part].double()
    frobenius, _ = numerics.errors(small_left @ small_right, small_left.cpu() @ small_right.cpu())
    if not frobenius <= FP64_AGREEMENT:
        raise RuntimeError(f"float64 on {left.device} differs from the CPU's: F = {frobenius:.3g}")
    return left.double() @ right.double()
