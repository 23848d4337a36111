"""Owns what a report says, as plain values that every format shows: the same words and figures everywhere.

Must not know any format. Texts are unescaped and may be hostile: each format escapes them for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cuda_matrix.model import Verdict
from cuda_matrix.report.words import DRIFTS, SIMULATED


@dataclass(frozen=True)
class Links:
    """Addresses around the report, empty where there is none."""

    run: str = ""
    page: str = ""
    results: str = ""


@dataclass(frozen=True)
class Column:
    """A runner. `details` are memory and driver; `source` says whether they were measured."""

    runner: str
    title: str
    details: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class CellView:
    """One field of the compatibility table. `number` is images/s as text, empty for none; `anchor` its section."""

    cell: str
    image: str
    runner: str
    verdict: Verdict
    symbol: str
    word: str
    number: str = ""
    images_per_s: float | None = None
    marks: tuple[str, ...] = ()
    anchor: str = ""
    alternative: str = ""
    reason: str = ""
    bold: bool = False
    required: bool = True


@dataclass(frozen=True)
class Row:
    """One image over all runners; None where the matrix has no such cell. `mark` is what all its results have."""

    image: str
    ref: str
    cells: tuple[CellView | None, ...]
    mark: str = ""

    @property
    def simulated(self) -> bool:
        """True where no result of the row was measured."""
        return self.mark == SIMULATED

    def own_marks(self, cell: CellView) -> tuple[str, ...]:
        """The marks of a cell that its row does not say already."""
        return tuple(mark for mark in cell.marks if mark != self.mark)


@dataclass(frozen=True)
class Performance:
    """One line of the performance table."""

    cell: str
    image: str
    runner: str
    verdict: Verdict
    gpu: str
    cuda: str
    torch: str
    images_per_s: str
    spread: str
    memory_gb: str
    stable: str
    how: str
    simulated: bool
    cpu: bool


@dataclass(frozen=True)
class CheckLine:
    """One check or benchmark, for the details of a cell."""

    id: str
    status: str
    device: str
    summary: str
    figures: str
    took: str


@dataclass(frozen=True)
class WayStep:
    """One question of the diagnosis tree. `how`: seen, or why the answer stands without; `others`: answer, where to."""

    node: str
    question: str
    answer: str
    how: str
    evidence: str
    bad: bool
    others: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Way:
    """The way of one cell down the diagnosis tree. `found`: it ended at a leaf, not for want of an answer."""

    steps: tuple[WayStep, ...]
    end: str
    found: bool
    leaf: str = ""
    do: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """What is said of one cell that is not good."""

    cell: str
    runner: str
    anchor: str
    verdict: Verdict
    symbol: str
    word: str
    title: str
    reason: str
    note: str
    required: bool
    simulated: bool
    evidence: str = ""
    where: str = ""
    explanation: str = ""
    steps: tuple[str, ...] = ()
    source: str = ""
    other_causes: tuple[str, ...] = ()
    repro: str = ""
    checks: tuple[CheckLine, ...] = ()
    log: str = ""
    way: Way | None = None


@dataclass(frozen=True)
class Remark:
    """One line about a cell that does not need a section. Only the first of a cell has an anchor."""

    cell: str
    runner: str
    verdict: Verdict
    anchor: str
    symbol: str
    text: str


@dataclass(frozen=True)
class Unchecked:
    """Checks that say nothing of cells that are good. `everywhere`: of all of them."""

    checks: tuple[str, ...]
    status: str
    reason: str
    cells: tuple[str, ...]
    everywhere: bool


@dataclass(frozen=True)
class Foretelling:
    """One cell whose prediction is worth a line. `kind`: a word of foretold.KINDS. `note`: judged by what."""

    cell: str
    runner: str
    verdict: Verdict
    symbol: str
    kind: str
    predicted: str
    rule: str
    source: str
    measured: str
    note: str


@dataclass(frozen=True)
class Foretold:
    """Predictions against what was measured. `sentence` is empty where nothing was predicted."""

    sentence: str = ""
    notes: tuple[str, ...] = ()
    right: int = 0
    comparable: int = 0
    other_cause: int = 0
    not_foretold: int = 0
    unknown: int = 0
    not_comparable: int = 0
    rows: tuple[Foretelling, ...] = ()


@dataclass(frozen=True)
class WayOut:
    """An image that works where another fails; `runner` is empty where one line speaks of one runner."""

    image: str
    runner: str


@dataclass(frozen=True)
class ReasonLine:
    """One reason against a release, and what to use instead."""

    text: str
    ways: tuple[WayOut, ...] = ()


@dataclass(frozen=True)
class Unreadable:
    """A file that says nothing, and why."""

    file: str
    message: str


@dataclass(frozen=True)
class Provenance:
    """How the figures of one cell were made."""

    cell: str
    image: str
    digest: str
    card: str
    driver: str
    profile: str
    engine: str
    date: str
    attempt: str
    tool: str
    payload: str
    run: str
    simulated: bool


@dataclass(frozen=True)
class Bar:
    """One bar of the chart; `percent` of the longest bar, of cards or of CPUs."""

    image: str
    number: str
    percent: float
    kind: str
    bold: bool


@dataclass(frozen=True)
class Chart:
    """The bars of one runner."""

    title: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class LegendEntry:
    """A symbol in use and what it means."""

    symbol: str
    meaning: str


@dataclass(frozen=True)
class View:
    """A whole report."""

    headline: str
    released: bool
    release: tuple[str, ...]
    gate_reasons: tuple[ReasonLine, ...]
    gate_notes: tuple[str, ...]
    all_green: str
    simulated: str
    scope: str
    links: Links
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    performance: tuple[Performance, ...]
    failures: tuple[Section, ...]
    not_run: tuple[Remark, ...]
    remarks: tuple[Remark, ...]
    skipped: tuple[Remark, ...]
    unchecked: tuple[Unchecked, ...]
    foretold: Foretold
    unreadable: tuple[Unreadable, ...]
    legend: tuple[LegendEntry, ...]
    charts: tuple[Chart, ...]
    provenance: tuple[Provenance, ...]
    counts: Mapping[Verdict, int]
    contested: bool

    @property
    def has_bold(self) -> bool:
        """True where a fastest image is marked, so that the legend must say what that means."""
        return any(cell and cell.bold for row in self.rows for cell in row.cells)

    @property
    def has_drift(self) -> bool:
        """True where a figure is not stable because of its drift, which must then be explained."""
        return any(row.stable.startswith(DRIFTS) for row in self.performance)

    @property
    def other_notes(self) -> tuple[str, ...]:
        """Notes of the decision that the head of the report does not say already."""
        return tuple(note for note in self.gate_notes if note != self.simulated)
