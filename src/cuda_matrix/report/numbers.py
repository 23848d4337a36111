"""Owns how a number looks in a report: sensible digits, thousands separators, no line break inside.

Must not know what is counted; no locale.
"""

from __future__ import annotations

import math
from typing import Any

NONE = "–"
SPACE = "\u00a0"  # a number and its unit stay on one line


def number(value: float | None) -> str:
    """Three or more significant digits: `1,245`, `85.1`, `3.20`, `0.0312`; – for none, NaN and infinities."""
    if value is None or not math.isfinite(value):
        return NONE
    size = abs(value)
    if size >= 99.95 or value == 0:
        return f"{value:,.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    if size >= 0.9995:
        return f"{value:.2f}"
    return f"{value:.3g}"


def spread(low: float, high: float) -> str:
    """`1,238–1,249`."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return NONE
    return f"{number(low)}–{number(high)}"


def quantity(value: float | None, unit: str) -> str:
    """`24 GiB`, in one piece."""
    text = number(value)
    return text if text == NONE else f"{text}{SPACE}{unit}"


def as_float(value: Any) -> float | None:
    """A finite number out of a container's free-form figures; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def scalar(value: Any) -> str:
    """One figure of a check as text: numbers formatted, True and False as yes and no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    return NONE if value is None else str(value)


def plural(count: int, one: str, many: str = "") -> str:
    """`1 cell`, `2 cells`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
