"""Several plans become one, and no cell is forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from builders import make_image, make_plan
from cuda_matrix.plan_union import contradiction, refresh, unite

NAMES = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, unique=True).map(tuple)


@given(NAMES, NAMES, NAMES, NAMES)
def test_every_cell_stays_once_and_in_one_lane(
    images: tuple[str, ...], runners: tuple[str, ...], more_images: tuple[str, ...], more_runners: tuple[str, ...]
) -> None:
    first, second = make_plan(images, runners), make_plan(more_images, more_runners)
    for both in (unite(first, second), refresh(first, second)):
        ids = [cell.id for cell in both.cells]
        assert set(ids) == {cell.id for cell in (*first.cells, *second.cells)}
        assert len(ids) == len(set(ids))
        assert sorted(cell for lane in both.lanes for cell in lane.cells) == sorted(ids)
        assert all(cell.id in both.lanes[cell.lane].cells for cell in both.cells)
        assert list(both.images)[: len(images)] == list(images)


def test_a_folder_s_plan_does_not_grow_with_every_run_into_it() -> None:
    plan = make_plan(("a", "b"), ("x", "y"))
    assert unite(plan, plan) == plan
    assert refresh(refresh(plan, plan), plan) == plan


def test_the_first_word_counts_when_lanes_are_united_and_the_later_when_a_cell_is_run_again() -> None:
    old = make_plan((make_image("a", ref="example.org/a:1"),))
    new = make_plan((make_image("a", ref="example.org/a:2"),))
    assert unite(old, new).images["a"].ref == "example.org/a:1"
    assert refresh(old, new).images["a"].ref == "example.org/a:2"
    assert "contradicts" in contradiction(old, new)
    assert contradiction(old, old) == ""


def test_the_size_of_the_whole_matrix_is_kept() -> None:
    old, new = (make_plan().model_copy(update={"matrix_cells": count}) for count in (12, 9))
    assert unite(old, new).matrix_cells == 12
    assert refresh(old, new).matrix_cells == 9
    assert unite(make_plan(), new).matrix_cells == 9
    assert unite(make_plan(), make_plan()).matrix_cells is None
