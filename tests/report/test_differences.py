from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from builders import STARTED, make_benchmark, make_diagnosis, make_facts, make_plan, make_result
from cuda_matrix.config import ExpectFail, Policy, Regression
from cuda_matrix.gate import GateVerdict, judge
from cuda_matrix.model import EngineName, Verdict
from cuda_matrix.plan import Plan
from cuda_matrix.report.differences import NO_DIFFERENCES, Change, Differences, against
from cuda_matrix.result import CellResult, Samples

P, W, F, H, I = Verdict.PASS, Verdict.WARN, Verdict.FAIL, Verdict.HOST_FAILED, Verdict.INCONCLUSIVE  # noqa: E741


def decision(plan: Plan, *results: CellResult) -> GateVerdict:
    return judge(plan, results, STARTED.date())


def one(verdict: Verdict | None, images_per_s: float | None = None, **values: Any) -> tuple[CellResult, ...]:
    return () if verdict is None else (make_result("good@rtx4090", verdict, images_per_s, **values),)


def compared(before: tuple[CellResult, ...], after: tuple[CellResult, ...], plan: Plan | None = None) -> Differences:
    plan = plan or make_plan()
    return against(plan, decision(plan, *after), decision(make_plan(), *before), "main")


def kinds(found: Differences) -> list[str]:
    names = ("failing", "fixed", "other", "added", "gone", "slower", "faster", "hungrier")
    return [name for name in names if getattr(found, name)]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (P, P, []),
        (P, W, ["other"]),
        (W, P, ["other"]),
        (P, F, ["failing"]),
        (P, H, ["failing"]),
        (P, None, ["failing"]),
        (F, P, ["fixed"]),
        (None, W, ["fixed"]),
        (F, F, []),
        (F, H, ["other"]),
        (H, F, ["failing"]),
        (I, F, ["failing"]),
        (None, F, ["failing"]),
        (H, None, ["other"]),
        (None, None, []),
    ],
)
def test_where_a_verdict_went(before: Verdict | None, after: Verdict | None, expected: list[str]) -> None:
    found = compared(one(before), one(after))
    assert kinds(found) == expected
    assert found.any is bool(expected)
    assert found.cells == (frozenset({"good@rtx4090"}) if expected else frozenset())


def test_another_cause_is_a_change() -> None:
    old, new = (one(F, diagnosis=make_diagnosis(cause)) for cause in ("driver-too-old", "no-native-kernels"))
    (change,) = compared(old, new).other
    assert change.before is not None
    assert change.after is not None
    assert (change.before.word, change.after.word) == ("driver-too-old", "no-native-kernels")


def test_a_failure_that_is_accepted_now_is_told_and_one_that_is_no_more_is_new() -> None:
    entry = ExpectFail(cell="*", until="2026-12-31", reason="known upstream")
    accepting = make_plan(policy=Policy(expect_fail=(entry,)))
    assert kinds(compared(one(F), one(F), accepting)) == ["other"]
    assert kinds(compared(one(F), one(P), accepting)) == ["fixed"]
    back = against(make_plan(), decision(make_plan(), *one(F)), decision(accepting, *one(F)), "main")
    assert kinds(back) == ["failing"]


def test_new_cells_and_gone_cells() -> None:
    old, new = make_plan(images=("a", "b")), make_plan(images=("b", "c"))
    found = against(
        new, decision(new, make_result("c@rtx4090", F)), decision(old, make_result("a@rtx4090", P, 900)), "main"
    )
    assert [(change.cell, change.before) for change in found.added] == [("c@rtx4090", None)]
    assert [(change.cell, change.after) for change in found.gone] == [("a@rtx4090", None)]
    assert found.gone[0].before is not None
    assert found.gone[0].before.number == "900"


def test_cells_that_were_not_selected_are_not_gone() -> None:
    old, new = make_plan(images=("a", "b")), make_plan(images=("b",)).model_copy(update={"matrix_cells": 2})
    results = [make_result(f"{image}@rtx4090") for image in "ab"]
    assert kinds(against(new, decision(new, results[1]), decision(old, *results), "main")) == []


