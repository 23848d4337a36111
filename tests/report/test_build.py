from __future__ import annotations

import pytest

from builders import make_benchmark, make_diagnosis, make_facts, make_plan, make_result, make_runner
from cuda_matrix.model import CheckStatus, EngineName, Verdict
from cuda_matrix.reference import load_reference
from cuda_matrix.report.sections import SAID_BY_ALTERNATIVE
from cuda_matrix.report.view import CellView, View
from cuda_matrix.result import CellResult, CheckResult, Facts
from report_cases import mixed, view_of


def cells(view: View) -> dict[str, CellView]:
    return {cell.cell: cell for row in view.rows for cell in row.cells if cell}


def bold(results: tuple[CellResult, ...]) -> set[str]:
    images = tuple(dict.fromkeys(result.cell.rpartition("@")[0] for result in results))
    return {
        cell.image for cell in cells(view_of(make_plan(images=images, runners=("r",)), results)).values() if cell.bold
    }


def test_the_fastest_good_image_of_a_card_is_bold() -> None:
    three = (
        make_result("a@r", images_per_s=900),
        make_result("b@r", images_per_s=990),
        make_result("c@r", images_per_s=880),
    )
    assert bold(three) == {"b"}
    failed = make_result("b@r", Verdict.FAIL, images_per_s=2000)
    assert bold((make_result("a@r", images_per_s=900), failed, make_result("c@r", images_per_s=800))) == {"a"}


def test_nothing_is_the_fastest_where_ranges_overlap_or_nothing_can_be_compared() -> None:
    results = (make_result("a@r", images_per_s=900), make_result("b@r", images_per_s=910))
    assert bold(results) == set()
    assert view_of(make_plan(images=("a", "b"), runners=("r",)), results).contested
    assert bold((make_result("a@r", images_per_s=900),)) == set()
    assert not view_of(make_plan(images=("a",), runners=("r",)), (make_result("a@r", images_per_s=900),)).contested
    on_cpu = [
        make_result(f"{name}@r", benchmarks=(make_benchmark(rate, device="cpu"),))
        for name, rate in (("a", 9), ("b", 90))
    ]
    assert bold(tuple(on_cpu)) == set()


def test_simulated_and_cpu_figures_never_beat_measured_ones() -> None:
    measured = make_result("a@r", images_per_s=10)
    simulated = make_result("b@r", images_per_s=9000, engine=EngineName.SIMULATED)
    cpu = make_result("c@r", benchmarks=(make_benchmark(5000, device="cpu"),))
    slower = make_result("d@r", images_per_s=5)
    assert bold((measured, simulated, cpu, slower)) == {"a"}
    assert bold((simulated, cpu)) == set()


@pytest.mark.parametrize("status", [CheckStatus.INVALID, CheckStatus.FAIL, CheckStatus.TIMEOUT, CheckStatus.UNKNOWN])
def test_a_benchmark_that_did_not_pass_gives_no_figure(status: CheckStatus) -> None:
    result = make_result("a@r", benchmarks=(make_benchmark(900, status=status),))
    view = view_of(make_plan(images=("a",), runners=("r",)), (result,))
    assert cells(view)["a@r"].number == ""
    assert view.performance[0].images_per_s == "–"
    assert view.performance[0].stable == f"no: {status.value}"


@pytest.mark.parametrize(
    ("numbers", "stable"),
    [
        ({"stable": True}, "yes"),
        ({"stable": True, "hours": 12.5}, "yes, 12.5\u00a0h"),
        ({"stable": False, "drift": 0.071}, "no: drift 7.10\u00a0%"),
        ({"stable": False}, "no"),
        ({"stable": "yes"}, "not measured"),
        ({}, "not measured"),
    ],
)
def test_stable_is_what_was_measured(numbers: dict[str, object], stable: str) -> None:
    result = make_result("a@r", benchmarks=(make_benchmark(900, numbers=numbers),))
    assert view_of(make_plan(images=("a",), runners=("r",)), (result,)).performance[0].stable == stable


def test_a_device_that_is_not_named_counts_as_cpu() -> None:
    result = make_result("a@r", benchmarks=(make_benchmark(900, device=None),))
    assert cells(view_of(make_plan(images=("a",), runners=("r",)), (result,)))["a@r"].marks == ("cpu",)


def test_every_simulated_result_is_marked_and_the_head_says_so() -> None:
    results = (
        make_result("a@r", images_per_s=900, engine=EngineName.SIMULATED),
        make_result("b@r", Verdict.FAIL, engine=EngineName.SIMULATED),
    )
    view = view_of(make_plan(images=("a", "b"), runners=("r",)), results)
    assert all("simulated" in cell.marks for cell in cells(view).values())
    assert all(row.simulated for row in (*view.rows, *view.performance, *view.provenance, *view.failures))
    assert view.simulated == "2 of 2 results are simulated: nothing was measured on them"
    assert view.other_notes == ()
    assert view.scope.endswith("simulated 2026-11-21 09:14 UTC")
    assert view.columns[0].source == "simulated"


