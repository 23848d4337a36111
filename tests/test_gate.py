from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import STARTED, make_diagnosis, make_image, make_plan, make_result, make_runner
from cuda_matrix.config import ContainerOptions, ExpectFail, PayloadOptions, Policy
from cuda_matrix.errors import Problem
from cuda_matrix.gate import GateVerdict, final_verdicts, judge, newest, newest_date
from cuda_matrix.model import CheckStatus, EngineName, Verdict
from cuda_matrix.plan import demand_sha256
from cuda_matrix.result import CellResult, CheckResult, ImageIdentity

TODAY = date(2026, 11, 21)
CELL = "good@rtx4090"


def failing(cause: str = "driver-too-old", cell: str = CELL) -> CellResult:
    return make_result(cell, Verdict.FAIL, diagnosis=make_diagnosis(cause))


def expecting(cause: str | None = None, until: str = "2026-11-21", cell: str = CELL) -> Policy:
    return Policy(expect_fail=(ExpectFail(cell=cell, cause=cause, until=until, reason="known"),))


def texts(verdict: GateVerdict) -> list[str]:
    return [reason.text for reason in verdict.reasons]


@pytest.mark.parametrize(
    ("verdict", "released"),
    [
        (Verdict.PASS, True),
        (Verdict.WARN, True),
        (Verdict.FAIL, False),
        (Verdict.HOST_FAILED, False),
        (Verdict.INCONCLUSIVE, False),
        (Verdict.NOT_RUN, False),
        (Verdict.SKIPPED, False),
        (Verdict.EXPECTED_FAIL, False),  # a result cannot excuse itself: only the policy can
        (Verdict.UNEXPECTED_PASS, True),
    ],
)
def test_a_required_cell_of_each_verdict(verdict: Verdict, released: bool) -> None:
    assert judge(make_plan(), [make_result(CELL, verdict)], TODAY).released is released


def test_the_reason_names_count_cause_and_cells() -> None:
    plan = make_plan(images=("a", "b", "c"))
    verdict = judge(plan, [failing(cell="a@rtx4090"), failing(cell="b@rtx4090")], TODAY)
    assert texts(verdict) == [
        "2 required cells fail, driver-too-old: a@rtx4090, b@rtx4090",
        "1 required cell did not run: c@rtx4090",
    ]
    assert verdict.counts[Verdict.FAIL] == 2
    assert verdict.counts[Verdict.NOT_RUN] == 1


def test_the_cause_of_a_result_without_diagnosis_is_that_of_its_first_broken_check() -> None:
    checks = (
        CheckResult(id="a", status=CheckStatus.PASS, cause="not-this"),
        CheckResult(id="b", status=CheckStatus.CRASH, cause="segfault"),
    )
    verdict = judge(make_plan(), [make_result(CELL, Verdict.FAIL, checks=checks)], TODAY)
    assert [reason.cause for reason in verdict.reasons] == ["segfault"]


def test_a_cell_without_result_is_not_run_and_blocks() -> None:
    plan = make_plan(images=("good", "absent"))
    verdict = judge(plan, [make_result(CELL)], TODAY)
    assert not verdict.released
    assert verdict.reasons[0].cells == ("absent@rtx4090",)


@pytest.mark.parametrize("kind", ["excluded", "predicted", "unchanged"])
def test_a_skip_with_its_reason_lets_through(kind: str) -> None:
    plan = make_plan(images=("good", "other"), skipped=(("other", "rtx4090", kind, "no such wheel"),))
    verdict = judge(plan, [make_result(CELL)], TODAY)
    assert verdict.released
    assert verdict.counts[Verdict.SKIPPED] == 1


def test_a_required_cell_that_a_prediction_left_out_is_named() -> None:
    policy = Policy(required=("good@*", "other@*"))
    skipped = tuple((name, "rtx4090", "predicted", "driver-too-old") for name in ("other", "optional"))
    plan = make_plan(images=("good", "other", "optional"), skipped=skipped, policy=policy)
    verdict = judge(plan, [make_result(CELL)], TODAY)
    assert verdict.released
    assert [note.text for note in verdict.notes] == [
        "1 required cell was not run, because it is predicted to fail: other@rtx4090"
    ]


def test_a_skip_without_a_reason_blocks() -> None:
    plan = make_plan(images=("good", "other"), skipped=(("other", "rtx4090", "excluded", " "),))
    assert texts(judge(plan, [make_result(CELL)], TODAY)) == [
        "1 required cell is skipped without a reason: other@rtx4090"
    ]


