"""Owns the step from evidence to a named cause: which signs match, and which of several wins.

Must not know who collected the evidence (execute, a user's log file) or what follows for the cell (verdict).
The signs are data (catalogue); only rules that compare a text with something outside it are code here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from cuda_matrix.catalogue import Case, Catalogue, Cause, ExitSign, Signature
from cuda_matrix.drivers import DriverTable
from cuda_matrix.model import Frozen
from cuda_matrix.particulars import Tables, filled, particulars
from cuda_matrix.reading import Line, Reading
from cuda_matrix.result import Diagnosis, Exit, Facts
from cuda_matrix.wording import ends_well, is_mention, kind_of, reads_as_text, speaks_of_failure, was_dealt_with

Stage = Literal["pull", "create", "start", "run"]

UNKNOWN = "unknown"
NONE = "none"
LINE_LIMIT = 2_000  # characters of one line that are looked at: a log is hostile
LINES_LIMIT = 5_000
TEXT_LIMIT = 400_000  # characters in all, so that a hostile cell cannot hold the run up
EVIDENCE_LIMIT = 500  # characters of the line that is quoted
ALTERNATIVES = 3

HINT_CONFIDENCE = 0.95
_SYMPTOM_HINT = (57, 0.8)  # priority and confidence: any mechanism in words (60 and more) wins over a symptom
_IN_A_PULL = 0.85  # an engine that pulls speaks to a registry and to nobody else, whatever the words leave open
_SINGLE_STAGE_PRIORITY = 60  # words as clear as this place an error in its stage even where nobody names the stage
_RIVAL_DISTANCE = 5
_RIVAL_DISCOUNT = 0.8
_SIGNAL_BASE, _SIGNAL_LAST = 128, 192
_GOOD_END_DISCOUNT = 0.45
# What is known beside the text and is itself a log, by the names under which people give it.
_SPEAKING = frozenset({"dmesg", "kernel", "journal", "events", "inspect"})

_PHASES: dict[Stage, frozenset[str]] = {
    "pull": frozenset({"pull"}),
    "create": frozenset({"pull", "start"}),
    "start": frozenset({"pull", "start"}),
    "run": frozenset({"import", "build", "run"}),
}


class Fragment(Frozen):
    """A piece of output, and the check or stage that it comes from."""

    where: str
    text: str


class Evidence(Frozen):
    """All that is known of one failure. None means "not known", which is never taken for "no".

    `context` is free text by free names (gpu, driver, docker, events, dmesg, …), as people write it into a report.
    """

    stage: Stage | None = None
    fragments: tuple[Fragment, ...] = ()
    exit: Exit = Exit()
    facts: Facts = Facts()
    hint: str | None = None
    gpu_requested: bool | None = None
    context: dict[str, str] = Field(default={})


class Sighting(NamedTuple):
    """One sign of one cause. `order` counts the lines, so that the earliest of equals wins.

    `figures`: what the named groups of the signature found. `case`: which mechanism of the cause the words mean.
    """

    cause: Cause
    priority: int
    confidence: float
    where: str
    line: str
    order: int
    figures: dict[str, str] = {}  # noqa: RUF012 - never changed
    case: str | None = None

    def as_(self, cause: Cause, confidence: float) -> Sighting:
        """The same words, taken for another cause."""
        return self._replace(cause=cause, confidence=confidence, case=None)


def diagnose(evidence: Evidence, catalogue: Catalogue, drivers: DriverTable, tables: Tables | None = None) -> Diagnosis:
    """Name the most specific cause that the evidence supports, else `unknown` with what to collect next.

    `none` where nothing speaks of a failure: neither the text nor the process's end, and nobody says that it failed.
    The order: what a check itself has proved; the earlier stage; numbered CUDA errors; words; the process's end.
    With `tables` that know cards, the steps name what the card needs.
    """
    reading = _read(evidence, catalogue)
    hint = catalogue.causes.get(evidence.hint or "")
    sightings = _sightings(evidence, catalogue, reading)
    if hint is not None:
        where, line = next(((s.where, s.line) for s in sightings if s.cause is hint), _first(reading.lines))
        priority, confidence = _SYMPTOM_HINT if hint.symptom else (1_000, HINT_CONFIDENCE)
        sightings = [s for s in sightings if s.cause is not hint]
        sightings.append(Sighting(hint, priority, confidence, where, line, 0))
    sightings = [s for s in (_in_context(s, evidence, catalogue) for s in sightings) if s is not None]
    sightings = _in_the_end(_ranked(sightings, evidence), evidence, catalogue, reading)
    if not sightings:
        is_text = reads_as_text("".join(line for _, line in reading.lines))
        failed = evidence.stage is not None or _ended_badly(evidence.exit) or not is_text
        failed = failed or any(speaks_of_failure(line) and not is_mention(line) for _, line in reading.lines)
        where, line = _telling(reading.lines)
        kind = _kind(evidence, reading) if is_text else "binary"
        cause = catalogue.causes[UNKNOWN if failed else NONE]
        sightings = [Sighting(cause, 0, 0.0, where, line if is_text else "", 0, case=kind)]
    return _diagnosis(sightings, evidence, tables or Tables(drivers))


def _ended_badly(exit_: Exit) -> bool:
    return bool(exit_.code or exit_.signal or exit_.oom_killed or exit_.timed_out or exit_.interrupted)


def _in_the_end(
    sightings: list[Sighting], evidence: Evidence, catalogue: Catalogue, reading: Reading
) -> list[Sighting]:
    """Where nobody says that it failed: a log that ends well is doubted, and `none` if it also says that it went on."""
    texts = [line for _, line in reading.lines]
    if not sightings or evidence.stage is not None or evidence.hint is not None or _ended_badly(evidence.exit):
        return sightings
    if evidence.exit.code != 0 and not ends_well(texts):
        return sightings
    best = sightings[0]
    if all(was_dealt_with(texts, s.order) for s in sightings):
        return [Sighting(catalogue.causes[NONE], 0, 0.0, best.where, best.line, 0), *sightings]
    return [s._replace(confidence=s.confidence * _GOOD_END_DISCOUNT) for s in sightings]


def _read(evidence: Evidence, catalogue: Catalogue) -> Reading:
    """Every line that says something, in order, within the limits."""
    fragments = evidence.fragments
    fragments += tuple(Fragment(where=k, text=v) for k, v in evidence.context.items() if k.lower() in _SPEAKING)
    lines: list[Line] = []
    room = TEXT_LIMIT
    for fragment in fragments:
        said = [line[:LINE_LIMIT].strip() for line in _COLOURS.sub("", fragment.text[:room]).splitlines()]
        lines += [Line(fragment.where, line) for line in said if line]
        room = max(0, room - len(fragment.text))
    del lines[LINES_LIMIT:]
    told = [text[:LINE_LIMIT] for key, text in evidence.context.items() if key.lower() not in _SPEAKING]
    reading = Reading(lines, told)
    harmless = {order for sign in catalogue.causes[NONE].signatures for order in reading.matching(sign.pattern)}
    if not harmless:
        return reading
    return Reading([line for order, line in enumerate(lines) if order not in harmless], told)


def _sightings(evidence: Evidence, catalogue: Catalogue, reading: Reading) -> list[Sighting]:
    """The best sign of each cause that can belong to this stage."""
    found = []
    for cause in catalogue.causes.values():
        if cause.code == NONE or (evidence.stage is not None and _PHASES[evidence.stage].isdisjoint(cause.phase)):
            continue
        signs = [s for signature in cause.signatures if (s := _seen(cause, signature, reading))]
        signs += [s for sign in cause.exits if (s := _ended(cause, sign, evidence.exit, len(reading.lines)))]
        if signs:
            found.append(min(signs, key=lambda s: (-s.priority, s.order)))
    return found


def _seen(cause: Cause, signature: Signature, reading: Reading) -> Sighting | None:
    hit = reading.find(signature.pattern)
    if hit is None and signature.priority >= _SINGLE_STAGE_PRIORITY:
        hit = reading.find_wrapped(signature.pattern)
    if hit is None or (signature.also and reading.find(signature.also) is None):
        return None
    if signature.told and not reading.says(signature.told):
        return None
    line = reading.lines[hit.order]
    figures = {name: value.strip() for name, value in hit.match.groupdict().items() if value and value.strip()}
    said = _around(line.text, hit.match)
    sign = signature
    return Sighting(cause, sign.priority, sign.confidence, line.where, said, hit.order, figures, sign.case)


def _ended(cause: Cause, sign: ExitSign, exit_: Exit, order: int) -> Sighting | None:
    signal = exit_.signal
    if signal is None and exit_.code is not None and _SIGNAL_BASE < exit_.code <= _SIGNAL_LAST:
        signal = exit_.code - _SIGNAL_BASE
    seen = {"code": exit_.code, "signal": signal, "oom_killed": exit_.oom_killed, "timed_out": exit_.timed_out}
    wanted = {name: value for name in seen if (value := getattr(sign, name)) is not None}
    if not wanted or any(seen[name] != value for name, value in wanted.items()):
        return None
    # An end that the host itself brought about (its limit, an interruption) says nothing by its signal.
    if "signal" in wanted and (exit_.timed_out or exit_.interrupted):
        return None
    said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in wanted.items())
    return Sighting(cause, sign.priority, sign.confidence, "exit", said.replace(" True", ""), order)


def _ranked(sightings: list[Sighting], evidence: Evidence) -> list[Sighting]:
    """The earlier stage first, then the more specific sign, then the earlier line.

    A line belongs to one stage, the earliest of its signs: of two signs in one line the more specific wins.
    """
    stages: dict[int, int] = {}
    for sighting in sightings:
        stages[sighting.order] = min(stages.get(sighting.order, 2), _stage(sighting, evidence))
    return sorted(sightings, key=lambda s: (stages[s.order], -s.priority, s.order))


def _stage(sighting: Sighting, evidence: Evidence) -> int:
    if evidence.stage is not None or sighting.priority < _SINGLE_STAGE_PRIORITY:
        return 2
    phases = set(sighting.cause.phase)
    return 0 if phases == {"pull"} else 1 if phases <= {"pull", "start"} else 2


def _in_context(sighting: Sighting, evidence: Evidence, catalogue: Catalogue) -> Sighting | None:
    """Read an ambiguous sign in the light of what else is known; None where it cannot be meant."""
    code, line = sighting.cause.code, sighting.line.lower()
    insufficient = code == "driver-too-old" and "found version" not in line
    no_smi = code == "driver-caps-missing" and "nvidia-smi" in line
    if evidence.gpu_requested is False and (insufficient or no_smi):
        return sighting.as_(catalogue.causes["gpu-not-exposed"], 0.9)
    if evidence.gpu_requested and no_smi:
        sighting = sighting._replace(case=None)  # only the capability is left
    if code == "gpu-not-exposed" and evidence.gpu_requested and evidence.facts.gpus:
        # nvidia-smi saw the cards, so they are there: the part of the driver that computes is what is missing.
        if "driver" in line or "libcuda" in line:
            return sighting.as_(catalogue.causes["driver-caps-missing"], 0.8)
        if "CUDA_VISIBLE_DEVICES" in evidence.facts.environment:
            return sighting.as_(catalogue.causes["device-id-invalid"], 0.7)
        return None
    if evidence.stage == "pull" and sighting.cause.side == "registry":
        sighting = sighting._replace(confidence=max(sighting.confidence, _IN_A_PULL))
    if code == "gpu-oom" and _held_by_others(sighting.line):
        return sighting.as_(catalogue.causes["gpu-oom-other-process"], 0.85)
    return sighting


_AMOUNT = r"(\d{1,20}(?:\.\d{1,4})?) ?(bytes|[KMGT]i?B)"
_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TOTAL = re.compile(rf"{_AMOUNT} total capacity|total capacity of {_AMOUNT}")
_FREE = re.compile(rf"{_AMOUNT} (?:is )?free")
_OURS = re.compile(
    rf"{_AMOUNT} already allocated|{_AMOUNT} reserved|this process has {_AMOUNT}|{_AMOUNT} is allocated by PyTorch"
)
_NEARLY_NONE = 0.1
_MOST = 0.5


def _held_by_others(line: str) -> bool:
    """PyTorch's out-of-memory text: little of the card is ours, and yet hardly any is free."""
    total, free, ours = _amounts(_TOTAL, line), _amounts(_FREE, line), _amounts(_OURS, line)
    if not (total and free and ours and total[0]):
        return False
    return free[0] < _NEARLY_NONE * total[0] and max(ours) < _MOST * total[0]


