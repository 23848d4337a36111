"""Owns how numbers are judged: errors against a float64 reference, and what is wrong with a product of matrices.

F, the relative Frobenius error, separates precisions; M, the largest error over the mean reference, catches a single
wrong element that F misses in half precision. Must not know how anything is measured, nor import torch.
"""

from __future__ import annotations

import math


class Limits:
    """The largest F and M that a right result has."""

    def __init__(self, frobenius: float, max_over_mean: float):
        self.frobenius = frobenius
        self.max_over_mean = max_over_mean

    def as_thresholds(self) -> dict:
        """As a result's `thresholds`."""
        return {"frobenius": self.frobenius, "max_over_mean": self.max_over_mean}

    def times(self, factor: float) -> Limits:
        """Both limits, wider by a factor."""
        return Limits(self.frobenius * factor, self.max_over_mean * factor)


def errors(product, reference):
    """(F, M) of a tensor against its float64 reference.

    NaN or infinity anywhere, another shape, or no tensor at all (None) gives infinity for both.
    """
    if product is None or product.shape != reference.shape:
        return math.inf, math.inf
    difference = product.to(device=reference.device, dtype=reference.dtype) - reference
    if not bool(difference.isfinite().all()):
        return math.inf, math.inf
    size = float(reference.norm())
    if size == 0:
        return (0.0, 0.0) if float(difference.norm()) == 0 else (math.inf, math.inf)
    return float(difference.norm()) / size, float(difference.abs().max()) / float(reference.abs().mean())


def frobenius(found, reference) -> float:
    """F alone, in float64, of a tensor against another one of any precision."""
    return errors(found.detach(), reference.detach().double())[0]


def cpu_half_limits(limits: Limits, root_term: float, max_over_frobenius: float, terms: int) -> Limits:
    """What half precision may cost on a CPU, which is free to keep the sum in half precision too.

    Rounding a running sum of `terms` products at every step is a random walk: its error grows with the root of their
    number (measured: F = 0.3 × 2^-8 × √terms in bf16, torch 1.13 without AVX-512). `root_term` is one rounding of the
    format; the rule leaves a margin of three, and one lost term, F = 1/√terms, still stands out below 256 terms.
    """
    frobenius = max(limits.frobenius, root_term * math.sqrt(terms))
    return Limits(frobenius, max(limits.max_over_mean, frobenius * max_over_frobenius))


def beyond(frobenius: float, max_over_mean: float, limits: Limits) -> str:
    """Which of the two errors is above its limit, in words, or ""."""
    if not frobenius <= limits.frobenius:
        return f"F = {frobenius:.3g}, above {limits.frobenius:.3g}"
    if not max_over_mean <= limits.max_over_mean:
        return f"M = {max_over_mean:.3g}, above {limits.max_over_mean:.3g}: single elements are wrong"
    return ""


REPEATS_DIFFER = "repeats of one product differ"


def inexact(measured: dict) -> str:
    """What is wrong with the two properties that hold without any tolerance, or ""."""
    if not measured["identity_exact"]:
        return "a product with the identity is not exact"
    if not measured["repeats_equal"]:
        return REPEATS_DIFFER
    return ""


def judge_product(measured: dict, limits: Limits) -> str:
    """What is wrong with a product, or "". `measured`: frobenius, max_over_mean, identity_exact, repeats_equal."""
    return beyond(measured["frobenius"], measured["max_over_mean"], limits) or inexact(measured)


def judge_fp32(measured: dict, limits: Limits, thresholds: dict) -> str:
    """As `judge_product`; and an error of TF32's size is called by its name."""
    frobenius = measured["frobenius"]
    if thresholds["tf32_from"] <= frobenius <= thresholds["tf32_to"]:
        return f"F = {frobenius:.3g}: computed in TF32 although TF32 is off (NVIDIA_TF32_OVERRIDE, or a wrong library)"
    return judge_product(measured, limits)


