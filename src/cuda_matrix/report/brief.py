"""Owns the short forms of a report, in rungs: full, what is not green, counts and a link (`ladder.fitting`).

Must not know where they are shown (comment, check_run, summary) nor the limits there. Only the last rung is bounded:
whatever a report holds, it stays below LAST_RUNG_BYTES.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cuda_matrix.model import Verdict
from cuda_matrix.report import numbers
from cuda_matrix.report.differences import BAD, NO_DIFFERENCES, Change, Differences, Seen
from cuda_matrix.report.escape import Markdown, link, markdown, short
from cuda_matrix.report.markdown import compatibility, rendered
from cuda_matrix.report.view import CellView, Links, Section, View
from cuda_matrix.report.words import WORDS

LAST_RUNG_BYTES = 50_000

_LISTED = 10  # lines of one list where the whole list is not shown
_AT_A_GLANCE = 3  # lines
_REASON = 200  # characters of one reason there
_REASON_IN_FULL = 400
_WORD = 80
_NOTE = 200
_ADDRESS = 1_000  # characters of a link: a longer one is none of ours
_OBJECT_NAME = (40, 64)  # hexadecimal digits


def rungs(view: View, changed: Differences = NO_DIFFERENCES, sha: str = "") -> tuple[Callable[[], str], ...]:
    """The renderings, longest first. `sha` is the commit that the report is of, empty to leave it out."""
    return (
        lambda: _brief(view, changed, sha, full=True),
        lambda: _brief(view, changed, sha, full=False),
        lambda: counts(view, changed, sha),
    )


def counts(view: View, changed: Differences = NO_DIFFERENCES, sha: str = "") -> str:
    """Headline, decision, how many of what, and where the whole is: bounded, whatever the report holds."""
    links = (view.links.run, view.links.page, view.links.results)
    view = replace(view, links=Links(*(one if len(one) <= _ADDRESS else "" for one in links)))
    return rendered(
        "counts.md.j2",
        view,
        **{**_context(changed, sha, listed=False), "most": _LISTED, "reason_limit": _REASON},
        failing=[cell for row in view.rows for cell in row.cells if cell and cell.verdict in BAD],
        tally=_tally(view),
        whither=_whither(view.links),
    )


def changes(view: View, changed: Differences) -> Markdown:
    """What changed, as a paragraph and a list; empty where there is no base."""
    return Markdown(rendered("changes.md.j2", view, **_context(changed, "")).strip())


def without_good(view: View) -> View:
    """The report of the cells that are not simply good, without their logs and lists of checks."""
    cells = _not_green(view)
    return replace(
        view,
        rows=tuple(row for row in view.rows if any(cell and _worth_a_row(cell, frozenset()) for cell in row.cells)),
        performance=tuple(row for row in view.performance if row.verdict is not Verdict.PASS),
        failures=tuple(replace(section, checks=(), log="", way=None) for section in view.failures),
        unchecked=(),
        provenance=tuple(row for row in view.provenance if row.cell in cells),
    )


def _not_green(view: View) -> frozenset[str]:
    return frozenset(c.cell for row in view.rows for c in row.cells if c and c.verdict is not Verdict.PASS)


def _brief(view: View, changed: Differences, sha: str, *, full: bool) -> str:
    page = view.links.page or None
    moved = changed.cells if full else frozenset()
    shown = [row for row in view.rows if any(cell and _worth_a_row(cell, moved) for cell in row.cells)]
    green = sum(not any(cell and _worth_a_row(cell, frozenset()) for cell in row.cells) for row in view.rows)
    return rendered(
        "brief.md.j2",
        view,
        **_context(changed, sha),
        bad=[section for section in view.failures if section.verdict in BAD],
        table=compatibility(view, shown, page) if shown else "",
        rest=f"Images that are good everywhere: {green:,}." if green and shown else "",
        whole=compatibility(view, view.rows, page) if len(shown) < len(view.rows) else "",
        full=full,
        titled=lambda section: _titled(section, page),
        advice=_advice,
    )


def _worth_a_row(cell: CellView, moved: frozenset[str]) -> bool:
    return cell.verdict is not Verdict.PASS or cell.cell in moved


def _context(changed: Differences, sha: str, *, listed: bool = True) -> dict[str, Any]:
    return {
        "level": Markdown("##"),
        "reason_limit": _REASON_IN_FULL,
        "sha": _commit(sha),
        "changed": changed,
        "change_summary": _change_summary(changed, always=not listed),
        "change_groups": [group for group in _groups(changed) if group[-1] and listed],
        "most_changes": _LISTED,
        "went": _went,
    }


def _commit(sha: str) -> str:
    """A whole object name stays as it is: GitHub makes a short link of it by itself."""
    is_name = len(sha) in _OBJECT_NAME and all(digit in "0123456789abcdef" for digit in sha)
    return Markdown(sha) if is_name else short(sha, _WORD)


def _groups(changed: Differences) -> tuple[tuple[str, str, tuple[Change, ...]], ...]:
    """Of each kind of change: what is said of one cell, what is said of several, the cells."""
    return (
        ("newly fails", "newly fail", changed.failing),
        ("is fixed", "are fixed", changed.fixed),
        ("changed otherwise", "changed otherwise", changed.other),
        ("is new", "are new", changed.added),
        ("is gone", "are gone", changed.gone),
        ("is slower", "are slower", changed.slower),
        ("is faster", "are faster", changed.faster),
        ("needs more memory", "need more memory", changed.hungrier),
    )


def _change_summary(changed: Differences, *, always: bool) -> str:
    """How many cells went where; empty where the lines below say it as quickly."""
    if not changed.known:
        return "it has no published results to compare with."
    if not always and 0 < sum(len(found) for *_, found in _groups(changed)) <= _AT_A_GLANCE:
        return ""
    said = [
        f"{numbers.plural(len(found), 'cell')} {one if len(found) == 1 else many}"
        for one, many, found in _groups(changed)
        if found
    ]
    return f"{', '.join(said)}." if said else "nothing has changed."


def _went(change: Change) -> Markdown:
    """`✅ 980 → ❌ driver-too-old (note)`."""
    sides = " → ".join(_side(side) for side in (change.before, change.after) if side)
    return Markdown(f"{sides} ({markdown(short(change.note, _NOTE))})" if change.note else sides)


def _side(seen: Seen) -> str:
    said = seen.number if seen.number and seen.verdict is Verdict.PASS else f"{seen.word} {seen.number}".rstrip()
    return f"{seen.symbol} {markdown(short(said, _WORD))}"


def _titled(section: Section, page: str | None) -> Markdown:
    title = markdown(short(section.word, _WORD))
    return link(title, f"{page}#{section.anchor}") if page else title


def _advice(section: Section) -> str:
    """The one sentence that helps most."""
    return section.steps[0] if section.steps else section.explanation or section.reason


def _tally(view: View) -> Markdown:
    counted = ((WORDS[verdict], count) for verdict, count in view.counts.items() if count)
    return Markdown(" · ".join(f"{said.symbol} {count:,} {said.word}" for said, count in counted))


def _whither(links: Links) -> Markdown:
    found = [
        link(Markdown(name), at) for name, at in (("page", links.page), ("run", links.run)) if at.startswith("https://")
    ]
    where = f": {' · '.join(found)}" if found else " (the job summary, the files of the report)"
    return Markdown(f"The whole report is too long for this place; it is elsewhere{where}.")
