from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix.globs import matches, may_meet


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a*", "*b", True),
        ("a*@g1", "*@g2", False),
        ("torch*-cu*", "torch2.4-*", True),
        ("torch*", "plain", False),
        ("", "*", True),
        ("", "a", False),
        ("a?", "*a", True),
        ("[a]", "a", False),
    ],
)
def test_may_meet(one: str, other: str, expected: bool) -> None:
    assert may_meet(one, other) is may_meet(other, one) is expected


WORDS = ["".join(word) for length in range(7) for word in product("ab", repeat=length)]


@given(st.text("ab*?", max_size=3), st.text("ab*?", max_size=3))
def test_globs_meet_where_one_word_matches_both(one: str, other: str) -> None:
    assert may_meet(one, other) is any(matches(word, one) and matches(word, other) for word in WORDS)
