"""The score: what counts as right, as a miss, and what nobody foretold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cuda_matrix
from builders import make_diagnosis, make_facts, make_plan, make_prediction, make_result
from cuda_matrix.gate import judge, newest_date
from cuda_matrix.model import EngineName, Verdict
from cuda_matrix.prediction import Prediction
from cuda_matrix.reference import load_reference
from cuda_matrix.report.foretold import FORESEEABLE, KINDS, foretold
from cuda_matrix.report.view import Foretold
from cuda_matrix.result import CellResult

CELL = "good@rtx4090"
OLD = "driver-too-old"


def score(*results: CellResult) -> Foretold:
    names = tuple(dict.fromkeys(result.cell.partition("@")[0] for result in results))
    gate = judge(make_plan(images=names), results, newest_date(results))
    return foretold(gate.cells.values())


def failing(cause: str, verdict: Verdict = Verdict.FAIL, cell: str = CELL, **values: object) -> CellResult:
    return make_result(cell, verdict, diagnosis=make_diagnosis(cause), **values)


def kinds(found: Foretold) -> list[str]:
    return [row.kind for row in found.rows]


@pytest.mark.parametrize(
    ("said", "measured", "kind"),
    [
        (make_prediction("pass"), make_result(CELL), "right"),
        (make_prediction("warn", "ptx-toolchain"), make_result(CELL, Verdict.WARN), "right"),
        (make_prediction("warn", "ptx-toolchain"), failing("ptx-toolchain"), "right"),
        (make_prediction("fail", OLD), failing(OLD), "right"),
        (make_prediction("host-failed", "driver-too-old"), failing(OLD, Verdict.HOST_FAILED), "right"),
        (make_prediction("host-failed"), failing("gpu-not-exposed", Verdict.HOST_FAILED), "right"),
        (make_prediction("host-failed"), failing("native-crash"), "other-cause"),
        (make_prediction("fail", OLD), failing("arch-no-kernel"), "other-cause"),
        (make_prediction("fail", OLD), make_result(CELL), "miss"),
        (make_prediction("pass"), failing("arch-no-kernel"), "miss"),
        (make_prediction("pass"), failing("gpu-ecc", Verdict.HOST_FAILED), "not-foretold"),
        (make_prediction("pass"), failing("native-crash"), "not-foretold"),
    ],
)
def test_each_kind(said: Prediction, measured: CellResult, kind: str) -> None:
    found = score(measured.model_copy(update={"prediction": said}))
    assert kinds(found) == ([] if kind == "right" else [KINDS[kind]])
    assert found.right == (kind == "right")
    assert found.comparable == (kind != "not-foretold")
    assert (found.other_cause, found.not_foretold) == (kind == "other-cause", kind == "not-foretold")


def test_a_line_says_what_was_predicted_by_which_rule_and_what_was_measured() -> None:
    found = score(make_result(CELL, prediction=make_prediction("fail", OLD)))
    assert [(row.cell, row.predicted, row.rule, row.measured) for row in found.rows] == [
        (
            CELL,
            "fail: driver-too-old (CUDA 12.1 needs driver 525.60.13 or newer.)",
            "driver-floor",
            "pass (every check passed)",
        )
    ]
    assert found.rows[0].source.startswith("https://docs.nvidia.com/")
    assert found.sentence == "0 of 1 prediction right: 1 miss."


def test_a_source_that_says_more_than_its_address_can_still_be_linked() -> None:
    said = make_prediction("fail", OLD, source="https://pypi.org/project/torch/ (census of its wheels)")
    assert score(make_result(CELL, prediction=said)).rows[0].source == "https://pypi.org/project/torch/"


def test_unknown_predictions_and_cells_without_an_answer_are_counted_apart() -> None:
    found = score(
        make_result("a@rtx4090", prediction=make_prediction("unknown")),
        make_result("b@rtx4090", Verdict.INCONCLUSIVE, prediction=make_prediction()),
        make_result("c@rtx4090", prediction=make_prediction()),
        make_result("d@rtx4090"),
    )
    assert (found.right, found.comparable, found.unknown, found.not_comparable) == (1, 1, 1, 1)
    assert found.sentence == "The 1 prediction was right."
    assert found.notes == (
        "1 cell could not be predicted: a fact was not known.",
        "1 predicted cell came to no answer.",
    )


def test_an_unexpected_machine_is_judged_by_what_the_rules_say_of_it() -> None:
    found = score(
        failing(
            OLD,
            facts=make_facts(driver="470.129.06"),
            prediction=make_prediction(),
            prediction_here=make_prediction("fail", OLD),
        )
    )
    assert found.sentence == "The 1 prediction was right."
    assert "the driver and card that the run found" in found.notes[0]
    missed = score(make_result(CELL, prediction=make_prediction(), prediction_here=make_prediction("fail", OLD)))
    assert missed.rows[0].note == "judged for driver 550.54.15, as found; the plan said pass"


def test_nothing_was_predicted() -> None:
    assert score(make_result(CELL)) == Foretold()


def test_agreement_with_a_simulation_is_called_that() -> None:
    simulated = make_result("a@rtx4090", prediction=make_prediction(), engine=EngineName.SIMULATED)
    measured = make_result("b@rtx4090", prediction=make_prediction())
    assert score(simulated).notes == ("Every result behind this is simulated.",)
    assert score(simulated, measured).notes == ("1 of the results behind this is simulated.",)


def test_the_foreseeable_causes_are_those_that_rules_name() -> None:
    causes = set(load_reference().catalogue.causes) - {"none", "unknown"}
    assert causes >= FORESEEABLE
    sources = Path(cuda_matrix.__path__[0]).glob("*_rules.py")
    rules = [path for path in sources if path.stem not in {"host_rules", "engine_rules"}]  # the doctor's
    assert len(rules) == 3
    named = {word for path in rules for word in re.findall(r'"([a-z0-9-]+)"', path.read_text(encoding="utf-8"))}
    assert named & causes <= FORESEEABLE
