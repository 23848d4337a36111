"""Owns what a precision is: its dtype, the compute capability that has it, and the switches that decide about it.

Must not know how exact or how fast a precision is.
"""

from __future__ import annotations

DTYPES = {
    "fp32": "float32",
    "tf32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp8": "float8_e4m3fn",
    "int8": "int8",
}
FP8_LARGEST = 448.0  # of float8_e4m3fn
# Compute capability from which a card has it in its tensor cores.
SINCE = {"int8": (7, 2), "tf32": (8, 0), "bf16": (8, 0), "fp8": (8, 9)}
_NEEDS = {"fp8": ("_scaled_mm", "float8_e4m3fn"), "int8": ("_int_mm",)}  # of torch, for a product


def dtype(torch, name: str):
    """Torch's dtype of that name."""
    return getattr(torch, DTYPES[name])


def too_old(torch, device, name: str) -> bool:
    """Whether the device is a card from before the precision."""
    if device.type != "cuda" or name not in SINCE:
        return False
    return tuple(torch.cuda.get_device_capability(device)) < SINCE[name]


def needs(torch, device, name: str) -> str:
    """What the precision needs and this card lacks, in words."""
    own = torch.cuda.get_device_capability(device)
    return "{} needs compute capability {}.{}, this card has {}.{}".format(name, *SINCE[name], *own)


def missing(torch, name: str) -> str:
    """What this torch lacks for a product in the precision, in words, or ""."""
    absent = [each for each in _NEEDS.get(name, ()) if not hasattr(torch, each)]
    return f"this torch has no torch.{absent[0]}" if absent else ""


def set_strict(torch, tf32: bool = False) -> None:
    """No shortcut that trades precision for speed: sums in single precision, and TF32 only where it is asked for."""
    set_tf32(torch, tf32)
    for name in ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction"):
        _turn(_matmul(torch), name, False)


def set_tf32(torch, on: bool) -> None:
    """TF32 in products and convolutions. By the old flags only: mixing them with the API of torch 2.9 raises."""
    _turn(_matmul(torch), "allow_tf32", on)
    _turn(getattr(torch.backends, "cudnn", None), "allow_tf32", on)


def _matmul(torch):
    return getattr(getattr(torch.backends, "cuda", None), "matmul", None)


def _turn(switches, name, value):
    try:
        setattr(switches, name, value)
    except (AttributeError, AssertionError):  # this torch is older than the flag
        return


def tf32_on(torch, device) -> bool:
    """Whether TF32 is on; even after `set_strict`, in torch 1.13 with TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1."""
    return device.type == "cuda" and bool(torch.backends.cuda.matmul.allow_tf32)
