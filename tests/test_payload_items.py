"""The table of items: what stands before what, and what may share a process."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cuda_matrix.payload_items import ItemTable


def table(*rows: dict[str, object]) -> ItemTable:
    common = {"kind": "check", "title": "t", "run": "a:b", "priority": "P0", "limits_s": {"smoke": 1}}
    texts = {"method": "m", "fail_means": "f", "source": "s"}
    return ItemTable.model_validate({"budgets_s": {}, "items": [{**common, **texts, **row} for row in rows]})


def test_the_child_is_the_groups_name_before_a_slash() -> None:
    rows = table({"id": "a", "group": "measure/gemm"}, {"id": "b", "group": "static"}, {"id": "c"}).items
    assert [row.child for row in rows] == ["measure", "static", None]


@pytest.mark.parametrize("group", ["", "measure/", "/gemm", "a/b/c", "A", "a b"])
def test_a_group_is_a_name_or_two(group: str) -> None:
    with pytest.raises(ValidationError, match="group"):
        table({"id": "a", "group": group})


@pytest.mark.parametrize(("first", "second"), [("static", "static"), ("measure/a", "measure/b")])
def test_what_an_item_needs_may_not_share_its_process(first: str, second: str) -> None:
    with pytest.raises(ValidationError, match="b needs a, which shares its process: it may not have ended"):
        table({"id": "a", "group": first}, {"id": "b", "group": second, "needs": ["a"]})


def test_what_needs_nothing_of_its_neighbours_may() -> None:
    assert len(table({"id": "a"}, {"id": "b", "needs": ["a"], "group": "measure/a"}).items) == 2


@pytest.mark.parametrize("limits", [{"smoke": 1, "full": 1}, {"standard": 1}])
def test_a_prerequisite_stands_before_in_every_profile(limits: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="b needs a, which does not stand before it in every profile"):
        table({"id": "a"}, {"id": "b", "needs": ["a"], "limits_s": limits})