def _amounts(pattern: re.Pattern[str], line: str) -> list[float]:
    """Every amount of memory that the pattern names, in bytes."""
    found = []
    for match in pattern.finditer(line):
        number, unit = [group for group in match.groups() if group is not None]
        found.append(float(number) * _UNITS[unit[0].lower()])
    return found


def _diagnosis(sightings: list[Sighting], evidence: Evidence, tables: Tables) -> Diagnosis:
    best = sightings[0]
    case = best.cause.case(best.case)
    rest = [s for s in sightings[1:] if s.cause is not best.cause]
    others = dict.fromkeys((*(s.cause.code for s in rest), *case.instead))
    rivals = [s for s in rest if not s.cause.symptom and s.priority >= best.priority - _RIVAL_DISTANCE]
    known = particulars(best.figures, evidence.facts, evidence.context, tables)
    return Diagnosis(
        cause=best.cause.code,
        title=case.title,
        side=best.cause.side,
        confidence=round(best.confidence * (_RIVAL_DISCOUNT if rivals else 1.0), 2),
        evidence=best.line[:EVIDENCE_LIMIT],
        where=best.where,
        explanation=_explanation(best, case, known),
        fix=(*filled(case.known_fix, known), *case.fix),
        source=case.source,
        alternatives=tuple(others)[:ALTERNATIVES],
    )


