from __future__ import annotations

import math

import pytest

from cuda_matrix.report import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1245.3, "1,245"),
        (1234567.0, "1,234,567"),
        (99.96, "100"),
        (99.94, "99.9"),
        (85.14, "85.1"),
        (9.996, "10.0"),
        (3.2, "3.20"),
        (0.9996, "1.00"),
        (0.03124, "0.0312"),
        (0, "0"),
        (-12.34, "-12.3"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert numbers.number(value) == text


def test_a_quantity_does_not_break() -> None:
    assert numbers.quantity(24, "GiB") == "24.0\u00a0GiB"
    assert numbers.quantity(None, "GiB") == "–"


@pytest.mark.parametrize(
    ("value", "found"), [(1, 1.0), (2.5, 2.5), (True, None), ("3", None), (None, None), (math.nan, None)]
)
def test_only_a_finite_number_is_one(value: object, found: float | None) -> None:
    assert numbers.as_float(value) == found


def test_scalar_and_plural() -> None:
    assert [numbers.scalar(v) for v in (True, False, None, "amp", 3.0)] == ["yes", "no", "–", "amp", "3.00"]
    assert [numbers.plural(n, "cell") for n in (0, 1, 1000)] == ["0 cells", "1 cell", "1,000 cells"]
