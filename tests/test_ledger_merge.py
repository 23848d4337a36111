"""What a run changes in the ledger."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from builders import STARTED, make_image, make_plan, make_result
from cuda_matrix.ledger import Ledger, encode
from cuda_matrix.ledger_merge import merge
from cuda_matrix.model import Verdict
from cuda_matrix.plan import Plan
from cuda_matrix.plan_union import only
from cuda_matrix.result import CellResult

NOW = STARTED + timedelta(days=100)
IMAGES, RUNNERS = ("zeta", "alpha", "mid"), ("rtx4090", "a800")
CELLS = tuple(f"{image}@{runner}" for image in IMAGES for runner in RUNNERS)


def whole(images: tuple[str, ...] = IMAGES, **values: object) -> Plan:
    plan = make_plan(images, RUNNERS, **values)  # type: ignore[arg-type]
    return plan.model_copy(update={"matrix_cells": len(plan.cells)})


def result(cell: str, minutes: int = 0, verdict: Verdict = Verdict.PASS, **values: object) -> CellResult:
    return make_result(cell, verdict, started_at=STARTED + timedelta(minutes=minutes), **values)


def run_of(cells: tuple[str, ...], minutes: int = 0, plan: Plan | None = None, lost: tuple[str, ...] = ()) -> Ledger:
    """One run of some cells of the configuration; `lost` ones gave no answer."""
    part = only(plan or whole(), cells)
    return Ledger(part, {cell: result(cell, minutes) for cell in cells if cell not in lost})


def test_the_first_run_is_the_ledger() -> None:
    made = merge(None, run_of(CELLS), NOW)
    assert tuple(cell.id for cell in made.plan.cells) == CELLS
    assert set(made.results) == set(CELLS)


def test_a_part_of_the_matrix_replaces_its_own_cells_only() -> None:
    head = merge(None, run_of(CELLS), NOW)
    made = merge(head, run_of(CELLS[:2], 60), NOW)
    assert tuple(cell.id for cell in made.plan.cells) == CELLS
    assert {cell: r.started_at for cell, r in made.results.items()} == {
        cell: STARTED + timedelta(minutes=60 * (cell in CELLS[:2])) for cell in CELLS
    }


def test_cells_that_the_whole_configuration_no_longer_has_go() -> None:
    head = merge(None, run_of(CELLS), NOW)
    smaller = whole(IMAGES[:2])
    made = merge(head, Ledger(smaller, {}), NOW)
    assert {cell.id for cell in made.plan.cells} == set(CELLS[:4])
    assert set(made.plan.images) == set(IMAGES[:2])
    assert set(merge(head, run_of(CELLS[:2], 9, smaller), NOW).results) == set(CELLS), (
        "a part does not show what is gone"
    )


def test_a_cell_that_was_asked_and_gave_no_answer_does_not_keep_an_old_pass() -> None:
    head = merge(None, run_of(CELLS), NOW)
    made = merge(head, run_of(CELLS, 60, lost=CELLS[:1]), NOW)
    assert set(made.results) == set(CELLS[1:])
    assert CELLS[0] in {cell.id for cell in made.plan.cells}, "absent is failed, not forgotten"


def test_a_run_that_is_published_late_does_not_undo_a_later_one() -> None:
    pushed = make_image("zeta", digest="sha256:" + "99" * 32)
    later = Ledger(make_plan((pushed,), ("rtx4090",)), {"zeta@rtx4090": result("zeta@rtx4090", 60)})
    earlier = Ledger(make_plan(("zeta",), ("rtx4090",)), {"zeta@rtx4090": result("zeta@rtx4090", 0)})
    made = merge(merge(None, later, NOW), earlier, NOW)
    assert made.results["zeta@rtx4090"].started_at == STARTED + timedelta(minutes=60)
    assert made.plan.images["zeta"].digest == pushed.digest


def test_an_unchanged_cell_keeps_its_result_and_is_shown_with_it() -> None:
    head = merge(None, run_of(CELLS), NOW)
    skipped = ((IMAGES[0], RUNNERS[0], "unchanged", "pass on 2026-11-21"),)
    plan = make_plan(IMAGES, RUNNERS, skipped).model_copy(update={"matrix_cells": 6})
    made = merge(head, Ledger(plan, {cell: result(cell, 60) for cell in CELLS[1:]}), NOW)
    assert not made.plan.skipped
    assert made.results[CELLS[0]].started_at == STARTED
    alone = merge(None, Ledger(plan, {}), NOW)
    assert [cell.kind for cell in alone.plan.skipped] == ["unchanged"], "where no result is known, it stays skipped"


def test_a_cell_that_is_excluded_now_loses_its_result() -> None:
    head = merge(None, run_of(CELLS), NOW)
    plan = make_plan(IMAGES, RUNNERS, ((IMAGES[0], RUNNERS[0], "excluded", "out of memory"),))
    made = merge(head, Ledger(plan, {}), NOW)
    assert [cell.id for cell in made.plan.skipped] == [CELLS[0]]
    assert CELLS[0] not in made.results


def test_results_of_a_broken_clock_do_not_stay_for_ever() -> None:
    head = merge(None, run_of(CELLS, minutes=60 * 24 * 3650), NOW + timedelta(days=4000))
    made = merge(head, run_of(CELLS[:1], 60), NOW)
    assert made.results[CELLS[0]].started_at == STARTED + timedelta(minutes=60)
    assert set(made.results) == {CELLS[0]}


def test_results_that_the_plan_did_not_ask_for_do_not_enter() -> None:
    run = run_of(CELLS[:1])
    evil = Ledger(run.plan, {**run.results, CELLS[1]: result(CELLS[1]), "evil@x": result("evil@x")})
    assert set(merge(None, evil, NOW).results) == {CELLS[0]}


@given(st.sets(st.sampled_from(CELLS)), st.sets(st.sampled_from(CELLS)), st.booleans(), st.integers(-9, 9))
def test_the_same_run_twice_changes_nothing(mine: set[str], lost: set[str], is_first: bool, minutes: int) -> None:
    run = run_of(tuple(cell for cell in CELLS if cell in mine), minutes, lost=tuple(lost))
    head = None if is_first else merge(None, run_of(CELLS), NOW)
    once = merge(head, run, NOW)
    assert encode(merge(once, run, NOW)) == encode(once)


@given(st.lists(st.integers(0, 3), min_size=6, max_size=6), st.booleans(), st.lists(st.integers(-9, 9), min_size=3))
def test_publishers_of_different_cells_give_the_same_ledger_in_any_order(
    owner: list[int], is_first: bool, minutes: list[int]
) -> None:
    """Each cell belongs to one of three runs, or to none."""
    parts = [tuple(cell for cell, who in zip(CELLS, owner, strict=True) if who == n) for n in range(3)]
    runs = [run_of(part, minutes[n], lost=part[:1]) for n, part in enumerate(parts) if part]
    head = None if is_first else merge(None, run_of(CELLS[2:]), NOW)
    ends = set()
    for order in permutations(runs):
        state = head
        for run in order:
            state = merge(state, run, NOW)
        ends.add(encode(state) if state else b"")
    assert len(ends) == 1