def _explanation(best: Sighting, case: Case, known: dict[str, str]) -> str:
    """The cause's sentence with this cell's own figures, where all of them are known; else the general one."""
    own = best.cause.context if best.case is None else ""
    return next(iter(filled((text for text in (own, case.found) if text), known)), case.explanation)


def _kind(evidence: Evidence, reading: Reading) -> str:
    """What the failure is about, of which nothing is known: the stage, and where nobody names it what the text says."""
    if evidence.stage in {"pull", "create", "start"}:
        return "pull" if evidence.stage == "pull" else "start"
    return kind_of([line.text for line in reading.lines])


def _around(line: str, match: re.Match[str]) -> str:
    """The line, or the part of a long one that holds the match."""
    start = 0 if match.end() <= EVIDENCE_LIMIT else max(0, match.start() - EVIDENCE_LIMIT // 4)
    return line[start : start + LINE_LIMIT]


def _first(lines: Sequence[Line]) -> Line:
    return lines[0] if lines else Line("", "")


def _telling(lines: Sequence[Line]) -> Line:
    """The line to show when nothing matched: the last that speaks of an error, else the last."""
    return next(
        (line for line in reversed(lines) if speaks_of_failure(line.text)), lines[-1] if lines else Line("", "")
    )


# Colours and cursor movements of a terminal (ECMA-48).
_COLOURS = re.compile(r"\x1b\[[0-?]{0,20}[ -/]{0,4}[@-~]")
