from __future__ import annotations

import pytest

from builders import make_benchmark, make_diagnosis, make_facts, make_plan, make_result, make_runner
from cuda_matrix.model import CheckStatus, EngineName, Verdict
from cuda_matrix.report.view import CellView, View
from cuda_matrix.result import CellResult, CheckResult
from report_cases import mixed, view_of


def cells(view: View) -> dict[str, CellView]:
    return {cell.cell: cell for row in view.rows for cell in row.cells if cell}


def bold(results: tuple[CellResult, ...]) -> set[str]:
    images = tuple(dict.fromkeys(result.cell.rpartition("@")[0] for result in results))
    return {
        cell.image for cell in cells(view_of(make_plan(images=images, runners=("r",)), results)).values() if cell.bold
    }


def test_the_fastest_good_image_of_a_card_is_bold() -> None:
    assert bold((make_result("a@r", images_per_s=900), make_result("b@r", images_per_s=910))) == {"b"}
    assert bold((make_result("a@r", images_per_s=900), make_result("b@r", Verdict.FAIL, images_per_s=910))) == {"a"}


def test_simulated_and_cpu_figures_never_beat_measured_ones() -> None:
    measured = make_result("a@r", images_per_s=10)
    simulated = make_result("b@r", images_per_s=9000, engine=EngineName.SIMULATED)
    cpu = make_result("c@r", benchmarks=(make_benchmark(5000, device="cpu"),))
    assert bold((measured, simulated, cpu)) == {"a"}
    assert bold((simulated, cpu)) == {"c"}


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
    assert view.simulated.startswith("Simulated: all results.")
    assert view.columns[0].source == "simulated"


def test_a_column_shows_what_was_measured_and_else_what_is_configured() -> None:
    plan = make_plan(images=("a",), runners=(make_runner("r", "RTX 3090", "1.2"), make_runner("s", "RTX 3090", "1.2")))
    facts = make_facts("NVIDIA GeForce RTX 3080", 10240, driver="550.1")
    seen, unseen = view_of(plan, (make_result("a@r", facts=facts),)).columns
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
        "On this card use c (passes here, 200\u00a0images/s), b (passes here, 100\u00a0images/s).",
        "Upgrade.",
    )


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
    assert {entry.symbol for entry in mixed().legend} == used | {"simulated:", "cpu:", "–"}
