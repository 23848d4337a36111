"""The table of items as the payload reads it, and what a request selects from it."""

from __future__ import annotations

import json

import pytest

from cuda_matrix.payload import cards, table
from cuda_matrix.protocol import payload_sources
from cuda_matrix.reference import load_reference

SOURCES = payload_sources(load_reference())
TABLE = table.Table(json.loads(SOURCES["items.json"]))
CARDS = json.loads(SOURCES["cards.json"])


@pytest.mark.parametrize(
    ("pattern", "item", "same"),
    [
        ("resnet50", "resnet50.train", True),
        ("resnet50.train", "resnet50.train", True),
        ("gemm.*", "gemm.fp32", True),
        ("gemm.*", "numerics.gemm.fp32", False),
        ("numerics", "numerics.gemm.fp32", True),
        ("numerics.gemm", "numerics.gemm.fp32", True),
        ("numerics.g", "numerics.gemm.fp32", False),
        ("*", "python", True),
    ],
)
def test_globs_match_whole_ids_or_dotted_prefixes(pattern, item, same):
    assert table.matches(item, pattern) is same


def test_a_benchmark_brings_the_checks_that_it_rests_on():
    selected, barren = table.select(TABLE.items, "smoke", [], ["resnet50"])
    assert [item.id for item in selected] == ["torch.import", "first-kernel", "resnet50.train"]
    assert barren == []


def test_a_glob_without_items_is_told_from_one_that_the_profile_leaves_out():
    _, barren = table.select(TABLE.items, "smoke", ["nothing"], ["gpt2"])
    assert barren == [("check", "nothing", False), ("benchmark", "gpt2", True)]


def test_an_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="unknown profile 'quick'"):
        table.select(TABLE.items, "quick", ["*"], [])


def test_what_needs_torch_runs_where_torch_is():
    by_id = {item.id: item for item in TABLE.items}
    assert by_id["torch.import"].torch
    assert by_id["resnet50.train"].torch
    assert not by_id["host.driver"].torch
    assert not by_id["cuda.driver-api"].torch


def test_the_host_and_the_payload_agree_who_shares_a_process():
    host = {item.id: item.child or item.id for item in load_reference().items.items}
    assert {item.id: item.child for item in TABLE.items} == host


def test_every_item_has_its_function():
    for item in TABLE.items:
        module, _, function = item.run.partition(":")
        source = SOURCES[f"cuda_matrix_payload/{module}.py"].decode()
        assert f"\ndef {function}(context" in source or f"\ndef {function}(_context" in source, item.run


@pytest.mark.parametrize(
    ("name", "capability", "card"),
    [
        ("NVIDIA GeForce RTX 3090", "8.6", "rtx3090"),
        ("NVIDIA GeForce RTX 3090 Ti", "8.6", "rtx3090ti"),
        ("NVIDIA GeForce RTX 4090", "8.9", "rtx4090"),
        ("NVIDIA GeForce RTX 4090", "8.6", None),
        ("NVIDIA A800 80GB PCIe", "8.0", "a800-80-pcie"),
        ("NVIDIA H200", "9.0", "h200-sxm"),
        ("", "", None),
        ("Something Else 9000", "9.0", None),
    ],
)
def test_the_devices_row_of_the_cards_table(name, capability, card):
    assert (cards.find(CARDS, name, capability) or {}).get("id") == card