def test_a_column_shows_what_was_measured_and_else_what_is_configured() -> None:
    plan = make_plan(images=("a",), runners=(make_runner("r", "RTX 3090", "1.2"), make_runner("s", "RTX 3090", "1.2")))
    facts = make_facts("NVIDIA GeForce RTX 3080", 10240, driver="550.1")
    seen, unseen = view_of(plan, (make_result("a@r", facts=facts, gpu="RTX 3090"),)).columns
    assert (seen.title, seen.details, seen.source) == ("RTX 3080", ("10\u00a0GiB", "driver 550.1"), "measured")
    assert (unseen.title, unseen.details, unseen.source) == ("RTX 3090", ("driver 1.2 (configured)",), "configured")


def test_a_measured_failure_is_answered_with_measured_images_of_the_same_card() -> None:
    plan = make_plan(images=("a", "b", "c", "d"), runners=("r", "s"))
    results = (
        make_result("a@r", Verdict.FAIL, diagnosis=make_diagnosis(fix=("Upgrade.",))),
        make_result("b@r", images_per_s=100),
        make_result("c@r", images_per_s=200),
        make_result("d@r", images_per_s=900, engine=EngineName.SIMULATED),
        make_result("d@s", images_per_s=900),
    )
    view = view_of(plan, results)
    assert cells(view)["a@r"].alternative == "c"
    assert view.failures[0].steps == (
        "On this card, use `c` (passes here, 200\u00a0images/s), `b` (passes here, 100\u00a0images/s).",
        "Upgrade.",
    )


@pytest.mark.parametrize(
    ("verdict", "cause", "side", "offered"),
    [
        (Verdict.FAIL, "driver-too-old", "image", True),
        (Verdict.FAIL, "unknown", "unknown", True),
        (Verdict.FAIL, "expectation-mismatch", "image", False),
        (Verdict.FAIL, "gpu-not-exposed", "configuration", False),
        (Verdict.HOST_FAILED, "gpu-ecc", "host", False),
        (Verdict.INCONCLUSIVE, "registry-unreachable", "registry", False),
    ],
)
def test_another_image_is_offered_only_where_it_is_an_answer(
    verdict: Verdict, cause: str, side: str, offered: bool
) -> None:
    results = (make_result("a@r", verdict, diagnosis=make_diagnosis(cause, side=side)), make_result("b@r"))
    view = view_of(make_plan(images=("a", "b"), runners=("r",)), results)
    assert cells(view)["a@r"].alternative == ("b" if offered else "")
    assert bool(view.failures[0].steps) is offered
    assert [way.image for reason in view.gate_reasons for way in reason.ways] == ["b"] * offered


def test_a_soak_run_has_its_figure_in_the_main_column() -> None:
    soak = make_benchmark(900, id="soak.train", numbers={"stable": True, "hours": 2.0})
    row = view_of(make_plan(images=("a",), runners=("r",)), (make_result("a@r", benchmarks=(soak,)),)).performance[0]
    assert (row.images_per_s, row.stable) == ("900", "yes, 2.00\u00a0h")


def test_the_alternative_is_a_stable_one_and_replaces_the_general_advice() -> None:
    results = (
        make_result(
            "a@r", Verdict.FAIL, gpu=None, facts=Facts(), diagnosis=make_diagnosis(fix=(SAID_BY_ALTERNATIVE, "Other."))
        ),
        make_result("b@r", gpu=None, benchmarks=(make_benchmark(900, numbers={"stable": False}),)),
        make_result("c@r", gpu=None, images_per_s=100),
    )
    view = view_of(make_plan(images=("a", "b", "c"), runners=(make_runner("r", None, None),)), results)
    assert cells(view)["a@r"].alternative == "c"
    assert view.failures[0].steps[0].startswith("Here, use `c` (")
    assert view.failures[0].steps[1:] == ("Other.",)


def test_the_general_advice_that_is_replaced_is_in_the_catalogue() -> None:
    causes = load_reference().catalogue.causes.values()
    assert any(SAID_BY_ALTERNATIVE in cause.fix for cause in causes)


def test_ways_out_that_differ_name_their_runner() -> None:
    plan = make_plan(images=("a", "b", "c"), runners=("r", "s"))
    results = (
        make_result("a@r", Verdict.FAIL),
        make_result("a@s", Verdict.FAIL),
        make_result("b@r"),
        make_result("c@s"),
    )
    reason = view_of(plan, results).gate_reasons[0]
    assert [(way.image, way.runner) for way in reason.ways] == [("b", "r"), ("c", "s")]