def test_only_required_cells_block_and_the_others_are_reported() -> None:
    plan = make_plan(images=("good", "extra"), policy=Policy(required=("good@*",)))
    verdict = judge(plan, [make_result(CELL), failing(cell="extra@rtx4090")], TODAY)
    assert verdict.released
    assert [note.text for note in verdict.notes] == ["extra@rtx4090 is fail (driver-too-old), but not required"]


@pytest.mark.parametrize(("required", "why"), [((), "is empty"), (("typo@*",), "'typo@*' matches no cell")])
def test_a_policy_that_demands_nothing_that_exists_blocks(required: tuple[str, ...], why: str) -> None:
    verdict = judge(make_plan(policy=Policy(required=required)), [make_result(CELL)], TODAY)
    assert len(verdict.reasons) == 1
    assert why in verdict.reasons[0].text


def test_an_empty_plan_blocks() -> None:
    assert not judge(make_plan(images=(), runners=()), [], TODAY).released


@pytest.mark.parametrize(("kind", "released"), [("unchanged", True), ("excluded", False), ("predicted", False)])
def test_a_plan_that_runs_nothing_is_good_only_when_nothing_changed(kind: str, released: bool) -> None:
    plan = make_plan(skipped=(("good", "rtx4090", kind, "reason"),))
    assert judge(plan, [], TODAY).released is released


@pytest.mark.parametrize(
    ("policy", "verdict"),
    [
        (expecting(), Verdict.EXPECTED_FAIL),
        (expecting(cause="driver-too-old"), Verdict.EXPECTED_FAIL),
        (expecting(cell="*@rtx4090"), Verdict.EXPECTED_FAIL),
        (expecting(until="2026-11-20"), Verdict.FAIL),
        (expecting(cause="no-native-kernels"), Verdict.FAIL),
        (expecting(cell="other@*"), Verdict.FAIL),
    ],
)
def test_an_expected_failure(policy: Policy, verdict: Verdict) -> None:
    gate = judge(make_plan(policy=policy), [failing()], TODAY)
    assert gate.cells[CELL].verdict is verdict
    assert gate.released is (verdict is Verdict.EXPECTED_FAIL)


def test_an_expired_expectation_is_reported() -> None:
    gate = judge(make_plan(policy=expecting(until="2026-11-20")), [failing()], TODAY)
    assert [note.text for note in gate.notes] == [
        f"{CELL}: its expected failure was accepted until 2026-11-20 and is expired"
    ]


@pytest.mark.parametrize("verdict", [Verdict.HOST_FAILED, Verdict.INCONCLUSIVE, Verdict.NOT_RUN])
def test_only_a_failure_of_the_image_can_be_expected(verdict: Verdict) -> None:
    assert not judge(make_plan(policy=expecting()), [make_result(CELL, verdict)], TODAY).released


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.WARN])
def test_an_unexpected_pass_is_reported_and_does_not_block(verdict: Verdict) -> None:
    gate = judge(make_plan(policy=expecting(cause="driver-too-old")), [make_result(CELL, verdict)], TODAY)
    assert gate.released
    assert gate.cells[CELL].verdict is Verdict.UNEXPECTED_PASS
    assert "passes although" in gate.notes[0].text


def test_a_stray_result_is_reported_and_does_not_count() -> None:
    gate = judge(make_plan(), [make_result(CELL), failing(cell="stray@rtx4090")], TODAY)
    assert gate.released
    assert [note.cells for note in gate.notes] == [("stray@rtx4090",)]
    assert sum(gate.counts.values()) == 1


@pytest.mark.parametrize(
    "image",
    [
        ImageIdentity(id="good", ref="example.org/other:1"),
        ImageIdentity(id="good", ref="example.org/good:1", digest="sha256:" + "99" * 32),
    ],
)
def test_a_result_of_another_image_shows_nothing(image: ImageIdentity) -> None:
    gate = judge(make_plan(), [make_result(CELL, image=image)], TODAY)
    assert gate.cells[CELL].verdict is Verdict.NOT_RUN
    assert "another" in gate.cells[CELL].reason


def test_a_digest_that_either_side_does_not_know_is_no_contradiction() -> None:
    image = ImageIdentity(id="good", ref="example.org/good:1")
    assert judge(make_plan(), [make_result(CELL, image=image)], TODAY).released
    assert judge(make_plan(images=(make_image("good", digest=None),)), [make_result(CELL)], TODAY).released


@pytest.mark.parametrize(
    "asked",
    [
        {"payload": PayloadOptions(profile="full")},
        {"payload": PayloadOptions(checks=("python",))},
        {"container": ContainerOptions(gpus="none")},
    ],
)
def test_a_result_of_a_weaker_question_does_not_answer_this_one(asked: dict[str, object]) -> None:
    plan = make_plan()
    demand = demand_sha256(plan.images["good"], plan.payload, plan.container)
    result = make_result(CELL, demand_sha256=demand)
    assert judge(plan, [result], TODAY).released
    gate = judge(plan.model_copy(update=asked), [result], TODAY)
    assert gate.cells[CELL].verdict is Verdict.NOT_RUN
    assert "another question" in gate.cells[CELL].reason


