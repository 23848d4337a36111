"""Owns the statistics of samples: their summary, and whether a measurement may be believed.

Plain numbers in, plain numbers out. Must not know what was measured.
"""

from __future__ import annotations

# Coefficients of variation (standard deviation / mean) above which a measurement is doubtful, and worthless.
# A GPU under one load is steady; a shared CPU is not, so its bounds only catch what is absurd.
CV_BOUNDS = {"cuda": (0.03, 0.10), "cpu": (0.25, 0.50)}
STABLE_DRIFT = 0.05  # the last round's median may differ from the first's by this share


def finite(value: float) -> bool:
    """Neither NaN nor infinite."""
    return value - value == 0.0


def quantile(values, share: float) -> float:
    """The quantile of sorted values, by linear interpolation between neighbours."""
    position = share * (len(values) - 1)
    low = int(position)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (position - low)


def median(values) -> float:
    """The middle value."""
    return quantile(sorted(values), 0.5)


def summarise(values) -> dict:
    """{n, median, p5, p95, cv} of at least one finite value; cv with the standard deviation of a sample (n - 1)."""
    ordered = sorted(values)
    count = len(ordered)
    mean = sum(ordered) / count
    variance = sum((value - mean) ** 2 for value in ordered) / (count - 1) if count > 1 else 0.0
    return {
        "n": count,
        "median": quantile(ordered, 0.5),
        "p5": quantile(ordered, 0.05),
        "p95": quantile(ordered, 0.95),
        "cv": variance**0.5 / mean if mean else 0.0,
    }


def drift(rounds) -> float:
    """How far the last round's median is from the first's, as a share of the first's."""
    first = median(rounds[0])
    return (median(rounds[-1]) - first) / first


def impossible(values) -> str:
    """What a list of durations or rates cannot be, or ""."""
    if not values:
        return "nothing was measured"
    for value in values:
        if not finite(value) or value <= 0:
            return f"a sample of {value}: no duration or rate can be that"
    return ""


def judge_spread(summary: dict, device_type: str):
    """(status, remark) for a summary's spread on `cuda` or `cpu`."""
    doubtful, worthless = CV_BOUNDS[device_type]
    if summary["n"] < 3:
        return "warn", "only {} samples".format(summary["n"])
    if summary["cv"] > worthless:
        return "invalid", "samples vary by {:.1%}, more than {:.0%}".format(summary["cv"], worthless)
    if summary["cv"] > doubtful:
        return "warn", "samples vary by {:.1%}, more than {:.0%}".format(summary["cv"], doubtful)
    return "pass", ""


def bounds(device_type: str) -> dict:
    """The bounds of `judge_spread` as a result's `thresholds`."""
    doubtful, worthless = CV_BOUNDS[device_type]
    return {"cv_warn": doubtful, "cv_invalid": worthless}