def test_a_part_of_the_matrix_is_said_to_be_one() -> None:
    plan = make_plan(images=("a", "b"), runners=("r",)).model_copy(update={"matrix_cells": 9})
    good = view_of(plan, (make_result("a@r"), make_result("b@r")))
    assert good.headline == "GPU compatibility: 2 of 9 cells of the matrix, all good"
    assert good.release == ("Every required cell that was selected is good or accepted.",)
    assert good.scope.startswith("2 of 9 cells of the matrix · ")
    assert good.all_green == ""
    bad = view_of(plan, (make_result("a@r"),))
    assert bad.headline == "GPU compatibility: 1 of 2 selected cells good (the matrix has 9)"


def test_what_was_not_checked_in_good_cells_is_grouped() -> None:
    def item(name: str, reason: str, status: CheckStatus = CheckStatus.SKIP) -> CheckResult:
        return CheckResult(id=name, status=status, summary=reason)

    both = (item("x", "no card"), item("y", "no card"), item("ran", "fine", CheckStatus.PASS))
    results = (
        make_result("a@r", checks=(*both, item("z", "cannot say", CheckStatus.UNKNOWN))),
        make_result("b@r", Verdict.WARN, checks=both),
        make_result("c@r", Verdict.FAIL, checks=(item("x", "time is up"),)),
    )
    found = view_of(make_plan(images=("a", "b", "c"), runners=("r",)), results).unchecked
    assert [(g.checks, g.status, g.reason, g.cells, g.everywhere) for g in found] == [
        (("x", "y"), "skip", "no card", ("a@r", "b@r"), True),
        (("z",), "unknown", "cannot say", ("a@r",), False),
    ]


def test_what_a_row_says_its_cells_and_columns_do_not_repeat() -> None:
    plan = make_plan(images=("a", "b"), runners=("r", "s"))
    simulated = [make_result(cell, engine=EngineName.SIMULATED) for cell in ("a@r", "a@s", "b@r")]
    row, mixed_row = view_of(plan, (*simulated, make_result("b@s"))).rows
    assert (row.mark, mixed_row.mark) == ("simulated", "")
    shown = [r.own_marks(cell) for r in (row, mixed_row) for cell in r.cells if cell]
    assert shown == [(), (), ("simulated",), ()]
    columns = view_of(plan, (*simulated, make_result("b@s", engine=EngineName.SIMULATED))).columns
    assert all("simulated" not in column.details and column.source == "simulated" for column in columns)


def test_a_local_result_says_so() -> None:
    plan = make_plan(images=("a",), runners=(make_runner("r", None, None),))
    result = make_result("a@r", gpu=None, engine=EngineName.LOCAL, benchmarks=(make_benchmark(9, device="cpu"),))
    view = view_of(plan, (result,))
    assert view.rows[0].mark == "local"
    assert cells(view)["a@r"].marks == ("cpu", "local")
    assert "local:" in {entry.symbol for entry in view.legend}


def test_measured_is_said_only_where_a_figure_was() -> None:
    plan = make_plan(images=("a",), runners=("r",))
    assert " · run 2026" in view_of(plan, (make_result("a@r", Verdict.FAIL),)).scope
    assert " · measured 2026" in view_of(plan, (make_result("a@r", images_per_s=9),)).scope


def test_empty_figures_of_a_check_are_left_out() -> None:
    check = CheckResult(
        id="x", status=CheckStatus.FAIL, numbers={"versions": "", "path": None, "count": 0, "ok": False}
    )
    view = view_of(make_plan(images=("a",), runners=("r",)), (make_result("a@r", Verdict.FAIL, checks=(check,)),))
    assert view.failures[0].checks[0].figures == "count 0, ok no"


def test_a_failure_without_a_diagnosis_says_what_broke() -> None:
    checks = (
        CheckResult(id="first-kernel", status=CheckStatus.CRASH, evidence="Segmentation fault", log="last words"),
    )
    view = view_of(make_plan(images=("a",), runners=("r",)), (make_result("a@r", Verdict.FAIL, checks=checks),))
    section = view.failures[0]
    assert (section.word, section.evidence, section.log) == ("first-kernel: crash", "Segmentation fault", "last words")


def test_absent_is_failed_in_the_headline_too() -> None:
    view = view_of(make_plan(images=("a", "b"), runners=("r",)), (make_result("a@r"),))
    assert view.headline == "GPU compatibility: 1 of 2 cells good"
    assert not view.released
    assert [remark.cell for remark in view.not_run] == ["b@r"]


def test_every_link_of_the_table_has_its_place() -> None:
    view = mixed()
    targets = {item.anchor for item in (*view.failures, *view.not_run, *view.remarks) if item.anchor}
    assert {cell.anchor for cell in cells(view).values() if cell.anchor} <= targets


def test_the_legend_holds_what_is_used_and_nothing_else() -> None:
    used = {cell.symbol for cell in cells(mixed()).values()}
    assert {entry.symbol for entry in mixed().legend} == used | {"simulated:", "cpu:", "–", "→"}
