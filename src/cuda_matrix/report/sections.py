"""Owns what is said of single cells that are not simply good: failure sections, remarks, provenance.

Must not know formats, nor decide anything: verdicts come judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cuda_matrix.gate import GOOD, Judgement, utc
from cuda_matrix.model import CheckStatus, EngineName, Verdict
from cuda_matrix.report import numbers
from cuda_matrix.report.performance import figure
from cuda_matrix.report.view import CheckLine, Provenance, Remark, Section
from cuda_matrix.report.way import way_of_result
from cuda_matrix.report.words import CPU, SIMULATED, WORDS
from cuda_matrix.result import BenchmarkResult, CellResult, CheckResult

LOG_LINES = 40
LOG_CHARACTERS = 4_000
WITH_SECTION = frozenset({Verdict.FAIL, Verdict.HOST_FAILED, Verdict.INCONCLUSIVE, Verdict.EXPECTED_FAIL})

_IMAGE_FAILED = frozenset({Verdict.FAIL, Verdict.EXPECTED_FAIL})
_ANSWERED_BY_IMAGE = frozenset({"image", "unknown"})
_MISDESCRIBED = "expectation-mismatch"
# What data/causes.yml advises in general and the name of another image says better.
SAID_BY_ALTERNATIVE = "Use an image with an older CUDA on this machine."
_EMPTY = (None, "")  # figures that say nothing
_BAD = frozenset({CheckStatus.FAIL, CheckStatus.CRASH, CheckStatus.TIMEOUT, CheckStatus.INVALID})
_NOT_IN_ID = re.compile(r"[^A-Za-z0-9._-]")
_CELL_CHARACTERS = str.maketrans({"@": "--", "+": "__"})


def anchor(cell: str) -> str:
    """Id of the cell's section in the page, the same in every report."""
    return f"cell-{_NOT_IN_ID.sub('-', cell.translate(_CELL_CHARACTERS))}"


def word(judged: Judgement) -> str:
    """The most exact word for what this cell comes to: its cause, else what broke, else the verdict's own word."""
    if judged.verdict is Verdict.WARN:
        return _warned(judged.result) or WORDS[Verdict.WARN].word
    if judged.verdict is Verdict.SKIPPED:
        return f"{judged.skip_kind}: {judged.reason}"
    if judged.cause:
        return f"expected: {judged.cause}" if judged.verdict is Verdict.EXPECTED_FAIL else judged.cause
    broken = _first(judged.result, _BAD)
    if judged.verdict in WITH_SECTION and broken:
        return f"{broken.id}: {broken.status.value}"
    return WORDS[judged.verdict].word


def works_here(judged: Judgement, cells: Iterable[Judgement]) -> list[Judgement]:
    """Other images of this matrix that are good on the same runner, stable and fast ones of a kind first.

    Empty where another image is no answer: what failed is not the image, or it only differs from its description.
    """
    diagnosis = judged.result.diagnosis if judged.result else None
    if judged.verdict not in _IMAGE_FAILED or (diagnosis and diagnosis.side not in _ANSWERED_BY_IMAGE):
        return []
    if judged.cause == _MISDESCRIBED:
        return []
    good = [c for c in cells if c.runner == judged.runner and c.cell != judged.cell and c.verdict in GOOD]
    # A simulated pass says nothing to someone whose image has really failed.
    return sorted((c for c in good if _simulated(judged) or not _simulated(c)), key=_by_speed)


def section(judged: Judgement, others: Sequence[Judgement]) -> Section:
    """Everything that is known of a cell that failed; `others` from `works_here`."""
    result = judged.result
    diagnosis = result.diagnosis if result else None
    broken = _first(result, _BAD)
    return Section(
        cell=judged.cell,
        runner=judged.runner,
        anchor=anchor(judged.cell),
        verdict=judged.verdict,
        symbol=WORDS[judged.verdict].symbol,
        word=word(judged),
        title=diagnosis.title if diagnosis else "",
        reason=judged.reason,
        note=_note(judged),
        required=judged.required,
        simulated=_simulated(judged),
        evidence=(diagnosis.evidence if diagnosis else "") or (broken.evidence or broken.summary if broken else ""),
        where=(diagnosis.where if diagnosis else "") or (broken.id if broken else ""),
        explanation=diagnosis.explanation if diagnosis else "",
        steps=_steps(judged, others),
        source=diagnosis.source if diagnosis else "",
        other_causes=diagnosis.alternatives if diagnosis else (),
        repro=result.repro if result else "",
        checks=tuple(_check(check) for check in (*result.checks, *result.benchmarks)) if result else (),
        log=tail(_log(result, broken)),
        way=way_of_result(result) if result and result.diagnosis else None,
    )


def not_run(judged: Judgement) -> Remark:
    """A planned cell without a result."""
    optional = "" if judged.required else " (not required)"
    return _remark(judged, judged.reason + optional)


def skipped(judged: Judgement) -> Remark:
    """A cell that was not planned, and why; of a predicted failure also the rule and who says so."""
    said = judged.prediction
    by = f" (rule {said.rule}: {said.source})" if said else ""
    return _remark(judged, word(judged) + by)


