"""What is known of a failure beyond its cause, and the sentences that are said only where all of it is known."""

from __future__ import annotations

import pytest

from cuda_matrix.particulars import Tables, filled, particulars
from cuda_matrix.reference import load_reference
from cuda_matrix.result import Facts, Gpu

REFERENCE = load_reference()
TABLES = Tables.of(REFERENCE)


def test_what_was_measured_wins_over_what_is_told() -> None:
    facts = Facts(gpus=(Gpu(index=0, name="NVIDIA A10", compute_capability="8.6"),), driver="535.129.03")
    known = particulars({}, facts, {"gpu": "RTX 5090"}, TABLES)
    assert (known["device_name"], known["device_capability"], known["card_sm"]) == ("NVIDIA A10", "8.6", "sm_86")
    assert known["driver_cuda"] == "12.2"


@pytest.mark.parametrize("context", [{"GPU": "RTX 3090"}, {"card": "NVIDIA GeForce RTX 3090"}])
def test_a_card_that_is_told_has_the_tables_capability(context: dict[str, str]) -> None:
    known = particulars({}, Facts(), context, TABLES)
    assert known["device_capability"] == "8.6"
    assert known["card_toolkits"] == "CUDA 11.1 or newer"


@pytest.mark.parametrize("context", [{}, {"gpu": "two of them"}, {"gpu": "Radeon VII"}, {"host": "RTX 3090"}])
def test_no_card_is_made_up(context: dict[str, str]) -> None:
    assert not {"device_name", "device_capability", "card_sm"} & particulars({}, Facts(), context, TABLES).keys()


def test_without_tables_of_cards_nothing_is_said_of_one() -> None:
    known = particulars({"architecture": "sm_120"}, Facts(), {"gpu": "RTX 3090"}, Tables(REFERENCE.drivers))
    assert known == {"architecture": "sm_120"}


@pytest.mark.parametrize(
    ("architecture", "toolkits"),
    [
        ("compute_120", "CUDA 12.8 or newer"),
        ("sm_90a", "CUDA 11.8 or newer"),
        ("compute_999", None),
        ("gfx90a", None),
    ],
)
def test_the_toolkits_of_an_architecture_that_was_asked_for(architecture: str, toolkits: str | None) -> None:
    assert particulars({"architecture": architecture}, Facts(), {}, TABLES).get("asked_toolkits") == toolkits


def test_a_sentence_is_said_where_every_fact_is_known() -> None:
    assert filled(["{a} and {b}", "{a}", "plain"], {"a": "1"}) == ("1", "plain")
