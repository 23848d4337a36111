"""Owns the release decision: what every planned cell comes to, and whether that lets a release through.

Must not know of files, formats, GitHub or the clock: plan, results and the day are arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timezone
from math import ceil

from cuda_matrix.config import ExpectFail, Policy
from cuda_matrix.errors import Problem
from cuda_matrix.globs import matches
from cuda_matrix.model import CheckStatus, EngineName, Verdict
from cuda_matrix.plan import Plan, PlannedCell, SkippedCell, demand_sha256
from cuda_matrix.prediction import Prediction
from cuda_matrix.result import CellResult

ACCEPTED = frozenset({Verdict.PASS, Verdict.WARN})  # by its own word; the rest of GOOD is the policy's
GOOD = ACCEPTED | {Verdict.UNEXPECTED_PASS}
LETS_THROUGH = GOOD | {Verdict.EXPECTED_FAIL, Verdict.SKIPPED}

_ANSWERS = GOOD | {Verdict.FAIL, Verdict.EXPECTED_FAIL}  # the card has spoken, for or against the image
_BROKEN = frozenset({CheckStatus.FAIL, CheckStatus.CRASH, CheckStatus.TIMEOUT})

# Policy has the last word on these: what a result file says of them itself is undone first.
_RAW = {
    Verdict.EXPECTED_FAIL: Verdict.FAIL,
    Verdict.UNEXPECTED_PASS: Verdict.PASS,
    Verdict.SKIPPED: Verdict.NOT_RUN,
}

_HEADS = {
    Verdict.FAIL: ("required cell fails", "required cells fail"),
    Verdict.HOST_FAILED: (
        "required cell has no answer (machine failed)",
        "required cells have no answer (machine failed)",
    ),
    Verdict.INCONCLUSIVE: ("required cell is inconclusive", "required cells are inconclusive"),
    Verdict.NOT_RUN: ("required cell did not run", "required cells did not run"),
    Verdict.SKIPPED: ("required cell is skipped without a reason", "required cells are skipped without a reason"),
}


@dataclass(frozen=True)
class Judgement:
    """What one cell of the plan comes to. `reason` may hold text out of a container."""

    cell: str
    image: str
    runner: str
    verdict: Verdict
    required: bool
    reason: str = ""
    cause: str = ""
    result: CellResult | None = None
    expected: ExpectFail | None = None
    expired: ExpectFail | None = None
    skip_kind: str = ""
    prediction: Prediction | None = None


@dataclass(frozen=True)
class GateReason:
    """One line of the decision. `verdict` is None where no cell is the reason. `text` may hold hostile text."""

    text: str
    cells: tuple[str, ...] = ()
    cause: str = ""
    verdict: Verdict | None = None


@dataclass(frozen=True)
class GateVerdict:
    """The decision: `reasons` say why not (empty when released), `notes` are reported and block nothing."""

    released: bool
    reasons: tuple[GateReason, ...]
    notes: tuple[GateReason, ...]
    counts: Mapping[Verdict, int]
    cells: Mapping[str, Judgement]


def newest(results: Iterable[CellResult]) -> dict[str, CellResult]:
    """The result that counts for each cell: the latest start, then the highest attempt; on a tie the worse one."""
    chosen: dict[str, CellResult] = {}
    for result in results:
        other = chosen.get(result.cell)
        if other is None or _age(result) > _age(other):
            chosen[result.cell] = result
    return chosen


def newest_date(results: Iterable[CellResult]) -> date:
    """Day (UTC) of the newest result: the `today` of a report, so that the same input gives the same bytes."""
    return max((utc(result.started_at).date() for result in results), default=date.min)


def utc(moment: datetime) -> datetime:
    """In UTC; a time without an offset is taken as UTC."""
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)


def selected(plan: Plan) -> tuple[int, int] | None:
    """(cells that were selected, cells of the whole matrix) where only a part of it is judged, else None."""
    count = len(plan.cells) + sum(skipped.kind != "excluded" for skipped in plan.skipped)
    return (count, plan.matrix_cells) if plan.matrix_cells is not None and count < plan.matrix_cells else None


def local_note(cells: Iterable[Judgement]) -> str:
    """How many of the results that count come from the local engine; empty where none does."""
    count, share = _share(cells, EngineName.LOCAL)
    return f"{share} of a machine's own Python: no image was run for them" if count else ""


def simulated_note(cells: Iterable[Judgement]) -> str:
    """How many of the results that count are simulated; empty where none is."""
    count, share = _share(cells, EngineName.SIMULATED)
    return f"{share} simulated: nothing was measured on {'it' if count == 1 else 'them'}" if count else ""


def _share(cells: Iterable[Judgement], engine: EngineName) -> tuple[int, str]:
    """How many results one engine gave, and `2 of 9 results are`."""
    results = [judged.result for judged in cells if judged.result is not None]
    count = sum(result.engine is engine for result in results)
    return count, f"{count:,} of {len(results):,} results {'is' if count == 1 else 'are'}"


def final_verdicts(plan: Plan, results: Iterable[CellResult], today: date) -> dict[str, Verdict]:
    """Cell id → verdict, for every cell of the plan, skipped ones too, in plan order."""
    return {cell: judged.verdict for cell, judged in judge_cells(plan, results, today).items()}


def judge_cells(plan: Plan, results: Iterable[CellResult], today: date) -> dict[str, Judgement]:
    """Cell id → judgement, for every cell of the plan: the cells to run first, then the skipped ones."""
    found = newest(results)
    demands = {key: demand_sha256(image, plan.payload, plan.container) for key, image in plan.images.items()}
    judged = {
        cell.id: _judge_planned(plan, cell, found.get(cell.id), demands[cell.image], today) for cell in plan.cells
    }
    for skipped in plan.skipped:
        judged.setdefault(skipped.id, _judge_skipped(plan, skipped))
    return judged


def judge(plan: Plan, results: Iterable[CellResult], today: date, plan_problems: Iterable[Problem] = ()) -> GateVerdict:
    """Decide. `today` is the day on which `until` of an expected failure is measured (last day inclusive).

    `plan_problems` are plan files that could not be read: cells that they demand are unknown, so they block.
    """
    found = newest(results)
    cells = judge_cells(plan, found.values(), today)
    unread = [GateReason(f"a plan could not be used: {problem}") for problem in plan_problems]
    stale = _stale_entries(cells.values())
    strict = stale if plan.policy.strict else ()
    reasons = (
        *unread,
        *_policy_reasons(plan, cells),
        *_coverage_reasons(plan, cells.values()),
        *_mixed_rows(cells),
        *_cell_reasons(cells.values()),
        *strict,
    )
    counts = {verdict: sum(judged.verdict is verdict for judged in cells.values()) for verdict in Verdict}
    lenient = () if plan.policy.strict else stale
    notes = (*_scope_notes(plan, cells.values()), *_notes(cells.values()), *lenient, *_strays(plan, found))
    return GateVerdict(released=not reasons, reasons=reasons, notes=notes, counts=counts, cells=cells)


def _age(result: CellResult) -> tuple[datetime, int, bool]:
    return utc(result.started_at), result.attempt, result.verdict not in GOOD


def _judge_planned(plan: Plan, cell: PlannedCell, result: CellResult | None, demand: str, today: date) -> Judgement:
    required = requires(plan.policy, cell.id)
    if result is None:
        return Judgement(cell.id, cell.image, cell.runner, Verdict.NOT_RUN, required, reason="no result was found")
    other = _other_question(plan, cell, result, demand)
    if other:
        return Judgement(cell.id, cell.image, cell.runner, Verdict.NOT_RUN, required, reason=other)
    verdict = _RAW.get(result.verdict, result.verdict)
    cause = "" if verdict in GOOD else cause_of(result)
    entries = [entry for entry in plan.policy.expect_fail if matches(cell.id, entry.cell)]
    if verdict is Verdict.FAIL:
        entries = [entry for entry in entries if entry.cause in {None, cause}]
    valid = next((entry for entry in entries if date.fromisoformat(entry.until) >= today), None)
    expired = next((entry for entry in entries if date.fromisoformat(entry.until) < today), None)
    if valid and verdict is Verdict.FAIL:
        verdict = Verdict.EXPECTED_FAIL
    elif valid and verdict in GOOD:
        verdict = Verdict.UNEXPECTED_PASS
    reason = result.reason or "the result gives no reason"
    return Judgement(cell.id, cell.image, cell.runner, verdict, required, reason, cause, result, valid, expired)


def _judge_skipped(plan: Plan, skipped: SkippedCell) -> Judgement:
    return Judgement(
        skipped.id,
        skipped.image,
        skipped.runner,
        Verdict.SKIPPED,
        requires(plan.policy, skipped.id),
        reason=skipped.reason,
        skip_kind=skipped.kind,
        prediction=skipped.prediction,
    )


def requires(policy: Policy, cell: str) -> bool:
    """Whether a policy demands an answer of this cell."""
    return any(matches(cell, glob) for glob in policy.required)


def _other_question(plan: Plan, cell: PlannedCell, result: CellResult, demand: str) -> str:
    """Why this result does not answer what the plan asks; empty where it does."""
    planned, card = plan.images[cell.image], plan.runners[cell.runner].gpu
    if result.gpu != card:
        return f"the result found is of another card: {result.gpu or 'none'}, not {card or 'none'}"
    if result.image.ref != planned.ref:
        return f"the result found is of another image: {result.image.ref}"
    if planned.digest and result.image.digest and result.image.digest != planned.digest:
        return f"the result found is of another build of the image: {result.image.digest}"
    if result.demand_sha256 not in {None, demand}:
        return "the result found answers another question: profile, checks, expectations, variables or limits differ"
    return ""


def _mixed_rows(cells: Mapping[str, Judgement]) -> list[GateReason]:
    """Images whose cells ran different builds: a row that mixes them says nothing about either."""
    builds: dict[str, dict[str, str]] = {}
    for judged in cells.values():
        if judged.result is not None and judged.result.image.digest:
            builds.setdefault(judged.image, {})[judged.cell] = judged.result.image.digest
    return [
        GateReason(f"{image}: its cells ran different builds, since its tag moved: {', '.join(found)}", tuple(found))
        for image, found in builds.items()
        if len(set(found.values())) > 1
    ]


def cause_of(result: CellResult) -> str:
    """The cause code of a result that is not good: of its diagnosis, else of its first broken check, else empty."""
    if result.diagnosis and result.diagnosis.cause:
        return result.diagnosis.cause
    return next((check.cause for check in result.checks if check.status in _BROKEN and check.cause), "")


def _policy_reasons(plan: Plan, cells: Mapping[str, Judgement]) -> list[GateReason]:
    if not plan.cells and not any(skipped.kind == "unchanged" for skipped in plan.skipped):
        return [GateReason("the plan holds no cell to run: nothing was shown")]
    if not plan.policy.required:
        return [GateReason("policy.required is empty: nothing was demanded, so nothing is released")]
    return [
        GateReason(f"policy.required: {glob!r} matches no cell of the plan")
        for glob in plan.policy.required
        if not any(matches(cell, glob) for cell in cells)
    ]


def _coverage_reasons(plan: Plan, cells: Iterable[Judgement]) -> list[GateReason]:
    """Runners of which too few cells have an answer: good, bad, or unchanged since one. Excluded ones do not count."""
    reasons = []
    asked = [judged for judged in cells if judged.skip_kind != "excluded"]
    for glob, least in plan.policy.coverage.items():
        runners = [runner for runner in plan.runners if matches(runner, glob)]
        if not runners and not selected(plan):  # of a part, the other runners are not judged
            reasons.append(GateReason(f"policy.coverage: {glob!r} matches no runner of the plan"))
        for runner in runners:
            here = [judged for judged in asked if judged.runner == runner]
            count = sum(judged.verdict in _ANSWERS or judged.skip_kind == "unchanged" for judged in here)
            need = least if isinstance(least, int) else ceil(len(here) * int(least.rstrip(" %")) / 100)
            need = min(need, len(here)) if selected(plan) else need
            if count < need:
                without = tuple(judged.cell for judged in here if judged.verdict not in _ANSWERS)
                said = f"{count:,} of {len(here):,} cells have an answer, policy.coverage asks for {least}"
                reasons.append(GateReason(f"{runner}: {said}", without))
    return reasons


def _blocks(judged: Judgement) -> bool:
    if judged.verdict is Verdict.SKIPPED:
        return not judged.reason.strip()
    return judged.verdict not in LETS_THROUGH


def _cell_reasons(cells: Iterable[Judgement]) -> list[GateReason]:
    groups: dict[tuple[Verdict, str], list[str]] = {}
    for judged in cells:
        if judged.required and _blocks(judged):
            groups.setdefault((judged.verdict, judged.cause), []).append(judged.cell)
    reasons = []
    for (verdict, cause), names in groups.items():
        head = f"{_blocking(verdict, len(names))}{f', {cause}' if cause else ''}"
        text = f"{head}: {', '.join(names)}"
        reasons.append(GateReason(text, tuple(names), cause, verdict))
    return reasons


def _blocking(verdict: Verdict, count: int) -> str:
    """`2 required cells fail`: how many cells block, and with what."""
    return f"{count:,} {_HEADS[verdict][count != 1]}"


def _scope_notes(plan: Plan, cells: Iterable[Judgement]) -> list[GateReason]:
    """How far the decision reaches: a part of the matrix, figures that nobody measured."""
    notes = []
    part = selected(plan)
    if part:
        verb = "was" if part[0] == 1 else "were"
        text = f"{part[0]:,} of {part[1]:,} cells of the matrix {verb} selected; the others are not judged"
        notes.append(GateReason(text))
    said = [note for note in (simulated_note(cells), local_note(cells)) if note]
    return [*notes, *map(GateReason, said)]


def _stale_entries(cells: Iterable[Judgement]) -> tuple[GateReason, ...]:
    """Entries of policy.expect_fail that are not true any more: notes, and reasons where the policy is strict."""
    found = []
    for judged in cells:
        if judged.expired and not judged.expected:
            text = f"{judged.cell}: its expected failure was accepted until {judged.expired.until} and is expired"
            found.append(GateReason(text, (judged.cell,), judged.cause, judged.verdict))
        if judged.verdict is Verdict.UNEXPECTED_PASS:
            text = f"{judged.cell} passes although its failure is expected: remove the entry from policy.expect_fail"
            found.append(GateReason(text, (judged.cell,), verdict=judged.verdict))
    return tuple(found)


def _notes(cells: Iterable[Judgement]) -> list[GateReason]:
    notes = _not_run_notes(cells)
    for judged in cells:
        if _blocks(judged) and not judged.required:
            cause = f" ({judged.cause})" if judged.cause else ""
            text = f"{judged.cell} is {judged.verdict.value}{cause}, but not required"
            notes.append(GateReason(text, (judged.cell,), judged.cause, judged.verdict))
    return notes


def _not_run_notes(cells: Iterable[Judgement]) -> list[GateReason]:
    """Required cells that nobody ran, since foretold or unchanged: the policy lets them through, never in silence."""
    notes = []
    for kind, one, many in (
        ("predicted", "because it is predicted to fail", "because they are predicted to fail"),
        ("unchanged", "unchanged since its last accepted result", "unchanged since their last accepted results"),
    ):
        names = [judged.cell for judged in cells if judged.required and judged.skip_kind == kind]
        if names:
            which = f"required cell was not run, {one}" if len(names) == 1 else f"required cells were not run, {many}"
            notes.append(GateReason(f"{len(names):,} {which}: {', '.join(names)}", tuple(names)))
    return notes


def _strays(plan: Plan, found: Mapping[str, CellResult]) -> list[GateReason]:
    planned = {cell.id for cell in plan.cells}
    return [
        GateReason(f"{cell}: a result that the plan does not ask for; it does not count", (cell,))
        for cell in sorted(found)
        if cell not in planned
    ]