def test_a_result_of_another_card_does_not_answer_for_this_one() -> None:
    plan = make_plan(runners=(make_runner("rtx4090", "RTX 4090"),))
    for card in (None, "A800"):
        gate = judge(plan, [make_result(CELL, gpu=card)], TODAY)
        assert gate.cells[CELL].verdict is Verdict.NOT_RUN
        assert f"of another card: {card or 'none'}, not RTX 4090" in gate.cells[CELL].reason


def test_results_of_a_machine_s_own_python_are_named() -> None:
    gate = judge(make_plan(), [make_result(CELL, engine=EngineName.LOCAL)], TODAY)
    assert "1 of 1 results is of a machine's own Python: no image was run for them" in [n.text for n in gate.notes]


def test_a_row_of_different_builds_is_not_released() -> None:
    plan = make_plan(images=(make_image("good", digest=None),), runners=("one", "two"))
    same = [make_result(f"good@{runner}") for runner in ("one", "two")]
    assert judge(plan, same, TODAY).released
    moved = ImageIdentity(id="good", ref="example.org/good:1", digest="sha256:" + "34" * 32)
    gate = judge(plan, [same[0], make_result("good@two", image=moved)], TODAY)
    assert texts(gate) == ["good: its cells ran different builds, since its tag moved: good@one, good@two"]


def test_a_plan_that_could_not_be_read_blocks() -> None:
    gate = judge(make_plan(), [make_result(CELL)], TODAY, [Problem("b/plan.json", 0, 0, "", "is cut")])
    assert texts(gate) == ["a plan could not be used: b/plan.json: is cut"]


def test_the_newest_result_counts_and_on_a_tie_the_worse() -> None:
    old, new = make_result(CELL), make_result(CELL, Verdict.FAIL, started_at=STARTED + timedelta(hours=1))
    assert newest([new, old])[CELL] is new
    good, bad = make_result(CELL), make_result(CELL, Verdict.FAIL)
    assert newest([good, bad])[CELL] is newest([bad, good])[CELL] is bad


def test_dates_are_those_of_utc_and_a_time_without_offset_is_utc() -> None:
    naive = make_result(CELL, started_at=datetime(2026, 11, 21, 23, 30))  # noqa: DTZ001 - the case under test
    ahead = make_result(CELL, started_at=datetime.fromisoformat("2026-11-22T01:00:00+02:00"))
    assert newest_date([naive]) == newest_date([ahead]) == date(2026, 11, 21)
    assert newest([naive, ahead])[CELL] is naive
    assert newest_date([]) == date.min


def test_final_verdicts_cover_every_cell_of_the_plan_in_order() -> None:
    plan = make_plan(images=("good", "absent", "other"), skipped=(("other", "rtx4090", "excluded", "why"),))
    assert list(final_verdicts(plan, [make_result(CELL)], TODAY).items()) == [
        (CELL, Verdict.PASS),
        ("absent@rtx4090", Verdict.NOT_RUN),
        ("other@rtx4090", Verdict.SKIPPED),
    ]


def test_a_simulated_result_is_said_to_be_one_and_still_lets_through() -> None:
    plan = make_plan(images=("good", "other"))
    results = [make_result(CELL, engine=EngineName.SIMULATED), make_result("other@rtx4090")]
    gate = judge(plan, results, TODAY)
    assert gate.released
    assert [note.text for note in gate.notes] == ["1 of 2 results is simulated: nothing was measured on it"]


@pytest.mark.parametrize(
    ("whole", "notes"),
    [
        (9, ["1 of 9 cells of the matrix was selected; the others are not judged"]),
        (1, []),
        (None, []),
    ],
)
def test_a_part_of_the_matrix_is_said_to_be_one(whole: int | None, notes: list[str]) -> None:
    plan = make_plan().model_copy(update={"matrix_cells": whole})
    assert [note.text for note in judge(plan, [make_result(CELL)], TODAY).notes] == notes


@pytest.mark.parametrize("kind", ["unchanged", "predicted"])
def test_cells_that_need_not_run_count_as_selected(kind: str) -> None:
    policy = Policy(required=("good@*",))
    plan = make_plan(images=("good", "same"), skipped=(("same", "rtx4090", kind, "as before"),), policy=policy)
    assert judge(plan.model_copy(update={"matrix_cells": 2}), [make_result(CELL)], TODAY).notes == ()


