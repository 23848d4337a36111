"""No regex of the catalogue can be made slow: hostile lines of up to 2,000 characters, built from its own words."""

from __future__ import annotations

import re
import time

import pytest

from cuda_matrix.catalogue import anchors_of
from cuda_matrix.reference import load_reference
from cuda_matrix.signs import Signs
from regex_lab import has_endless_gap, hostile

PATTERNS = Signs(load_reference().catalogue).patterns
SHORT, LONG = 500, 2_000  # characters; LONG is what a diagnosis looks at (diagnose.LINE_LIMIT)
LONG_LIMIT_S = 0.02
NOISE_S = 0.003
GROWTH = 8  # of the time, for four times the length: linear is 4, quadratic 16


def cost_s(regex: re.Pattern[str], line: str, limit_s: float) -> float:
    """Processor time of one search; measured again, at most thrice, where it is above the limit."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        regex.search(line)
        best = min(best, time.process_time() - start)
        if best < limit_s:
            break
    return best


@pytest.mark.parametrize("pattern", PATTERNS, ids=range(len(PATTERNS)))
def test_the_cost_of_a_signature_is_small_and_grows_with_the_line(pattern: str) -> None:
    regex = re.compile(pattern, re.IGNORECASE)
    for short, long in zip(hostile(pattern, SHORT), hostile(pattern, LONG), strict=True):
        took = cost_s(regex, long, NOISE_S)
        assert took < LONG_LIMIT_S, (pattern, long[:120], took)
        if took > NOISE_S:
            before = cost_s(regex, short, took / GROWTH)
            assert took < GROWTH * max(before, NOISE_S / GROWTH), (pattern, long[:120], before, took)


def test_the_measure_tells_a_regex_that_backtracks() -> None:
    for pattern, line in ((r"(a+)+b", "a" * 24), (r"a.*b.*c.*d", "abc" * 200)):
        assert has_endless_gap(pattern)
        assert cost_s(re.compile(pattern), line, NOISE_S) > NOISE_S


@pytest.mark.parametrize("pattern", PATTERNS, ids=range(len(PATTERNS)))
def test_every_gap_is_bounded_and_every_signature_has_words(pattern: str) -> None:
    assert not has_endless_gap(pattern)
    assert anchors_of(pattern)
