"""Owns how a matrix product is judged: two errors against a float64 reference, and their limits.

F, the relative Frobenius error, separates precisions; M, the largest error over the mean reference, catches a single
wrong element that F misses in half precision. Limits were calibrated by simulation on rounded inputs (n = 512 to 4096):
fp32 has F of 3e-7 to 6e-7, TF32 3e-4 to 8e-4, fp16 2e-4, bf16 2e-3; one lost term of the sum has F above 1e-2.
"""

from __future__ import annotations

# From this error on, an fp32 product was computed in TF32 (10 bits of mantissa), whatever the flags say.
TF32_FROM = 5e-5
TF32_TO = 1.5e-3


class Limits:
    """The largest errors that a right product has."""

    def __init__(self, frobenius: float, max_over_mean: float):
        self.frobenius = frobenius
        self.max_over_mean = max_over_mean

    def as_thresholds(self) -> dict:
        """As a result's `thresholds`."""
        return {"frobenius": self.frobenius, "max_over_mean": self.max_over_mean}


LIMITS = {
    "fp32": Limits(1e-5, 1e-4),
    "tf32": Limits(1.5e-3, 1e-2),
    "fp16": Limits(1e-3, 1e-2),
    "bf16": Limits(6e-3, 6e-2),
}


def errors(product, reference):
    """(F, M) of a tensor against its float64 reference; NaN or infinity anywhere gives infinity for both."""
    difference = product.to(device=reference.device, dtype=reference.dtype) - reference
    if not bool(difference.isfinite().all()):
        return float("inf"), float("inf")
    frobenius = float(difference.norm()) / float(reference.norm())
    return frobenius, float(difference.abs().max()) / float(reference.abs().mean())


def judge(dtype: str, measured) -> str:
    """What is wrong with a product, or "". `measured`: frobenius, max_over_mean, identity_exact, repeats_equal."""
    limits = LIMITS[dtype]
    frobenius = measured["frobenius"]
    if dtype == "fp32" and TF32_FROM <= frobenius <= TF32_TO:
        return f"F = {frobenius:.3g}: computed in TF32 although TF32 is off (NVIDIA_TF32_OVERRIDE, or a wrong library)"
    if not frobenius <= limits.frobenius:
        return f"F = {frobenius:.3g}, above {limits.frobenius:g}"
    if not measured["max_over_mean"] <= limits.max_over_mean:
        largest = measured["max_over_mean"]
        return f"M = {largest:.3g}, above {limits.max_over_mean:g}: single elements are wrong"
    if not measured["identity_exact"]:
        return "a product with the identity is not exact"
    if not measured["repeats_equal"]:
        return "repeats of one product differ"
    return ""
