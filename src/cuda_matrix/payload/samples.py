"""Owns the statistics of samples: their summary, and whether a measurement may be believed.

Plain numbers in, plain numbers out. Must not know what was measured.
"""

from __future__ import annotations

MIN_SAMPLES = 3  # fewer say nothing about a spread


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


def iqr_share(values) -> float:
    """How wide the middle half of the values is, as a share of their median; infinite where that is no duration."""
    ordered = sorted(values)
    middle = quantile(ordered, 0.5)
    if not middle > 0:
        return float("inf")
    return (quantile(ordered, 0.75) - quantile(ordered, 0.25)) / middle


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


def judge_spread(summary: dict, doubtful: float, worthless: float):
    """(status, remark) for a summary's spread: above `doubtful` it warns, above `worthless` it is invalid."""
    if summary["n"] < MIN_SAMPLES:
        return "warn", "only {} samples".format(summary["n"])
    if not summary["cv"] <= worthless:
        return "invalid", "samples vary by {:.1%}, more than {:.0%}".format(summary["cv"], worthless)
    if summary["cv"] > doubtful:
        return "warn", "samples vary by {:.1%}, more than {:.0%}".format(summary["cv"], doubtful)
    return "pass", ""
