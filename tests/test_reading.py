"""The search for many regexes: the same answers as one regex on one line after the other."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix.reading import Line, Reading

WORDS = st.sampled_from(["alpha", "ALPHA", "beta", "gamma", "al", "pha", " ", "1"])
LINES = st.lists(st.lists(WORDS, max_size=5).map("".join), max_size=12)
PATTERNS = st.sampled_from(["alpha", "alpha|gamma", r"beta.{0,3}gamma", r"\\bgamma\\b", r"[ab]eta", r"\\d"])


def reading(lines: list[str], told: tuple[str, ...] = ()) -> Reading:
    return Reading([Line("log", line) for line in lines], told)


@given(LINES, PATTERNS)
def test_it_finds_what_a_plain_search_finds(lines: list[str], pattern: str) -> None:
    expected = [i for i, line in enumerate(lines) if re.search(pattern, line, re.IGNORECASE)]
    assert reading(lines).matching(pattern) == expected
    hit = reading(lines).find(pattern)
    assert (hit.order if hit else None) == (expected[0] if expected else None)


def test_a_mention_is_no_report() -> None:
    text = reading(["If you see alpha error, wait", "alpha error"])
    hit = text.find("alpha error")
    assert hit is not None
    assert hit.order == 1
    assert reading(['key = "alpha beta error"']).find("alpha beta error") is None


def test_words_across_two_lines() -> None:
    assert reading(["one alpha", "beta two"]).find_wrapped("alpha beta") is not None
    assert reading(["one alpha", "beta two"]).find_wrapped("alphabeta") is None  # too short to be a full line
    assert reading(["x" * 60 + "alp", "habeta two"]).find_wrapped("alphabeta") is not None
    assert reading(["alpha", "beta"]).find_wrapped("alpha.{0,9}beta") is None  # a gap joins what is unrelated
    assert reading(["if you see alpha beta, wait", "x"]).find_wrapped("alpha beta") is None  # in one line, no report
    assert reading(["alpha", "beta"] * 300).find_wrapped("alpha beta") is None  # no paste of a terminal


def test_what_is_known_beside_the_text() -> None:
    assert reading([], ("alpha",)).says("alpha")
    assert reading(["beta"], ("alpha",)).says("beta")
    assert not reading(["beta"], ("alpha",)).says("gamma")