def test_excluded_cells_are_in_no_matrix() -> None:
    excluded = make_plan(images=("a", "b"), skipped=(("a", "rtx4090", "excluded", "never published"),))
    whole = make_plan(images=("a", "b"))
    results = [make_result(f"{image}@rtx4090") for image in "ab"]
    gone = against(excluded, decision(excluded, results[1]), decision(whole, *results), "main")
    assert [change.cell for change in gone.gone] == ["a@rtx4090"]
    added = against(whole, decision(whole, *results), decision(excluded, results[1]), "main")
    assert [change.cell for change in added.added] == ["a@rtx4090"]


def test_an_unchanged_cell_has_no_line_and_a_predicted_one_has() -> None:
    for kind, expected in (("unchanged", []), ("predicted", ["other"])):
        plan = make_plan(images=("good", "b"), skipped=(("good", "rtx4090", kind, "as before"),))
        base = make_plan(images=("good", "b"))
        b = make_result("b@rtx4090")
        found = against(plan, decision(plan, b), decision(base, b, *one(P)), "main")
        assert kinds(found) == expected


def test_without_a_base_nothing_is_said_but_its_name() -> None:
    plan = make_plan()
    found = against(plan, decision(plan, *one(F)), None, "main")
    assert found == replace(NO_DIFFERENCES, base="main")
    assert not found.any


# ---- figures


def noisy(median: float, spread: float = 0.01, **values: Any) -> CellResult:
    samples = Samples(n=30, median=median, p5=median * (1 - spread), p95=median * (1 + spread), cv=spread)
    return make_result("good@rtx4090", P, benchmarks=(make_benchmark(median, samples=samples),), **values)


def note(changes: tuple[Change, ...]) -> str:
    (change,) = changes
    return change.note


@pytest.mark.parametrize(
    ("after", "expected"),
    [(1000, []), (951, []), (949, ["slower"]), (1049, []), (1051, ["faster"]), (950, []), (1050, [])],
)
def test_slower_and_faster_beyond_the_policy(after: float, expected: list[str]) -> None:
    assert kinds(compared((noisy(1000),), (noisy(after),))) == expected


def test_the_policy_says_how_much() -> None:
    plan = make_plan(policy=Policy(regression=Regression(throughput="20 %")))
    assert kinds(compared((noisy(1000),), (noisy(850),), plan)) == []
    assert note(compared((noisy(1000),), (noisy(790),), plan).slower) == "−21.0\u00a0% images/s"


def test_a_figure_whose_range_overlaps_is_a_note_and_no_news() -> None:
    found = compared((noisy(1000, 0.1),), (noisy(900, 0.1),))
    assert note(found.slower) == "−10.0\u00a0% images/s, the p5–p95 ranges overlap"
    assert not found.any
    assert compared((noisy(1000),), (noisy(900),)).any


def test_what_else_is_different_stands_beside_the_figure() -> None:
    there = make_facts("NVIDIA H100", driver="570.10.1")
    found = compared(
        (noisy(1000),), (noisy(1200, facts=there, profile="full", started_at=STARTED + timedelta(days=1)),)
    )
    assert note(found.faster) == (
        "+20.0\u00a0% images/s, driver 550.54.15 → 570.10.1, card NVIDIA GeForce RTX 4090 → NVIDIA H100, "
        "profile standard → full"
    )


def test_figures_of_different_engines_are_not_compared() -> None:
    assert kinds(compared((noisy(1000, engine=EngineName.SIMULATED),), (noisy(100),))) == []


def test_more_memory() -> None:
    def using(gigabytes: float | str) -> tuple[CellResult, ...]:
        numbers = {"peak_memory_gb": gigabytes}
        return (make_result("good@rtx4090", P, benchmarks=(make_benchmark(1000, numbers=numbers),)),)

    assert note(compared(using(10.0), using(11.5)).hungrier) == "GPU memory 10.0 → 11.5\u00a0GB (+15.0\u00a0%)"
    assert kinds(compared(using(10.0), using(10.9))) == kinds(compared(using(0.0), using(9.0))) == []
    assert kinds(compared(using("lots"), using(9.0))) == []
    assert not compared(using(10.0), using(11.5)).any