def remarks(judged: Judgement) -> list[Remark]:
    """Remarks of a result; a warning without one gives its reason."""
    result = judged.result
    if result is None:
        return []
    texts = list(result.remarks)
    if judged.verdict is Verdict.WARN and not texts:
        texts = [check.summary or f"{check.id}: warning" for check in _all(result) if check.status is CheckStatus.WARN]
        texts = texts or [judged.reason]
    return [_remark(judged, text, anchored=index == 0) for index, text in enumerate(texts)]


def provenance(judged: Judgement) -> Provenance | None:
    """How the figures of this cell were made; None where it has no result."""
    result = judged.result
    if result is None:
        return None
    gpus = result.facts.gpus
    card = ", ".join(f"{gpu.name}{f' ({gpu.uuid_hash[:12]})' if gpu.uuid_hash else ''}" for gpu in gpus)
    simulated = f" ({SIMULATED})" if result.simulated else ""
    return Provenance(
        cell=judged.cell,
        image=result.image.ref,
        digest=result.image.digest or (f"id {result.image.image_id}" if result.image.image_id else ""),
        card=f"{card or result.facts.cpu_model or numbers.NONE}{simulated}",
        driver=result.facts.driver or numbers.NONE,
        profile=result.profile,
        engine=result.engine.value,
        date=f"{utc(result.started_at):%Y-%m-%d %H:%M} UTC",
        attempt=str(result.attempt),
        tool=result.tool_version,
        payload=result.payload_sha256,
        run=result.run_id,
        simulated=result.simulated,
    )


def tail(log: str) -> str:
    """The end of a log, whole lines, at most LOG_LINES of them and LOG_CHARACTERS characters."""
    lines = log.splitlines()[-LOG_LINES:]
    text = "\n".join(lines)
    if len(text) > LOG_CHARACTERS:
        text = text[-LOG_CHARACTERS:].partition("\n")[2] or text[-LOG_CHARACTERS:]
    return text


def _remark(judged: Judgement, text: str, *, anchored: bool = True) -> Remark:
    target = anchor(judged.cell) if anchored else ""
    return Remark(judged.cell, judged.runner, judged.verdict, target, WORDS[judged.verdict].symbol, text)


def _simulated(judged: Judgement) -> bool:
    return bool(judged.result and judged.result.simulated)


def _by_speed(judged: Judgement) -> tuple[bool, bool, bool, float]:
    found = figure(judged.result)
    if found is None:
        return True, True, True, 0.0
    return found.engine is EngineName.SIMULATED, found.drifting, found.cpu, -found.images_per_s


def _all(result: CellResult) -> tuple[CheckResult, ...]:
    return (*result.checks, *result.benchmarks)


def _first(result: CellResult | None, statuses: frozenset[CheckStatus]) -> CheckResult | None:
    if result is None:
        return None
    return next((check for check in _all(result) if check.status in statuses), None)


def _warned(result: CellResult | None) -> str:
    check = _first(result, frozenset({CheckStatus.WARN}))
    return (check.cause or check.id) if check else ""


def _note(judged: Judgement) -> str:
    if judged.verdict is Verdict.EXPECTED_FAIL and judged.expected:
        return f"Accepted until {judged.expected.until}: {judged.expected.reason}"
    if judged.expired:
        return f"It was accepted until {judged.expired.until}, which is over: {judged.expired.reason}"
    return ""


def _steps(judged: Judgement, others: Sequence[Judgement]) -> tuple[str, ...]:
    result = judged.result
    steps = list(result.diagnosis.fix) if result and result.diagnosis else []
    if others:
        names = ", ".join(f"`{other.image}` ({_passes(other)})" for other in others[:3])
        on_card = result is not None and (result.gpu or result.facts.gpus)
        steps = [step for step in steps if step != SAID_BY_ALTERNATIVE]
        steps.insert(0, f"{'On this card' if on_card else 'Here'}, use {names}.")
    return tuple(steps)


def _passes(judged: Judgement) -> str:
    found = figure(judged.result)
    text = "passes here"
    if found:
        text += f", {numbers.quantity(found.images_per_s, 'images/s')}{f' on the {CPU}' if found.cpu else ''}"
    return f"{text}, {SIMULATED}" if _simulated(judged) else text


def _check(check: CheckResult) -> CheckLine:
    figures = [f"{name} {numbers.scalar(value)}" for name, value in check.numbers.items() if value not in _EMPTY]
    figures += [f"limit {name} {numbers.scalar(value)}" for name, value in check.thresholds.items()]
    if isinstance(check, BenchmarkResult) and check.samples:
        samples = check.samples
        figures.insert(0, f"median {numbers.quantity(samples.median, check.unit)} (n {samples.n})")
    return CheckLine(
        id=check.id,
        status=check.status.value,
        device=check.device or numbers.NONE,
        summary=check.summary or check.evidence,
        figures=", ".join(figures),
        took=numbers.quantity(check.seconds, "s"),
    )


def _log(result: CellResult | None, broken: CheckResult | None) -> str:
    if result is None:
        return ""
    return broken.log if broken and broken.log else result.log
