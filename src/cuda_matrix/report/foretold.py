"""Owns how well the predictions did: what the plan said of each cell against what was measured there.

Must not know formats, nor predict anything: both sides stand in the result.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cuda_matrix.gate import GOOD, Judgement
from cuda_matrix.model import Verdict
from cuda_matrix.prediction import Prediction
from cuda_matrix.report.escape import short
from cuda_matrix.report.numbers import plural
from cuda_matrix.report.view import Foretelling, Foretold
from cuda_matrix.report.words import SIMULATED, WORDS
from cuda_matrix.result import CellResult

# Causes that a rule claims to foresee: a predicted pass that fails for one of these is a miss. What fails for another
# (a crash, a faulty card) nobody foretold, and no rule is to blame.
FORESEEABLE = frozenset(
    {
        "driver-too-old",
        "image-require-unsatisfied",
        "fwd-compat-unsupported",
        "compat-lib-mismatch",
        "ptx-toolchain",
        "arch-no-kernel",
        "platform-mismatch",
        "glibc-too-old",
        "cpu-only-torch",
        "gpu-oom",
    }
)
KINDS = {"miss": "miss", "other-cause": "right verdict, other cause", "not-foretold": "not foretold"}

_FAILED = frozenset({Verdict.FAIL, Verdict.HOST_FAILED, Verdict.EXPECTED_FAIL})
_TEXT = 300
_RULE = 80


class _Pair(NamedTuple):
    """A prediction beside a result that it can be compared with."""

    judged: Judgement
    result: CellResult
    said: Prediction
    kind: str  # right, or one of KINDS


def foretold(cells: Iterable[Judgement]) -> Foretold:
    """The score over every cell with a result that was predicted; misses first, in the order of the plan."""
    held = [(cell, cell.result, said) for cell in cells if cell.result and (said := judged_by(cell.result))]
    if not held:
        return Foretold()
    known = [entry for entry in held if entry[2].verdict != "unknown"]
    pairs = [
        _Pair(cell, result, said, _kind(cell, said)) for cell, result, said in known if cell.verdict in GOOD | _FAILED
    ]
    counts = {kind: sum(pair.kind == kind for pair in pairs) for kind in ("right", *KINDS)}
    rows = tuple(_row(pair) for kind in KINDS for pair in pairs if pair.kind == kind)
    comparable = len(pairs) - counts["not-foretold"]
    return Foretold(
        sentence=_sentence(counts, comparable),
        notes=tuple(_notes(held, known, pairs)),
        right=counts["right"],
        comparable=comparable,
        other_cause=counts["other-cause"],
        not_foretold=counts["not-foretold"],
        unknown=len(held) - len(known),
        not_comparable=len(known) - len(pairs),
        rows=rows,
    )


def judged_by(result: CellResult) -> Prediction | None:
    """The prediction that a result is compared with: for the driver and card that were found, where these differ."""
    return result.prediction_here or result.prediction


def _kind(judged: Judgement, said: Prediction) -> str:
    """`right`, or the word of KINDS. A warning whose condition came about is right: it named what then happened."""
    if judged.verdict in GOOD:
        return "miss" if said.fails else "right"
    if said.cause is not None and said.cause == judged.cause:
        return "right"
    if said.fails:
        # A rule on the machine itself (a driver that dropped the card) names no cause: the blame is what it foretold.
        named_host = said.cause is None and said.verdict == "host-failed"
        return "right" if named_host and judged.verdict is Verdict.HOST_FAILED else "other-cause"
    return "miss" if judged.cause in FORESEEABLE else "not-foretold"


def _sentence(counts: dict[str, int], comparable: int) -> str:
    if not comparable:
        return "No prediction could be compared with a result."
    if counts["right"] == comparable:
        return "The 1 prediction was right." if comparable == 1 else f"All {comparable:,} predictions were right."
    said = f"{counts['right']:,} of {plural(comparable, 'prediction')} right"
    rest = [plural(counts["miss"], "miss", "misses")] if counts["miss"] else []
    rest += [f"{counts['other-cause']:,} right in the verdict, with another cause"] if counts["other-cause"] else []
    return f"{said}: {', '.join(rest)}."


def _notes(
    held: list[tuple[Judgement, CellResult, Prediction]],
    known: list[tuple[Judgement, CellResult, Prediction]],
    pairs: list[_Pair],
) -> Iterable[str]:
    """What the score does not count, and what it rests on."""
    failed = sum(pair.kind == "not-foretold" for pair in pairs)
    if failed:
        verb = "fails" if failed == 1 else "fail"
        yield f"{plural(failed, 'cell')} {verb} for a reason that no rule foresees."
    if len(held) > len(known):
        yield f"{plural(len(held) - len(known), 'cell')} could not be predicted: a fact was not known."
    if len(known) > len(pairs):
        yield f"{plural(len(known) - len(pairs), 'predicted cell')} came to no answer."
    elsewhere = sum(pair.result.prediction_here is not None for pair in pairs)
    if elsewhere:
        verb = "was" if elsewhere == 1 else "were"
        yield f"{plural(elsewhere, 'cell')} {verb} judged for the driver and card that the run found, not the plan's."
    simulated = sum(pair.result.simulated for pair in pairs)
    if simulated:
        # The simulation decides by the same tables: agreement with it is no evidence about a card.
        which = "Every result" if simulated == len(pairs) else f"{simulated:,} of the results"
        verb = "is" if simulated in {1, len(pairs)} else "are"
        yield f"{which} behind this {verb} {SIMULATED}."


def _row(pair: _Pair) -> Foretelling:
    judged, result, said, kind = pair
    word = judged.verdict.value
    measured = f"{word}: {judged.cause}" if judged.cause else word
    cause = f": {said.cause}" if said.cause else ""
    return Foretelling(
        cell=judged.cell,
        runner=judged.runner,
        verdict=judged.verdict,
        symbol=WORDS[judged.verdict].symbol,
        kind=KINDS[kind],
        predicted=short(f"{said.verdict}{cause} ({said.explanation})", _TEXT),
        rule=short(said.rule, _RULE),
        source=_address(said.source),
        measured=short(f"{measured} ({judged.reason})" if judged.reason else measured, _TEXT),
        note=_note(result),
    )


def _note(result: CellResult) -> str:
    """Where the run found another machine than the plan meant: what the plan said, and that it does not count."""
    if result.prediction_here is None or result.prediction is None:
        return ""
    driver = f"driver {result.facts.driver}" if result.facts.driver else "another card"
    return f"judged for {driver}, as found; the plan said {result.prediction.verdict}"


def _address(source: str) -> str:
    """A source may go on after its address: what can be linked is the address."""
    return source.partition(" ")[0] if source.startswith("https://") else source
