"""Owns what became of each cell since another revision: newly failing, fixed, new, gone, slower, faster.

Must not know formats, GitHub, or where the other revision's results lie. Pure: two decisions in, lines out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cuda_matrix.config import Regression
from cuda_matrix.gate import GOOD, GateVerdict, Judgement, selected
from cuda_matrix.model import Verdict
from cuda_matrix.plan import Plan
from cuda_matrix.report import numbers
from cuda_matrix.report.performance import Figure, figure, main_benchmark
from cuda_matrix.report.sections import word
from cuda_matrix.report.words import WORDS

BAD = frozenset({Verdict.FAIL, Verdict.HOST_FAILED, Verdict.INCONCLUSIVE, Verdict.NOT_RUN})

_IMAGE_FAILED = frozenset({Verdict.FAIL, Verdict.EXPECTED_FAIL})
_OVERLAP = "the p5–p95 ranges overlap"


@dataclass(frozen=True)
class Seen:
    """How one cell stood at one of the two revisions. `number` is images/s as text, empty for none."""

    verdict: Verdict
    symbol: str
    word: str
    number: str = ""


@dataclass(frozen=True)
class Change:
    """One cell that is not as it was. `before` is None for a new cell, `after` for one that is gone."""

    cell: str
    before: Seen | None
    after: Seen | None
    note: str = ""


@dataclass(frozen=True)
class Differences:
    """What changed against `base`, a name for the reader. `known`: there was something to compare with.

    `slower`, `faster` and `hungrier` are notes, beyond policy.regression: nothing is decided by them. `clear` is how
    many of these are more than noise: the ranges of their samples are apart.
    """

    base: str = ""
    known: bool = False
    failing: tuple[Change, ...] = ()
    fixed: tuple[Change, ...] = ()
    other: tuple[Change, ...] = ()
    added: tuple[Change, ...] = ()
    gone: tuple[Change, ...] = ()
    slower: tuple[Change, ...] = ()
    faster: tuple[Change, ...] = ()
    hungrier: tuple[Change, ...] = ()
    clear: int = 0

    @property
    def any(self) -> bool:
        """True where a cell is otherwise than before; a figure counts where it is clearly another one."""
        return bool(self.failing or self.fixed or self.other or self.added or self.gone or self.clear)

    @property
    def cells(self) -> frozenset[str]:
        """Every cell that has a line."""
        moved = (*self.failing, *self.fixed, *self.other, *self.added, *self.gone)
        return frozenset(change.cell for change in (*moved, *self.slower, *self.faster, *self.hungrier))


NO_DIFFERENCES = Differences()


def against(plan: Plan, after: GateVerdict, before: GateVerdict | None, base: str) -> Differences:
    """Compare two decisions cell by cell.

    Args:
        plan: of `after`: its policy says how much slower is worth a line; where it holds only a part of the matrix,
            nothing is said to be gone.
        after: the decision over what has just run.
        before: the decision over the published results of the base; None where it has none.
        base: its name, for example the branch.
    """
    if before is None:
        return Differences(base=base)
    old, new = _in_matrix(before), _in_matrix(after)
    both = [(old[cell], judged) for cell, judged in new.items() if cell in old and judged.skip_kind != "unchanged"]
    moves = [(_direction(was, now), _change(was, now)) for was, now in both]
    speeds = [found for was, now in both if (found := _speed(was, now, plan.policy.regression))]
    return Differences(
        base=base,
        known=True,
        failing=tuple(change for direction, change in moves if direction == "failing"),
        fixed=tuple(change for direction, change in moves if direction == "fixed"),
        other=tuple(change for direction, change in moves if direction == "other"),
        added=tuple(Change(cell, None, _seen(judged)) for cell, judged in new.items() if cell not in old),
        gone=() if selected(plan) else tuple(Change(cell, _seen(old[cell]), None) for cell in old if cell not in new),
        slower=tuple(change for kind, change, _ in speeds if kind == "slower"),
        faster=tuple(change for kind, change, _ in speeds if kind == "faster"),
        hungrier=tuple(change for was, now in both if (change := _memory(was, now, plan.policy.regression))),
        clear=sum(clear for _, _, clear in speeds),
    )


def _in_matrix(decision: GateVerdict) -> dict[str, Judgement]:
    return {cell: judged for cell, judged in decision.cells.items() if judged.skip_kind != "excluded"}


def _direction(was: Judgement, now: Judgement) -> str:
    """Where a cell went; empty where it stayed. An image that fails where only its machine did before is news."""
    if now.verdict in BAD and (was.verdict not in BAD or _blames_the_image_now(was, now)):
        return "failing"
    if now.verdict in GOOD and was.verdict in BAD | {Verdict.EXPECTED_FAIL}:
        return "fixed"
    return "other" if (was.verdict, was.cause) != (now.verdict, now.cause) else ""


def _blames_the_image_now(was: Judgement, now: Judgement) -> bool:
    return now.verdict is Verdict.FAIL and was.verdict not in _IMAGE_FAILED


def _change(was: Judgement, now: Judgement, note: str = "") -> Change:
    return Change(now.cell, _seen(was), _seen(now), note)


def _seen(judged: Judgement) -> Seen:
    found = figure(judged.result) if judged.verdict in GOOD else None
    said = WORDS[judged.verdict]
    exact = said.word if judged.verdict is Verdict.PASS else word(judged)
    return Seen(judged.verdict, said.symbol, exact, numbers.number(found.images_per_s) if found else "")


def _speed(was: Judgement, now: Judgement, policy: Regression) -> tuple[str, Change, bool] | None:
    """(`slower` or `faster`, its line, whether the ranges are apart) beyond the policy; None within it."""
    old, new = _figure(was), _figure(now)
    if old is None or new is None or (old.engine, old.cpu) != (new.engine, new.cpu):
        return None
    share = round(new.images_per_s / old.images_per_s - 1, 6)  # 5 % is not beyond 5 %
    if abs(share) <= _percent(policy.throughput):
        return None
    overlap = old.low <= new.high and new.low <= old.high
    notes = [f"{_signed(share)} images/s", *([_OVERLAP] if overlap else []), *_elsewhere(was, now)]
    return ("slower" if share < 0 else "faster"), _change(was, now, ", ".join(notes)), not overlap


def _memory(was: Judgement, now: Judgement, policy: Regression) -> Change | None:
    old, new = _peak_gb(was), _peak_gb(now)
    if not old or not new or new / old - 1 <= _percent(policy.memory):
        return None
    text = f"GPU memory {numbers.number(old)} → {numbers.quantity(new, 'GB')} ({_signed(new / old - 1)})"
    return _change(was, now, ", ".join([text, *_elsewhere(was, now)]))


def _figure(judged: Judgement) -> Figure | None:
    return figure(judged.result) if judged.verdict in GOOD else None


def _peak_gb(judged: Judgement) -> float | None:
    benchmark = main_benchmark(judged.result)
    if judged.verdict not in GOOD or benchmark is None or figure(judged.result) is None:
        return None
    return numbers.as_float(benchmark.numbers.get("peak_memory_gb"))


def _elsewhere(was: Judgement, now: Judgement) -> Iterator[str]:
    """What else is not as it was: a figure of another driver, card or profile says little of the image."""
    if was.result is None or now.result is None:
        return
    old, new = was.result, now.result
    pairs: dict[str, tuple[str, str]] = {
        "driver": (old.facts.driver or "", new.facts.driver or ""),
        "card": (_card(was), _card(now)),
        "profile": (old.profile, new.profile),
        "payload": (old.payload_sha256[7:14], new.payload_sha256[7:14]),
    }
    yield from (f"{name} {before} → {later}" for name, (before, later) in pairs.items() if before != later)


def _card(judged: Judgement) -> str:
    return judged.result.facts.gpus[0].name if judged.result and judged.result.facts.gpus else ""


def _percent(text: str) -> float:
    return float(text.rstrip(" %")) / 100


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}{numbers.SPACE}%".replace("-", "−")