def judge_tf32(measured: dict, thresholds: dict):
    """(what is wrong, remark) of a product with TF32 on: its error lies in TF32's band, or shows that IEEE was used."""
    frobenius = measured["frobenius"]
    limits = Limits(thresholds["frobenius"], thresholds["max_over_mean"])
    wrong = judge_product(measured, limits)
    if wrong:
        return wrong, ""
    if frobenius < thresholds["tf32_from"]:
        return "", "TF32 not used"
    if frobenius < thresholds["frobenius_least"]:
        least = thresholds["frobenius_least"]
        return f"F = {frobenius:.3g}: too large for fp32, and below {least:g}, too small for TF32", ""
    return "", ""


def judge_fp8(measured: dict, limits: Limits, sqnr_db: float) -> str:
    """As `judge_product` against the dequantised inputs; and the signal-to-noise ratio against the unquantised ones."""
    wrong = judge_product(measured, limits)
    if not wrong and not measured["sqnr_db"] >= sqnr_db:
        wrong = "signal to quantisation noise {:.3g} dB, below {:g} dB".format(measured["sqnr_db"], sqnr_db)
    return wrong


def judge_exact(measured: dict) -> str:
    """What is wrong with an integer product, or ""."""
    if measured["wrong_elements"]:
        return "{wrong_elements} elements of an integer product are wrong".format(**measured)
    return inexact(measured)


def judge(dtype_name: str, measured: dict, thresholds: dict, stuck: bool = False):
    """(what is wrong, remark) of a product in one precision. `stuck`: TF32 cannot be switched off, so fp32 is TF32."""
    if dtype_name == "tf32":
        wrong, remark = judge_tf32(measured, thresholds)
    elif dtype_name == "int8":
        wrong, remark = judge_exact(measured), ""
    else:
        limits = Limits(thresholds["frobenius"], thresholds["max_over_mean"])
        remark = ""
        if dtype_name == "fp8":
            wrong = judge_fp8(measured, limits, thresholds["sqnr_db"])
        elif dtype_name == "fp32" and not stuck:
            wrong = judge_fp32(measured, limits, thresholds)
        else:
            wrong = judge_product(measured, limits)
    agreement = measured.get("fp64_error", 0.0)
    if not wrong and not agreement <= thresholds.get("fp64_error", 0.0):
        wrong, remark = f"float64 on the card differs from the CPU's: F = {agreement:.3g}", ""
    return wrong, remark


def decibels(frobenius: float) -> float:
    """The signal-to-noise ratio that a relative error stands for."""
    if frobenius == 0:
        return math.inf
    return -20 * math.log10(frobenius) if frobenius < math.inf else -math.inf


def judge_switches(observed: list, override, thresholds: dict):
    """(what is wrong, remarks) of what TF32's switch says against what was measured.

    `observed`: dicts of `flag`, what torch reports, and `frobenius`, measured with it so. `override`: the environment's
    NVIDIA_TF32_OVERRIDE, which outranks the switch inside NVIDIA's libraries, or None.
    """
    remarks = []
    for each in observed:
        frobenius = each["frobenius"]
        if not frobenius <= thresholds["tf32_to"]:
            return f"F = {frobenius:.3g}: neither fp32 nor TF32", []
        used = frobenius >= thresholds["tf32_from"]
        if used and not each["flag"]:
            why = f"; NVIDIA_TF32_OVERRIDE={override}" if override is not None else ""
            return f"torch reports TF32 off, and F = {frobenius:.3g} is TF32's{why}", []
        if used and override == "0":
            return f"NVIDIA_TF32_OVERRIDE=0 forbids TF32, and F = {frobenius:.3g} is TF32's", []
        if each["flag"] and not used:
            why = ": NVIDIA_TF32_OVERRIDE=0" if override == "0" else ""
            remarks.append("switched on, TF32 is not used" + why)
    return "", sorted(set(remarks))