BAD = st.sampled_from([Verdict.FAIL, Verdict.HOST_FAILED, Verdict.INCONCLUSIVE, Verdict.NOT_RUN, None])
ANY = st.one_of(st.none(), st.sampled_from(list(Verdict)))


@given(st.lists(ANY, max_size=4), BAD, st.booleans())
def test_adding_a_failing_required_cell_never_makes_it_a_yes(
    verdicts: list[Verdict | None], bad: Verdict | None, all_required: bool
) -> None:
    policy = Policy(required=("*",) if all_required else ("bad@*", "i0@*"))
    names = tuple(f"i{index}" for index in range(len(verdicts)))
    results = [make_result(f"{n}@r", v) for n, v in zip(names, verdicts, strict=True) if v is not None]
    before = judge(make_plan(images=names, runners=("r",), policy=policy), results, TODAY)
    added = [make_result("bad@r", bad)] if bad else []
    after = judge(make_plan(images=(*names, "bad"), runners=("r",), policy=policy), [*results, *added], TODAY)
    assert not after.released
    assert after.counts[Verdict.PASS] == before.counts[Verdict.PASS]


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.FAIL])
def test_a_strict_policy_blocks_on_an_entry_that_is_not_true_any_more(verdict: Verdict) -> None:
    until = "2026-11-20" if verdict is Verdict.FAIL else "2026-11-21"
    policy = expecting(until=until).model_copy(update={"strict": True})
    result = failing() if verdict is Verdict.FAIL else make_result(CELL)
    strict = judge(make_plan(policy=policy), [result], TODAY)
    assert not strict.released
    words = "is expired" if verdict is Verdict.FAIL else "remove the entry"
    assert any(words in text for text in texts(strict))
    assert not any(words in note.text for note in strict.notes)
    lenient = judge(make_plan(policy=policy.model_copy(update={"strict": False})), [result], TODAY)
    assert any(words in note.text for note in lenient.notes)
    assert lenient.released is (verdict is Verdict.PASS)


@pytest.mark.parametrize(
    ("least", "released"), [(1, True), (2, True), (3, False), ("66%", True), ("67%", False), ("100%", False)]
)
def test_a_card_needs_enough_answers(least: int | str, released: bool) -> None:
    policy = Policy(coverage={"rtx*": least}, required=("good@*",))
    plan = make_plan(images=("good", "bad", "silent"), policy=policy)
    results = [make_result(CELL), failing(cell="bad@rtx4090"), make_result("silent@rtx4090", Verdict.HOST_FAILED)]
    verdict = judge(plan, results, TODAY)
    assert verdict.released is released
    if not released:
        said = f"rtx4090: 2 of 3 cells have an answer, policy.coverage asks for {least}"
        assert texts(verdict) == [said]
        assert verdict.reasons[0].cells == ("silent@rtx4090",)


def test_coverage_counts_unchanged_cells_and_not_the_excluded_or_foretold() -> None:
    skipped = (
        ("b", "rtx4090", "unchanged", "x"),
        ("c", "rtx4090", "excluded", "x"),
        ("d", "rtx4090", "predicted", "x"),
    )
    policy = Policy(coverage={"*": "100%"})
    plan = make_plan(images=("good", "b", "c", "d"), skipped=skipped, policy=policy)
    verdict = judge(plan, [make_result(CELL)], TODAY)
    assert texts(verdict) == ["rtx4090: 2 of 3 cells have an answer, policy.coverage asks for 100%"]


def test_coverage_of_no_runner_is_no_coverage() -> None:
    verdict = judge(make_plan(policy=Policy(coverage={"rtx5*": 1})), [make_result(CELL)], TODAY)
    assert texts(verdict) == ["policy.coverage: 'rtx5*' matches no runner of the plan"]


def test_a_part_of_the_matrix_is_judged_for_its_own_runners() -> None:
    policy = Policy(coverage={"a800": 1, "rtx4090": "100%"})
    part = make_plan(policy=policy).model_copy(update={"matrix_cells": 2})
    assert judge(part, [make_result(CELL)], TODAY).released
    assert not judge(part, [make_result(CELL, Verdict.HOST_FAILED)], TODAY).released


@pytest.mark.parametrize(
    ("kind", "words"), [("predicted", "predicted to fail"), ("unchanged", "since its last accepted")]
)
def test_required_cells_that_nobody_ran_are_named(kind: str, words: str) -> None:
    plan = make_plan(images=("good", "other"), skipped=(("other", "rtx4090", kind, "x"),))
    verdict = judge(plan, [make_result(CELL)], TODAY)
    assert verdict.released
    assert [note.cells for note in verdict.notes if words in note.text] == [("other@rtx4090",)]
