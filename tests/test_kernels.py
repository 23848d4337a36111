"""Which machine code runs on which card."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix.kernels import Coverage, codes, coverage

JETSON = ("5.3", "6.2", "7.2", "8.7")


@pytest.mark.parametrize(
    ("entries", "card", "expected"),
    [
        ("sm_80", "8.6", "sass"),
        ("sm_80", "8.9", "sass"),
        ("sm_86", "8.9", "sass"),  # the articles' RTX 4090 with a list that ends at sm_86
        ("sm_86", "8.0", None),  # never downwards
        ("sm_80", "9.0", None),  # never across majors
        ("sm_90", "10.0", None),
        ("sm_90", "12.0", None),
        ("sm_100", "10.3", "sass"),
        ("sm_120", "12.1", "sass"),
        ("sm_100", "12.0", None),
        ("sm_90a", "9.0", "sass"),
        ("sm_100a", "10.3", None),
        ("sm_100f", "10.3", "sass"),
        ("sm_103f", "10.0", None),
        ("sm_120f", "12.1", "sass"),
        ("sm_100f", "11.0", None),
        ("sm_80", "8.7", None),
        ("sm_87", "8.7", "sass"),
        ("sm_87", "8.9", None),
        ("sm_70", "7.2", None),
        ("compute_80", "9.0", "ptx"),
        ("compute_80", "12.0", "ptx"),
        ("compute_90", "8.9", None),
        ("compute_90a", "9.0", "ptx"),
        ("compute_90a", "10.0", None),
        ("compute_100f", "10.3", "ptx"),
        ("compute_100f", "12.0", None),
        ("sm_90+PTX", "12.0", "ptx"),
        ("9.0+PTX", "12.0", "ptx"),
        ("8.6", "8.9", "sass"),
        ("12.0", "12.0", "sass"),
        ("gfx90a", "9.0", None),
        ("", "9.0", None),
    ],
)
def test_one_entry_and_one_card(entries: str, card: str, expected: Coverage | None) -> None:
    assert coverage([entries], card, JETSON) == expected


def test_machine_code_goes_before_ptx() -> None:
    assert coverage(["compute_80", "sm_80"], "8.6") == "sass"


def test_what_names_no_nvidia_architecture_is_nothing() -> None:
    assert codes(["gfx90a", "sm_", "compute_9x", "native", "8.6.1", "sm_86+SASS"]) == ()


_NUMBERS = (50, 70, 75, 80, 86, 87, 90, 100, 103, 120, 121)
_ENTRIES = st.builds("{}{}{}".format, *map(st.sampled_from, (("sm_", "compute_"), _NUMBERS, ("", "a", "f"))))
_CARDS = st.sampled_from(
    ["5.2", "6.1", "7.0", "7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "10.3", "12.0", "12.1"]
)
_WORTH = {None: 0, "ptx": 1, "sass": 2}


@given(st.lists(_ENTRIES, max_size=6), _ENTRIES, _CARDS)
def test_more_code_never_covers_less(entries: list[str], more: str, card: str) -> None:
    assert _WORTH[coverage([*entries, more], card, JETSON)] >= _WORTH[coverage(entries, card, JETSON)]
