"""Reports of any size, for tests of limits."""

from __future__ import annotations

from builders import make_diagnosis, make_plan, make_result, make_runner
from cuda_matrix.gate import GateVerdict, judge, newest_date
from cuda_matrix.model import CheckStatus, Verdict
from cuda_matrix.plan import Plan
from cuda_matrix.report.build import NO_LINKS, build_view
from cuda_matrix.report.view import Links, View
from cuda_matrix.result import LOG_LIMIT, TEXT_LIMIT, CellResult, CheckResult

_CYCLE = (Verdict.FAIL, Verdict.PASS, Verdict.WARN, Verdict.HOST_FAILED, Verdict.INCONCLUSIVE)


def big_plan(images: int, runners: int, text: str = "RTX 4090") -> Plan:
    machines = tuple(make_runner(f"r{n}", text) for n in range(runners))
    return make_plan(images=tuple(f"image{n}" for n in range(images)), runners=machines)


def big_result(number: int, cell: str, text: str, log: int, gpu: str) -> CellResult:
    """One of five verdicts, by its number; each tenth cell has a cause of its own."""
    verdict, said = _CYCLE[number % len(_CYCLE)], text[:TEXT_LIMIT]
    logged = (text * (log // max(len(text), 1) + 1))[: min(log, LOG_LIMIT)]
    good = verdict in {Verdict.PASS, Verdict.WARN}
    status = CheckStatus.PASS if verdict is Verdict.PASS else CheckStatus.WARN if good else CheckStatus.FAIL
    return make_result(
        cell,
        verdict,
        images_per_s=100 + number if good else None,
        gpu=gpu,
        reason=said,
        checks=tuple(CheckResult(id=f"c{n}", status=status, summary=said, log=logged) for n in range(1 + log // 4_000)),
        diagnosis=None
        if good
        else make_diagnosis(f"cause-{number // 10}", evidence=said, explanation=text * 2, fix=(text, text), title=text),
        repro=text,
        log=logged,
    )


def big_decision(
    images: int, runners: int, text: str = "a `b` | c", log: int = 0, missing: int = 7
) -> tuple[Plan, GateVerdict]:
    """Every `missing`-th cell has no result."""
    plan = big_plan(images, runners)
    results = [
        big_result(number, cell.id, text, log, "RTX 4090")
        for number, cell in enumerate(plan.cells)
        if number % missing != missing - 1
    ]
    return plan, judge(plan, results, newest_date(results))


def big_view(images: int, runners: int, text: str = "a `b` | c", log: int = 0, links: Links = NO_LINKS) -> View:
    plan, gate = big_decision(images, runners, text, log)
    return build_view(plan, gate, links=links)
