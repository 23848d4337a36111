"""The badge's JSON, as shields.io takes it."""

from __future__ import annotations

import json

import pytest

from builders import make_plan, make_result
from cuda_matrix.badge import render_badge
from cuda_matrix.gate import judge, newest_date
from cuda_matrix.model import EngineName, Verdict
from cuda_matrix.plan import Plan
from cuda_matrix.result import CellResult

# https://shields.io/badges/endpoint-badge: required, then optional; any other key makes the badge an error.
REQUIRED = {"schemaVersion", "label", "message"}
OPTIONAL = {"color", "labelColor", "isError", "namedLogo", "logoSvg", "logoColor", "logoSize", "style", "cacheSeconds"}
PLAN = make_plan(("a", "b"), ("x", "y"), (("b", "y", "excluded", "no memory"),))


def badge(plan: Plan, *results: CellResult) -> dict[str, object]:
    made: dict[str, object] = json.loads(render_badge(judge(plan, results, newest_date(results))))
    assert made.keys() >= REQUIRED
    assert made.keys() <= REQUIRED | OPTIONAL
    assert made["schemaVersion"] == 1
    assert made["message"]
    return made


@pytest.mark.parametrize(
    ("verdicts", "message", "colour", "is_error"),
    [
        ((Verdict.PASS, Verdict.WARN, Verdict.PASS), "3 of 3 work", "brightgreen", False),
        ((Verdict.PASS, Verdict.FAIL, Verdict.PASS), "2 of 3 work", "red", True),
        ((Verdict.PASS, Verdict.PASS), "2 of 3 work", "orange", True),
        ((Verdict.HOST_FAILED, Verdict.INCONCLUSIVE), "no results", "lightgrey", True),
        ((), "no results", "lightgrey", True),
    ],
)
def test_badge(verdicts: tuple[Verdict, ...], message: str, colour: str, is_error: bool) -> None:
    cells = ("a@x", "a@y", "b@x")
    results = (make_result(cell, v, gpu="RTX 4090") for cell, v in zip(cells, verdicts, strict=False))
    made = badge(PLAN, *results)
    assert (made["message"], made["color"], made["isError"]) == (message, colour, is_error)


def test_simulated_figures_never_look_green() -> None:
    cells = ("a@x", "a@y", "b@x")
    made = badge(PLAN, *(make_result(cell, engine=EngineName.SIMULATED, gpu="RTX 4090") for cell in cells))
    assert (made["message"], made["color"]) == ("3 of 3 work (simulated)", "lightgrey")


def test_unchanged_cells_work() -> None:
    plan = make_plan(("a",), ("x",), (("a", "x", "unchanged", "pass on 2026-11-01"),))
    assert badge(plan)["message"] == "1 of 1 work"
